// Package halow brings up radios by Morse's driver, which is a kernel module from
// outside (dot11ah, morse): only when the firmware and the calibration file for
// this module and country are there, when the law has a place for the mesh's
// channel, and some seconds after the chip is on its bus, since it takes no
// driver before. It computes the driver's parameters, and starts the chip anew by
// its reset line.
//
// No part of it has run on a chip yet: it rests on the published driver and what
// others have found (see README). Its order of calls is tested on stand-ins.
package halow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"halo.internal/drivers"
	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/halow/command"
	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/hal/gpio"
	"halo.internal/hal/module"
	"halo.internal/hal/uevent"
)

// Module is the kernel module of the driver; it depends on lowerModule.
const (
	Module      = "morse"
	lowerModule = "dot11ah"
)

// Firmware is the folder in which the driver looks for its files.
const Firmware = "/lib/firmware/morse"

// Config is the radio of a board in a network.
type Config struct {
	Settings Settings
	Country  string  // of the network, ISO 3166
	Channel  int     // S1G number
	Suffix   [3]byte // last octets of the radio's address where its chip has none; not all zero
	Modules  drivers.Modules

	Firmware string        // folder; empty is Firmware
	Patience time.Duration // bounds each wait for the kernel; zero is 30 s
	Sys      string        // where sysfs is; empty is /sys
	// What tests replace; nil is the real thing.
	Dial  func() (Kernel, error)
	Wait  wifi.Wait
	Line  func(name string) (gpio.Line, error)
	Sleep func(ctx context.Context, d time.Duration) error
}

// Kernel is what the driver needs of the kernel's wireless interface;
// *nl80211.Conn has it.
type Kernel interface {
	wifi.Kernel
	command.Caller
}

// Driver is Morse's driver.
type Driver struct {
	c      Config
	radios *wifi.Driver // for all that is the same with any driver
	params string       // of the last Prepare
	seen   bool         // the chip was on its bus, for long enough
}

var _ drivers.Radio = (*Driver)(nil)

// New returns the driver. Settings that are wrong are an error.
func New(c Config) (*Driver, error) {
	if err := c.Settings.Check(); err != nil {
		return nil, err
	}
	if c.Suffix == [3]byte{} {
		return nil, errors.New("halow: expected three octets of the node's own for the radio's address: with zeroes the driver makes up another at each load")
	}
	if c.Firmware == "" {
		c.Firmware = Firmware
	}
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	if c.Dial == nil {
		c.Dial = func() (Kernel, error) { return nl80211.Dial(nl80211.Config{}) }
	}
	if c.Wait == nil {
		c.Wait = uevent.After
	}
	if c.Line == nil {
		c.Line = gpio.Open
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	d := &Driver{c: c}
	d.radios = d.driver("")
	return d, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// driver is the part that is the same with any driver, with parameters.
func (d *Driver) driver(params string) *wifi.Driver {
	return wifi.New(wifi.Config{
		Module: Module, Params: params, Modules: d.c.Modules, Patience: d.c.Patience,
		Sys: d.c.Sys, Wait: d.c.Wait, Dial: func() (wifi.Kernel, error) { return d.c.Dial() },
	})
}

// Name is the driver's and the chip's.
func (d *Driver) Name() string { return "halow " + d.c.Settings.Chip }

// Legal answers what the law lets the radio do on its channel.
func (d *Driver) Legal() legal.Answer {
	scheme, _ := d.c.Settings.scheme() // New has checked it
	return legal.HaLow(legal.S1G{Country: d.c.Country, Scheme: scheme, Number: d.c.Channel})
}

// Channel is what the kernel is to be asked for so that the radio goes to the
// mesh's channel.
func (d *Driver) Channel() (nl80211.Channel, error) {
	scheme, _ := d.c.Settings.scheme()
	table, err := channel.For(d.c.Country, scheme)
	if err != nil {
		return nl80211.Channel{}, err
	}
	c, err := table.Find(d.c.Channel, 0)
	if err != nil {
		return nl80211.Channel{}, err
	}
	return c.Kernel(c.Primary())
}

func hundredths(db float64) legal.DBm { return legal.DBm(math.Round(db * 100)) }

// Power is what the driver may let the radio send with at its connector: the least
// of what the module can and what the law lets it. The error wraps
// legal.ErrRefused.
func (d *Driver) Power() (legal.DBm, error) {
	s := d.c.Settings
	most := hundredths(s.MaxPowerDBm)
	if most == 0 {
		most = defaultPowerDBm * 100
	}
	answer := d.Legal()
	gain, loss := hundredths(s.GainDB), hundredths(s.LossDB)
	if answer.Allowed {
		most = min(most, answer.MostConducted(gain, loss))
	}
	if err := answer.Check(legal.Station{Conducted: most, Gain: gain, Loss: loss}); err != nil {
		return 0, err
	}
	if most < 0 {
		return 0, fmt.Errorf("%w: with an antenna of %g dBi, less than 1 mW is left on %s in %s: take a smaller one", legal.ErrRefused, s.GainDB, answer.Channel, d.c.Country)
	}
	return most, nil
}

// Prepare checks the law, the modules, the firmware and the calibration file, in
// this order, and computes the driver's parameters.
func (d *Driver) Prepare() error {
	power, err := d.Power()
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name(), err)
	}
	for _, m := range []string{lowerModule, Module} {
		if _, err := d.c.Modules.File(m); err != nil {
			return fmt.Errorf("%s: %w", d.Name(), err)
		}
	}
	region := channel.Region(d.c.Country)
	calibration, err := d.c.Settings.calibration(region)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name(), err)
	}
	if err := checkFirmware(d.c.Firmware, chips[d.c.Settings.Chip].firmware); err != nil {
		return fmt.Errorf("%s: %w", d.Name(), err)
	}
	if err := checkCalibration(d.c.Firmware, calibration, region); err != nil {
		return fmt.Errorf("%s: %w", d.Name(), err)
	}
	d.params = d.parameters(region, calibration, power)
	d.radios = d.driver(d.params)
	return nil
}

// Parameters are those of the driver, as the last Prepare has computed them. With the same
// it has not to be loaded anew, on whatever channel the radio is to be.
func (d *Driver) Parameters() string { return d.params }

// parameters are those of the driver. It saves no power, since a radio that
// sleeps loses frames of the mesh, and keeps to the duty cycle itself.
func (d *Driver) parameters(region, calibration string, power legal.DBm) string {
	s := d.c.Settings
	p := []string{
		"country=" + region,
		"bcf=" + calibration,
		fmt.Sprintf("macaddr_suffix=%02x:%02x:%02x", d.c.Suffix[0], d.c.Suffix[1], d.c.Suffix[2]),
		"enable_ps=0",
		fmt.Sprintf("tx_max_power_mbm=%d", power),
		"enable_auto_duty_cycle=1",
		"enable_auto_mpsw=1",
	}
	if scheme, _ := s.scheme(); scheme != channel.Fixed {
		p = append(p, fmt.Sprintf("channelization_scheme=%d", scheme))
	}
	for _, key := range slices.Sorted(maps.Keys(s.Params)) {
		p = append(p, key+"="+s.Params[key])
	}
	return strings.Join(p, " ")
}

// devices returns the chips on the board's bus.
func (d *Driver) devices() ([]module.Device, error) {
	s := d.c.Settings
	return module.Devices(d.c.Sys, s.Bus, chips[s.Chip].devices[s.Bus])
}

// Load waits for the chip on its bus, gives it its time, loads the driver and
// waits for the radio.
func (d *Driver) Load(ctx context.Context) error {
	if err := d.Prepare(); err != nil {
		return err
	}
	if err := d.await(ctx, func() error { return nil }); err != nil {
		return err
	}
	if !d.seen {
		delay := DefaultDelayS
		if d.c.Settings.DelayS != nil {
			delay = *d.c.Settings.DelayS
		}
		if err := d.c.Sleep(ctx, time.Duration(delay)*time.Second); err != nil {
			return err
		}
		d.seen = true
	}
	return d.radios.Load(ctx)
}

// await waits for the chip on its bus after what begin does.
func (d *Driver) await(ctx context.Context, begin func() error) error {
	ctx, cancel := context.WithTimeout(ctx, d.c.Patience)
	defer cancel()
	err := d.c.Wait(ctx, begin, func() (bool, error) {
		all, err := d.devices()
		return len(all) > 0, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		s := d.c.Settings
		return fmt.Errorf("no %s on %s (%s): are the board's overlay and its reset line right (dtoverlay in config.txt, reset_line), and is it wired?: %w", s.Chip, s.Bus, chips[s.Chip].devices[s.Bus], err)
	}
	return err
}

// Unload unloads the driver, unless an interface of its radio is up.
func (d *Driver) Unload(ctx context.Context) error {
	if err := d.radios.Unload(ctx); err != nil {
		return err
	}
	return d.lower(ctx)
}

// ForceUnload gives up scans, removes the interfaces and unloads the driver.
func (d *Driver) ForceUnload(ctx context.Context) error {
	if err := d.radios.ForceUnload(ctx); err != nil {
		return err
	}
	return d.lower(ctx)
}

// lower unloads what only morse needs.
func (d *Driver) lower(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.c.Patience)
	defer cancel()
	return d.c.Modules.Unload(ctx, lowerModule)
}

// resetTime is how long the reset line is held: five times what Morse's driver
// takes.
const resetTime = 100 * time.Millisecond

// Reset takes the bus from its controller's driver, pulls the chip's reset line,
// and has the controller find the chip anew.
func (d *Driver) Reset(ctx context.Context) error {
	s := d.c.Settings
	if s.ResetLine == "" {
		return fmt.Errorf("%s: %w: the board's [halow] names no reset_line", d.Name(), drivers.ErrNoReset)
	}
	line, err := d.c.Line(s.ResetLine)
	if err != nil {
		return fmt.Errorf("%s: reset: %w", d.Name(), err)
	}
	pulse := func() error { return gpio.Pulse(ctx, line, !s.ActiveHigh, resetTime) }
	d.seen = false
	if s.Host == "" {
		return d.await(ctx, pulse)
	}
	host := s.host(d.c.Sys)
	driver, err := host.Driver()
	if err != nil {
		return fmt.Errorf("%s: reset: %w", d.Name(), err)
	}
	if driver == "" {
		return fmt.Errorf("%s: reset: no driver has the controller %s: load the module for %s", d.Name(), host, host.Modalias())
	}
	return d.await(ctx, func() error {
		if err := host.Unbind(); err != nil {
			return err
		}
		// Whatever the line does, the bus is to come back.
		return errors.Join(pulse(), host.Bind(driver))
	})
}

// Wiphys returns the driver's radios.
func (d *Driver) Wiphys() ([]nl80211.Wiphy, error) { return d.radios.Wiphys() }

// Health asks the firmware, on each interface that is on a channel, whether it
// works, and whether it keeps to the duty cycle that the law wants.
func (d *Driver) Health(ctx context.Context) (err error) {
	if err := d.radios.Health(ctx); err != nil {
		return err
	}
	radios, err := d.radios.Wiphys()
	if err != nil {
		return err
	}
	k, err := d.c.Dial()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	var all []nl80211.Interface
	for _, r := range radios { // others are not asked: they may hang
		of, err := k.InterfacesOf(r.Index)
		if err != nil {
			return err
		}
		all = append(all, of...)
	}
	var errs []error
	for _, i := range all {
		if i.Channel != (nl80211.Channel{}) {
			if err := d.ask(command.Radio{Conn: k, Index: i.Index}); err != nil {
				errs = append(errs, fmt.Errorf("%s, %s: %w", d.Name(), i.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// ask asks the firmware of one interface whether it lives, and has it keep to the
// duty cycle. A command that it refuses, as older ones do those that they do not
// know, is an answer too.
func (d *Driver) ask(r command.Radio) error {
	if err := r.Health(); err != nil && !refused(err) {
		return fmt.Errorf("the firmware does not answer: %w", err)
	}
	want := d.Legal().Duty
	if want == legal.Always {
		return nil
	}
	got, err := r.DutyCycle()
	switch {
	case refused(err): // the account of its airtime bounds it
		return nil
	case err != nil:
		return err
	case legal.DutyCycle(got.Hundredths) <= want:
		return nil
	}
	if err := r.SetDutyCycle(command.DutyCycle{Hundredths: int(want), OmitResponses: got.OmitResponses}); err != nil {
		return fmt.Errorf("%w: the firmware sends for %s of the time, the law lets it for %s, and it cannot be told: %w", legal.ErrRefused, legal.DutyCycle(got.Hundredths), want, err)
	}
	return nil
}

// refused tells that the firmware has answered by a status.
func refused(err error) bool {
	_, ok := errors.AsType[*command.StatusError](err)
	return ok
}
