// Package bus is what is wired to a virtual machine: chips on I2C buses, lines of a
// GPIO chip and a GPS receiver on a USB adapter, all played on the host. The machine
// has virtio controllers for them (package vhost), so that its kernel, periph and
// HALO meet them as they meet those of a board, and whoever runs the machine sets what
// is measured, presses buttons, pulls cables out and lets chips fail.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"

	"halo.internal/lab/bus/nmea"
	"halo.internal/lab/bus/vhost"
	"halo.internal/lab/machine"
)

// Board is everything that is wired to one machine. It keeps its state while the
// machine starts again.
type Board struct {
	I2C  []*I2C
	GPIO *GPIO          // nil: none
	GPS  *nmea.Receiver // nil: none

	log  *slog.Logger
	life context.Context
	end  context.CancelFunc
	runs sync.WaitGroup
}

// Layout says what is wired to a machine.
type Layout struct {
	I2C   [][]Wired // by bus
	Lines []string  // names of the lines of its GPIO chip
	GPS   bool
}

// Wired is a chip on a bus.
type Wired struct {
	Kind string // of Kinds
	Addr uint16 // 0: the kind's usual one
}

// Default is what `halo-lab up` wires: a chip of each sort that boards are used with.
func Default() Layout {
	return Layout{
		I2C: [][]Wired{{
			{Kind: "bme280"}, {Kind: "ina219"}, {Kind: "ina226", Addr: 0x45}, {Kind: "lm75"}, {Kind: "bh1750"}, {Kind: "mpu6050"}, {Kind: "ssd1306"},
		}},
		Lines: []string{"BUTTON", "DOOR", "RELAY", "LED"},
		GPS:   true,
	}
}

// New wires a board.
func New(l Layout, log *slog.Logger) (*Board, error) {
	b := &Board{log: log}
	b.life, b.end = context.WithCancel(context.Background())
	for i, list := range l.I2C {
		x := newI2C(i)
		for _, w := range list {
			if err := x.add(w); err != nil {
				return nil, err
			}
		}
		b.I2C = append(b.I2C, x)
	}
	if len(l.Lines) > 0 {
		g, err := newGPIO(l.Lines)
		if err != nil {
			return nil, err
		}
		b.GPIO = g
	}
	if l.GPS {
		b.GPS = nmea.New()
	}
	return b, nil
}

// Parts are the machine's devices by which it reaches all that.
func (b *Board) Parts() []machine.Part {
	var parts []machine.Part
	virtio := func(device string, serve func(ctx context.Context, conn net.Conn) error) {
		parts = append(parts, machine.Part{Device: device, Shared: true, Plug: func(conn net.Conn) error {
			return b.run(conn, func(ctx context.Context) error { return serve(ctx, conn) })
		}})
	}
	for _, x := range b.I2C {
		virtio("vhost-user-i2c-pci", func(ctx context.Context, conn net.Conn) error {
			return vhost.Serve(ctx, conn, &i2cSession{bus: x}, b.log)
		})
	}
	if b.GPIO != nil {
		virtio("vhost-user-gpio-pci", func(ctx context.Context, conn net.Conn) error {
			s := b.GPIO.session()
			defer b.GPIO.float(s) // nobody drives the lines any more
			return vhost.Serve(ctx, conn, s, b.log)
		})
	}
	if b.GPS != nil {
		// A serial port of the board would have to be named to halo-agent; on USB, it looks
		// for a receiver by itself.
		parts = append(parts, machine.Part{Device: "usb-serial,bus=usb.0", Bus: "qemu-xhci,id=usb", Plug: func(conn net.Conn) error {
			return b.run(conn, func(ctx context.Context) error { return b.GPS.Serve(ctx, conn) })
		}})
	}
	return parts
}

// run serves a connection until it, or the board, ends.
func (b *Board) run(conn net.Conn, serve func(context.Context) error) error {
	if b.life.Err() != nil {
		return errors.Join(errors.New("the board is closed"), conn.Close())
	}
	b.runs.Go(func() {
		if err := serve(b.life); err != nil {
			b.log.Warn("a virtual device ended", "err", err)
		}
	})
	return nil
}

// LosePower lets all chips forget their settings, as with the machine's power.
func (b *Board) LosePower() {
	for _, x := range b.I2C {
		x.losePower()
	}
}

// Close ends everything that is served.
func (b *Board) Close() {
	b.end()
	b.runs.Wait()
}

// Change is one thing that happens to a board's devices: to one of them.
type Change struct {
	Chip *ChipChange  `json:"chip,omitempty"`
	Bus  *BusChange   `json:"bus,omitempty"`
	Line *LineChange  `json:"line,omitempty"`
	GPS  *nmea.Change `json:"gps,omitempty"`
}

// ChipChange is of a chip, which is named by its kind where there is one of it, and
// otherwise as kind@address or kind@bus/address: ina219@0x41. What is not there stays
// as it is.
type ChipChange struct {
	Chip    string             `json:"chip"`
	Values  map[string]float64 `json:"values,omitempty"`
	Plugged *bool              `json:"plugged,omitempty" doc:"false: its cable is pulled out; it forgets its settings"`
	Fault   *Fault             `json:"fault,omitempty"`
}

// BusChange is of a whole I2C bus.
type BusChange struct {
	Bus   int   `json:"bus"`
	Stuck *bool `json:"stuck,omitempty" doc:"no transaction gets an answer, until it is false again; those then fail"`
	Lose  *int  `json:"lose,omitempty" doc:"so many transactions fail, as by noise"`
}

// LineChange is of a line that the machine does not drive.
type LineChange struct {
	Line string `json:"line"`
	High bool   `json:"high"`
}

// Apply makes a change.
func (b *Board) Apply(c Change) error {
	switch {
	case c.Chip != nil:
		x, chip, err := b.find(c.Chip.Chip)
		if err != nil {
			return err
		}
		return x.change(chip, *c.Chip)
	case c.Bus != nil:
		if c.Bus.Bus < 0 || c.Bus.Bus >= len(b.I2C) {
			return fmt.Errorf("expected an I2C bus from 0 to %d, got %d", len(b.I2C)-1, c.Bus.Bus)
		}
		b.I2C[c.Bus.Bus].disturb(*c.Bus)
		return nil
	case c.Line != nil:
		if b.GPIO == nil {
			return errors.New("the machine has no GPIO lines")
		}
		return b.GPIO.Set(c.Line.Line, c.Line.High)
	case c.GPS != nil:
		if b.GPS == nil {
			return errors.New("the machine has no GPS receiver")
		}
		return b.GPS.Apply(*c.GPS)
	}
	return errors.New("expected a change of a chip, a bus, a line or the GPS receiver, got none")
}

// find finds a chip by what people call it.
func (b *Board) find(name string) (*I2C, *part, error) {
	var at *I2C
	var found *part
	var names []string
	for _, x := range b.I2C {
		for _, p := range x.parts {
			names = append(names, p.name(x.number))
			if name != p.kind.name && name != fmt.Sprintf("%s@%#02x", p.kind.name, p.addr) && name != p.name(x.number) {
				continue
			}
			if found != nil {
				return nil, nil, fmt.Errorf("there are several %s: expected one of %s", name, strings.Join(names, ", "))
			}
			at, found = x, p
		}
	}
	if found == nil {
		return nil, nil, fmt.Errorf("no such chip: expected one of %s, got %.40q", strings.Join(names, ", "), name)
	}
	return at, found, nil
}

// Status is what is known of a board.
type Status struct {
	Chips []ChipStatus `json:"chips,omitempty"`
	Buses []BusStatus  `json:"buses,omitempty"`
	Lines []LineStatus `json:"lines,omitempty"`
	GPS   *nmea.Status `json:"gps,omitempty"`
}

// ChipStatus is what is known of a chip.
type ChipStatus struct {
	Name         string  `json:"name" doc:"kind@bus/address"`
	Kind         string  `json:"kind"`
	Bus          int     `json:"bus"`
	Addr         uint16  `json:"addr"`
	Values       []Value `json:"values,omitempty"`
	Plugged      bool    `json:"plugged"`
	Fault        Fault   `json:"fault,omitzero"`
	Transactions int     `json:"transactions"`
	// Picture is what a display shows: lines of Braille patterns, two dots wide and four high.
	Picture []string `json:"picture,omitempty"`
}

// Value is what a chip measures at present.
type Value struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Number float64 `json:"number"`
}

// BusStatus is what is known of an I2C bus.
type BusStatus struct {
	Bus          int  `json:"bus"`
	Stuck        bool `json:"stuck,omitempty"`
	Lose         int  `json:"lose,omitempty"`
	Transactions int  `json:"transactions"`
	Failed       int  `json:"failed"`
}

// Status says how everything stands.
func (b *Board) Status() Status {
	var s Status
	for _, x := range b.I2C {
		bus, list := x.status()
		s.Buses, s.Chips = append(s.Buses, bus), append(s.Chips, list...)
	}
	if b.GPIO != nil {
		s.Lines = b.GPIO.Status()
	}
	if b.GPS != nil {
		g := b.GPS.Status()
		s.GPS = &g
	}
	return s
}

// Parse reads what is to be wired from words with commas between, as --devices has
// them: chips as in ChipChange, gpio, gps; all is Default, none is nothing.
func Parse(text string) (Layout, error) {
	switch text {
	case "all":
		return Default(), nil
	case "none", "":
		return Layout{}, nil
	}
	var l Layout
	for word := range strings.SplitSeq(text, ",") {
		switch word {
		case "gpio":
			l.Lines = Default().Lines
		case "gps":
			l.GPS = true
		default:
			bus, w, err := parseWired(word)
			if err != nil {
				return Layout{}, err
			}
			for len(l.I2C) <= bus {
				l.I2C = append(l.I2C, nil)
			}
			if slices.ContainsFunc(l.I2C[bus], func(o Wired) bool { return o.Addr == w.Addr }) {
				return Layout{}, fmt.Errorf("%s: the address is taken: expected another, as in %s@0x41", word, w.Kind)
			}
			l.I2C[bus] = append(l.I2C[bus], w)
		}
	}
	return l, nil
}

// maxBuses bounds the I2C buses of a machine: each is a device on its PCI bus.
const maxBuses = 4

func parseWired(word string) (bus int, w Wired, err error) {
	name, place, placed := strings.Cut(word, "@")
	k, ok := kindOf(name)
	if !ok {
		return 0, w, fmt.Errorf("no such device: expected gpio, gps or one of %s, got %.40q", strings.Join(Kinds(), ", "), name)
	}
	w = Wired{Kind: k.name, Addr: k.addr}
	if !placed {
		return 0, w, nil
	}
	form := "%v"
	if strings.Contains(place, "/") {
		_, err = fmt.Sscanf(place+"\n", "%d/"+form+"\n", &bus, &w.Addr)
	} else {
		_, err = fmt.Sscanf(place+"\n", form+"\n", &w.Addr)
	}
	if err != nil || bus < 0 || bus >= maxBuses || w.Addr < firstAddr || w.Addr > lastAddr {
		return 0, w, fmt.Errorf("%s: expected a bus below %d and an address from %#02x to %#02x, as in %s@0x41 or %s@1/0x41", word, maxBuses, firstAddr, lastAddr, name, name)
	}
	return bus, w, nil
}
