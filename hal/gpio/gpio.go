// Package gpio drives single lines of a board, such as the reset line of a radio.
// Lines are named: as the board's device tree names them (GPIO17), or by chip and
// number where it does not (gpiochip0/17), since numbers of one chip say nothing
// about another.
package gpio

import (
	"context"
	"fmt"
	"time"
)

// Line is a line that can be driven. Open returns that of the board, Record is
// one for tests.
type Line interface {
	// Drive makes the line an output at that level.
	Drive(high bool) error
	// Release lets go of the line: it floats, and what is connected decides.
	Release() error
}

// Bias is the resistor of a chip at an input.
type Bias int

// Resistors. AsIs leaves it as it was.
const (
	AsIs Bias = iota
	PullUp
	PullDown
	NoBias
)

// Edge is a change of an input's level.
type Edge struct {
	Rising bool
	Since  time.Duration // by the kernel's monotonic clock
	Number uint32        // of the line's edges, from 1: gaps are edges that were lost
}

// Consumer is what the kernel calls HALO where it has a line.
const Consumer = "halo"

// TakenError is of a line that somebody has.
type TakenError struct {
	Line string
	By   string // as the kernel calls whoever has it; empty: it does not say
}

func (e *TakenError) Error() string {
	by := e.By
	if by == "" {
		by = "somebody that does not say who"
	}
	return fmt.Sprintf("gpio line %s is taken by %s: choose another line, or stop that", e.Line, by)
}

// Pulse drives a line to its active level for the time of hold, and lets go of
// it, as chips are reset whose line has a resistor to the other level. When ctx
// ends, the line is let go of at once.
func Pulse(ctx context.Context, l Line, activeLow bool, hold time.Duration) (err error) {
	if err := l.Drive(!activeLow); err != nil {
		return fmt.Errorf("reset line: %w", err)
	}
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(hold):
	}
	if r := l.Release(); r != nil {
		return fmt.Errorf("reset line stays active: %w", r)
	}
	return err
}

// Record is a line that remembers what was done with it.
type Record struct {
	Done []string // high, low, release
	Err  error    // what Drive returns
}

var _ Line = (*Record)(nil)

// Drive notes the level.
func (r *Record) Drive(high bool) error {
	if r.Err != nil {
		return r.Err
	}
	if high {
		r.Done = append(r.Done, "high")
	} else {
		r.Done = append(r.Done, "low")
	}
	return nil
}

// Release notes that it was let go of.
func (r *Record) Release() error {
	r.Done = append(r.Done, "release")
	return nil
}
