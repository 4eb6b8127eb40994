package sensors

import (
	"slices"
	"time"
)

// Flapping: as often as that in an hour is told, and what comes and goes more often is
// read again once it was there at as many looks in a row.
const (
	maxMoves    = 6
	moveWindow  = time.Hour
	steadyLooks = 3
)

// flaps are how often a chip or a bus came or went lately.
type flaps struct {
	moves  []time.Time // in the last hour
	hushed bool        // it comes and goes: nobody is told
	steady int         // looks in a row at which it was there, while hushed
}

// moved notes that it came or went, and tells whether that is news. first says that it does
// so all the time from now on.
func (f *flaps) moved(now time.Time) (tell, first bool) {
	f.forget(now)
	if len(f.moves) == 0 {
		f.hushed = false
	}
	f.moves = append(f.moves, now)
	many := len(f.moves) > maxMoves
	first = many && !f.hushed
	f.hushed, f.steady = many, 0
	if len(f.moves) > 4*maxMoves {
		f.moves = f.moves[len(f.moves)-4*maxMoves:]
	}
	return !many, first
}

// forget forgets what was long ago, and tells whether there is nothing else.
func (f *flaps) forget(now time.Time) bool {
	f.moves = slices.DeleteFunc(f.moves, func(t time.Time) bool { return now.Sub(t) > moveWindow })
	return len(f.moves) == 0
}
