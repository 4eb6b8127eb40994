// Package input tells what comes in on single lines of a board: a door's contact, a
// button, a float switch, the pulses of a meter. What is read says the board's file: its
// inputs, by name.
//
// Each change is an event, made when the kernel tells of the edge, and each input has two
// metrics: what it is, and how often it has changed. A line that somebody else has, or
// whose chip is unplugged, is news, and is tried again.
package input

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/agent/flap"
	"halo.internal/hal/gpio"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Events; each has the field input.
const (
	EventChanged = model.EventInputChanged // state: on or off; missed: how many changes before were not told
	EventBusy    = "input.busy"            // it changes all the time
	EventFailed  = "input.failed"          // error
	EventBack    = "input.back"
	EventFlaps   = "input.flapping" // it fails and is back all the time
)

// DebounceMS is how long a level has to last to be seen, where the board says nothing.
const DebounceMS = 20

// Pin is a line that is read; *gpio.Input is one.
type Pin interface {
	High() (bool, error)
	Wait(context.Context) (gpio.Edge, error)
	Close() error
}

var _ Pin = (*gpio.Input)(nil)

// Config is what New needs.
type Config struct {
	Board func() model.Board
	Log   *slog.Logger
	// Event tells the gateway.
	Event func(kind string, s model.Severity, message string, fields map[string]string) error

	// Open is what tests replace; nil is gpio.OpenInput.
	Open func(name string, o gpio.InputOptions) (Pin, error)
}

// Inputs are those of a board. Run has to be running for them to be read.
type Inputs struct {
	Config

	mu    sync.Mutex // guards what follows, and the units
	units []*unit    // in the order of the board's file
	left  []*unit    // are to end, and may still have their lines
}

// unit is one input.
type unit struct {
	in     model.BoardInput // its Line is that of a chip
	owner  *Inputs
	end    context.CancelFunc
	ended  chan struct{} // its line is let go of
	before []*unit       // have had its line, and may still have it
	poke   chan struct{} // a token when it is worth trying at once
	number uint32        // of the last edge, since the line was opened

	// Inputs.mu guards what follows.
	known   bool // on is what it is; else what it was
	on      bool
	seen    bool // it has been known
	changes int64
	failure string
	wrong   bool      // it could be read before, or another has its line
	ours    time.Time // since when HALO itself has its line; zero: it does not
	told    allowance
	moves   flap.Count // failures, and ends of them
}

// New returns the inputs of a board, none of which is read yet.
func New(c Config) *Inputs {
	if c.Open == nil {
		c.Open = func(name string, o gpio.InputOptions) (Pin, error) { return gpio.OpenInput(name, o) }
	}
	return &Inputs{Config: c}
}

const (
	lookEvery = time.Second // at the board's file
	again     = time.Second // after the first failure
	seldom    = time.Minute // after many

	// endWait is how long drivers have at the end.
	endWait = 10 * time.Second
)

// Run reads all inputs until ctx ends. The board's file may change meanwhile.
func (i *Inputs) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		i.follow(ctx)
		i.calm(time.Now())
		select {
		case <-ctx.Done():
			i.leave(nil)
			i.end()
			return
		case <-tick.C:
		}
	}
}

// Retry has what could not be read be tried at once: a chip has come, say.
func (i *Inputs) Retry() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, u := range i.units {
		select {
		case u.poke <- struct{}{}:
		default: // one waits already
		}
	}
}

// follow has the inputs be those of the board.
func (i *Inputs) follow(ctx context.Context) {
	board := i.Board()
	var want []model.BoardInput
	for _, v := range board.Inputs {
		v.Line = board.Line(v.Line)
		want = append(want, v)
	}
	i.leave(want)
	i.mu.Lock()
	defer i.mu.Unlock()
	list := make([]*unit, 0, len(want))
	for _, v := range want {
		u := i.named(v.Name)
		if u == nil {
			u = &unit{in: v, owner: i, ended: make(chan struct{}), before: i.before(v.Line), poke: make(chan struct{}, 1)}
			var inner context.Context
			inner, u.end = context.WithCancel(ctx)
			go u.run(inner)
		}
		list = append(list, u)
	}
	i.units = list
}

// named is the unit of that name, nil if there is none; the caller holds the lock.
func (i *Inputs) named(name string) *unit {
	for _, u := range i.units {
		if u.in.Name == name {
			return u
		}
	}
	return nil
}

// leave ends the units that are not wanted as they are. It does not wait for them: a driver
// that hangs holds up its own line alone.
func (i *Inputs) leave(want []model.BoardInput) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.left = slices.DeleteFunc(i.left, (*unit).over)
	i.units = slices.DeleteFunc(i.units, func(u *unit) bool {
		if slices.ContainsFunc(want, func(v model.BoardInput) bool { return reflect.DeepEqual(u.in, v) }) {
			return false
		}
		u.end()
		i.left = append(i.left, u)
		return true
	})
}

// before are the units that may still have a line; the caller holds the lock.
func (i *Inputs) before(line string) (list []*unit) {
	for _, u := range i.left {
		if u.in.Line == line {
			list = append(list, u)
		}
	}
	return list
}

// end waits until all lines are let go of, but not for drivers that hang.
func (i *Inputs) end() {
	i.mu.Lock()
	list := i.left
	i.mu.Unlock()
	limit := time.NewTimer(endWait)
	defer limit.Stop()
	for _, u := range list {
		select {
		case <-u.ended:
		case <-limit.C:
			i.Log.Error("lines of inputs are not let go of: drivers hang")
			return
		}
	}
}

// over tells whether its line is let go of.
func (u *unit) over() bool {
	select {
	case <-u.ended:
		return true
	default:
		return false
	}
}

// run reads an input until ctx ends.
func (u *unit) run(ctx context.Context) {
	defer close(u.ended)
	if !u.inherit(ctx) {
		return
	}
	wait := time.Duration(0)
	for ctx.Err() == nil {
		began := time.Now()
		err := u.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		u.failed(err)
		if wait = min(max(2*wait, again), seldom); time.Since(began) > seldom {
			wait = again // it was read for long
		}
		next := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-u.poke:
		case <-next.C:
		}
		next.Stop()
	}
}

// inherit waits until nobody of before has its line, and returns whether it may be used then.
func (u *unit) inherit(ctx context.Context) bool {
	late := time.NewTimer(endWait)
	defer late.Stop()
	for _, b := range u.before {
		for waits := true; waits; {
			select {
			case <-b.ended:
				waits = false
			case <-late.C:
				u.failed(&gpio.TakenError{Line: u.in.Line, By: "an input of before, whose driver hangs"})
			case <-ctx.Done():
				return false
			}
		}
	}
	u.before = nil
	return true
}

var biases = map[string]gpio.Bias{"pull-up": gpio.PullUp, "pull-down": gpio.PullDown, "none": gpio.NoBias}

// watch reads an input until its line fails or ctx ends.
func (u *unit) watch(ctx context.Context) error {
	debounce := DebounceMS
	if u.in.DebounceMS != nil {
		debounce = *u.in.DebounceMS
	}
	pin, err := u.owner.Open(u.in.Line, gpio.InputOptions{Bias: biases[u.in.Bias], Edges: true, Debounce: time.Duration(debounce) * time.Millisecond})
	if err != nil {
		return err
	}
	defer pin.Close() // nothing is written to it
	high, err := pin.High()
	if err == nil {
		err = ctx.Err() // it may have taken long
	}
	if err != nil {
		return err
	}
	u.number = 0
	u.is(high != u.in.ActiveLow, 0)
	for {
		e, err := pin.Wait(ctx)
		if err != nil {
			return err
		}
		n := e.Number - u.number // of the kernel's, of which some may have been lost
		u.number = e.Number
		u.is(e.Rising != u.in.ActiveLow, int64(max(n, 1)))
	}
}

// is notes what the input is, and how many edges have led to that.
func (u *unit) is(on bool, edges int64) {
	i := u.owner
	i.mu.Lock()
	back := u.failure != ""
	changed := u.seen && u.on != on
	if edges == 0 && changed {
		edges = 1 // while nobody looked
	}
	u.on, u.known, u.seen, u.failure, u.wrong, u.ours = on, true, true, "", false, time.Time{}
	u.changes += edges
	verdict := silent
	if changed && u.in.Event != model.EventNone {
		verdict = u.told.change(time.Now())
	}
	i.mu.Unlock()
	if back {
		u.moved(EventBack, model.Info, u.title()+" can be read again", map[string]string{"input": u.in.Name})
	}
	switch verdict {
	case tellIt:
		i.tell(EventChanged, severity(u.in.Event), u.title()+" is "+state(on), map[string]string{"input": u.in.Name, "state": state(on)})
	case tellBusy:
		i.tell(EventBusy, model.Warning, u.title()+" changes all the time: single changes are not told until that ends", map[string]string{"input": u.in.Name})
	}
}

// calm tells how those are that changed all the time, and do so no more. How one is that
// can't be read it tells when that is known again.
func (i *Inputs) calm(now time.Time) {
	i.mu.Lock()
	var tell []func()
	for _, u := range i.units {
		if !u.known {
			continue
		}
		if missed, yes := u.told.calmed(now); yes {
			on := state(u.on)
			tell = append(tell, func() {
				i.tell(EventChanged, severity(u.in.Event), fmt.Sprintf("%s is %s, and has changed %d times before", u.title(), on, missed), map[string]string{"input": u.in.Name, "state": on, "missed": fmt.Sprint(missed)})
			})
		}
	}
	i.mu.Unlock()
	for _, f := range tell {
		f()
	}
}

// ownWait is how long HALO itself may have the line of an input before that is news: an
// output that is an input from now on is let go of when somebody looks.
const ownWait = 2 * time.Second

// failed notes that the input cannot be read. A line that was never there is no warning:
// what it belongs to may not be plugged in.
func (u *unit) failed(err error) {
	i := u.owner
	i.mu.Lock()
	text := err.Error()
	news, now := u.failure == "", time.Now()
	by, taken := errors.AsType[*gpio.TakenError](err)
	if !taken || by.By != gpio.Consumer {
		u.ours = time.Time{}
	} else if u.ours.IsZero() {
		u.ours = now
	}
	if news && !u.ours.IsZero() && now.Sub(u.ours) < ownWait {
		u.known = false
		i.mu.Unlock()
		return
	}
	wrong := u.seen || taken
	u.known, u.failure, u.wrong = false, text, wrong
	i.mu.Unlock()
	if !news {
		return
	}
	s := model.Info
	if wrong {
		s = model.Warning
	}
	if u.moved(EventFailed, s, u.title()+" can't be read: "+text, map[string]string{"input": u.in.Name, "error": text}) {
		i.Log.Warn("an input is not read; it is tried again", "input", u.in.Name, "err", err)
	}
}

// moved tells that the input cannot be read, or can again, unless that happens all the time.
func (u *unit) moved(kind string, s model.Severity, text string, fields map[string]string) (told bool) {
	i := u.owner
	i.mu.Lock()
	tell, first := u.moves.Moved(time.Now())
	i.mu.Unlock()
	switch {
	case first:
		i.tell(EventFlaps, model.Warning, u.title()+" comes and goes: a plug may be loose. That is not told any more until it ends", map[string]string{"input": u.in.Name})
	case tell:
		i.tell(kind, s, text, fields)
	}
	return tell || first
}

func (i *Inputs) tell(kind string, s model.Severity, text string, fields map[string]string) {
	if err := i.Event(kind, s, text, fields); err != nil {
		i.Log.Warn("event is lost", "kind", kind, "err", err)
	}
}

// title is what people call the input.
func (u *unit) title() string {
	if u.in.Title != "" {
		return u.in.Title
	}
	return "input " + u.in.Name
}

func state(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func severity(s model.Severity) model.Severity {
	if s == "" {
		return model.Info
	}
	return s
}

var _ collect.Collector = (*Inputs)(nil)

// Name implements collect.Collector.
func (i *Inputs) Name() string { return "inputs" }

// Collect implements collect.Collector: what each input is, and how often it has changed
// since the process started. What was never there is no failure of it.
func (i *Inputs) Collect(context.Context) ([]collect.Reading, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []collect.Reading
	var failed []string
	for _, u := range i.units {
		p := "gpio." + u.in.Name + "."
		on := collect.Reading{Metric: wire.NewMetric(p+"on", "", 0)}
		if u.known {
			on.Value = wire.Int(0)
			if u.on {
				on.Value = wire.Int(1)
			}
		} else if u.wrong {
			failed = append(failed, u.in.Name)
		}
		out = append(out, on, collect.Reading{Metric: wire.NewMetric(p+"changes", "", 0), Value: wire.Int(u.changes)})
	}
	if len(failed) > 0 {
		return out, fmt.Errorf("inputs that can't be read: %s", strings.Join(failed, ", "))
	}
	return out, nil
}
