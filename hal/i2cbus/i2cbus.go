// Package i2cbus knows the I2C buses of the machine and talks on them. A bus is one of
// the kernel's adapters; the channels of a multiplexer are buses of their own, whose path
// tells the parent. Each bus has a worker of its own, so that one on which somebody holds
// a line down blocks nobody: whoever waits for it gets an error when the time is over.
//
// Bus is periph's i2c.Bus, so that its drivers and those of drivers/i2c work on it. The
// kernel is asked directly, since periph's own bus keeps the number of an error to
// itself, by which a chip that is not there is told from a bus that is stuck.
package i2cbus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Info is a bus that is there.
type Info struct {
	Number int    // of the kernel, which may be another after the next start
	Name   string // of the adapter: "bcm2835 (i2c@7e804000)"
	Path   string // of its device, the same at each start: fe804000.i2c, and fe804000.i2c/1 for channel 1 of a multiplexer there
	Parent string // path of the bus that the multiplexer is on; empty: it has none

	dir string // in /sys
}

// Places of the kernel.
const (
	Sys = "/sys"
	Dev = "/dev"
)

// Module gives programs the buses, as /dev/i2c-*.
const Module = "i2c-dev"

var (
	adapterForm = regexp.MustCompile(`^i2c-([0-9]{1,9})$`)
	channelForm = regexp.MustCompile(`\(chan_id ([0-9]{1,9})\)`)
	clientForm  = regexp.MustCompile(`^[0-9]+-([0-9a-f]{4})$`)
)

// List returns the buses that are there, by path; sys is where sysfs is.
func List(sys string) ([]Info, error) {
	dir := filepath.Join(sys, "bus/i2c/devices")
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // a kernel without I2C
	}
	if err != nil {
		return nil, err
	}
	var buses []Info
	for _, e := range list {
		m := adapterForm.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		b, err := look(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // it was unplugged just now
		}
		if err != nil {
			return nil, err
		}
		b.Number, _ = strconv.Atoi(m[1]) // the form says that it is one
		buses = append(buses, b)
	}
	slices.SortFunc(buses, func(a, b Info) int { return strings.Compare(a.Path, b.Path) })
	return buses, nil
}

func look(link string) (Info, error) {
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return Info{}, err
	}
	name, err := adapterName(dir)
	if err != nil {
		return Info{}, err
	}
	b := Info{Name: name, dir: dir}
	b.Path, b.Parent = pathOf(dir, name, 0)
	return b, nil
}

func adapterName(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "name"))
	return strings.TrimSpace(string(b)), err
}

const maxMultiplexers = 4 // one behind another

// pathOf names a bus by its controller, and by the channels on the way to it: numbers of
// buses depend on which driver was there first.
func pathOf(dir, name string, depth int) (path, parent string) {
	up := filepath.Dir(dir)
	m := channelForm.FindStringSubmatch(name)
	if m == nil || depth == maxMultiplexers {
		return filepath.Base(up), ""
	}
	// A multiplexer that is a chip has a folder of its own between the buses.
	for range 2 {
		if adapterForm.MatchString(filepath.Base(up)) {
			if of, err := adapterName(up); err == nil {
				parent, _ = pathOf(up, of, depth+1)
				return parent + "/" + m[1], parent
			}
		}
		up = filepath.Dir(up)
	}
	return filepath.Base(filepath.Dir(dir)) + "/" + m[1], ""
}

// InUse returns the addresses of a bus to which a driver of the kernel is bound, and the
// drivers' names: nothing may be sent there.
func (b Info) InUse() (map[uint16]string, error) {
	list, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("i2c bus %s: %w", b.Path, err)
	}
	used := map[uint16]string{}
	for _, e := range list {
		m := clientForm.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		driver, err := os.Readlink(filepath.Join(b.dir, e.Name(), "driver"))
		if err != nil {
			continue // named in the device tree, and nobody has taken it
		}
		if addr, err := strconv.ParseUint(m[1], 16, 16); err == nil {
			used[uint16(addr)] = filepath.Base(driver)
		}
	}
	return used, nil
}

// KHz is the bus's clock as the device tree says; 0: it does not.
func (b Info) KHz() int {
	f, err := os.ReadFile(filepath.Join(b.dir, "of_node/clock-frequency"))
	if err != nil || len(f) != 4 {
		return 0
	}
	return int(uint32(f[0])<<24|uint32(f[1])<<16|uint32(f[2])<<8|uint32(f[3])) / 1000
}

// Kind is what went wrong in a transaction.
type Kind string

// Kinds of errors. A Kind is an error, for errors.Is.
const (
	NAK         Kind = "no chip has acknowledged"
	Timeout     Kind = "the bus did not finish in time"
	Stuck       Kind = "the bus is stuck: somebody holds a line down, or its driver hangs"
	Arbitration Kind = "another controller has the bus"
	Protocol    Kind = "what came is against the bus's rules"
	Unable      Kind = "the bus cannot do such a transaction"
	Gone        Kind = "the bus is gone"
	Failed      Kind = "the bus failed"
)

func (k Kind) Error() string { return string(k) }

// Error is a transaction that failed.
type Error struct {
	Bus  string // path
	Addr uint16
	Kind Kind
	Err  error // of the kernel, if it said something
}

func (e *Error) Error() string {
	s := fmt.Sprintf("i2c bus %s, address %#02x: %s", e.Bus, e.Addr, e.Kind)
	if e.Err != nil {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

// Unwrap returns kind and cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// kindOf sorts the kernel's errors (Documentation/i2c/fault-codes.rst); EREMOTEIO is what
// i2c-bcm2835 says where nobody acknowledges.
func kindOf(err error) Kind {
	for _, k := range []struct {
		kind Kind
		errs []syscall.Errno
	}{
		{NAK, []syscall.Errno{syscall.ENXIO, syscall.EREMOTEIO}},
		{Timeout, []syscall.Errno{syscall.ETIMEDOUT, syscall.ETIME}},
		{Stuck, []syscall.Errno{syscall.EBUSY}},
		{Arbitration, []syscall.Errno{syscall.EAGAIN}},
		{Protocol, []syscall.Errno{syscall.EPROTO, syscall.EBADMSG}},
		{Unable, []syscall.Errno{syscall.EOPNOTSUPP, syscall.EINVAL}},
		{Gone, []syscall.Errno{syscall.ENODEV, syscall.ENOENT, syscall.ESHUTDOWN}},
	} {
		for _, e := range k.errs {
			if errors.Is(err, e) {
				return k.kind
			}
		}
	}
	return Failed
}

// Defaults of Options.
const (
	DefaultTimeout = 2 * time.Second // of a transaction
	maxLength      = 8192            // octets of a message: i2c-dev takes no more
)
