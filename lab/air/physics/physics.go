// Package physics computes what a frame meets on its way between two radios:
// from their positions the loss, from that and the noise the signal-to-noise
// ratio, from that the chance that a frame of some rate and length is damaged,
// and from the sender's plan of rates how often it is sent, whether it arrives
// and how long the channel is taken. It is a model of the lab: functions of
// their arguments and of the dice that they are handed, so that a test repeats
// what it saw.
package physics

import "math"

// Position is in metres.
type Position struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
	Z float64 `json:"z"`
}

// Distance returns the distance of two positions in metres.
func (p Position) Distance(q Position) float64 {
	return math.Sqrt((p.X-q.X)*(p.X-q.X) + (p.Y-q.Y)*(p.Y-q.Y) + (p.Z-q.Z)*(p.Z-q.Z))
}

// Terrain is how a signal fades with distance: as in free space up to the
// reference distance, and with the exponent from there on.
type Terrain struct {
	Exponent   float64 // 2 in free space, 2.7 to 3.5 outdoors with obstacles
	ReferenceM float64
}

// Outdoors is the lab's default: an exponent of 3 from one metre on.
func Outdoors() Terrain { return Terrain{Exponent: 3, ReferenceM: 1} }

// PathLoss returns the loss in dB over a distance in metres at a frequency in
// MHz: the log-distance model, Friis' formula up to the reference.
func (t Terrain) PathLoss(distanceM, freqMHz float64) float64 {
	d := max(distanceM, 0.1) // antennas have a size
	free := func(d float64) float64 { return 20*math.Log10(d) + 20*math.Log10(freqMHz) - 27.55 }
	if d <= t.ReferenceM {
		return free(d)
	}
	return free(t.ReferenceM) + 10*t.Exponent*math.Log10(d/t.ReferenceM)
}

// Noise returns the noise in dBm that a receiver of that noise figure (dB) has
// over a width in MHz: thermal noise at 290 K is -174 dBm per Hz.
func Noise(widthMHz, figureDB float64) float64 {
	return -174 + 10*math.Log10(widthMHz*1e6) + figureDB
}

// AddDBm adds powers that are given in dBm, such as noise and interference.
func AddDBm(powers ...float64) float64 {
	sum := 0.0
	for _, p := range powers {
		sum += math.Pow(10, p/10)
	}
	return 10 * math.Log10(sum)
}
