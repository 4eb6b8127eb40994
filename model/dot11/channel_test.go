package dot11

import "testing"

func TestChannels(t *testing.T) {
	for _, tc := range []struct{ number, freq, pair int }{
		{1, 2412, 2422}, {7, 2442, 2452}, {8, 2447, 2437}, {13, 2472, 2462}, {14, 2484, 0},
		{36, 5180, 5190}, {40, 5200, 5190}, {44, 5220, 5230}, {64, 5320, 5310},
		{100, 5500, 5510}, {104, 5520, 5510}, {140, 5700, 5710}, {144, 5720, 5710},
		{149, 5745, 5755}, {153, 5765, 5755}, {161, 5805, 5795}, {165, 5825, 5835}, {177, 5885, 5875},
		{-1, 0, 0}, {0, 0, 0}, {15, 0, 0}, {35, 0, 0}, {38, 0, 0}, {68, 0, 0}, {96, 0, 0}, {148, 0, 0}, {181, 0, 0}, {1 << 40, 0, 0},
	} {
		if f, p := ChannelMHz(tc.number), Pair40(tc.number); f != tc.freq || p != tc.pair {
			t.Errorf("channel %d: got %d and %d MHz, want %d and %d", tc.number, f, p, tc.freq, tc.pair)
		}
		if tc.freq != 0 && ChannelNumber(tc.freq) != tc.number {
			t.Errorf("%d MHz: got channel %d, want %d", tc.freq, ChannelNumber(tc.freq), tc.number)
		}
	}
	for _, freq := range []int{0, -5000, 2411, 2477, 5181, 5190, 5080, 5905, 6000} {
		if n := ChannelNumber(freq); n != 0 {
			t.Errorf("%d MHz: got channel %d", freq, n)
		}
	}
}
