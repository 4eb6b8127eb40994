package wifi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"halo.internal/hal/module"
)

// Radio is what sysfs tells of a radio: what it is plugged into, and the module
// that drives it.
type Radio struct {
	Index  int           // of the wiphy
	Name   string        // phy0, unless it was renamed
	Device module.Device // its bus is empty for what is on none
	Module string        // as /proc/modules spells it; empty for a driver that is part of the kernel
}

// Radios returns the radios of the machine, below sys (empty for /sys), by name.
func Radios(sys string) ([]Radio, error) {
	root := sys
	if root == "" {
		root = "/sys"
	}
	dir := filepath.Join(root, "class/ieee80211")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // cfg80211 is not loaded
	}
	if err != nil {
		return nil, fmt.Errorf("radios: %w", err)
	}
	var all []Radio
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name(), "index"))
		if err != nil {
			continue // it went meanwhile
		}
		index, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("radio %s: expected its index, got %.20q", e.Name(), b)
		}
		device := filepath.Join(dir, e.Name(), "device")
		r := Radio{Index: index, Name: e.Name(), Device: module.Device{Sys: sys}}
		if to, err := filepath.EvalSymlinks(device); err == nil {
			r.Device.Name = filepath.Base(to)
		}
		if to, err := os.Readlink(filepath.Join(device, "subsystem")); err == nil && filepath.Base(filepath.Dir(to)) == "bus" {
			r.Device.Bus = filepath.Base(to)
		}
		if to, err := os.Readlink(filepath.Join(device, "driver/module")); err == nil {
			r.Module = filepath.Base(to)
		}
		all = append(all, r)
	}
	return all, nil
}
