package field

import (
	"testing"

	"halo.internal/model"
)

func TestPositionInWords(t *testing.T) {
	here := &model.Position{Source: model.PositionGPS, Lat: 48.117312, Lon: -11.5, AccuracyM: 4.6}
	for want, g := range map[string]model.GPSStatus{
		"48.11731, -11.50000 ±5 m; GPS, 9 of 14 satellites": {State: model.GPSFix3D, Device: "/dev/ttyACM0", Used: 9, Seen: 14, Position: here},
		"no GPS fix, 2 of 5 satellites":                     {State: model.GPSNoFix, Device: "/dev/ttyACM0", Used: 2, Seen: 5},
		"no GPS receiver":                                   {State: model.GPSSearching},
		"47.00000, 11.00000 (as it was set); GPS is off":    {State: model.GPSOff, Position: &model.Position{Source: model.PositionStatic, Lat: 47, Lon: 11}},
	} {
		if got := position(&g); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
