// Package drivers is what the drivers of radios have in common for whoever
// brings a radio up, and back when it hangs. drivers/wifi is any driver of the
// kernel's, drivers/halow is Morse's. What the radio then does in a mesh is
// nl80211's and mesh/radio's.
//
// Ethernet ports have no driver here. What is soldered on loads with its device
// and hangs with the machine; an adapter that hangs is brought back by
// module.Device.Rebind; there is no file to check before, nothing legal to
// compute, and mesh/port learns from the link itself whether a port works.
package drivers

import (
	"context"
	"errors"
	"fmt"

	"halo.internal/drivers/nl80211"
)

// Radio is one kind of radio of the device. Its methods may be called from one
// goroutine at a time; each returns when ctx ends, but for what hangs in the
// kernel.
type Radio interface {
	// Name is for people and events, e.g. "wifi ath9k_htc".
	Name() string
	// Prepare returns nil if Load would find all that it needs, and otherwise what
	// is missing, where it was looked for, and what to do. It touches no hardware.
	Prepare() error
	// Load loads the driver and returns when there is a radio.
	Load(ctx context.Context) error
	// Unload takes the driver away, unless an interface of its radios is up: the
	// error is then a *module.InUseError that names it.
	Unload(ctx context.Context) error
	// ForceUnload takes the driver away in any case: what its radios do is given up
	// in an order that firmware survives.
	ForceUnload(ctx context.Context) error
	// Reset starts the hardware anew, with the driver unloaded, as far as there is
	// a way. The error wraps ErrNoReset where there is none.
	Reset(ctx context.Context) error
	// Wiphys returns the driver's radios and what they can do.
	Wiphys() ([]nl80211.Wiphy, error)
	// Health asks the radios whether they still work.
	Health(ctx context.Context) error
}

// ErrNoReset is wrapped where hardware has no line or device to be reset by.
var ErrNoReset = errors.New("there is no way to reset it")

// Modules loads and unloads kernel modules, as module.Loader does.
type Modules interface {
	Load(name string) error
	LoadWith(name, params string) error
	Unload(ctx context.Context, name string) error
	ForceUnload(ctx context.Context, name string) error
	File(name string) (string, error)
}

// Reload loads a driver anew, with the parameters that now hold. Nothing is
// unloaded that could not be loaded again, or that is in use.
func Reload(ctx context.Context, r Radio) error {
	if err := r.Prepare(); err != nil {
		return fmt.Errorf("%s is left as it is: %w", r.Name(), err)
	}
	if err := r.Unload(ctx); err != nil {
		return fmt.Errorf("%s is left as it is: %w", r.Name(), err)
	}
	if err := r.Load(ctx); err != nil {
		return fmt.Errorf("%s: %w", r.Name(), err)
	}
	return nil
}

// Step is how far a recovery had to go.
type Step string

// Steps of a recovery.
const (
	Reloaded Step = "reloaded" // the driver
	WasReset Step = "reset"    // the hardware, and the driver reloaded
)

// Recover brings back a radio that does not work: by its driver, and if it does
// not work then, by its hardware. The step is the last that was tried.
func Recover(ctx context.Context, r Radio) (Step, error) {
	if err := r.Prepare(); err != nil {
		return "", fmt.Errorf("%s stays as it is: %w", r.Name(), err)
	}
	first := again(ctx, r)
	if first == nil {
		return Reloaded, nil
	}
	if ctx.Err() != nil {
		return Reloaded, fmt.Errorf("%s: %w", r.Name(), first)
	}
	if err := r.ForceUnload(ctx); err != nil {
		return Reloaded, fmt.Errorf("%s: %w", r.Name(), errors.Join(first, err))
	}
	if err := r.Reset(ctx); err != nil {
		return WasReset, fmt.Errorf("%s: %w", r.Name(), errors.Join(first, err))
	}
	if err := again(ctx, r); err != nil {
		return WasReset, fmt.Errorf("%s: not even after a reset: %w", r.Name(), err)
	}
	return WasReset, nil
}

func again(ctx context.Context, r Radio) error {
	if err := r.ForceUnload(ctx); err != nil {
		return err
	}
	if err := r.Load(ctx); err != nil {
		return err
	}
	return r.Health(ctx)
}
