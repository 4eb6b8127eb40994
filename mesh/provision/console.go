package provision

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// consolePatience is how long a console may take for a line: a serial port whose
// other end holds it up must not hold up the device.
const consolePatience = 2 * time.Second

// consoles is all of them, written to at once.
type consoles []*os.File

// Consoles opens each console that the kernel writes to, as the file active
// (/sys/class/tty/console/active) lists them: whoever stands before the device
// sees the screen or the serial port, and /dev/console is but one of the two.
// One that can't be opened does not matter while another can.
func Consoles(active, dev string) (io.WriteCloser, error) {
	b, err := os.ReadFile(active)
	names := strings.Fields(string(b))
	if err != nil || len(names) == 0 {
		names = []string{"console"} // the one that always is there
	}
	var open consoles
	var errs []error
	for _, n := range names {
		// A serial port without carrier would keep the open waiting.
		f, err := os.OpenFile(filepath.Join(dev, filepath.Base(n)), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		open = append(open, f)
	}
	if len(open) == 0 {
		return nil, fmt.Errorf("expected one of the consoles %s: %w", strings.Join(names, ", "), errors.Join(errs...))
	}
	return open, nil
}

// Write fails when no console took all of it.
func (c consoles) Write(b []byte) (int, error) {
	var errs []error
	for _, f := range c {
		_ = f.SetWriteDeadline(time.Now().Add(consolePatience)) // what can't have one does not block
		if _, err := f.Write(b); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == len(c) {
		return 0, errors.Join(errs...)
	}
	return len(b), nil
}

// Close closes all.
func (c consoles) Close() error {
	var errs []error
	for _, f := range c {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
