package sensors

import (
	"time"

	"halo.internal/agent/flap"
)

// steadyLooks is at how many looks in a row what comes and goes has to be there to be read
// again.
const steadyLooks = 3

// flaps are how often a chip or a bus came or went lately.
type flaps struct {
	flap.Count
	steady int // looks in a row at which it was there, while hushed
}

// moved notes that it came or went, and tells whether that is news. first says that it does
// so all the time from now on.
func (f *flaps) moved(now time.Time) (tell, first bool) {
	f.steady = 0
	return f.Moved(now)
}
