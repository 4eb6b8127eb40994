package input

import "time"

// What an input may tell: as many changes at once, and one more each refill. Who needs each
// pulse of a meter has the metric.
const (
	burst  = 20
	refill = 10 * time.Second
	calm   = 3 // refills without a change after which single changes are told again
)

// allowance bounds the events of an input. The zero value is a full one.
type allowance struct {
	spent  int       // of burst
	at     time.Time // of the last refill, or of the first change since it was full
	last   time.Time // change
	missed int       // changes that were not told
	busy   bool
}

// verdict is what is told of a change.
type verdict int

const (
	silent verdict = iota
	tellIt
	tellBusy // that it changes all the time
)

// change judges a change.
func (a *allowance) change(now time.Time) verdict {
	if a.spent == 0 {
		a.at = now
	}
	n := int(now.Sub(a.at) / refill)
	a.spent, a.at, a.last = max(a.spent-n, 0), a.at.Add(time.Duration(n)*refill), now
	switch {
	case !a.busy && a.spent < burst:
		a.spent++
		return tellIt
	case !a.busy:
		a.busy = true
		a.missed++
		return tellBusy
	}
	a.missed++
	return silent
}

// calmed tells whether an input that changed all the time has stopped doing so, once, and
// how many changes were not told.
func (a *allowance) calmed(now time.Time) (missed int, yes bool) {
	if !a.busy || now.Sub(a.last) < calm*refill {
		return 0, false
	}
	missed, a.missed, a.busy = a.missed, 0, false
	return missed, true
}
