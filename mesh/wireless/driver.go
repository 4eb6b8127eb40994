package wireless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"halo.internal/drivers"
	"halo.internal/drivers/halow"
	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/hal/module"
	"halo.internal/model"
)

// Kinds of events of drivers.
const (
	EventDriverLoaded    = "mesh.driver.loaded"    // field driver: of HaLow, there is a radio
	EventDriverRefused   = "mesh.driver.refused"   // fields driver, reason: it is not loaded
	EventDriverFailed    = "mesh.driver.failed"    // fields driver, reason
	EventDriverRecovered = "mesh.driver.recovered" // fields driver, step, reason
	EventDriverHangs     = "mesh.driver.hangs"     // fields driver, reason: nothing but a restart of the machine helps
)

// Times and bounds of drivers.
const (
	againFirst   = time.Minute      // between two attempts with a driver that was never there; it doubles
	againLast    = 30 * time.Minute // and this is the most, for as long as it takes
	mostSettings = 64 << 10
)

// halowDriver is drivers/halow's.
type halowDriver interface {
	drivers.Radio
	Parameters() string
	Legal() legal.Answer
	Channel() (nl80211.Channel, error)
	Power() (legal.DBm, error)
}

var _ halowDriver = (*halow.Driver)(nil)

// readHaLow returns the driver of the board's HaLow radio, or nil for a board
// without one.
func (w *Wireless) readHaLow() (halowDriver, error) {
	f, err := os.Open(w.c.HaLow)
	if errors.Is(err, fs.ErrNotExist) || w.c.HaLow == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostSettings))
	if err != nil {
		return nil, err
	}
	s, err := halow.ParseSettings(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: write the card anew with a board file that is right", w.c.HaLow, err)
	}
	if err := w.settle(&s); err != nil {
		return nil, err
	}
	modules, err := w.modulesFor(w.halowModule)
	if err != nil {
		return nil, err
	}
	return halow.New(halow.Config{Settings: s, Country: w.c.Country, Channel: w.profile().HaLowChannel, Suffix: w.c.Suffix, Modules: modules})
}

// settle brings the board's numbering of channels together with the mesh's, on
// which all members have to agree.
func (w *Wireless) settle(s *halow.Settings) error {
	m := w.profile()
	if m.HaLowChannel == 0 {
		return errors.New("the mesh has no channel for HaLow: name one in the bundle (mesh.halow_channel; halo-image bundle new --halow-channel)")
	}
	scheme, err := channel.ParseScheme(m.HaLowScheme)
	if err != nil {
		return err
	}
	if _, err := channel.For(w.c.Country, scheme); err != nil {
		return fmt.Errorf("country or mesh.halow_scheme of the bundle: %w", err)
	}
	if s.Scheme == "" {
		s.Scheme = m.HaLowScheme
	}
	if m.HaLowScheme != "" && s.Scheme != m.HaLowScheme {
		return fmt.Errorf("the board numbers channels by %s (halow.scheme), the mesh by %s (mesh.halow_scheme): change one of them", s.Scheme, m.HaLowScheme)
	}
	return nil
}

// loader loads the modules of the running kernel, with the parameters that the
// guard gives them.
func loader() (drivers.Modules, error) {
	return module.Own()
}

// isHaLow tells whether Morse's driver has a radio.
func (w *Wireless) isHaLow(wiphy int) (bool, error) {
	all, err := w.sysfs()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(r wifi.Radio) bool { return r.Index == wiphy && r.Module == w.halowModule }), nil
}

// driverIs says why there is no radio of the HaLow driver; empty: there is one.
func (w *Wireless) driverIs(detail string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.absent = detail
}

// absentRadio is the board's HaLow radio while its driver is not up.
func (w *Wireless) absentRadio() (model.Radio, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := "halow"
	if w.halow != nil {
		name = w.halow.Name()
	}
	return model.Radio{Name: name, Absent: true, Detail: w.absent, Peers: []model.RadioPeer{}}, w.absent != ""
}

// setUpHaLow reads what the board has. What is in its files refuses it for good, since
// neither the board's settings nor the bundle change while the process runs; unread tells
// that one of them could not be read, which may pass.
func (w *Wireless) setUpHaLow() (d halowDriver, unread bool) {
	d, err := w.newHaLow()
	if err != nil {
		before, _ := w.absentRadio()
		w.driverIs("refused: " + err.Error())
		if now, _ := w.absentRadio(); now.Detail != before.Detail {
			w.notify(EventDriverRefused, model.Error, "HaLow stays off: "+err.Error(), "driver", "halow", "reason", err.Error())
		}
		var file *fs.PathError
		return nil, errors.As(err, &file)
	}
	if d == nil {
		w.driverIs("")
		return nil, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.halow, w.absent = d, "driver loading"
	if duty := d.Legal().Duty; duty < legal.Always && w.meter == nil { // a second Run forgets nothing
		w.meter = newMeter(duty, time.Now())
	}
	return d, false
}

// awaitHaLow is setUpHaLow once more, ever more rarely, while a file cannot be read.
func (w *Wireless) awaitHaLow(ctx context.Context) halowDriver {
	for wait := w.again; w.sleep(ctx, wait); wait = min(2*wait, againLast) {
		if d, unread := w.setUpHaLow(); !unread {
			return d
		}
	}
	return nil
}

// stays tells whether the driver is there as it is to be: on another channel too, that is
// for the radio to go to. So a switch of the mesh, or a look for it elsewhere, loads it
// anew only where the law or the numbering is another there.
func (w *Wireless) stays(d halowDriver) bool {
	w.mu.Lock()
	loaded := w.loaded
	w.mu.Unlock()
	if loaded == "" || d.Prepare() != nil || d.Parameters() != loaded {
		return false
	}
	radios, err := d.Wiphys()
	return err == nil && len(radios) > 0
}

// isStaying is stays for a driver that may hang.
func (w *Wireless) isStaying(ctx context.Context, d halowDriver) bool {
	if w.hangs(d.Name()) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, clearWait)
	defer cancel()
	stays := make(chan bool, 1)
	return w.apart(ctx, d.Name(), func() { stays <- w.stays(d) }) && <-stays
}

// isLoaded notes with which parameters the driver is loaded.
func (w *Wireless) isLoaded(params string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loaded = params
}

// clear unloads a driver that an earlier process has loaded, or this one with other
// parameters, before its radio joins again. What it has sent, counts. One that hangs holds
// the other radios up no longer than clearWait, and not at all where it is known to hang.
func (w *Wireless) clear(ctx context.Context, d halowDriver) {
	w.isLoaded("")
	err := errHangs
	if !w.hangs(d.Name()) {
		ended := make(chan error, 1)
		ctx, cancel := context.WithTimeout(ctx, clearWait)
		defer cancel()
		if w.apart(ctx, d.Name(), func() {
			defer w.tellHang(d.Name(), "it was loaded before, and is to go", true).Stop()
			w.measure()
			ended <- d.ForceUnload(ctx)
		}) {
			err = <-ended
		}
	}
	if err != nil {
		w.isStale(fmt.Errorf("%s was loaded before, and does not go: %w", d.Name(), err))
	}
}

// errHangs is of a driver that nobody can end.
var errHangs = errors.New("it hangs in the kernel: only a restart of the machine may help")

func (w *Wireless) isStale(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale = err
}

// driveHaLow loads the driver, unless it is there, and has it kept going.
func (w *Wireless) driveHaLow(ctx context.Context, d halowDriver, stays bool) {
	if stays {
		w.driverIs("")
	}
	if stays || w.bringUp(ctx, d) {
		w.tend(d, nil)
	}
}

// bringUp loads the driver, ever more rarely until there is a radio. What is
// refused may be a file that cannot be read just now.
func (w *Wireless) bringUp(ctx context.Context, d halowDriver) bool {
	if w.hangs(d.Name()) {
		w.driverIs("driver failed: " + errHangs.Error()) // until it lets go
	}
	told := ""
	for try, wait := 0, w.again; ; try, wait = try+1, min(2*wait, againLast) {
		kind, word := EventDriverRefused, "refused"
		err := d.Prepare()
		if err == nil {
			kind, word = EventDriverFailed, "driver failed"
			ended := make(chan error, 1)
			if !w.apart(ctx, d.Name(), func() {
				defer w.tellHang(d.Name(), "it is loaded", true).Stop()
				ended <- load(ctx, d, try)
			}) {
				return false
			}
			err = <-ended
		}
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			w.driverIs("")
			w.isStale(nil)
			w.isLoaded(d.Parameters())
			w.notify(EventDriverLoaded, model.Info, d.Name()+" is there", "driver", d.Name())
			return true
		}
		w.driverIs(word + ": " + err.Error())
		if err.Error() != told {
			told = err.Error()
			w.notify(kind, model.Error, d.Name()+" is not there, and is tried again: "+told, "driver", d.Name(), "reason", told)
		}
		if !w.sleep(ctx, wait) {
			return false
		}
	}
}

// load loads the driver; after a first failure it goes by the hardware too.
func load(ctx context.Context, d halowDriver, try int) error {
	if try == 0 {
		return d.Load(ctx)
	}
	_, err := drivers.Recover(ctx, d)
	return err
}

// sleep returns false when ctx ends first.
func (w *Wireless) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
