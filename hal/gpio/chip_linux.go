package gpio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's character device, version 2: include/uapi/linux/gpio.h. periph's driver of
// it looks at chips once, so that one that is plugged in later is never seen, and tells
// nobody who has a line.

const (
	getChipInfo = 0x8044b401
	getLineInfo = 0xc100b405
	getLine     = 0xc250b407
	setConfig   = 0xc110b40d
	getValues   = 0xc010b40e
	setValues   = 0xc010b40f
)

const (
	flagUsed     = 1 << 0
	flagInput    = 1 << 2
	flagOutput   = 1 << 3
	flagRising   = 1 << 4
	flagFalling  = 1 << 5
	flagDrain    = 1 << 6
	flagPullUp   = 1 << 8
	flagPullDown = 1 << 9
	flagNoBias   = 1 << 10

	attrValues   = 2
	attrDebounce = 3
)

type chipInfo struct {
	Name, Label [32]byte
	Lines       uint32
}

type lineAttribute struct {
	ID, _ uint32
	Value uint64
}

type lineInfo struct {
	Name, Consumer [32]byte
	Offset, Attrs  uint32
	Flags          uint64
	Attr           [10]lineAttribute
	_              [4]uint32
}

type configAttribute struct {
	lineAttribute
	Mask uint64
}

type lineConfig struct {
	Flags uint64
	Attrs uint32
	_     [5]uint32
	Attr  [10]configAttribute
}

type lineRequest struct {
	Offsets         [64]uint32
	Consumer        [32]byte
	Config          lineConfig
	Lines, EventBuf uint32
	_               [5]uint32
	FD              int32
}

type lineValues struct{ Bits, Mask uint64 }

type lineEvent struct {
	NS                   uint64
	ID, Offset, Seq, Own uint32
	_                    [6]uint32
}

func ioctl[T any](fd uintptr, request uintptr, arg *T) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(arg))); e != 0 {
		return e
	}
	return nil
}

func text(b [32]byte) string { return unix.ByteSliceToString(b[:]) }

// Chip is one chip with lines.
type Chip struct {
	Name  string // gpiochip0
	Label string // pinctrl-bcm2711
	Lines int
	path  string
}

// LineInfo is what the kernel says of a line.
type LineInfo struct {
	Chip     string // its name
	Number   int
	Name     string // in the device tree; empty: it has none
	Used     bool
	Consumer string // who uses it, if it said so
	Output   bool
}

// Dev is where the kernel has the chips.
const Dev = "/dev"

// Chips returns the chips that are there now: they may come and go.
func Chips() ([]Chip, error) {
	paths, err := filepath.Glob(filepath.Join(Dev, "gpiochip*"))
	if err != nil {
		return nil, err
	}
	var chips []Chip
	for _, p := range paths {
		var info chipInfo
		if err := with(p, func(fd uintptr) error { return ioctl(fd, getChipInfo, &info) }); err != nil {
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				continue // it was unplugged just now
			}
			return nil, fmt.Errorf("gpio chip %s: %w", p, err)
		}
		chips = append(chips, Chip{text(info.Name), text(info.Label), int(info.Lines), p})
	}
	return chips, nil
}

func with(path string, do func(fd uintptr) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f.Fd())
}

// Line returns what the kernel says of a line of the chip.
func (c Chip) Line(number int) (LineInfo, error) {
	info := lineInfo{Offset: uint32(number)}
	if err := with(c.path, func(fd uintptr) error { return ioctl(fd, getLineInfo, &info) }); err != nil {
		return LineInfo{}, fmt.Errorf("gpio line %s/%d: %w", c.Name, number, err)
	}
	return LineInfo{c.Name, number, text(info.Name), info.Flags&flagUsed != 0, text(info.Consumer), info.Flags&flagOutput != 0}, nil
}

type place struct {
	chip   Chip
	number int
}

// find looks for a line by its name, or by chip and number.
func find(name string) (place, error) {
	all, err := Chips()
	if err != nil {
		return place{}, err
	}
	chip, number, byNumber := strings.Cut(name, "/")
	var found []place
	for _, c := range all {
		if byNumber {
			if n, err := strconv.Atoi(number); err == nil && n >= 0 && n < c.Lines && (chip == c.Name || chip == c.Label) {
				found = append(found, place{c, n})
			}
			continue
		}
		for n := range c.Lines {
			if l, err := c.Line(n); err == nil && l.Name == name {
				found = append(found, place{c, n})
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return place{}, fmt.Errorf("gpio line %s: there is none of that name on %s: name it as the device tree does, or by chip and number as in gpiochip0/17", name, describe(all))
	}
	return place{}, fmt.Errorf("gpio line %s: %d lines are called that: name it by chip and number as in gpiochip0/17", name, len(found))
}

func describe(chips []Chip) string {
	if len(chips) == 0 {
		return "a board without gpio chips"
	}
	var names []string
	for _, c := range chips {
		names = append(names, fmt.Sprintf("%s (%s, %d lines)", c.Name, c.Label, c.Lines))
	}
	return strings.Join(names, ", ")
}
