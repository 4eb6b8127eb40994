package physics

import "math"

// Modulation of a rate.
type Modulation int

// Modulations. DSSS spreads: its bits arrive with more energy than its symbols
// alone would have.
const (
	DBPSK Modulation = iota // of DSSS
	DQPSK                   // of DSSS and, nearly, of CCK
	BPSK
	QPSK
	QAM16
	QAM64
	QAM256
)

// bits of a symbol on one subcarrier.
func (m Modulation) bits() float64 {
	switch m {
	case DBPSK, BPSK:
		return 1
	case DQPSK, QPSK:
		return 2
	case QAM16:
		return 4
	case QAM64:
		return 6
	}
	return 8
}

// Rate is a way to send.
type Rate struct {
	Kbps       float64
	Modulation Modulation
	// Coding is the rate of the convolutional code, 0 without one.
	Coding Coding
	// Repeat is how often each bit is sent: 2 in MCS 10 of 802.11ah, else 1.
	Repeat int
}

// Coding is the rate of a convolutional code, as numerator and denominator.
type Coding struct{ K, N int }

// Codes of 802.11's binary convolutional encoder (constraint length 7).
var (
	half          = Coding{1, 2}
	twoThirds     = Coding{2, 3}
	threeQuarters = Coding{3, 4}
	fiveSixths    = Coding{5, 6}
)

// OFDM returns the rates of 802.11a and g, 6 to 54 Mbit/s.
func OFDM() []Rate {
	all := []Rate{{0, BPSK, half, 1}, {0, BPSK, threeQuarters, 1}, {0, QPSK, half, 1}, {0, QPSK, threeQuarters, 1}, {0, QAM16, half, 1}, {0, QAM16, threeQuarters, 1}, {0, QAM64, twoThirds, 1}, {0, QAM64, threeQuarters, 1}}
	for i := range all {
		all[i].Kbps = ofdmKbps(all[i], 48, 4)
	}
	return all
}

// DSSS returns the rates of 802.11b, 1 to 11 Mbit/s.
func DSSS() []Rate {
	return []Rate{{1000, DBPSK, Coding{}, 1}, {2000, DQPSK, Coding{}, 1}, {5500, DQPSK, Coding{}, 1}, {11000, DQPSK, Coding{}, 1}}
}

// mcs are modulation and code of MCS 0 to 9, the same in 802.11n, ac and ah.
var mcs = [10]Rate{
	{0, BPSK, half, 1}, {0, QPSK, half, 1}, {0, QPSK, threeQuarters, 1}, {0, QAM16, half, 1}, {0, QAM16, threeQuarters, 1},
	{0, QAM64, twoThirds, 1}, {0, QAM64, threeQuarters, 1}, {0, QAM64, fiveSixths, 1}, {0, QAM256, threeQuarters, 1}, {0, QAM256, fiveSixths, 1},
}

// HT returns MCS 0 to 7 of one stream over 20 MHz with the long guard interval.
func HT() []Rate {
	all := make([]Rate, 8)
	for i := range all {
		all[i] = mcs[i]
		all[i].Kbps = ofdmKbps(all[i], 52, 4)
	}
	return all
}

// s1gSubcarriers are those that carry data, by width in MHz.
var s1gSubcarriers = map[int]float64{1: 24, 2: 52, 4: 108, 8: 234}

// S1G returns the rates of 802.11ah (HaLow) by MCS for a width of 1, 2, 4 or 8
// MHz, one stream: symbols take ten times those of 802.11ac, 40 µs, or 36 with the
// short guard interval. MCS 10 is there at 1 MHz alone, MCS 9 not at 2 MHz, whose
// bits do not fill a whole symbol.
func S1G(widthMHz int, shortGI bool) map[int]Rate {
	carriers, ok := s1gSubcarriers[widthMHz]
	if !ok {
		return nil
	}
	symbol := 40.0
	if shortGI {
		symbol = 36
	}
	all := map[int]Rate{}
	for i, r := range mcs {
		if bits := carriers * r.Modulation.bits() * float64(r.Coding.K) / float64(r.Coding.N); bits != math.Trunc(bits) {
			continue
		}
		r.Kbps = ofdmKbps(r, carriers, symbol)
		all[i] = r
	}
	if widthMHz == 1 {
		r := mcs[0]
		r.Repeat = 2
		r.Kbps = ofdmKbps(r, carriers, symbol)
		all[10] = r
	}
	return all
}

// ofdmKbps computes a rate from the data subcarriers and the time of a symbol in
// µs.
func ofdmKbps(r Rate, carriers, symbolUS float64) float64 {
	return carriers * r.Modulation.bits() * float64(r.Coding.K) / float64(r.Coding.N) / float64(r.Repeat) / symbolUS * 1000
}
