// Package pwm drives pulse-width outputs of the kernel's (Documentation/driver-api/pwm.rst):
// fans, dimmers, servos. A chip is named by its device, since the kernel numbers chips in
// the order of their drivers.
package pwm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Sys is where sysfs is on a board.
const Sys = "/sys"

// Channel is one output of a chip.
type Channel struct {
	dir    string
	name   string
	period int64 // ns
}

// Open takes a channel of the chip whose device has that name, such as fe20c800.pwm, at
// hz pulses a second. It stays as it was until Set.
func Open(sys, device string, channel int, hz float64) (*Channel, error) {
	chip, err := find(sys, device)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("pwm %s/%d", device, channel)
	if !(hz > 0 && hz <= 1e7) {
		return nil, fmt.Errorf("%s: expected more than 0 and at most 10 MHz, got %v Hz", name, hz)
	}
	c := &Channel{filepath.Join(chip, fmt.Sprintf("pwm%d", channel)), name, int64(1e9 / hz)}
	if _, err := os.Stat(c.dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(filepath.Join(chip, "export"), []byte(strconv.Itoa(channel)), 0o600); err != nil {
			return nil, fmt.Errorf("%s: the chip does not give the channel: %w", name, err)
		}
	}
	return c, nil
}

func find(sys, device string) (string, error) {
	class := filepath.Join(sys, "class/pwm")
	list, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var there []string
	for _, e := range list {
		to, err := filepath.EvalSymlinks(filepath.Join(class, e.Name(), "device"))
		if err != nil {
			continue // it went meanwhile
		}
		if filepath.Base(to) == device {
			return filepath.Join(class, e.Name()), nil
		}
		there = append(there, filepath.Base(to))
	}
	if there == nil {
		return "", fmt.Errorf("pwm chip %s: the kernel has none: the device tree must enable it, and its module be loaded", device)
	}
	return "", fmt.Errorf("pwm chip %s: expected one of %s", device, strings.Join(there, ", "))
}

// Set has the output be high for that part of the time, 0 to 1.
func (c *Channel) Set(part float64) error {
	if !(part >= 0 && part <= 1) {
		return fmt.Errorf("%s: expected 0 to 1, got %v", c.name, part)
	}
	duty := int64(float64(c.period) * part)
	now, err := c.read("duty_cycle")
	if err != nil {
		return err
	}
	// The kernel refuses a pulse that is longer than its period, also for a moment.
	if now > c.period {
		if err := c.write("duty_cycle", 0); err != nil {
			return err
		}
	}
	return errors.Join(c.write("period", c.period), c.write("duty_cycle", duty), c.write("enable", 1))
}

// Close ends the pulses, and leaves the channel to others.
func (c *Channel) Close() error {
	chip, n := filepath.Split(c.dir)
	return errors.Join(c.write("enable", 0), os.WriteFile(filepath.Join(chip, "unexport"), []byte(strings.TrimPrefix(n, "pwm")), 0o600))
}

func (c *Channel) read(file string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.name, err)
	}
	v, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %s: expected a number, got %.32q", c.name, file, b)
	}
	return v, nil
}

func (c *Channel) write(file string, v int64) error {
	f, err := os.OpenFile(filepath.Join(c.dir, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	_, err = f.WriteString(strconv.FormatInt(v, 10))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%s: set %s to %d: %w", c.name, file, v, err)
	}
	return nil
}
