package i2cbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Line is one of the two lines of a bus, as hal/gpio's Drain is.
type Line interface {
	Pull(low bool) error
	High() (bool, error)
	Close() error
}

// Recovery is what a stuck bus is brought back by.
type Recovery struct {
	// Unbind takes the driver from the controller, and Bind gives it back, which also
	// gives the controller its pins. Nil: the kernel's driver stays.
	Unbind, Bind func(context.Context) error
	// SCL and SDA take the lines while the driver is away; nil: the board does not name
	// them.
	SCL, SDA func() (Line, error)
}

// halfClock of 10 kHz, which every chip takes.
const halfClock = 50 * time.Microsecond

// maxClocks frees a chip that is in the middle of an octet: eight bits, and one for the
// acknowledgement (NXP UM10204, section 3.1.16).
const maxClocks = 9

// Recover frees a bus on which a chip holds the data line down, by clocking it until it
// lets go, and then has the driver begin anew. Without lines it only does the latter,
// which helps where the driver hangs. The error says what holds the bus.
func (r Recovery) Recover(ctx context.Context) (err error) {
	if r.Unbind != nil {
		if err := r.Unbind(ctx); err != nil {
			return fmt.Errorf("recovery of a bus: take the driver away: %w", err)
		}
	}
	defer func() {
		if r.Bind != nil { // also when it was in vain: the bus is to be there again
			if b := r.Bind(context.WithoutCancel(ctx)); b != nil {
				err = errors.Join(err, fmt.Errorf("recovery of a bus: give the driver back: %w", b))
			}
		}
	}()
	if r.SCL == nil || r.SDA == nil {
		if r.Bind == nil {
			return errors.New("recovery of a bus: the board file names neither its lines (sda, scl) nor is there a driver to begin anew")
		}
		return nil
	}
	scl, err := r.SCL()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scl.Close()) }()
	sda, err := r.SDA()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sda.Close()) }()
	return clockFree(scl, sda)
}

// clockFree clocks until the data line is high, and ends with a stop.
func clockFree(scl, sda Line) error {
	if err := errors.Join(sda.Pull(false), scl.Pull(false)); err != nil {
		return err
	}
	time.Sleep(halfClock)
	if high, err := scl.High(); err != nil || !high {
		return errors.Join(err, errors.New("recovery of a bus: the clock line is held down, which no clock can change: unplug the chips one after the other"))
	}
	for n := 0; ; n++ {
		high, err := sda.High()
		if err != nil {
			return err
		}
		if high {
			break
		}
		if n == maxClocks {
			return fmt.Errorf("recovery of a bus: the data line is held down after %d clocks: unplug the chips one after the other", maxClocks)
		}
		for _, low := range []bool{true, false} {
			if err := scl.Pull(low); err != nil {
				return err
			}
			time.Sleep(halfClock)
		}
	}
	// A stop: the data line rises while the clock is high.
	for _, step := range []func() error{func() error { return scl.Pull(true) }, func() error { return sda.Pull(true) }, func() error { return scl.Pull(false) }, func() error { return sda.Pull(false) }} {
		if err := step(); err != nil {
			return err
		}
		time.Sleep(halfClock)
	}
	return nil
}

// Controller is the controller's device of a path: channels of multiplexers are reached
// by it.
func Controller(path string) string {
	c, _, _ := strings.Cut(path, "/")
	return c
}
