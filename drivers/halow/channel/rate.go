package channel

import "halo.internal/drivers/nl80211"

// Of 802.11ac, of which S1G is a tenth as fast at a tenth of the width (IEEE Std
// 802.11-2020, 21.5, 23.5): bits that a subcarrier of data has by MCS, and
// subcarriers of data by width. 1 MHz is S1G's own.
var (
	bitsOfMCS   = [...]float64{0.5, 1, 1.5, 2, 3, 4, 4.5, 5, 6, 20. / 3}
	subcarriers = map[int]float64{1: 24, 2: 52, 4: 108, 8: 234}
)

// Lengths of an S1G symbol in µs, with the guard interval.
const (
	longSymbol  = 40
	shortSymbol = 36
)

// twentyfold is how many times as wide as an S1G channel its stand-in is.
const twentyfold = 20

// Mbps returns what a frame carried whose rate the kernel tells, in Mbit/s. Morse's
// driver tells one of 802.11n or ac on a channel that is 20 times as wide, which is
// about 20 times as fast; what is told as S1G is so. 0: no rate is told.
func Mbps(r nl80211.Rate) float64 {
	if r.Bitrate == 0 || r.Kind == "S1G" {
		return float64(r.Bitrate) / 10
	}
	n := subcarriers[r.WidthMHz/twentyfold]
	if n == 0 {
		n = subcarriers[1] // nothing wider or narrower stands for anything
	}
	mcs, streams := r.MCS, max(r.NSS, 1)
	if r.Kind == "HT" && mcs >= 0 { // its numbers go through all streams
		mcs, streams = mcs%8, mcs/8+1
	}
	if mcs < 0 || mcs >= len(bitsOfMCS) {
		return float64(r.Bitrate) / 10 * n / 48 / 10 // of 802.11a: 48 subcarriers, symbols of 4 µs
	}
	symbol := float64(longSymbol)
	if r.ShortGI {
		symbol = shortSymbol
	}
	return n * bitsOfMCS[mcs] * float64(streams) / symbol
}

// Slowest returns what the slowest frame carries that all have on a channel of that
// width in MHz, in Mbit/s: MCS 0. MCS 10 of 1 MHz is half of it.
func Slowest(widthMHz int) float64 { return subcarriers[widthMHz] * bitsOfMCS[0] / longSymbol }
