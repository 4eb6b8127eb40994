package physics

import (
	"math"
	"time"
)

// Timing is what a channel costs besides the bits.
type Timing struct {
	Preamble time.Duration // with all headers of the physical layer
	Symbol   time.Duration // bits are sent in whole ones
	SIFS     time.Duration
	Slot     time.Duration
	CWMin    int
	CWMax    int
}

// WiFi is 802.11a and g, OFDM over 20 MHz.
func WiFi() Timing {
	return Timing{Preamble: 20 * time.Microsecond, Symbol: 4 * time.Microsecond, SIFS: 16 * time.Microsecond, Slot: 9 * time.Microsecond, CWMin: 15, CWMax: 1023}
}

// HaLow is 802.11ah: the preamble has 14 symbols at 1 MHz and 6 at wider ones.
func HaLow(widthMHz int) Timing {
	t := Timing{Preamble: 6 * 40 * time.Microsecond, Symbol: 40 * time.Microsecond, SIFS: 160 * time.Microsecond, Slot: 52 * time.Microsecond, CWMin: 15, CWMax: 1023}
	if widthMHz == 1 {
		t.Preamble = 14 * 40 * time.Microsecond
	}
	return t
}

// serviceBits are those that OFDM adds to each frame: service and tail.
const serviceBits = 16 + 6

// Frame returns how long a frame is in the air.
func (t Timing) Frame(r Rate, octets int) time.Duration {
	us := float64(octets*8+serviceBits) / r.Kbps * 1000
	symbols := math.Ceil(us / (float64(t.Symbol) / float64(time.Microsecond)))
	return t.Preamble + time.Duration(symbols)*t.Symbol
}

// Attempt is a rate and how often to try it.
type Attempt struct {
	Rate  Rate
	Count int
}

// Link is one direction between two radios, for one frame.
type Link struct {
	SNR    float64 // dB, at the receiver
	Back   float64 // dB, of the acknowledgement at the sender
	Loss   float64 // chance that an attempt is lost besides: 0 to 1
	Timing Timing
	Basic  Rate // of acknowledgements
}

// Outcome is what became of a frame.
type Outcome struct {
	Received bool // at least once
	Acked    bool // as the sender knows
	Tried    []int
	Airtime  time.Duration // channel taken by all attempts, waiting included
}

// Octets of an acknowledgement.
const ackOctets = 14

// Send tries a frame as planned until it is acknowledged. A frame to all
// (unicast is false) is sent once and never acknowledged. dice returns numbers
// from 0 to 1; each attempt takes three.
func (l Link) Send(plan []Attempt, octets int, unicast bool, dice func() float64) Outcome {
	o := Outcome{Tried: make([]int, len(plan))}
	cw := l.Timing.CWMin
	for i, a := range plan {
		for range a.Count {
			o.Tried[i]++
			difs := l.Timing.SIFS + 2*l.Timing.Slot
			o.Airtime += difs + time.Duration(cw/2)*l.Timing.Slot + l.Timing.Frame(a.Rate, octets)
			arrived := dice() >= FrameError(a.Rate, l.SNR, octets)
			arrived = dice() >= l.Loss && arrived
			answered := dice() >= FrameError(l.Basic, l.Back, ackOctets) && arrived
			o.Received = o.Received || arrived
			if !unicast {
				return o
			}
			o.Airtime += l.Timing.SIFS + l.Timing.Frame(l.Basic, ackOctets) // or waiting for it
			if answered {
				o.Acked = true
				return o
			}
			cw = min(2*cw+1, l.Timing.CWMax)
		}
	}
	return o
}
