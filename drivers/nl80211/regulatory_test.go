package nl80211

import "testing"

func TestCovering(t *testing.T) {
	r := Regulatory{Rules: []Rule{{StartKHz: 2_400_000, EndKHz: 2_483_500, MaxWidthKHz: 40_000}, {StartKHz: 5_150_000, EndKHz: 5_250_000, MaxWidthKHz: 80_000}}}
	for _, tc := range []struct {
		c    Channel
		want int // width of the rule, 0: none
	}{
		{Channel{FreqMHz: 2412, Width: Width20}, 40_000},
		{Channel{FreqMHz: 2412, Width: Width40, Center1MHz: 2422}, 40_000},
		{Channel{FreqMHz: 2412, Width: Width40, Center1MHz: 2402}, 0}, // reaches below
		{Channel{FreqMHz: 2472, Width: Width20}, 40_000},
		{Channel{FreqMHz: 2484, Width: Width20}, 0},
		{Channel{FreqMHz: 5180, Width: Width40, Center1MHz: 5190}, 80_000},
		{Channel{FreqMHz: 5260, Width: Width20}, 0},
		{Channel{}, 0},
	} {
		got, ok := r.Covering(tc.c)
		if got.MaxWidthKHz != tc.want || ok != (tc.want != 0) {
			t.Errorf("%s: got %+v, %v", tc.c, got, ok)
		}
	}
}
