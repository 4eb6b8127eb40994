// Package output drives what a node switches: relays, sirens, fans. What may be driven
// says the board: its outputs by name, and pins of the header that nothing else uses.
//
// Each output has a safe state, which it has at the start, when the process ends or has
// died, and when the gateway has been out of reach for so long that nobody controls it
// any more.
package output

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"halo.internal/hal/gpio"
	"halo.internal/hal/pwm"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// Lost is how long the gateway is out of reach before an output is safe, where the board
// says nothing.
const Lost = 300 * time.Second

// Driver is one output as the board has it: part of the time that it is on, 0 to 1.
type Driver interface {
	Set(part float64) error
}

// Config is what New needs.
type Config struct {
	Board   func() model.Board
	Reached func() bool // the gateway takes what it is told
	State   string      // file that tells the next process which outputs are not safe
	Log     *slog.Logger
	// Event tells the gateway; nil: nobody is told.
	Event func(kind string, s model.Severity, message string, fields map[string]string) error

	// What tests replace; nil is the real thing.
	Line func(name string) (gpio.Line, error)
	PWM  func(p model.OutputPWM) (Driver, error)
	Now  func() time.Time
}

// Outputs may be used from any goroutine. Run has to be running for them to become safe.
type Outputs struct {
	Config

	mu     sync.Mutex // guards what follows
	held   map[string]*held
	unsafe map[string]bool // as written to State
	lost   time.Time       // since when the gateway is out of reach; zero: it is not
}

// held is an output that was driven.
type held struct {
	out    model.BoardOutput
	driver Driver
	part   float64
	safe   bool
}

// New returns the outputs of a board, of which none is touched yet.
func New(c Config) *Outputs {
	if c.Line == nil {
		c.Line = gpio.Open
	}
	if c.PWM == nil {
		c.PWM = func(p model.OutputPWM) (Driver, error) { return pwm.Open(pwm.Sys, p.Device, p.Channel, p.Hz) }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Outputs{Config: c, held: map[string]*held{}, unsafe: map[string]bool{}}
}

// lookEvery is how often it is looked whether somebody still controls the outputs.
const lookEvery = time.Second

// Run makes all outputs safe at the start and at the end, and each that is not when the
// gateway has been lost for its time.
func (o *Outputs) Run(ctx context.Context) {
	o.begin()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			o.end()
			return
		case <-tick.C:
			o.look()
		}
	}
}

// begin drives what the board names, and what a process before left, to the safe state.
func (o *Outputs) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	var names []string
	if b, err := os.ReadFile(o.State); err == nil {
		if err := json.Unmarshal(b, &names); err != nil {
			o.Log.Warn("which outputs a process before has driven is not known", "err", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("which outputs a process before has driven is not known", "err", err)
	}
	board := o.Board()
	for _, v := range board.Outputs {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := o.makeSafe(name, "the start"); err != nil {
			o.Log.Warn("an output is not in its safe state", "output", name, "err", err)
		}
	}
	o.keep()
}

// look makes safe what nobody has controlled for too long.
func (o *Outputs) look() {
	reached := o.Reached()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case reached:
		o.lost = time.Time{}
		return
	case o.lost.IsZero():
		o.lost = o.Now()
	}
	away := o.Now().Sub(o.lost)
	for name, h := range o.held {
		if h.safe || safeOf(h.out) == model.SafeKeep || away < lostOf(h.out) {
			continue
		}
		if err := o.makeSafe(name, "the loss of the gateway"); err != nil {
			o.Log.Warn("an output is not in its safe state", "output", name, "err", err)
			continue
		}
		o.tell("output.safe", model.Warning, "the gateway is lost: an output went to its safe state", map[string]string{"output": name, "state": string(safeOf(h.out))})
	}
	o.keep()
}

// end makes all safe: nobody drives them any more.
func (o *Outputs) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, h := range o.held {
		if !h.safe {
			if err := o.makeSafe(name, "the end"); err != nil {
				o.Log.Warn("an output is not in its safe state", "output", name, "err", err)
			}
		}
	}
	o.keep()
}

func (o *Outputs) tell(kind string, s model.Severity, text string, fields map[string]string) {
	if o.Event == nil {
		return
	}
	if err := o.Event(kind, s, text, fields); err != nil {
		o.Log.Warn("event is lost", "err", err)
	}
}

func safeOf(v model.BoardOutput) model.OutputSafe {
	if v.Safe == "" {
		return model.SafeOff
	}
	return v.Safe
}

func lostOf(v model.BoardOutput) time.Duration {
	if v.LostS == 0 {
		return Lost
	}
	return time.Duration(v.LostS) * time.Second
}

// makeSafe drives an output to its safe state; mu is held. One that keeps its state is
// left alone.
func (o *Outputs) makeSafe(name, why string) error {
	h, err := o.of(name)
	if err != nil {
		return err
	}
	part := 0.0
	switch safeOf(h.out) {
	case model.SafeKeep:
		h.safe = true
		return nil
	case model.SafeOn:
		part = 1
	}
	if err := h.driver.Set(part); err != nil {
		return err
	}
	if !h.safe && h.part != part {
		o.Log.Info("an output is in its safe state", "output", name, "why", why)
	}
	h.part, h.safe = part, true
	return nil
}

// of returns an output, opened; mu is held.
func (o *Outputs) of(name string) (*held, error) {
	if h := o.held[name]; h != nil {
		return h, nil
	}
	out, err := named(o.Board(), name)
	if err != nil {
		return nil, err
	}
	h := &held{out: out}
	if out.PWM != nil {
		h.driver, err = o.PWM(*out.PWM)
		if out.ActiveLow {
			h.driver = inverted{h.driver}
		}
	} else {
		var l gpio.Line
		b := o.Board()
		l, err = o.Line(b.Line(out.Line))
		h.driver = level{l, out.ActiveLow}
	}
	if err != nil {
		return nil, model.RefuseCommand(model.CodeNoOutput, "%v", err)
	}
	o.held[name] = h
	return h, nil
}

// named finds an output of a board, or a pin that nothing else uses.
func named(b model.Board, name string) (model.BoardOutput, error) {
	var names []string
	for _, v := range b.Outputs {
		if v.Name == name {
			return v, nil
		}
		names = append(names, v.Name)
	}
	if b.Header != nil {
		for _, p := range b.Header.Pins {
			switch {
			case p.Name != name:
			case p.Kind != model.PinGPIO:
				return model.BoardOutput{}, model.RefuseCommand(model.CodeNoOutput, "pin %d, %s, is no output", p.Pin, p.Name)
			case p.Use != "":
				return model.BoardOutput{}, model.RefuseCommand(model.CodeNoOutput, "pin %d, %s, is used for %s", p.Pin, p.Name, p.Use)
			default:
				return model.BoardOutput{Name: name, Line: name}, nil
			}
		}
	}
	if len(names) == 0 {
		return model.BoardOutput{}, model.RefuseCommand(model.CodeNoOutput, "the board %s names no output %q, and no free pin is called so", b.Name, name)
	}
	return model.BoardOutput{}, model.RefuseCommand(model.CodeNoOutput, "expected one of %q or a free pin, got %q", names, name)
}

// Able tells why there is nothing to drive; nil where there is.
func (o *Outputs) Able() error {
	b := o.Board()
	if len(b.Outputs) > 0 || b.Header != nil && slices.ContainsFunc(b.Header.Pins, func(p model.BoardPin) bool { return p.Kind == model.PinGPIO && p.Use == "" }) {
		return nil
	}
	return model.RefuseCommand(model.CodeNoOutput, "the board %s has neither outputs nor free pins", b.Name)
}

// Set drives an output for that part of the time, 0 to 1. A line takes nothing between.
// The error is a refusal where there is no such output.
func (o *Outputs) Set(name string, part float64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	h, err := o.of(name)
	if err != nil {
		return err
	}
	if h.out.PWM == nil && part != 0 && part != 1 {
		return model.RefuseCommand(model.CodeInvalid, "%s is a line: expected it on or off, got %v %%", name, part*100)
	}
	// What is not written down would stay on after a crash.
	o.unsafe[name] = true
	if err := o.write(); err != nil {
		o.Log.Warn("a crash would leave an output as it is", "output", name, "err", err)
	}
	err = h.driver.Set(part)
	if taken, ok := errors.AsType[*gpio.TakenError](err); ok {
		delete(o.held, name)
		o.keep()
		return model.RefuseCommand(model.CodeNoOutput, "%v", taken)
	}
	if err != nil {
		return fmt.Errorf("output %s: %w", name, err)
	}
	h.part, h.safe = part, false
	return nil
}

// keep writes down which outputs are not safe, where that has changed; mu is held.
func (o *Outputs) keep() {
	now := map[string]bool{}
	for name, h := range o.held {
		if !h.safe {
			now[name] = true
		}
	}
	changed := len(now) != len(o.unsafe)
	for name := range now {
		changed = changed || !o.unsafe[name]
	}
	o.unsafe = now
	if _, err := os.Stat(o.State); err == nil || changed {
		if changed || len(now) == 0 {
			if err := o.write(); err != nil {
				o.Log.Warn("which outputs are driven is not kept", "err", err)
			}
		}
	}
}

func (o *Outputs) write() error {
	if len(o.unsafe) == 0 {
		if err := os.Remove(o.State); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var names []string
	for name := range o.unsafe {
		names = append(names, name)
	}
	slices.Sort(names)
	b, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(o.State), 0o700), atomicfile.Write(o.State, b, 0o600))
}

// level drives a line.
type level struct {
	line gpio.Line
	low  bool // on is low
}

func (l level) Set(part float64) error { return l.line.Drive((part > 0) != l.low) }

// inverted pulses low.
type inverted struct{ Driver }

func (i inverted) Set(part float64) error { return i.Driver.Set(1 - part) }
