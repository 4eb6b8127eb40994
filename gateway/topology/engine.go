package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"halo.internal/gateway/changes"
	"halo.internal/model"
	"halo.internal/model/graph"
)

// Times of the engine.
const (
	lookEvery    = 5 * time.Second        // at what time alone changes
	drawPause    = 500 * time.Millisecond // between reports and the picture: reports come together
	membersEvery = time.Minute            // though nobody said that they had changed: names do
	settleWithin = 2 * time.Minute        // of its start, until when nodes have begun to report
)

// Events takes what people should know.
type Events interface {
	Add(kind string, s model.Severity, node, message string, fields map[string]string)
}

// Config is what New needs.
type Config struct {
	Members func(context.Context) ([]Member, error)
	Changed <-chan struct{} // the members have
	Store   Store           // of the history
	Events  Events
	Now     func() time.Time // the gateway's clock
	Log     *slog.Logger
	Settle  time.Duration // until when nothing is told or written down, unless all have reported; 0: settleWithin
	// LinkLost is for how long a link has to be gone before that is told; 0: holdLost.
	LinkLost time.Duration
}

// Engine is the network's picture at work: reports go in, the picture is drawn when
// something may have changed, written down, and told of. Its methods may be called from
// any goroutine. Run has to be running for pictures to be drawn.
type Engine struct {
	Config
	tracker  *Tracker
	recorder *Recorder
	alarm    *Alarm
	wake     chan struct{}
	running  func() time.Duration // of the process, by a clock that is never set

	stepping sync.Mutex    // guards what follows
	wall     time.Time     // the gateway's clock at the last look
	ran      time.Duration // running then
	stepped  time.Duration // by which it was set since, of which the alarm does not know yet

	mu   sync.Mutex // guards what follows
	bell changes.Bell
	lost []string // nodes that cannot be reached
	sure bool     // that is known
}

// New returns an engine.
func New(c Config) *Engine {
	if c.Settle == 0 {
		c.Settle = settleWithin
	}
	e := &Engine{Config: c, tracker: NewTracker(1 + rand.Uint64N(1<<53-1)), recorder: NewRecorder(c.Store), wake: make(chan struct{}, 1)}
	start := time.Now()
	e.running = func() time.Duration { return time.Since(start) }
	e.alarm = NewAlarm(func(node string) (since, every time.Duration, ok bool) { return e.tracker.quiet(e.now(), node) })
	e.alarm.linkLost = cmp.Or(c.LinkLost, holdLost)
	return e
}

// leastStep of the gateway's clock is more than it drifts or is slewed between two looks.
const leastStep = 2 * time.Second

// now is the time by the gateway's clock. Where that was set, what was heard a moment ago
// was heard a moment ago still: otherwise nobody could be reached for a minute.
func (e *Engine) now() time.Time {
	e.stepping.Lock()
	defer e.stepping.Unlock()
	wall, ran := e.Now(), e.running()
	if step := wall.Sub(e.wall) - (ran - e.ran); !e.wall.IsZero() && step.Abs() >= leastStep {
		e.tracker.Shift(step)
		e.stepped += step
	}
	e.wall, e.ran = wall, ran
	return wall
}

// steps returns by how much the clock was set since it was last asked.
func (e *Engine) steps() time.Duration {
	e.stepping.Lock()
	defer e.stepping.Unlock()
	by := e.stepped
	e.stepped = 0
	return by
}

// Put takes a report of a node that has proven who it is. An error that wraps ErrBase
// asks for a whole one.
func (e *Engine) Put(r model.Report) error {
	if err := e.tracker.Put(e.now(), r); err != nil {
		return err
	}
	e.look()
	return nil
}

// Alive notes that a node said something, as it does so often.
func (e *Engine) Alive(node string, every time.Duration) { e.tracker.Alive(e.now(), node, every) }

// Picture returns the present one; its Seq is 0 while none was drawn.
func (e *Engine) Picture() graph.Picture { return e.tracker.Picture() }

// Since returns what changed since a picture, see Tracker.Since.
func (e *Engine) Since(run, seq uint64) (graph.Delta, bool) { return e.tracker.Since(run, seq) }

// Report returns what a node reported last, made whole.
func (e *Engine) Report(node string) (model.Report, bool) { return e.tracker.Report(node) }

// News returns the number of the present picture, 0 while none was drawn, and a channel
// that the next one closes: whoever follows then asks for what changed since the picture
// that he has (Since), or takes the whole, so that one who is slow misses nothing and
// holds up nobody.
func (e *Engine) News() (seq uint64, next <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next = e.bell.Next() // before the look: what is drawn meanwhile closes it
	return e.Picture().Seq, next
}

func (e *Engine) tell() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bell.Ring()
}

// look has Run draw soon.
func (e *Engine) look() {
	select {
	case e.wake <- struct{}{}:
	default: // it is about to
	}
}

// Run draws, tells and records until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	started, asked, known := time.Now(), time.Time{}, false
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if !known || time.Since(asked) >= membersEvery {
			known = e.refresh(ctx)
			asked = time.Now()
		}
		e.step(time.Since(started))
		select {
		case <-ctx.Done():
			e.record(e.Now())
			return nil
		case <-e.Changed:
			known = false
			continue
		case <-tick.C:
			continue
		case <-e.wake:
		}
		select {
		case <-ctx.Done():
		case <-time.After(drawPause):
		}
	}
}

// refresh asks who belongs to the network.
func (e *Engine) refresh(ctx context.Context) bool {
	members, err := e.Members(ctx)
	if err != nil {
		if ctx.Err() == nil {
			e.Log.Warn("the network's picture has the members of a moment ago", "err", err)
		}
		return false
	}
	e.tracker.SetMembers(members)
	return true
}

// step draws the picture, and tells and writes down what is to be, once the gateway has
// heard of the network after its start: a network without links would be the first thing
// else that is seen of each.
func (e *Engine) step(running time.Duration) {
	now := e.now()
	e.alarm.Shift(e.steps())
	if _, changed := e.tracker.Update(now); changed {
		e.tell()
	}
	if running < e.Settle && !e.complete() {
		return
	}
	for _, n := range e.alarm.Observe(now, e.tracker.Picture()) {
		e.Events.Add(n.Kind, n.Severity, n.Node, n.Message, n.Fields)
	}
	lost := e.alarm.Unreachable()
	e.mu.Lock()
	e.lost, e.sure = lost, true
	e.mu.Unlock()
	e.record(now)
}

// Unreachable are the canonical IDs of the nodes that cannot be reached, in order; known is
// false after the start, until the gateway has heard of the network. The list is not to be
// changed.
func (e *Engine) Unreachable() (ids []string, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost, e.sure
}

// complete tells whether all members have reported.
func (e *Engine) complete() bool {
	p := e.tracker.Picture()
	for _, n := range p.Nodes {
		if n.Kind != graph.KindStranger && n.Report == graph.Never {
			return false
		}
	}
	return len(p.Nodes) > 0
}

func (e *Engine) record(now time.Time) {
	if err := e.recorder.Record(now, e.tracker.Picture()); err != nil {
		e.Log.Warn("the network's picture is not written down", "err", err)
	}
}

// ErrFuture is wrapped where somebody asks for what has not been yet.
var ErrFuture = errors.New("that time has not come")

// At returns the network as it was at an instant, and with the present one as it is.
func (e *Engine) At(t time.Time) (graph.Picture, error) {
	switch now := e.Now(); {
	case t.Sub(now) > time.Second:
		return graph.Picture{}, fmt.Errorf("%w: expected one until %s, got %s", ErrFuture, now.UTC().Format(time.RFC3339), t.UTC().Format(time.RFC3339))
	case now.Sub(t) < time.Second:
		return e.Picture(), nil
	}
	return Reader{e.Store}.At(t)
}

// Moments returns what happened from one instant to another, in short and in order, most
// at most; more tells whether there is more, which follows the last one's time. The first
// tells how things were in the beginning, if that is known, unless it goes on from a page
// before.
func (e *Engine) Moments(from, to time.Time, most int, on bool) (list []graph.Moment, more bool, err error) {
	list = []graph.Moment{}
	var now, told graph.Picture
	for d, err := range (Reader{e.Store}).Replay(from, to) {
		if err != nil {
			return nil, false, err
		}
		if d.From == 0 {
			now, told = graph.Picture{Run: d.Run}, graph.Picture{}
		}
		if now, err = now.Apply(d); err != nil {
			return nil, false, fmt.Errorf("history: %w", err)
		}
		m, worth := graph.MomentOf(told, now)
		switch {
		case on && !d.At.After(from):
			told = now // the page before ends with it
		case !worth:
		case len(list) == most:
			return list, true, nil
		default:
			list, told = append(list, m), now
		}
	}
	return list, false, nil
}

// Replay returns what changed from one instant to another, see Reader.Replay.
func (e *Engine) Replay(from, to time.Time) iter.Seq2[graph.Delta, error] {
	return Reader{e.Store}.Replay(from, to)
}
