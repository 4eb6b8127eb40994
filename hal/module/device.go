package module

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Device is a device on a bus by the names that sysfs has: sdio mmc1:0001:1,
// spi spi0.0, usb 1-1.2:1.0.
type Device struct {
	Sys  string // where sysfs is; empty is /sys
	Bus  string
	Name string
}

// String returns e.g. "sdio mmc1:0001:1".
func (d Device) String() string { return d.Bus + " " + d.Name }

func sysfs(sys string) string {
	if sys == "" {
		return "/sys"
	}
	return sys
}

func (d Device) bus() string { return filepath.Join(sysfs(d.Sys), "bus", d.Bus) }

// Exists tells whether the device is there.
func (d Device) Exists() bool {
	_, err := os.Stat(filepath.Join(d.bus(), "devices", d.Name))
	return err == nil
}

// Driver returns the name of the driver that has the device, empty without one.
// The error wraps fs.ErrNotExist when there is no such device.
func (d Device) Driver() (string, error) {
	if !d.Exists() {
		return "", fmt.Errorf("device %s: %w", d, fs.ErrNotExist)
	}
	to, err := os.Readlink(filepath.Join(d.bus(), "devices", d.Name, "driver"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return filepath.Base(to), err
}

// Modalias is what the device asks modules for.
func (d Device) Modalias() string {
	b, err := os.ReadFile(filepath.Join(d.bus(), "devices", d.Name, "modalias"))
	if err != nil {
		return "" // it went meanwhile
	}
	return strings.TrimSpace(string(b))
}

// Bind gives the device to a driver. An error is the driver's: it has tried, and
// failed.
func (d Device) Bind(driver string) error { return d.write("bind", driver) }

// Unbind takes the device from its driver.
func (d Device) Unbind() error {
	driver, err := d.Driver()
	if err != nil || driver == "" {
		return err
	}
	return d.write("unbind", driver)
}

// Rebind takes the device from its driver and gives it back, so that the driver
// begins with it anew. It returns once the driver has, or has failed to.
func (d Device) Rebind() error {
	driver, err := d.Driver()
	if err != nil {
		return err
	}
	if driver == "" {
		what := "its module"
		if a := d.Modalias(); a != "" { // not every bus has them
			what = "the module for " + a
		}
		return fmt.Errorf("rebind %s: no driver has it: load %s", d, what)
	}
	if err := d.write("unbind", driver); err != nil {
		return err
	}
	return d.Bind(driver)
}

// write writes the device's name into a file of the driver, which waits for the
// driver to be done.
func (d Device) write(file, driver string) error {
	path := filepath.Join(d.bus(), "drivers", driver, file)
	// No O_CREAT: a file that is not there means a driver that is not loaded.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %s: driver %s is not there (%s): load its module first: %w", file, d, driver, path, err)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", file, d, err)
	}
	_, err = f.WriteString(d.Name)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s %s, driver %s: %w: the kernel log says why", file, d, driver, err)
	}
	return nil
}

// Devices returns the devices of a bus, below sys, whose modalias matches a
// pattern of depmod's, by name.
func Devices(sys, bus, pattern string) ([]Device, error) {
	entries, err := os.ReadDir(filepath.Join(sysfs(sys), "bus", bus, "devices"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the bus itself is a module
	}
	var all []Device
	for _, e := range entries {
		d := Device{Sys: sys, Bus: bus, Name: e.Name()}
		if Matches(pattern, d.Modalias()) {
			all = append(all, d)
		}
	}
	return all, err
}
