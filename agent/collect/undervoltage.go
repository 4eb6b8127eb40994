package collect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// undervoltageMonitor is the kernel's monitor of the Pi's supply
// (Documentation/hwmon/raspberrypi-hwmon.rst). Debian's kernel does not have it.
const undervoltageMonitor = "rpi_volt"

// undervoltage tells whether the supply is too weak, where the kernel says.
type undervoltage struct{ class string }

func newUndervoltage(root string) undervoltage {
	return undervoltage{filepath.Join(root, "sys/class/hwmon")}
}

func (undervoltage) Name() string { return "undervoltage" }

func (u undervoltage) Collect(context.Context) ([]Reading, error) {
	list, err := os.ReadDir(u.class)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		dir := filepath.Join(u.class, e.Name())
		name, err := os.ReadFile(filepath.Join(dir, "name"))
		if err != nil || strings.TrimSpace(string(name)) != undervoltageMonitor {
			continue // it went meanwhile, or is another
		}
		text, err := os.ReadFile(filepath.Join(dir, "in0_lcrit_alarm"))
		if err != nil {
			return nil, err
		}
		switch s := strings.TrimSpace(string(text)); s {
		case "0", "1":
			r := integer("power.supply.undervoltage", "", 0, int64(s[0]-'0'))
			r.Urgent = s == "1"
			return []Reading{r}, nil
		default:
			return nil, fmt.Errorf("%s: in0_lcrit_alarm: expected 0 or 1, got %.16q", undervoltageMonitor, s)
		}
	}
	return nil, nil
}
