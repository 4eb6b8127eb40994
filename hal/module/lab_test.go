//go:build lab

package module_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/hal/module"
	"halo.internal/hal/uevent"
	"halo.internal/lab/testvm"
)

// These tests run in the test machine, whose kernel has the driver of its clock
// built in.
func TestMain(m *testing.M) { testvm.Main(m, testvm.Options{}) }

// clock finds the machine's clock (pl031) among the devices of its bus.
func clock(t *testing.T) module.Device {
	t.Helper()
	names, err := filepath.Glob("/sys/bus/amba/devices/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		d := module.Device{Bus: "amba", Name: filepath.Base(n)}
		if driver, err := d.Driver(); err == nil && driver == "rtc-pl031" {
			return d
		}
	}
	t.Fatalf("no clock among %q", names)
	return module.Device{}
}

func clocks() int {
	found, _ := filepath.Glob("/sys/class/rtc/rtc*")
	return len(found)
}

// TestRebindForReal takes a device from its driver and gives it back, and hears of
// both from the kernel.
func TestRebindForReal(t *testing.T) {
	d := clock(t)
	before := clocks()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := uevent.After(ctx, d.Unbind, func() (bool, error) { return clocks() == before-1, nil }); err != nil {
		t.Fatal(err)
	}
	if driver, err := d.Driver(); err != nil || driver != "" {
		t.Errorf("unbound from its driver: %q, %v", driver, err)
	}
	if err := d.Rebind(); err == nil || !strings.Contains(err.Error(), "no driver has it: load its module") {
		t.Errorf("rebind without a driver: %v", err)
	}
	if err := uevent.After(ctx, func() error { return d.Bind("rtc-pl031") }, func() (bool, error) { return clocks() == before, nil }); err != nil {
		t.Fatal(err)
	}
	if err := d.Rebind(); err != nil {
		t.Error(err)
	}
	if driver, err := d.Driver(); err != nil || driver != "rtc-pl031" {
		t.Errorf("after a rebind: %q, %v", driver, err)
	}
	if err := d.Bind("rtc-pl031"); err == nil || !strings.Contains(err.Error(), "the kernel log says why") {
		t.Errorf("bound twice: %v", err)
	}
	ended, end := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer end()
	if err := uevent.After(ended, func() error { return nil }, func() (bool, error) { return false, nil }); err == nil {
		t.Error("what never comes was awaited for longer than allowed")
	}
}

// TestModuleForReal loads a module with a parameter, and one of another kernel.
func TestModuleForReal(t *testing.T) {
	release, err := module.Release()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("/lib/modules", release)
	l, err := module.NewLoader(dir, module.Running{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.LoadWith("dummy", "numdummies=3"); err != nil {
		t.Fatal(err)
	}
	if found, err := filepath.Glob("/sys/class/net/dummy*"); err != nil || len(found) != 3 {
		t.Errorf("interfaces %q, %v, want three", found, err)
	}
	if err := l.Unload(t.Context(), "dummy"); err != nil {
		t.Error(err)
	}
	path, err := l.File("dummy")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b := unsigned(t, signed)
	other := t.TempDir()
	for name, content := range map[string]string{
		"dummy.ko":    strings.Replace(string(b), " mod_unload ", " mod_onload ", 1), // of the release alone the kernel does not mind, where symbols have versions
		"changed.ko":  strings.Replace(string(signed), "numdummies", "xumdummies", 1),
		"modules.dep": "dummy.ko:\nchanged.ko:\n",
	} {
		if err := os.WriteFile(filepath.Join(other, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if l, err = module.NewLoader(other, module.Running{}, nil); err != nil {
		t.Fatal(err)
	}
	err = l.LoadWith("dummy", "numdummies=1")
	if err == nil || !strings.Contains(err.Error(), filepath.Join(other, "dummy.ko")) || !strings.Contains(err.Error(), "it was built for another kernel") {
		t.Errorf("another kernel's: %v", err)
	}
	if err := l.LoadWith("changed", "numdummies=1"); err == nil || !strings.Contains(err.Error(), "its signature is not one of this kernel") {
		t.Errorf("changed after it was signed: %v", err)
	}
}

// unsigned cuts off the signature that Debian's modules end with: of a length that
// is told 32 octets before the end of the file.
func unsigned(t *testing.T, b []byte) []byte {
	t.Helper()
	const mark = "~Module signature appended~\n"
	if !bytes.HasSuffix(b, []byte(mark)) {
		t.Fatal("expected a signed module")
	}
	b = b[:len(b)-len(mark)]
	n := int(binary.BigEndian.Uint32(b[len(b)-4:]))
	return b[:len(b)-12-n]
}
