package wifi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers"
	"halo.internal/drivers/nl80211"
)

// machine is modules and a wireless interface that follow each other, with sysfs
// beside them.
type machine struct {
	t      *testing.T
	sys    string
	loaded bool
	busy   error // what Unload returns
	fails  error // what LoadWith returns
	late   bool  // no radio comes
	abort  error
	survey error
	done   []string
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, sys: t.TempDir()}
	m.put("class/ieee80211/phy7/index", "7")
	m.link("class/ieee80211/phy7/device", "../../../devices/soc/mmc1:0001:1")
	m.put("devices/soc/mmc1:0001:1/driver/x", "")
	m.link("devices/soc/mmc1:0001:1/driver/module", "../../../../module/brcmfmac")
	m.link("devices/soc/mmc1:0001:1/subsystem", "../../../bus/sdio")
	return m
}

func (m *machine) put(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.sys, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) link(name, to string) {
	m.t.Helper()
	path := filepath.Join(m.sys, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(to, path)); err != nil {
		m.t.Fatal(err)
	}
}

// show makes the radio appear, or go, in sysfs.
func (m *machine) show(there bool) {
	m.loaded = there
	if err := os.RemoveAll(filepath.Join(m.sys, "class/ieee80211/phy3")); err != nil {
		m.t.Fatal(err)
	}
	if !there || m.late {
		return
	}
	m.put("class/ieee80211/phy3/index", "3\n")
	m.link("class/ieee80211/phy3/device", "../../../devices/usb1/1-1.2:1.0")
}

func (m *machine) usb() {
	m.put("devices/usb1/1-1.2:1.0/driver/x", "")
	m.link("devices/usb1/1-1.2:1.0/driver/module", "../../../../module/ath9k_htc")
	m.link("devices/usb1/1-1.2:1.0/subsystem", "../../../bus/usb")
	m.put("bus/usb/devices/1-1.2/modalias", "usb:v0CF3p9271\n")
	m.link("bus/usb/devices/1-1.2/driver", "../../drivers/usb")
	m.put("bus/usb/drivers/usb/bind", "")
	m.put("bus/usb/drivers/usb/unbind", "")
}

func (m *machine) say(format string, args ...any) {
	m.done = append(m.done, fmt.Sprintf(format, args...))
}

func (m *machine) Load(name string) error {
	m.say("load %s", name)
	m.show(true)
	return nil
}

func (m *machine) LoadWith(name, params string) error {
	m.say("load %s %s", name, params)
	if m.fails == nil {
		m.show(true)
	}
	return m.fails
}

func (m *machine) Unload(_ context.Context, name string) error {
	m.say("unload %s", name)
	if m.busy == nil {
		m.show(false)
	}
	return m.busy
}

func (m *machine) ForceUnload(_ context.Context, name string) error {
	m.say("force %s", name)
	m.show(false)
	return nil
}

func (m *machine) File(name string) (string, error) { return "/lib/modules/x/" + name + ".ko", nil }

func (m *machine) Wiphys() ([]nl80211.Wiphy, error) {
	all := []nl80211.Wiphy{{Index: 7, Name: "phy7"}}
	if m.loaded && !m.late {
		all = append(all, nl80211.Wiphy{Index: 3, Name: "phy3"})
	}
	return all, nil
}

func (m *machine) InterfacesOf(radio int) ([]nl80211.Interface, error) {
	if radio != 3 {
		m.t.Errorf("radio %d was asked for its interfaces", radio) // it is another driver's, and may hang
	}
	return []nl80211.Interface{{Index: 4, Name: "mesh0", Wiphy: 3}, {Wiphy: 3, Wdev: 9}}, nil
}

func (m *machine) AbortScan(index int) error { m.say("abort %d", index); return m.abort }

func (m *machine) DeleteInterface(index int) error { m.say("delete %d", index); return nil }

func (m *machine) Surveys(int) ([]nl80211.Survey, error) { return nil, m.survey }

func (m *machine) Close() error { return nil }

func (m *machine) driver() *Driver {
	return New(Config{
		Module: "ath9k_htc", Params: "blink=0", Modules: m, Sys: m.sys, Patience: 50 * time.Millisecond,
		Dial: func() (Kernel, error) { return m, nil },
		Wait: func(ctx context.Context, begin func() error, done func() (bool, error)) error {
			if err := begin(); err != nil {
				return err
			}
			if ok, err := done(); !ok {
				<-ctx.Done()
				return errors.Join(ctx.Err(), err)
			}
			return nil
		},
	})
}

func TestLifecycle(t *testing.T) {
	m := newMachine(t)
	m.usb()
	d := m.driver()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.Prepare())
	must(d.Load(t.Context()))
	radios, err := d.Wiphys()
	if err != nil || len(radios) != 1 || radios[0].Name != "phy3" {
		t.Fatalf("radios: %+v, %v", radios, err)
	}
	must(d.Health(t.Context()))
	must(d.ForceUnload(t.Context()))
	// Of the other driver's interface, nothing.
	if want := []string{"load ath9k_htc blink=0", "abort 4", "delete 4", "force ath9k_htc"}; !slices.Equal(m.done, want) {
		t.Errorf("did %q, want %q", m.done, want)
	}
	must(d.Reset(t.Context()))
	for _, f := range []string{"bind", "unbind"} {
		if b, err := os.ReadFile(filepath.Join(m.sys, "bus/usb/drivers/usb", f)); err != nil || string(b) != "1-1.2" {
			t.Errorf("%s: %q, %v", f, b, err)
		}
	}
	step, err := drivers.Recover(t.Context(), d)
	if err != nil || step != drivers.Reloaded {
		t.Errorf("recovery: %s, %v", step, err)
	}
}

// TestWithoutParameters does not mind who has loaded the driver.
func TestWithoutParameters(t *testing.T) {
	m := newMachine(t)
	m.usb()
	d := m.driver()
	d.c.Params = ""
	for range 2 {
		if err := d.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"load ath9k_htc", "load ath9k_htc"}; !slices.Equal(m.done, want) {
		t.Errorf("did %q, want %q", m.done, want)
	}
}

func TestTroubles(t *testing.T) {
	t.Run("no radio comes", func(t *testing.T) {
		m := newMachine(t)
		m.late = true
		if err := m.driver().Load(t.Context()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ath9k_htc is loaded and has no radio") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("does not load", func(t *testing.T) {
		m := newMachine(t)
		m.fails = unix.ENOEXEC
		if err := m.driver().Load(t.Context()); !errors.Is(err, unix.ENOEXEC) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("in use", func(t *testing.T) {
		m := newMachine(t)
		m.usb()
		m.busy = unix.EBUSY
		if err := drivers.Reload(t.Context(), m.driver()); !errors.Is(err, unix.EBUSY) || slices.Contains(m.done, "load ath9k_htc blink=0") {
			t.Errorf("got %v, did %q", err, m.done)
		}
	})
	t.Run("a scan that cannot be given up", func(t *testing.T) {
		m := newMachine(t)
		m.usb()
		m.show(true)
		m.abort = unix.ETIMEDOUT // as firmware says that hangs
		if err := m.driver().ForceUnload(t.Context()); err != nil || !slices.Contains(m.done, "force ath9k_htc") {
			t.Errorf("got %v, did %q", err, m.done)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		m := newMachine(t)
		m.usb()
		m.show(true)
		m.survey = unix.ETIMEDOUT
		if err := m.driver().Health(t.Context()); !errors.Is(err, unix.ETIMEDOUT) || !strings.Contains(err.Error(), "mesh0") {
			t.Errorf("got %v", err)
		}
		m.survey = unix.EOPNOTSUPP
		if err := m.driver().Health(t.Context()); err != nil {
			t.Errorf("no survey: %v", err)
		}
	})
	t.Run("gone", func(t *testing.T) {
		m := newMachine(t)
		if err := m.driver().Health(t.Context()); err == nil || !strings.Contains(err.Error(), "has no radio") {
			t.Errorf("got %v", err)
		}
		if err := m.driver().Reset(t.Context()); !errors.Is(err, drivers.ErrNoReset) {
			t.Errorf("reset: %v", err)
		}
	})
}

func TestRadios(t *testing.T) {
	m := newMachine(t)
	m.usb()
	m.show(true)
	all, err := Radios(m.sys)
	if err != nil || len(all) != 2 {
		t.Fatalf("got %+v, %v", all, err)
	}
	if r := all[0]; r.Index != 3 || r.Module != "ath9k_htc" || r.Device.String() != "usb 1-1.2:1.0" {
		t.Errorf("got %+v", r)
	}
	if r := all[1]; r.Name != "phy7" || r.Module != "brcmfmac" || r.Device.String() != "sdio mmc1:0001:1" {
		t.Errorf("got %+v", r)
	}
	m.put("class/ieee80211/phy9/index", "nine")
	if _, err := Radios(m.sys); err == nil {
		t.Error("an index that is none was taken")
	}
	if none, err := Radios(t.TempDir()); err != nil || none != nil {
		t.Errorf("without cfg80211: %v, %v", none, err)
	}
}
