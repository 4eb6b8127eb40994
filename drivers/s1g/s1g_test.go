package s1g

import (
	"fmt"
	"testing"
)

func TestChannelsOfEachRegion(t *testing.T) {
	for _, tc := range []struct {
		country      string
		count, width int
		number       int
		channel      string
		low, high    int // kHz
	}{
		{"US", 26 + 13 + 6 + 3, 8, 28, "channel 28 (916.0 MHz, 8 MHz wide)", 902_000, 928_000},
		{"NZ", 13 + 6 + 3 + 1, 8, 44, "channel 44 (924.0 MHz, 8 MHz wide)", 915_000, 928_000},
		{"DE", 5, 1, 7, "channel 7 (866.5 MHz, 1 MHz wide)", 863_000, 868_000},
		{"JP", 12, 4, 36, "channel 36 (924.5 MHz, 4 MHz wide)", 920_500, 928_000},
	} {
		r, ok := For(tc.country)
		if !ok || len(r.Channels) != tc.count || r.MaxWidthMHz() != tc.width || len(r.Reasons) != 4 {
			t.Errorf("%s: got %d channels up to %d MHz wide, %q", tc.country, len(r.Channels), r.MaxWidthMHz(), r.Reasons)
		}
		if c, ok := r.Channel(tc.number); !ok || fmt.Sprint(c) != tc.channel {
			t.Errorf("%s: channel %d is %s, want %s", tc.country, tc.number, c, tc.channel)
		}
		seen := map[int]bool{}
		for _, c := range r.Channels {
			if seen[c.Number] {
				t.Errorf("%s: channel %d is there twice", tc.country, c.Number)
			}
			seen[c.Number] = true
			if c.CentreKHz-c.WidthMHz*500 < tc.low || c.CentreKHz+c.WidthMHz*500 > tc.high {
				t.Errorf("%s: %s is not within %d to %d kHz", tc.country, c, tc.low, tc.high)
			}
		}
		if r.DutyCycle <= 0 || r.DutyCycle > r.DutyCycleAP || r.DutyCycleAP > 100 {
			t.Errorf("%s: duty cycle %g, of an access point %g", tc.country, r.DutyCycle, r.DutyCycleAP)
		}
	}
}

func TestACountryThatIsNotKnownHasNoChannel(t *testing.T) {
	for _, country := range []string{"", "00", "de", "XX", "BR"} {
		if r, ok := For(country); ok || len(r.Channels) != 0 {
			t.Errorf("%q: got %+v", country, r)
		}
	}
	if r, _ := For("DE"); r.Region != "EU" {
		t.Errorf("Germany is in region %q", r.Region)
	} else if c, ok := r.Channel(28); ok {
		t.Errorf("Germany has %s", c)
	}
}
