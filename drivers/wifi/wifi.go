// Package wifi brings up, and back, radios by any of the kernel's own drivers,
// mac80211_hwsim's simulated ones included: which module drives which radio, and
// how to load it anew when a radio hangs.
package wifi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers"
	"halo.internal/drivers/nl80211"
	"halo.internal/hal/module"
	"halo.internal/hal/uevent"
)

// Kernel is what the driver needs of the kernel's wireless interface;
// *nl80211.Conn has it.
type Kernel interface {
	Wiphys() ([]nl80211.Wiphy, error)
	InterfacesOf(radio int) ([]nl80211.Interface, error)
	AbortScan(index int) error
	DeleteInterface(index int) error
	Surveys(index int) ([]nl80211.Survey, error)
	Close() error
}

// Config is one driver.
type Config struct {
	Module  string // as /proc/modules spells it, e.g. ath9k_htc
	Params  string // words key=value
	Modules drivers.Modules
	// Patience bounds each wait for the kernel; zero is 30 s.
	Patience time.Duration

	Sys  string                 // where sysfs is; empty is /sys
	Dial func() (Kernel, error) // nil is nl80211
	Wait Wait                   // nil is uevent.After
}

// Wait begins something and waits until done says that it is there.
type Wait func(ctx context.Context, begin func() error, done func() (bool, error)) error

// Driver is a driver of the kernel's.
type Driver struct {
	c    Config
	seen []module.Device // what its radios were, when there were any
}

var _ drivers.Radio = (*Driver)(nil)

// New returns a driver.
func New(c Config) *Driver {
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	if c.Dial == nil {
		c.Dial = func() (Kernel, error) { return nl80211.Dial(nl80211.Config{}) }
	}
	if c.Wait == nil {
		c.Wait = uevent.After
	}
	return &Driver{c: c}
}

// Name is the module's.
func (d *Driver) Name() string { return "wifi " + d.c.Module }

// Prepare tells whether the module is there. Its firmware the kernel looks for
// itself, by the very chip that it finds; the image's build makes sure of it.
func (d *Driver) Prepare() error {
	_, err := d.c.Modules.File(d.c.Module)
	return err
}

// Load loads the module and waits for a radio. One that is loaded already is an
// error only where it was to have parameters: those that devices ask for, the
// guard loads.
func (d *Driver) Load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.c.Patience)
	defer cancel()
	load := func() error { return d.c.Modules.LoadWith(d.c.Module, d.c.Params) }
	if d.c.Params == "" {
		load = func() error { return d.c.Modules.Load(d.c.Module) }
	}
	err := d.c.Wait(ctx, load, func() (bool, error) {
		all, err := d.Wiphys()
		return len(all) > 0, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s is loaded and has no radio: is one plugged in, and did it get its firmware (the kernel log says)?: %w", d.c.Module, err)
	}
	return err
}

// Unload unloads the module, unless an interface is up.
func (d *Driver) Unload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.c.Patience)
	defer cancel()
	return d.c.Modules.Unload(ctx, d.c.Module)
}

// ForceUnload removes the interfaces and unloads the module. A scan is given up
// first: an interface that goes in the middle of one wedges some firmware.
func (d *Driver) ForceUnload(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.c.Patience)
	defer cancel()
	// Whatever is wrong with the interfaces, the module is to go.
	cleared := d.clear()
	if err := d.c.Modules.ForceUnload(ctx, d.c.Module); err != nil {
		return errors.Join(err, cleared)
	}
	return nil
}

// clear removes all interfaces of the driver's radios.
func (d *Driver) clear() (err error) {
	k, err := d.c.Dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	all, err := d.interfaces(k)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range all {
		// ENOENT is the kernel's word for no scan.
		if err := k.AbortScan(i.Index); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENETDOWN) {
			errs = append(errs, fmt.Errorf("give up the scan of %s: %w", i.Name, err))
		}
		if err := k.DeleteInterface(i.Index); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove %s: %w", i.Name, err))
		}
	}
	return errors.Join(errs...)
}

// interfaces returns the interfaces of the driver's radios. No other driver's radio is
// asked for its own: it may hang.
func (d *Driver) interfaces(k Kernel) ([]nl80211.Interface, error) {
	radios, err := d.of(k)
	if err != nil {
		return nil, err
	}
	var list []nl80211.Interface
	for _, w := range radios {
		all, err := k.InterfacesOf(w.Index)
		if err != nil {
			return list, err
		}
		for _, i := range all {
			if i.Index != 0 {
				list = append(list, i)
			}
		}
	}
	return list, nil
}

// Reset has the kernel configure anew every USB device that the driver has been
// seen with. Of devices on other buses it knows no way.
func (d *Driver) Reset(ctx context.Context) error {
	var errs []error
	found := false
	for _, device := range d.seen {
		if device.Bus != "usb" || ctx.Err() != nil {
			continue
		}
		found = true
		// The driver has an interface, 1-1.2:1.0; the device itself is the usb
		// driver's.
		device.Name, _, _ = strings.Cut(device.Name, ":")
		errs = append(errs, device.Rebind())
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !found {
		return fmt.Errorf("%s: %w: it was seen with no device on USB", d.c.Module, drivers.ErrNoReset)
	}
	return errors.Join(errs...)
}

// Wiphys returns the driver's radios.
func (d *Driver) Wiphys() (list []nl80211.Wiphy, err error) {
	k, err := d.c.Dial()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	return d.of(k)
}

func (d *Driver) of(k Kernel) ([]nl80211.Wiphy, error) {
	radios, err := Radios(d.c.Sys)
	if err != nil {
		return nil, err
	}
	mine := map[int]bool{}
	var seen []module.Device
	for _, r := range radios {
		if r.Module == d.c.Module {
			mine[r.Index] = true
			seen = append(seen, r.Device)
		}
	}
	if seen != nil {
		d.seen = seen
	}
	all, err := k.Wiphys()
	var list []nl80211.Wiphy
	for _, w := range all {
		if mine[w.Index] {
			list = append(list, w)
		}
	}
	return list, err
}

// Health tells whether there is a radio, and whether the driver answers for
// each interface.
func (d *Driver) Health(context.Context) (err error) {
	k, err := d.c.Dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	radios, err := d.of(k)
	if err != nil {
		return err
	}
	if len(radios) == 0 {
		return fmt.Errorf("%s has no radio: it was unplugged, or its driver gave it up (the kernel log says)", d.c.Module)
	}
	all, err := d.interfaces(k)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range all {
		// A survey is asked of the driver itself; many cannot make one, which is
		// an answer too.
		switch _, err := k.Surveys(i.Index); {
		case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENETDOWN):
		default:
			errs = append(errs, fmt.Errorf("%s does not answer on %s: %w", d.c.Module, i.Name, err))
		}
	}
	return errors.Join(errs...)
}

var _ drivers.Modules = (*module.Loader)(nil)
