package gps

import "time"

// Told is what time it is, by a receiver that is believed.
type Told struct {
	Time     time.Time     // UTC
	At       time.Time     // when it was that, by the monotonic clock
	Accuracy time.Duration // how far it may be off
	Pulse    bool          // the receiver's pulse says when the second began
}

// What makes a receiver's time believed: one that has just been switched on says times that
// are off by whole seconds, and dates of its own.
const (
	agreeing  = 10              // cycles in a row that are of the same time
	agreeFor  = 8 * time.Second // so long at least
	agreement = time.Second     // they may be apart by so much: sentences come late by up to that
	minUsed   = 4               // satellites: with fewer the receiver goes by its own clock
	// sentenceAccuracy is how well a time without a pulse is known: receivers begin to tell
	// of a second some time within it.
	sentenceAccuracy = time.Second
	// pulseAccuracy is that of a pulse, which the kernel stamps in its interrupt.
	pulseAccuracy = time.Millisecond
	// window is how long the cycle counts whose sentences came soonest. Two clocks that
	// differ by 100 ppm are 6 ms apart after it.
	window = time.Minute

	pulseRun    = 4                     // pulses in a row, before they count
	pulseJitter = 10 * time.Millisecond // of the second between two
)

// Timekeeper takes the fixes of one receiver that its Judge has passed, and says what time
// it is when that makes sense.
type Timekeeper struct {
	base time.Time // what monotonic times are counted from

	n            int
	since        time.Time // the first of the cycles that agree
	best, before time.Time // UTC at base by the soonest cycle of this window, and of the one before
	windowAt     time.Time

	pulseAt  time.Time // the last pulse, by the monotonic clock
	pulseSeq uint32
	pulses   int // in a row that are a second apart
}

// NewTimekeeper returns one that knows nothing.
func NewTimekeeper() *Timekeeper { return &Timekeeper{base: time.Now()} }

// Fix takes one. ok is false as long as the time is not believed.
func (k *Timekeeper) Fix(f Fix) (t Told, ok bool) {
	if f.Mode == NoFix || f.Time.IsZero() || f.Used < minUsed || f.Quality == Estimated {
		k.n = 0
		return t, false
	}
	// The wall clock may be set meanwhile: only differences of monotonic times count.
	at := f.At.Sub(k.base)
	zero := f.Time.Add(-at)
	if k.n > 0 && zero.Sub(k.soonest()).Abs() > agreement {
		k.n = 0
	}
	switch {
	case k.n == 0:
		k.best, k.before, k.since, k.windowAt = zero, zero, f.At, f.At
	case f.At.Sub(k.windowAt) > window:
		k.before, k.best, k.windowAt = k.best, zero, f.At
	case zero.After(k.best):
		k.best = zero
	}
	k.n++
	if k.n < agreeing || f.At.Sub(k.since) < agreeFor {
		return t, false
	}
	// A pulse is of the cycle that is told of next, within the second.
	if late := f.At.Sub(k.pulseAt); k.pulses >= pulseRun && f.Time.Nanosecond() == 0 && late > 0 && late < time.Second {
		return Told{Time: f.Time, At: k.pulseAt, Accuracy: pulseAccuracy, Pulse: true}, true
	}
	return Told{Time: k.soonest().Add(at), At: f.At, Accuracy: sentenceAccuracy}, true
}

// soonest is UTC at base, by the cycle that came soonest of late.
func (k *Timekeeper) soonest() time.Time {
	if k.before.After(k.best) {
		return k.before
	}
	return k.best
}

// Pulse takes the number and the time of the last pulse, by the monotonic clock.
func (k *Timekeeper) Pulse(seq uint32, at time.Time) {
	if seq == k.pulseSeq {
		return
	}
	// What is a second apart: some were not looked for, between two cycles.
	since := at.Sub(k.pulseAt)
	whole := since.Round(time.Second)
	if seq-k.pulseSeq != uint32(whole/time.Second) || (since-whole).Abs() > pulseJitter || whole > window {
		k.pulses = 0
	}
	k.pulses++
	k.pulseSeq, k.pulseAt = seq, at
}
