// Package signal has lamps of the board say how the device is, to somebody who stands
// before it with nothing in hand: some short flashes, a pause, and again. Whoever else
// wants lamps, to be found or for a countdown, has them first.
package signal

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"halo.internal/hal/led"
)

// The rhythm: flashes that can be counted, apart from the next ones.
const (
	flash = 150 * time.Millisecond
	gap   = 350 * time.Millisecond
	pause = 2500 * time.Millisecond
)

// lookAgain is how often it is looked for lamps where there are none: people may name
// some, and some are on USB.
const lookAgain = 15 * time.Second

// Config is what New needs.
type Config struct {
	Class string          // directory of the kernel's LEDs
	Names func() []string // of those that show it
	Code  func() int      // how many flashes; at least one
	Log   *slog.Logger
}

// Lamps may be used from any goroutine.
type Lamps struct {
	Config
	free chan struct{} // a token when somebody has given lamps back

	mu     sync.Mutex // guards what follows
	others int        // who have taken lamps
	cut    func()     // ends what is shown, and returns when the lamps are as they were; nil: nothing is
}

// New returns lamps that show nothing before Run.
func New(c Config) *Lamps { return &Lamps{Config: c, free: make(chan struct{}, 1)} }

// Take has the lamps show nothing until give is called, and returns when they are as they
// were. Several may have taken them.
func (l *Lamps) Take() (give func()) {
	l.mu.Lock()
	l.others++
	cut := l.cut
	l.mu.Unlock()
	if cut != nil {
		cut()
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.others--
		l.mu.Unlock()
		select {
		case l.free <- struct{}{}:
		default: // a token waits already
		}
	})
}

// Run shows how the device is until ctx ends.
func (l *Lamps) Run(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		if err := l.show(ctx); err != nil && err.Error() != last {
			last = err.Error()
			l.Log.Warn("the lamps do not say how the device is", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-l.free:
		case <-time.After(lookAgain):
		}
	}
}

// show shows it until somebody takes the lamps or ctx ends. It returns at once where
// there are none, or somebody has them.
func (l *Lamps) show(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shown := make(chan struct{})
	defer close(shown)
	l.mu.Lock()
	taken := l.others > 0
	if !taken {
		l.cut = func() { cancel(); <-shown }
	}
	l.mu.Unlock()
	if taken {
		return nil
	}
	defer func() {
		l.mu.Lock()
		l.cut = nil
		l.mu.Unlock()
	}()
	names := l.Names()
	if len(names) == 0 {
		return nil
	}
	leds, err := led.Find(l.Class)
	if errors.Is(err, led.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	leds = slices.DeleteFunc(leds, func(v led.LED) bool { return !slices.Contains(names, v.Name) })
	if len(leds) == 0 {
		return nil
	}
	before, err := led.States(leds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, led.Restore(l.Class, before)) }()
	return led.BlinkBy(ctx, leds, l.rhythm())
}

// rhythm asks for the code before each turn of flashes.
func (l *Lamps) rhythm() func(step int) time.Duration {
	left := 0
	return func(step int) time.Duration {
		switch {
		case step%2 == 0:
			if left == 0 {
				left = max(l.Code(), 1)
			}
			left--
			return flash
		case left > 0:
			return gap
		}
		return pause
	}
}
