// Package fakeair carries management frames between state machines under a
// clock that only the test moves: it loses, doubles and reorders them by a
// seeded dice, and lets a test listen and forge. Only tests import it.
package fakeair

import (
	"math/rand/v2"
	"time"

	"halo.internal/model/dot11"
)

// Station is a state machine on the air.
type Station interface {
	Handle(now time.Time, frame []byte)
	Advance(now time.Time)
	Next() time.Time
	Drain() []dot11.Frame // what is to be sent since the last call
}

// Air is the medium and its clock.
type Air struct {
	Now       time.Time
	Loss      float64                       // chance that a frame is lost
	Duplicate float64                       // chance that it comes twice
	Delay     time.Duration                 // of each frame
	Jitter    time.Duration                 // at most so much more, by which frames overtake
	Cut       func(from, to dot11.MAC) bool // frames that never arrive; nil: none
	Tap       func(now time.Time, f Sent)   // hears all that is sent; nil: nobody
	Sent      int                           // frames put on the air by stations
	dice      *rand.Rand
	stations  map[dot11.MAC]Station
	order     []dot11.MAC
	flying    []flight
	sequence  int
}

// Sent is a frame that a station sent.
type Sent struct {
	From  dot11.MAC
	Frame dot11.Frame
}

type flight struct {
	at       time.Time
	sequence int
	to       dot11.MAC
	frame    []byte
}

// New returns an air without stations that delays by a millisecond.
func New(seed uint64) *Air {
	return &Air{
		Now: time.Unix(1_800_000_000, 0), Delay: time.Millisecond,
		dice: rand.New(rand.NewPCG(seed, 1)), stations: map[dot11.MAC]Station{},
	}
}

// Join puts a station on the air, in place of who had its address.
func (a *Air) Join(mac dot11.MAC, s Station) {
	if a.stations[mac] == nil {
		a.order = append(a.order, mac)
	}
	a.stations[mac] = s
	a.collect()
}

// Inject delivers a frame to a station at once, as a forger may.
func (a *Air) Inject(to dot11.MAC, frame []byte) {
	a.stations[to].Handle(a.Now, frame)
	a.collect()
}

// Kick collects what a station wants sent after a call from outside.
func (a *Air) Kick() { a.collect() }

func (a *Air) collect() {
	for _, from := range a.order {
		for _, f := range a.stations[from].Drain() {
			a.Sent++
			if a.Tap != nil {
				a.Tap(a.Now, Sent{from, f})
			}
			if a.Cut != nil && a.Cut(from, f.To) {
				continue
			}
			copies := 1
			if a.dice.Float64() < a.Duplicate {
				copies = 2
			}
			for range copies {
				if a.dice.Float64() < a.Loss {
					continue
				}
				at := a.Now.Add(a.Delay)
				if a.Jitter > 0 {
					at = at.Add(time.Duration(a.dice.Int64N(int64(a.Jitter))))
				}
				a.sequence++
				a.flying = append(a.flying, flight{at, a.sequence, f.To, f.Bytes})
			}
		}
	}
}

// Until runs until done says so or the limit is over, and tells which.
func (a *Air) Until(limit time.Duration, done func() bool) bool {
	end := a.Now.Add(limit)
	for !done() {
		next := end
		which := -1
		for i, f := range a.flying {
			if f.at.Before(next) || which >= 0 && f.at.Equal(next) && f.sequence < a.flying[which].sequence {
				next, which = f.at, i
			}
		}
		for _, mac := range a.order {
			if t := a.stations[mac].Next(); !t.IsZero() && t.Before(next) {
				next, which = t, -1
			}
		}
		if !next.Before(end) {
			a.Now = end
			return done()
		}
		if next.After(a.Now) {
			a.Now = next
		}
		if which >= 0 {
			f := a.flying[which]
			a.flying = append(a.flying[:which], a.flying[which+1:]...)
			if s := a.stations[f.to]; s != nil {
				s.Handle(a.Now, f.frame)
			}
		} else {
			for _, mac := range a.order {
				if s := a.stations[mac]; !s.Next().IsZero() && !s.Next().After(a.Now) {
					s.Advance(a.Now)
				}
			}
		}
		a.collect()
	}
	return true
}

// Run runs for so long.
func (a *Air) Run(d time.Duration) { a.Until(d, func() bool { return false }) }
