// Package output drives what a node switches: relays, sirens, fans. What may be driven
// says the board's file: its outputs, by name.
//
// Each output has a safe state, which it has at the start, when the process ends or has
// died, and when the gateway has been out of reach for so long that nobody controls it
// any more.
package output

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
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
	State   string      // file that tells the next process which outputs are not safe, and what others keep
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

	asked sync.WaitGroup // drivers that are asked to make safe

	mu    sync.Mutex // guards what follows; nobody holds it while a driver is asked
	units map[place]*unit
	lost  time.Time // since when the gateway is out of reach; zero: it is not
	ended bool
	kept  []byte // as written to State
	unfit string // why State was not written the last time
}

// place is what is driven: a line of a chip, or a channel of a PWM chip.
type place struct {
	line    string
	device  string
	channel int
}

func placeOf(v model.BoardOutput) place {
	if v.PWM != nil {
		return place{device: v.PWM.Device, channel: v.PWM.Channel}
	}
	return place{line: v.Line}
}

// unit is one output.
type unit struct {
	turn chan struct{} // holds a token while somebody asks the driver
	line gpio.Line     // whoever has the turn uses these three
	pwm  Driver
	hz   float64 // that pwm was opened with

	// The rest is guarded by Outputs.mu.
	out        model.BoardOutput // its Line is that of a chip
	part       float64           // as last driven, or tried
	controlled bool              // somebody has set it, and the gateway is not lost
	safe       bool              // it was driven to its safe state since
	touched    bool              // it has been set: it is not in its safe state, or keeps its own
	left       bool              // the board has no such output any more
	why        string            // what makes it safe
	next       time.Time         // no attempt to make it safe before
	wait       time.Duration
	failure    string // of the last attempt, as logged
}

// kept is one output in State.
type kept struct {
	Output model.BoardOutput `json:"output"`
	Part   float64           `json:"part"`
}

// maxKept bounds what a file makes us believe.
const maxKept = 256

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
	return &Outputs{Config: c, units: map[place]*unit{}}
}

const (
	lookEvery = time.Second      // whether somebody still controls the outputs
	answer    = 5 * time.Second  // of a driver: one that takes longer hangs
	again     = time.Second      // after the first failure to make an output safe
	seldom    = 60 * time.Second // after many
)

// Run makes all outputs safe at the start and at the end, each that is not when the
// gateway has been lost for its time, and again and again those that cannot be: the chip
// may be plugged in later, or its module not be there yet.
func (o *Outputs) Run(ctx context.Context) {
	o.begin()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		o.look()
		select {
		case <-ctx.Done():
			o.end()
			return
		case <-tick.C:
		}
	}
}

// begin takes over what a process before has left.
func (o *Outputs) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []kept
	b, err := os.ReadFile(o.State)
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Log.Warn("which outputs a process before has driven is not known", "err", err)
		list = nil
	}
	for _, k := range list[:min(len(list), maxKept)] {
		u := o.at(k.Output)
		u.part, u.touched = k.Part, true
	}
}

// look has made safe what nobody controls.
func (o *Outputs) look() {
	reached, board := o.Reached(), o.Board()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.follow(board)
	now := o.Now()
	switch {
	case reached:
		o.lost = time.Time{}
	case o.lost.IsZero():
		o.lost = now
	}
	for _, u := range o.units {
		if u.controlled && !u.left && !o.lost.IsZero() && safeOf(u.out) != model.SafeKeep && now.Sub(o.lost) >= lostOf(u.out) {
			u.controlled, u.why, u.next, u.wait = false, lossOfGateway, now, 0
		}
		if u.controlled || u.safe || now.Before(u.next) {
			continue
		}
		select {
		case u.turn <- struct{}{}:
			o.asked.Go(func() {
				o.makeSafe(u)
				<-u.turn
			})
		default: // somebody asks its driver, or that hangs
		}
	}
	o.keep()
}

// follow has the outputs be those of the board, whose file may have changed; mu is held.
// What the board has no more is made safe as it was, and let go of.
func (o *Outputs) follow(board model.Board) {
	for _, v := range board.Outputs {
		v.Line = board.Line(v.Line)
		o.at(v)
	}
	for at, u := range o.units {
		v, err := named(board, u.out.Name)
		if err == nil && placeOf(v) == at || u.left {
			continue
		}
		u.left, u.controlled, u.safe, u.why, u.next, u.wait = true, false, false, "it is no output of the board any more", o.Now(), 0
	}
}

// at returns the output of a place, as it is described now; mu is held. A safe state that
// is another one, or the level that is on, it has yet to get.
func (o *Outputs) at(v model.BoardOutput) *unit {
	u := o.units[placeOf(v)]
	if u == nil {
		u = &unit{turn: make(chan struct{}, 1), out: v, why: "the start"}
		o.units[placeOf(v)] = u
		return u
	}
	if !reflect.DeepEqual(u.out, v) || u.left {
		if u.out.Name != v.Name || u.out.ActiveLow != v.ActiveLow || !reflect.DeepEqual(u.out.PWM, v.PWM) {
			u.controlled = false // what was set was something else
		}
		u.out, u.left, u.safe, u.why, u.next, u.wait = v, false, false, "another board file", o.Now(), 0
	}
	return u
}

// endWait is how long drivers have at the end.
const endWait = 10 * time.Second

// end makes all safe: nobody drives them any more.
func (o *Outputs) end() {
	limit := make(chan struct{})
	timer := time.AfterFunc(endWait, func() { close(limit) })
	defer timer.Stop()
	o.mu.Lock()
	o.ended = true
	for _, u := range o.units {
		if safeOf(u.out) != model.SafeKeep {
			u.controlled = false
		}
		if u.controlled || u.safe {
			continue
		}
		u.why = "the end"
		o.asked.Go(func() {
			select {
			case u.turn <- struct{}{}:
				o.makeSafe(u)
				<-u.turn
			case <-limit:
			}
		})
	}
	o.mu.Unlock()
	done := make(chan struct{})
	go func() { o.asked.Wait(); close(done) }()
	select {
	case <-done:
	case <-limit:
		o.Log.Error("outputs may not be in their safe state: drivers hang")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
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

// lossOfGateway is what the gateway hears of when it is back.
const lossOfGateway = "the loss of the gateway"

// makeSafe drives an output to its safe state, which for one that keeps its own is what it
// was set to last. Whoever calls has the turn.
func (o *Outputs) makeSafe(u *unit) {
	o.mu.Lock()
	out, part, left, needed := u.out, u.part, u.left, u.touched
	busy := u.controlled || u.safe
	o.mu.Unlock()
	if busy {
		return
	}
	switch safeOf(out) { // of one that keeps its own and was never set, nobody knows what it is to be
	case model.SafeOff:
		part, needed = 0, needed || !left
	case model.SafeOn:
		part, needed = 1, needed || !left
	}
	var err error
	if needed {
		err = o.drive(u, out, part)
	}
	if err == nil && left && u.line != nil {
		err = u.line.Release()
		u.line = nil
	}
	if o.settled(u, out, part, left, err) {
		o.tell("output.safe", model.Warning, "the gateway is lost: an output went to its safe state", map[string]string{"output": out.Name, "state": string(safeOf(out))})
	}
}

// settled notes what became of the attempt to make an output safe, and returns whether the
// gateway is to hear of it.
func (o *Outputs) settled(u *unit, out model.BoardOutput, part float64, left bool, err error) (tell bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		u.wait = min(max(2*u.wait, again), seldom)
		u.next = o.Now().Add(u.wait)
		if text := err.Error(); text != u.failure {
			u.failure = text
			o.Log.Warn("an output is not in its safe state; it is tried again", "output", out.Name, "err", err)
		}
		return false
	}
	if u.controlled || u.left != left || !reflect.DeepEqual(u.out, out) {
		return false // meanwhile it is to be something else
	}
	if u.touched || u.failure != "" {
		o.Log.Info("an output is in its safe state", "output", out.Name, "why", u.why)
	}
	u.part, u.safe, u.failure, u.wait = part, true, "", 0
	u.touched = u.touched && safeOf(out) == model.SafeKeep
	if u.left {
		delete(o.units, placeOf(out))
	}
	o.keep()
	return u.why == lossOfGateway
}

// open opens the driver of an output, if need be. Whoever calls has the turn.
func (o *Outputs) open(u *unit, out model.BoardOutput) (err error) {
	switch {
	case out.PWM == nil && u.line == nil:
		if u.line, err = o.Line(out.Line); err != nil {
			u.line = nil
		}
	case out.PWM != nil && (u.pwm == nil || u.hz != out.PWM.Hz):
		if u.pwm, err = o.PWM(*out.PWM); err != nil {
			u.pwm = nil
		}
		u.hz = out.PWM.Hz
	}
	return err
}

// drive has an output be on for that part of the time. Whoever calls has the turn.
func (o *Outputs) drive(u *unit, out model.BoardOutput, part float64) error {
	if err := o.open(u, out); err != nil {
		return err
	}
	if out.PWM == nil {
		return u.line.Drive((part > 0) != out.ActiveLow)
	}
	if out.ActiveLow {
		part = 1 - part
	}
	return u.pwm.Set(part)
}

// named finds an output of a board. Pins that no file gives a name are not driven: a
// controller may have them (SPI, I2S), and kernels let GPIO take such a pin from it.
func named(b model.Board, name string) (model.BoardOutput, error) {
	var names []string
	for _, v := range b.Outputs {
		if v.Name == name {
			v.Line = b.Line(v.Line)
			return v, nil
		}
		names = append(names, v.Name)
	}
	if len(names) == 0 {
		return model.BoardOutput{}, model.RefuseCommand(model.CodeNoOutput, "the board %s has no outputs: name the line of %q by [[output]] in a board file (docs/boards.md)", b.Name, name)
	}
	return model.BoardOutput{}, model.RefuseCommand(model.CodeNoOutput, "expected one of %q, got %q: another line is named by [[output]] in a board file (docs/boards.md)", names, name)
}

// Able tells why there is nothing to drive; nil where there is.
func (o *Outputs) Able() error {
	if b := o.Board(); len(b.Outputs) == 0 {
		return model.RefuseCommand(model.CodeNoOutput, "the board %s has no outputs: name some by [[output]] in a board file (docs/boards.md)", b.Name)
	}
	return nil
}

// Set drives an output for that part of the time, 0 to 1. A line takes nothing between.
// The error is a refusal where there is no such output, and where nobody may be told to
// drive it: its driver hangs, or the process ends.
func (o *Outputs) Set(name string, part float64) error {
	out, err := named(o.Board(), name)
	if err != nil {
		return err
	}
	if out.PWM == nil && part != 0 && part != 1 {
		return model.RefuseCommand(model.CodeInvalid, "%s is a line: expected it on or off, got %v %%", name, part*100)
	}
	o.mu.Lock()
	u := o.at(out)
	o.mu.Unlock()
	limit := time.NewTimer(answer)
	defer limit.Stop()
	select {
	case u.turn <- struct{}{}:
	case <-limit.C:
		return model.RefuseCommand(model.CodeBusy, "output %s: its driver has not done what it was asked for before", name)
	}
	done := make(chan error, 1)
	go func() {
		err := o.set(u, out, part)
		<-u.turn
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-limit.C:
		return fmt.Errorf("output %s: its driver has not answered within %s: it may yet do it", name, answer)
	}
}

// set has the turn.
func (o *Outputs) set(u *unit, out model.BoardOutput, part float64) error {
	if err := o.open(u, out); err != nil {
		return model.RefuseCommand(model.CodeNoOutput, "%v", err)
	}
	o.mu.Lock()
	switch {
	case o.ended:
		o.mu.Unlock()
		return model.RefuseCommand(model.CodeBusy, "halo-agent ends: outputs stay in their safe state")
	case o.units[placeOf(out)] != u || !reflect.DeepEqual(u.out, out) || u.left:
		o.mu.Unlock()
		return model.RefuseCommand(model.CodeBusy, "output %s: the board's file has just changed: try again", out.Name)
	}
	touched, before := u.touched, u.part
	// Whatever becomes of it, from here on it may not be safe. What is not written down
	// would stay on after a crash.
	u.controlled, u.safe, u.touched, u.part, u.failure, u.why = true, false, true, part, "", "nobody drives it"
	o.keep()
	o.mu.Unlock()
	err := o.drive(u, out, part)
	if taken, ok := errors.AsType[*gpio.TakenError](err); ok { // nothing was driven: what is safe it has yet to get
		o.mu.Lock()
		u.controlled, u.touched, u.part = false, touched, before
		o.keep()
		o.mu.Unlock()
		return model.RefuseCommand(model.CodeNoOutput, "%v", taken)
	}
	if err != nil {
		return fmt.Errorf("output %s: %w", out.Name, err)
	}
	return nil
}

// keep writes down which outputs are not safe and what those are set to that keep their
// state, where that has changed; mu is held.
func (o *Outputs) keep() {
	list := []kept{}
	for _, u := range o.units {
		if u.touched {
			list = append(list, kept{u.out, u.part})
		}
	}
	slices.SortFunc(list, func(a, b kept) int { return strings.Compare(a.Output.Name, b.Output.Name) })
	b, err := json.Marshal(list)
	if err == nil && bytes.Equal(b, o.kept) {
		return
	}
	if err == nil {
		err = errors.Join(os.MkdirAll(filepath.Dir(o.State), 0o700), atomicfile.Write(o.State, b, 0o600))
	}
	if err == nil {
		o.kept, o.unfit = b, ""
		return
	}
	if text := err.Error(); text != o.unfit {
		o.unfit = text
		o.Log.Warn("a crash would leave outputs as they are", "err", err)
	}
}
