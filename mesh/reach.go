package mesh

import "time"

// deserted is for how long no member has to be reached until nobody is waited for:
// whoever comes back asks around for the document.
const deserted = 24 * time.Hour

// reach tells whether it is known which members are there. After a start, none is:
// the overlay hears of them one by one. The zero value but for wait is ready to use.
type reach struct {
	wait  time.Duration // since the overlay came up
	since time.Time     // when it did; zero: not yet
	last  time.Time     // when a member was reached, or the overlay came up
	told  bool          // that none is
}

// look takes whether the overlay is up, and how many members are reached by it.
func (r *reach) look(now time.Time, up bool, online int) {
	if up && r.since.IsZero() {
		r.since, r.last = now, now
	}
	if online > 0 {
		r.last, r.told = now, false
	}
}

// known tells that all members are there, or that the others had their time.
func (r *reach) known(now time.Time, members, online int) bool {
	return online >= members || !r.since.IsZero() && now.Sub(r.since) >= r.wait
}

// due tells whether a change that nobody asks for by hand can begin. One without
// anybody to hand it to would leave all members behind at once, each to find its way
// back from its neighbour.
func (r *reach) due(now time.Time, members, online int) bool {
	return r.known(now, members, online) && (online > 0 || members == 0 || now.Sub(r.last) >= deserted)
}

// silent tells, once, that something waits for members of whom none is there.
func (r *reach) silent(now time.Time, members, online int) bool {
	if r.told || online > 0 || members == 0 || !r.known(now, members, online) {
		return false
	}
	r.told = true
	return true
}
