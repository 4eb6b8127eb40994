package uevent

import (
	"context"
	"errors"
	"fmt"
)

// Await returns nil when done says so. It asks at once, and again after each
// event of l, which was opened before whatever is to bring done about; lost
// events make it ask too. When ctx ends first, the error wraps ctx's and, if
// done ended with one, what done said last.
func Await(ctx context.Context, l *Listener, done func() (bool, error)) error {
	for {
		ok, last := done()
		if ok {
			return nil
		}
		if _, err := l.Next(ctx); err != nil && !errors.Is(err, ErrLost) {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return errors.Join(fmt.Errorf("await device: %w", err), last)
		}
	}
}

// After begins something that brings a device about, and waits until done says
// that it is there: Await with a listener of its own, which hears all that begin
// causes.
func After(ctx context.Context, begin func() error, done func() (bool, error)) (err error) {
	l, err := Listen()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := begin(); err != nil {
		return err
	}
	return Await(ctx, l, done)
}
