package flap

import (
	"testing"
	"time"
)

func TestWhatComesAndGoes(t *testing.T) {
	var c Count
	now := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	for n := range 1000 {
		tell, first := c.Moved(now)
		if tell != (n < maxMoves) || first != (n == maxMoves) || c.Hushed() != (n >= maxMoves) {
			t.Fatalf("move %d: told: %v, first: %v, hushed: %v", n, tell, first, c.Hushed())
		}
		now = now.Add(time.Second)
	}
	if len(c.moves) > 4*maxMoves {
		t.Errorf("%d moves are remembered", len(c.moves))
	}
	if c.Forget(now) {
		t.Error("an hour is not over")
	}
	now = now.Add(window)
	if !c.Forget(now) {
		t.Error("it remembers for ever")
	}
	if tell, first := c.Moved(now); !tell || first || c.Hushed() {
		t.Error("what is steady for an hour is not told of again")
	}
}
