package ctl

import (
	"strings"
	"testing"

	"halo.internal/model"
)

func TestPositionOfANode(t *testing.T) {
	for text, want := range map[string]string{
		"48.1173,11.516667":    "48.117300, 11.516667 (static)",
		" -33.9, 151.25 , 3.5": "-33.900000, 151.250000, 4 m (static)",
		"48.1":                 "expected LAT,LON",
		"48.1,11.5,520,1":      "expected LAT,LON",
		"48°07'N,11°31'E":      "expected LAT,LON",
		"48.1,,520":            "expected LAT,LON",
		"somewhere":            "expected LAT,LON or LAT,LON,ALT such as 48.1173,11.5167,520, or none, got \"somewhere\"",
	} {
		p, err := parsePosition(text)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = place(model.Position{Source: model.PositionStatic, Lat: p.Lat, Lon: p.Lon, AltM: p.AltM})
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	if p, err := parsePosition(""); p != nil || err != nil {
		t.Errorf("nothing: %v, %v", p, err)
	}
	if p, err := parsePosition("none"); err != nil || !p.None {
		t.Errorf("none: %v, %v", p, err)
	}
}
