package dot11

// ChannelMHz returns the centre of a 20 MHz channel of 2.4 or 5 GHz by its
// number, 0 where there is none (15.4.4.3, 17.3.8.4.2, Annex E). The numbers
// of the two bands do not meet.
func ChannelMHz(number int) int {
	switch n := number; {
	case n >= 1 && n <= 13:
		return 2407 + 5*n
	case n == 14:
		return 2484
	case n >= 36 && n <= 64 && n%4 == 0, n >= 100 && n <= 144 && n%4 == 0, n >= 149 && n <= 177 && n%4 == 1:
		return 5000 + 5*n
	}
	return 0
}

// ChannelNumber is the opposite of ChannelMHz, 0 for other frequencies.
func ChannelNumber(freqMHz int) int {
	n := 0
	switch {
	case freqMHz == 2484:
		n = 14
	case freqMHz < 2484:
		n = (freqMHz - 2407) / 5
	default:
		n = (freqMHz - 5000) / 5
	}
	if freqMHz == 0 || ChannelMHz(n) != freqMHz {
		return 0
	}
	return n
}

// Pair40 returns the centre of the 40 MHz channel that a 20 MHz channel is the
// control channel of, 0 where it is of none. On 5 GHz the pairs are fixed
// (Annex E); on 2.4 GHz the other half is taken above up to channel 7 and below
// from 8, so that all members agree without a word.
func Pair40(number int) int {
	freq, above := ChannelMHz(number), false
	switch n := number; {
	case freq == 0 || n == 14:
		return 0
	case n <= 13:
		above = n <= 7
	case n <= 64:
		above = (n-36)/4%2 == 0
	case n <= 144:
		above = (n-100)/4%2 == 0
	default:
		above = (n-149)/4%2 == 0
	}
	if above {
		return freq + 10
	}
	return freq - 10
}
