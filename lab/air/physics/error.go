package physics

import "math"

// dsssMHz is the width that DSSS spreads over.
const dsssMHz = 22

// FrameError returns the chance that a frame of that many octets, sent at the
// rate, is damaged at a signal-to-noise ratio in dB.
//
// OFDM: the bit errors of the modulation without code (Gray-coded M-QAM in white
// noise) go through the union bound of the K=7 convolutional code with hard
// decisions. DSSS: differential detection, the energy of a bit being that of its
// share of the spread signal; CCK is taken for DQPSK.
func FrameError(r Rate, snrDB float64, octets int) float64 {
	snr := math.Pow(10, snrDB/10) * float64(r.Repeat)
	var bit float64
	switch r.Modulation {
	case DBPSK:
		bit = 0.5 * math.Exp(-snr*dsssMHz*1000/r.Kbps)
	case DQPSK:
		bit = 0.5 * math.Exp(-(2-math.Sqrt2)*snr*dsssMHz*1000/r.Kbps)
	default:
		bit = coded(r.Coding, uncoded(r.Modulation, snr))
	}
	if bit >= 0.5 {
		return 1
	}
	return -math.Expm1(float64(octets) * 8 * math.Log1p(-bit))
}

// uncoded returns the bit error rate of a modulation at a ratio per symbol.
func uncoded(m Modulation, snr float64) float64 {
	q := func(x float64) float64 { return 0.5 * math.Erfc(x/math.Sqrt2) }
	switch m {
	case BPSK:
		return q(math.Sqrt(2 * snr))
	case QPSK:
		return q(math.Sqrt(snr))
	}
	points := math.Pow(2, m.bits())
	return 4 / m.bits() * (1 - 1/math.Sqrt(points)) * q(math.Sqrt(3*snr/(points-1)))
}

// spectrum is the beginning of a code's weight spectrum: how many bits are wrong
// on all paths of each distance, from the free distance on.
type spectrum struct {
	free    int
	step    int
	weights []float64
}

// spectra are those of the code with the generators 133 and 171 and of its
// punctured forms, as published for them (Haccoun and Bégin, 1989).
var spectra = map[Coding]spectrum{
	half:          {10, 2, []float64{36, 211, 1404, 11633, 77433}},
	twoThirds:     {6, 1, []float64{3, 70, 285, 1276, 6160}},
	threeQuarters: {5, 1, []float64{42, 201, 1492, 10469, 62935}},
	fiveSixths:    {4, 1, []float64{92, 528, 8694, 79453, 792114}},
}

// coded returns the bit error rate behind the decoder: the sum over distances of
// their bits times the chance that more than half of them are wrong, by its bound
// (2√(p(1-p)))^d, divided by the bits that enter the encoder per step.
func coded(c Coding, p float64) float64 {
	s := spectra[c]
	base := 2 * math.Sqrt(p*(1-p))
	sum := 0.0
	for i, w := range s.weights {
		sum += w * math.Pow(base, float64(s.free+i*s.step))
	}
	return min(sum/(2*float64(c.K)), 0.5)
}
