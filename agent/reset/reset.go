// Package reset is the factory reset by a button, or by a jumper on two pins: held for
// ten seconds, and let go of within twenty more. The lamps count down, and then flicker
// while letting go does it.
//
// That it takes letting go is the guard: a jumper that is left on, a pin that something
// else pulls down, a button that is stuck reset nothing, whatever is started how often.
package reset

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"halo.internal/hal/gpio"
)

// Window is how long after the countdown letting go resets.
const Window = 20 * time.Second

// Pin is the line of a button; *gpio.Input is one.
type Pin interface {
	High() (bool, error)
	Wait(context.Context) (gpio.Edge, error)
}

var _ Pin = (*gpio.Input)(nil)

// Button is one that is watched.
type Button struct {
	Name       string
	Pin        Pin
	ActiveHigh bool
	Hold       time.Duration
	// Lamps shows the countdown until ctx ends: how much of it is over, and then that
	// letting go resets.
	Lamps func(ctx context.Context, hold time.Duration)
	// Reset does it.
	Reset func(by string) error
	// Stuck is called when it was held for too long, which resets nothing; nil: nobody is
	// told.
	Stuck func()
	Log   *slog.Logger
}

// Run watches until ctx ends, or the line fails, as when its chip is unplugged.
func (b Button) Run(ctx context.Context) error {
	for {
		if err := b.once(ctx); err != nil {
			return err
		}
	}
}

// once waits for the button to be pressed, and then for what becomes of that.
func (b Button) once(ctx context.Context) error {
	if err := b.until(ctx, true); err != nil {
		return err
	}
	b.Log.Info("the reset button is pressed", "button", b.Name)
	lit, dark := context.WithCancel(ctx)
	defer dark()
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		b.Lamps(lit, b.Hold)
	}()
	defer func() { dark(); <-shown }()
	switch err := b.within(ctx, b.Hold); {
	case err == nil:
		b.Log.Info("the reset button was let go of too early: nothing is reset", "button", b.Name)
		return nil
	case !errors.Is(err, errHeld):
		return err
	}
	switch err := b.within(ctx, Window); {
	case err == nil:
		return b.Reset("button " + b.Name)
	case !errors.Is(err, errHeld):
		return err
	}
	dark()
	b.Log.Warn("the reset button is stuck, or a jumper was left on: nothing is reset", "button", b.Name)
	if b.Stuck != nil {
		b.Stuck()
	}
	return b.until(ctx, false)
}

var errHeld = errors.New("it is still held")

// within waits for the button to be let go of; errHeld says that it was not in time.
func (b Button) within(ctx context.Context, d time.Duration) error {
	limit, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := b.until(limit, false)
	if err != nil && ctx.Err() == nil && limit.Err() != nil {
		return errHeld
	}
	return err
}

// until waits until the button is pressed or not. Edges say when to look, and the level
// how it is: of edges, some may be lost.
func (b Button) until(ctx context.Context, pressed bool) error {
	for {
		high, err := b.Pin.High()
		if err != nil {
			return err
		}
		if (high == b.ActiveHigh) == pressed {
			return ctx.Err()
		}
		if _, err := b.Pin.Wait(ctx); err != nil {
			return err
		}
	}
}

// Rhythm is that of the lamps, as long into the countdown: once a second at first, ever
// faster, and a flicker when letting go resets.
func Rhythm(since, hold time.Duration) time.Duration {
	if since >= hold {
		return 50 * time.Millisecond
	}
	left := float64(hold-since) / float64(hold)
	return 100*time.Millisecond + time.Duration(left*float64(400*time.Millisecond))
}
