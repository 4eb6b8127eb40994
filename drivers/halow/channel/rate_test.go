package channel

import (
	"math"
	"testing"

	"halo.internal/drivers/nl80211"
)

// TestMbps compares with the rates that Morse publishes for its chips: of short guard
// intervals, in Mbit/s.
func TestMbps(t *testing.T) {
	for _, tc := range []struct {
		name string
		rate nl80211.Rate
		want float64
	}{
		{"1 MHz, MCS 0", nl80211.Rate{Bitrate: 72, MCS: 0, NSS: 1, WidthMHz: 20, ShortGI: true, Kind: "VHT"}, 0.333},
		{"1 MHz, MCS 0, long guard interval", nl80211.Rate{Bitrate: 65, MCS: 0, NSS: 1, WidthMHz: 20, Kind: "VHT"}, 0.3},
		{"1 MHz, MCS 7", nl80211.Rate{Bitrate: 722, MCS: 7, WidthMHz: 20, ShortGI: true, Kind: "HT"}, 3.33},
		{"1 MHz, MCS 9", nl80211.Rate{Bitrate: 867, MCS: 9, NSS: 1, WidthMHz: 20, ShortGI: true, Kind: "VHT"}, 4.44},
		{"2 MHz, MCS 0", nl80211.Rate{Bitrate: 150, MCS: 0, NSS: 1, WidthMHz: 40, ShortGI: true, Kind: "VHT"}, 0.722},
		{"2 MHz, MCS 7", nl80211.Rate{Bitrate: 1500, MCS: 7, NSS: 1, WidthMHz: 40, ShortGI: true, Kind: "VHT"}, 7.22},
		{"4 MHz, MCS 7", nl80211.Rate{Bitrate: 3250, MCS: 7, NSS: 1, WidthMHz: 80, ShortGI: true, Kind: "VHT"}, 15},
		{"4 MHz, MCS 9", nl80211.Rate{Bitrate: 4333, MCS: 9, NSS: 1, WidthMHz: 80, ShortGI: true, Kind: "VHT"}, 20},
		{"8 MHz, MCS 7", nl80211.Rate{Bitrate: 6500, MCS: 7, NSS: 1, WidthMHz: 160, ShortGI: true, Kind: "VHT"}, 32.5},
		{"8 MHz, MCS 9", nl80211.Rate{Bitrate: 8667, MCS: 9, NSS: 1, WidthMHz: 160, ShortGI: true, Kind: "VHT"}, 43.33},
		{"two streams of HT", nl80211.Rate{Bitrate: 130, MCS: 8, WidthMHz: 20, Kind: "HT"}, 0.6},
		{"a rate of 802.11a", nl80211.Rate{Bitrate: 60, MCS: -1, NSS: -1, WidthMHz: 20}, 0.3},
		{"the highest of them, 2 MHz", nl80211.Rate{Bitrate: 540, MCS: -1, NSS: -1, WidthMHz: 40}, 5.85},
		{"a driver that tells S1G", nl80211.Rate{Bitrate: 3, MCS: 0, NSS: 1, WidthMHz: 1, Kind: "S1G"}, 0.3},
		{"an MCS that there is not", nl80211.Rate{Bitrate: 60, MCS: 200, WidthMHz: 5, Kind: "VHT"}, 0.3},
		{"none", nl80211.Rate{MCS: -1, NSS: -1, WidthMHz: 20}, 0},
	} {
		if got := Mbps(tc.rate); math.Abs(got-tc.want) > tc.want/100 {
			t.Errorf("%s: got %g, want %g", tc.name, got, tc.want)
		}
	}
	for width, want := range map[int]float64{1: 0.3, 2: 0.65, 4: 1.35, 8: 2.925, 3: 0} {
		if got := Slowest(width); math.Abs(got-want) > 1e-9 {
			t.Errorf("the slowest of %d MHz: got %g, want %g", width, got, want)
		}
	}
}
