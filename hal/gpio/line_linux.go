package gpio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// request takes a line, as config says. Whoever has it already is named in the error.
func request(name string, c lineConfig) (*os.File, error) {
	at, err := find(name)
	if err != nil {
		return nil, err
	}
	r := lineRequest{Config: c, Lines: 1}
	r.Offsets[0] = uint32(at.number)
	copy(r.Consumer[:], Consumer)
	err = with(at.chip.path, func(fd uintptr) error { return ioctl(fd, getLine, &r) })
	if errors.Is(err, unix.EBUSY) {
		taken := &TakenError{Line: name}
		if l, err := at.chip.Line(at.number); err == nil {
			taken.By = l.Consumer
		}
		return nil, taken
	}
	if err != nil {
		return nil, fmt.Errorf("gpio line %s: %w", name, err)
	}
	if err := unix.SetNonblock(int(r.FD), true); err != nil { // Go's poller waits for edges
		_ = unix.Close(int(r.FD))
		return nil, fmt.Errorf("gpio line %s: %w", name, err)
	}
	return os.NewFile(uintptr(r.FD), name), nil
}

func configOf(flags uint64, attrs ...configAttribute) lineConfig {
	c := lineConfig{Flags: flags, Attrs: uint32(len(attrs))}
	copy(c.Attr[:], attrs)
	return c
}

func level(high bool) configAttribute {
	v := lineAttribute{ID: attrValues}
	if high {
		v.Value = 1
	}
	return configAttribute{v, 1}
}

// control does an ioctl on a line that is held.
func control[T any](f *os.File, request uintptr, arg *T) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := raw.Control(func(fd uintptr) { done = ioctl(fd, request, arg) }); err != nil {
		return err
	}
	if done != nil {
		return fmt.Errorf("gpio line %s: %w", f.Name(), done)
	}
	return nil
}

// Open finds a line of the board by its name or by chip/number, where the chip is named
// as the kernel counts it (gpiochip0) or by its label (pinctrl-bcm2711). It is not
// touched before it is driven.
func Open(name string) (Line, error) {
	if _, err := find(name); err != nil {
		return nil, err
	}
	return &line{name: name}, nil
}

type line struct {
	name string
	f    *os.File
}

func (l *line) Drive(high bool) error {
	if l.f == nil {
		var err error
		l.f, err = request(l.name, configOf(flagOutput, level(high)))
		return err
	}
	c := configOf(flagOutput, level(high))
	err := control(l.f, setConfig, &c)
	if errors.Is(err, unix.ENODEV) { // its chip was unplugged: another may come by that name
		_ = l.f.Close()
		l.f = nil
	}
	return err
}

func (l *line) Release() error {
	if l.f == nil {
		return nil
	}
	c := configOf(flagInput)
	err := control(l.f, setConfig, &c)
	err = errors.Join(err, l.f.Close())
	l.f = nil
	return err
}

// Drain is a line that is pulled low or let go of, as those of an I2C bus are.
type Drain struct{ f *os.File }

// OpenDrain takes a line and lets go of it.
func OpenDrain(name string) (*Drain, error) {
	f, err := request(name, configOf(flagOutput|flagDrain, level(true)))
	if err != nil {
		return nil, err
	}
	return &Drain{f}, nil
}

// Pull pulls the line low, or lets go of it.
func (d *Drain) Pull(low bool) error {
	v := lineValues{Mask: 1}
	if !low {
		v.Bits = 1
	}
	return control(d.f, setValues, &v)
}

// High tells whether nobody pulls the line low.
func (d *Drain) High() (bool, error) { return high(d.f) }

// Close lets go of the line.
func (d *Drain) Close() error { return d.f.Close() }

func high(f *os.File) (bool, error) {
	v := lineValues{Mask: 1}
	err := control(f, getValues, &v)
	return v.Bits&1 != 0, err
}

// InputOptions say how an input is read.
type InputOptions struct {
	Bias     Bias
	Edges    bool          // Wait tells of both
	Debounce time.Duration // levels that last less are not seen; in the kernel
}

// Input is a line that is read.
type Input struct{ f *os.File }

// OpenInput takes a line as an input.
func OpenInput(name string, o InputOptions) (*Input, error) {
	flags := uint64(flagInput)
	switch o.Bias {
	case PullUp:
		flags |= flagPullUp
	case PullDown:
		flags |= flagPullDown
	case NoBias:
		flags |= flagNoBias
	}
	if o.Edges {
		flags |= flagRising | flagFalling
	}
	var attrs []configAttribute
	if o.Debounce > 0 {
		attrs = append(attrs, configAttribute{lineAttribute{ID: attrDebounce, Value: uint64(uint32(o.Debounce / time.Microsecond))}, 1})
	}
	f, err := request(name, configOf(flags, attrs...))
	if err != nil {
		return nil, err
	}
	return &Input{f}, nil
}

// High tells the level of the line.
func (i *Input) High() (bool, error) { return high(i.f) }

// Wait waits for the next edge, or returns the context's error. An error that is not the
// context's means that the chip is gone.
func (i *Input) Wait(ctx context.Context) (Edge, error) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = i.f.SetReadDeadline(time.Unix(1, 0))
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken
			_ = i.f.SetReadDeadline(time.Time{}) // for the next one
		}
	}()
	if ctx.Err() != nil {
		return Edge{}, ctx.Err()
	}
	var e lineEvent
	b := unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e))
	n, err := i.f.Read(b)
	switch {
	case ctx.Err() != nil:
		return Edge{}, ctx.Err()
	case err != nil:
		return Edge{}, fmt.Errorf("gpio line %s: %w", i.f.Name(), err)
	case n != len(b):
		return Edge{}, fmt.Errorf("gpio line %s: expected an event of %d octets, got %d", i.f.Name(), len(b), n)
	}
	return Edge{Rising: e.ID == 1, Since: time.Duration(e.NS), Number: e.Own}, nil
}

// Close lets go of the line.
func (i *Input) Close() error { return i.f.Close() }
