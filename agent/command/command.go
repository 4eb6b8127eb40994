// Package command is how a node obeys its gateway: it believes an order only when
// the network's key has signed it for this node and this connection, executes it at
// most once, whatever is lost or sent again, and tells what became of it until the
// gateway has that on its disk. What is executed is a table of actions; there is
// nothing else that could be.
//
// No clock is asked. That an order is not from another time follows from the nonce
// of the connection, drawn by the node, that it names; that it is not late, from the
// time since the welcome, which both ends have counted by themselves. Whether the
// gateway is the one that the network has now, and not one from an old card, is told
// by its epoch.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Action is what this device does for one kind of command.
type Action struct {
	// Able returns nil, or the refusal of a device that cannot; nil: every device can.
	Able func() error
	// Do executes. An error that is a model.CommandRefusal says that nothing was done.
	// When its context ends because the process does, what it returns does not count:
	// After will say.
	Do func(context.Context, *Task) (Result, error)
	// After tells what became of a command in which the process ended; nil: it was
	// interrupted.
	After func(e Entry, boot uint64) (model.CommandState, string)
	// Many may be executed at the same time.
	Many bool
	// Firm is not taken back once it has begun: its first step is its last.
	Firm bool
}

// Result is what an action has come to.
type Result struct {
	Value any    // for people and programs, as JSON
	File  []byte // for people
	Then  func() // called when the gateway has the result, or after a while
}

// Events that this package makes.
const (
	eventBegun   = "agent.command.begun"
	eventRefused = "agent.command.refused"
	eventForgot  = "agent.command.forgot"
)

const (
	maxRunning  = 8
	thenWait    = 10 * time.Second // for the gateway to have the result of what ends the process
	refusedEach = 10 * time.Minute // between events of one kind of refusal
)

// Config is what New needs.
type Config struct {
	Network identity.PublicKey
	Node    string
	Boot    uint64
	Epoch   func() uint64 // highest that is known of the gateway's
	Actions map[model.CommandKind]Action
	Memory  *Memory
	Event   func(kind string, s model.Severity, message string, fields map[string]string) error
	Log     *slog.Logger
}

// Engine executes commands. Its methods may be called from any goroutine.
type Engine struct {
	Config
	ctx     context.Context // of what is executed; ends with the process
	end     context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows
	tasks   map[wire.CommandID]*Task
	line    *Line
	refused map[string]time.Time
}

// Task is a command that is executed, or of whose end the gateway has not heard.
type Task struct {
	model.Command
	By    string
	Lasts bool // that it was begun is known after a start of the machine, too

	id     wire.CommandID
	engine *Engine
	cancel context.CancelCauseFunc
	told   chan struct{} // closed when the gateway has that it runs
	acked  chan struct{} // closed when the gateway has how it ended

	report wire.CommandReport // engine.mu guards it and what follows
	file   []byte
	isTold bool
	again  bool      // the gateway has asked once more
	sentAt time.Time // when the file was sent as a whole
}

// causes of an end.
var (
	errCancelled = errors.New("it was cancelled")
	errTimeout   = errors.New("it took too long")
)

// New returns an engine. Commands in which an earlier process ended are settled: their
// reports wait for a connection.
func New(c Config) *Engine {
	e := &Engine{Config: c, tasks: map[wire.CommandID]*Task{}, refused: map[string]time.Time{}}
	e.ctx, e.end = context.WithCancel(context.Background())
	for _, old := range c.Memory.Open() {
		if !old.State.Final() {
			old.State, old.Code, old.Text = model.CommandFailed, model.CodeInterrupted, "the process ended meanwhile"
			if a := c.Actions[old.Kind]; a.After != nil {
				if state, text := a.After(old, c.Boot); state == model.CommandDone {
					old.State, old.Code, old.Text = state, "", text
				} else {
					old.Text = text
				}
			}
			if err := c.Memory.End(old.ID(), old.report()); err != nil {
				c.Log.Warn("what became of a command is not kept", "err", err)
			}
		}
		t := e.task(old.ID(), model.Command{Kind: old.Kind})
		t.report = old.report()
		e.tasks[t.id] = t
	}
	return e
}

func (e *Engine) task(id wire.CommandID, c model.Command) *Task {
	return &Task{Command: c, id: id, engine: e, told: make(chan struct{}), acked: make(chan struct{}), cancel: func(error) {}}
}

// Run waits for ctx to end, and then for what is executed, which ends with it.
func (e *Engine) Run(ctx context.Context) {
	<-ctx.Done()
	e.end()
	e.running.Wait()
}

// Abilities tells what this device can be asked for.
func (e *Engine) Abilities() []model.Ability {
	var list []model.Ability
	for _, k := range model.CommandKinds() {
		a := model.Ability{Kind: k}
		if r := e.able(k); r != nil {
			a.Code, a.Text = r.Code, wire.Clip(r.Text)
		}
		list = append(list, a)
	}
	return list
}

func (e *Engine) able(k model.CommandKind) *model.CommandRefusal {
	a, ok := e.Actions[k]
	if !ok {
		return &model.CommandRefusal{Code: model.CodeUnsupported, Text: "this release does not do that"}
	}
	if a.Able == nil {
		return nil
	}
	return refusalOf(a.Able())
}

// refusalOf makes a refusal of an error; nil of nil.
func refusalOf(err error) *model.CommandRefusal {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*model.CommandRefusal](err); ok {
		return r
	}
	return &model.CommandRefusal{Code: model.CodeFailed, Text: err.Error()}
}

// begin executes what was found good, or returns why not.
func (e *Engine) begin(o wire.Order) *model.CommandRefusal {
	a := e.Actions[o.Command.Kind]
	e.mu.Lock()
	running := 0
	for _, t := range e.tasks {
		if t.report.State.Final() && t.file == nil {
			continue // what it has come to is a few octets
		}
		if running++; t.Kind == o.Command.Kind && !a.Many {
			e.mu.Unlock()
			return &model.CommandRefusal{Code: model.CodeBusy, Text: fmt.Sprintf("it is at another %s, or has not handed over what came of it", t.Kind)}
		}
	}
	if running >= maxRunning || e.ctx.Err() != nil {
		e.mu.Unlock()
		return &model.CommandRefusal{Code: model.CodeBusy, Text: fmt.Sprintf("it is at %d commands already", running)}
	}
	t := e.task(o.ID, o.Command)
	t.By, t.report = o.By, wire.CommandReport{ID: o.ID, State: model.CommandRunning}
	e.tasks[t.id] = t
	e.running.Add(1)
	e.mu.Unlock()

	entry := Entry{Epoch: o.ID.Epoch, Number: o.ID.Number, Kind: t.Kind, Boot: e.Boot, State: model.CommandRunning}
	if t.Restart != nil {
		entry.About = t.Restart.Component
	}
	lasts, err := e.Memory.Begin(entry, o.Epoch)
	if err != nil {
		e.Log.Warn("that a command was begun is not kept everywhere", "err", err)
	}
	if _, begun, _ := e.Memory.Find(o.ID); !begun {
		e.drop(t)
		e.running.Done()
		return &model.CommandRefusal{Code: model.CodeUnkept, Text: fmt.Sprintf("it cannot be noted that this was begun: %v", err)}
	}
	t.Lasts = lasts
	if err := e.Event(eventBegun, model.Info, fmt.Sprintf("%s, for %s", t.Kind, t.By), map[string]string{"command": t.id.String(), "kind": string(t.Kind), "by": t.By}); err != nil {
		e.Log.Warn("event is lost", "err", err)
	}
	e.poke()
	go func() {
		defer e.running.Done()
		e.execute(t, a, time.Duration(o.Limit)*time.Millisecond)
	}()
	return nil
}

func (e *Engine) drop(t *Task) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.tasks, t.id)
}

// execute does the action and settles how it ended.
func (e *Engine) execute(t *Task, a Action, limit time.Duration) {
	ctx, cancel := context.WithCancelCause(e.ctx)
	defer cancel(nil)
	e.mu.Lock()
	t.cancel = cancel
	e.mu.Unlock()
	timer := time.AfterFunc(limit, func() { cancel(errTimeout) })
	defer timer.Stop()
	res, err := a.Do(ctx, t)
	if e.ctx.Err() != nil && err != nil {
		return // the process ends: its next start knows what that means
	}
	r := wire.CommandReport{ID: t.id, State: model.CommandDone}
	switch refusal, refused := errors.AsType[*model.CommandRefusal](err); {
	case err == nil:
		r = e.result(r, res)
	case errors.Is(context.Cause(ctx), errCancelled):
		r.State, r.Text = model.CommandCancelled, errCancelled.Error()
	case errors.Is(context.Cause(ctx), errTimeout):
		r.State, r.Code, r.Text = model.CommandFailed, model.CodeTimeout, fmt.Sprintf("not done within %s", limit)
	case refused:
		r.State, r.Code, r.Text = model.CommandRefused, refusal.Code, refusal.Text
	default:
		r.State, r.Code, r.Text = model.CommandFailed, model.CodeFailed, err.Error()
	}
	r.Text = wire.Clip(r.Text)
	if err := e.Memory.End(t.id, r); err != nil {
		e.Log.Warn("what became of a command is not kept", "err", err)
	}
	e.mu.Lock()
	t.report = r
	if r.State == model.CommandDone {
		t.file = res.File
	}
	e.mu.Unlock()
	e.poke()
	if res.Then != nil && err == nil {
		t.wait(e.ctx, t.acked)
		res.Then()
	}
}

// result fills in what a command has come to, or that it is too much.
func (e *Engine) result(r wire.CommandReport, res Result) wire.CommandReport {
	if len(res.File) > model.CommandFileMax {
		r.State, r.Code, r.Text = model.CommandFailed, model.CodeFailed, fmt.Sprintf("expected a file of at most %d octets, got %d", model.CommandFileMax, len(res.File))
		return r
	}
	r.Size = uint64(len(res.File))
	if res.Value == nil {
		return r
	}
	b, err := json.Marshal(res.Value)
	switch {
	case err != nil:
		r.State, r.Code, r.Text = model.CommandFailed, model.CodeFailed, err.Error()
	case len(b) > model.CommandResultMax:
		r.State, r.Code, r.Text = model.CommandFailed, model.CodeFailed, fmt.Sprintf("expected a result of at most %d octets, got %d", model.CommandResultMax, len(b))
	default:
		r.Result = b
	}
	return r
}

// Progress tells how far a command is.
func (t *Task) Progress(percent int, text string) {
	t.engine.mu.Lock()
	if !t.report.State.Final() {
		t.report.Progress, t.report.Text = uint8(min(max(percent, 0), 100)), wire.Clip(text)
	}
	t.engine.mu.Unlock()
	t.engine.poke()
}

// Told waits until the gateway has on its disk that this runs. It gives up after a
// while, and then returns false.
func (t *Task) Told(ctx context.Context) bool { return t.wait(ctx, t.told) }

func (t *Task) wait(ctx context.Context, c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
	case <-time.After(thenWait):
	}
	return false
}

// cancelled takes a command back: one that runs ends.
func (e *Engine) cancelled(id wire.CommandID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.tasks[id]; t != nil && !t.report.State.Final() && !e.Actions[t.Kind].Firm {
		t.cancel(errCancelled)
	}
}

// acknowledged notes that the gateway has a report.
func (e *Engine) acknowledged(a wire.CommandAck) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.tasks[a.ID]
	switch {
	case t == nil:
	case a.State == model.CommandRunning:
		if !t.isTold {
			t.isTold = true
			close(t.told)
		}
	case t.report.State.Final() && (a.State == t.report.State || a.State == model.CommandGone):
		delete(e.tasks, a.ID)
		close(t.acked)
		e.Memory.Acked(a.ID)
	}
}

// refuse makes an event of an order that is not to be believed, now and then.
func (e *Engine) refuse(why, text string) {
	e.mu.Lock()
	last, again := e.refused[why]
	if again && time.Since(last) < refusedEach {
		e.mu.Unlock()
		return
	}
	e.refused[why] = time.Now()
	e.mu.Unlock()
	e.Log.Warn("a command is refused", "err", text)
	if err := e.Event(eventRefused, model.Warning, "a command is refused: "+text, map[string]string{"reason": why}); err != nil {
		e.Log.Warn("event is lost", "err", err)
	}
}

// Forgot makes an event of a memory that could not be read.
func (e *Engine) Forgot(err error) {
	if err := e.Event(eventForgot, model.Warning, "which commands were executed is not known any more: "+err.Error(), nil); err != nil {
		e.Log.Warn("event is lost", "err", err)
	}
}

func (e *Engine) poke() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.line != nil {
		e.line.poke()
	}
}
