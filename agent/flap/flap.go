// Package flap bounds what is told of things that come and go: a chip with a loose contact
// does so some times a minute, and each time would be news.
package flap

import (
	"slices"
	"time"
)

// As often as that in an hour is told.
const (
	maxMoves = 6
	window   = time.Hour
)

// Count is how often something came or went lately. The zero value is one of something
// that never did.
type Count struct {
	moves  []time.Time // in the last hour
	hushed bool
}

// Moved notes that it came or went, and tells whether that is news. first says that it does
// so all the time from now on.
func (c *Count) Moved(now time.Time) (tell, first bool) {
	c.Forget(now)
	if len(c.moves) == 0 {
		c.hushed = false
	}
	c.moves = append(c.moves, now)
	many := len(c.moves) > maxMoves
	first = many && !c.hushed
	c.hushed = many
	if len(c.moves) > 4*maxMoves {
		c.moves = c.moves[len(c.moves)-4*maxMoves:]
	}
	return !many, first
}

// Hushed tells whether it comes and goes, so that nobody is told.
func (c *Count) Hushed() bool { return c.hushed }

// Forget forgets what was long ago, and tells whether there is nothing else.
func (c *Count) Forget(now time.Time) bool {
	c.moves = slices.DeleteFunc(c.moves, func(t time.Time) bool { return now.Sub(t) > window })
	return len(c.moves) == 0
}
