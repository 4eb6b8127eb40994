package command

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// device is a node whose gateway is the test.
type device struct {
	*Engine
	t      *testing.T
	net    identity.Key
	key    identity.Key
	dir    string
	boot   uint64
	epoch  uint64
	lasts  bool
	number uint64 // of the last order

	mu     sync.Mutex
	done   []string // what was executed
	events []string // reasons of refusals
	block  chan struct{}
}

func newDevice(t *testing.T) *device {
	d := &device{t: t, net: identity.New(), key: identity.New(), dir: t.TempDir(), epoch: 40_000, lasts: true, block: make(chan struct{})}
	d.start()
	return d
}

// start is a start of the machine.
func (d *device) start() {
	d.t.Helper()
	d.boot++
	_ = os.RemoveAll(filepath.Join(d.dir, "run"))
	d.process()
}

// process is a start of the process.
func (d *device) process() {
	d.t.Helper()
	if d.Engine != nil {
		d.end()
		d.running.Wait()
	}
	m, err := OpenMemory("net", d.key.ID(), func() bool { return d.lasts }, filepath.Join(d.dir, "perm", "commands"), filepath.Join(d.dir, "run", "commands"))
	if err != nil {
		d.t.Fatal(err)
	}
	do := func(_ context.Context, t *Task) (Result, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.done = append(d.done, t.id.String())
		return Result{Value: "done"}, nil
	}
	d.Engine = New(Config{
		Network: d.net.Public(), Node: d.key.ID(), Boot: d.boot, Epoch: func() uint64 { return d.epoch }, Memory: m, Log: slog.New(slog.DiscardHandler),
		Actions: map[model.CommandKind]Action{
			model.CommandScan: {Do: do, Many: true},
			model.CommandLocate: {Do: func(ctx context.Context, t *Task) (Result, error) {
				select {
				case <-d.block:
				case <-ctx.Done():
					return Result{}, ctx.Err()
				}
				return do(ctx, t)
			}},
			model.CommandCapture: {Able: func() error { return model.RefuseCommand(model.CodeNoRadio, "none") }},
		},
		Event: func(kind string, _ model.Severity, _ string, fields map[string]string) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if kind == eventRefused {
				d.events = append(d.events, fields["reason"])
			}
			return nil
		},
	})
}

// line is a connection; what the node says on it is kept.
type line struct {
	*Line
	d    *device
	mu   sync.Mutex
	said []wire.Message
}

func (d *device) connect() *line {
	l := &line{d: d}
	l.Line = d.Open(Nonce(), func(_ context.Context, m wire.Message) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.said = append(l.said, m)
		return nil
	})
	return l
}

// order makes a good order for a connection.
func (l *line) order(c model.Command) wire.Order {
	l.d.number++
	return wire.Order{Node: l.d.key.ID(), Session: l.nonce, ID: wire.NewCommandID(40_000, l.d.number), Epoch: 40_000, Deadline: 60_000, Limit: 60_000, By: "user:root", Command: c}
}

func (d *device) sign(o wire.Order) wire.CommandMessage {
	d.t.Helper()
	b, err := o.Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	return wire.CommandMessage{Order: b, Signature: d.net.Sign(wire.CommandContext, b)}
}

// take hands a message over and returns the refusal that it is answered by, if any.
func (l *line) take(m wire.Message) string {
	l.d.t.Helper()
	l.mu.Lock()
	before := len(l.said)
	l.mu.Unlock()
	if taken, err := l.Take(context.Background(), m); !taken || err != nil {
		l.d.t.Fatalf("%T: %v, %v", m, taken, err)
	}
	l.d.running.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.said) == before {
		return ""
	}
	r, ok := l.said[before].(wire.CommandReport)
	if !ok || r.State != model.CommandRefused {
		l.d.t.Fatalf("said %+v", l.said[before:])
	}
	return r.Code
}

func (d *device) executed() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.done)
}

func (d *device) told() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.events)
}

var scan = model.Command{Kind: model.CommandScan, Scan: &model.ScanRequest{}}

// Whatever is wrong with an order: nothing is done. What cannot come from the gateway
// is not even answered.
func TestHostileOrdersAreNotExecuted(t *testing.T) {
	stranger := identity.New()
	for name, tc := range map[string]struct {
		make   func(*device, *line) wire.CommandMessage
		answer string // code of the refusal; empty: silence
		event  string
	}{
		"signed by a stranger": {func(d *device, l *line) wire.CommandMessage {
			m := d.sign(l.order(scan))
			m.Signature = stranger.Sign(wire.CommandContext, m.Order)
			return m
		}, "", "signature"},
		"signed by the node itself": {func(d *device, l *line) wire.CommandMessage {
			m := d.sign(l.order(scan))
			m.Signature = d.key.Sign(wire.CommandContext, m.Order)
			return m
		}, "", "signature"},
		"a signature for something else": {func(d *device, l *line) wire.CommandMessage {
			m := d.sign(l.order(scan))
			m.Signature = d.net.Sign(wire.StreamContext, m.Order)
			return m
		}, "", "signature"},
		"another order under a good signature": {func(d *device, l *line) wire.CommandMessage {
			m, other := d.sign(l.order(scan)), d.sign(l.order(model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 1}}))
			m.Order = other.Order
			return m
		}, "", "signature"},
		"for another node": {func(d *device, l *line) wire.CommandMessage {
			o := l.order(scan)
			o.Node = stranger.ID()
			return d.sign(o)
		}, "", "node"},
		"recorded on another connection": {func(d *device, l *line) wire.CommandMessage {
			return d.sign(d.connect().order(scan))
		}, "", "session"},
		"octets": {func(d *device, _ *line) wire.CommandMessage {
			b := []byte{0xa1, 0x01, 0x02}
			return wire.CommandMessage{Order: b, Signature: d.net.Sign(wire.CommandContext, b)}
		}, "", "form"},
		"of a lower epoch": {func(d *device, l *line) wire.CommandMessage {
			o := l.order(scan)
			d.epoch = 40_001
			return d.sign(o)
		}, model.CodeEpoch, model.CodeEpoch},
		"a kind of a later release": {func(d *device, l *line) wire.CommandMessage {
			return d.sign(l.order(model.Command{Kind: "dance"}))
		}, model.CodeUnsupported, ""},
		"arguments beyond bounds": {func(d *device, l *line) wire.CommandMessage {
			return d.sign(l.order(model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 1 << 30}}))
		}, model.CodeInvalid, ""},
		"arguments of another kind": {func(d *device, l *line) wire.CommandMessage {
			return d.sign(l.order(model.Command{Kind: model.CommandScan, Locate: &model.LocateCommand{Seconds: 1}}))
		}, model.CodeInvalid, ""},
		"what the device cannot do": {func(d *device, l *line) wire.CommandMessage {
			return d.sign(l.order(model.Command{Kind: model.CommandCapture}))
		}, model.CodeNoRadio, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			l := d.connect()
			m := tc.make(d, l)
			for range 3 { // as often as it comes
				if got := l.take(m); got != tc.answer {
					t.Errorf("answered %q, want %q", got, tc.answer)
				}
			}
			if done := d.executed(); len(done) != 0 {
				t.Errorf("executed %v", done)
			}
			var want []string
			if tc.event != "" {
				want = []string{tc.event} // once in a while
			}
			if got := d.told(); !slices.Equal(got, want) {
				t.Errorf("events %v, want %v", got, want)
			}
			d.epoch = 40_000
			if got := l.take(d.sign(l.order(scan))); got != "" || len(d.executed()) != 1 {
				t.Errorf("a good order after it: answered %q, executed %v", got, d.executed())
			}
		})
	}
}

// An order is due by a time since the welcome, whatever the clocks do.
func TestALateOrderIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		l := d.connect()
		good, late := d.sign(l.order(scan)), d.sign(l.order(scan))
		time.Sleep(59 * time.Second)
		if got := l.take(good); got != "" || len(d.executed()) != 1 {
			t.Errorf("in time: answered %q, executed %v", got, d.executed())
		}
		time.Sleep(2 * time.Second)
		if got := l.take(late); got != model.CodeExpired || len(d.executed()) != 1 {
			t.Errorf("too late: answered %q, executed %v", got, d.executed())
		}
		if got := l.take(good); got != "" || len(d.executed()) != 1 {
			t.Errorf("what was done in time, asked for again too late: answered %q, executed %v", got, d.executed())
		}
	})
}

// An order that comes again, on this connection or a later one, after a restart of the
// process or of the machine, is not executed again.
func TestAnOrderIsExecutedOnce(t *testing.T) {
	d := newDevice(t)
	l := d.connect()
	o := l.order(scan)
	again := func(when string) {
		t.Helper()
		o.Session = l.nonce
		if got := l.take(d.sign(o)); got != "" || len(d.executed()) != 1 {
			t.Errorf("%s: answered %q, executed %v", when, got, d.executed())
		}
	}
	again("at first")
	again("once more")
	l = d.connect()
	again("on another connection")
	d.acknowledged(wire.CommandAck{ID: o.ID, State: model.CommandDone})
	again("after the gateway has it")
	d.process()
	l = d.connect()
	again("after a restart of the process")
	d.start()
	l = d.connect()
	again("after a restart of the machine")
	o.Epoch = 40_001 // the gateway's epoch has risen since
	again("under another epoch")
}

// Memory is bounded. What is forgotten is refused, not executed again.
func TestWhatIsForgottenIsRefused(t *testing.T) {
	d := newDevice(t)
	l := d.connect()
	first, old := l.order(scan), l.order(scan)
	var skipped wire.Order // queued for long at the gateway
	if got := l.take(d.sign(first)); got != "" {
		t.Fatal(got)
	}
	for i := range maxEntries {
		o := l.order(scan)
		if i == maxEntries/2 {
			skipped, o = o, l.order(scan)
		}
		if got := l.take(d.sign(o)); got != "" {
			t.Fatal(got)
		}
		d.acknowledged(wire.CommandAck{ID: o.ID, State: model.CommandDone})
	}
	n := len(d.executed())
	if got := l.take(d.sign(first)); got != model.CodeReplayed {
		t.Errorf("the oldest: answered %q", got)
	}
	d.start()
	l = d.connect()
	first.Session = l.nonce
	if got := l.take(d.sign(first)); got != model.CodeReplayed || len(d.executed()) != n {
		t.Errorf("after a restart: answered %q, executed %d more", got, len(d.executed())-n)
	}
	old.Session = l.nonce
	if got := l.take(d.sign(old)); got != model.CodeReplayed || len(d.executed()) != n {
		t.Errorf("one that would be forgotten at once: answered %q, executed %d more", got, len(d.executed())-n)
	}
	skipped.Session = l.nonce
	if got := l.take(d.sign(skipped)); got != "" || len(d.executed()) != n+1 {
		t.Errorf("one that was never executed, and is not as old: answered %q, executed %d more", got, len(d.executed())-n)
	}
	list, err := os.Stat(filepath.Join(d.dir, "perm", "commands"))
	if err != nil || list.Size() > maxMemory/4 {
		t.Errorf("the memory is %v octets, %v", list.Size(), err)
	}
}

// Nothing can be written anywhere: nothing is done, as it might be done twice.
func TestWithoutMemoryNothingIsDone(t *testing.T) {
	d := newDevice(t)
	l := d.connect()
	for _, dir := range []string{"perm", "run"} {
		path := filepath.Join(d.dir, dir)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil { // a file where a folder has to be
			t.Fatal(err)
		}
	}
	o := l.order(scan)
	if got := l.take(d.sign(o)); got != model.CodeUnkept || len(d.executed()) != 0 {
		t.Errorf("answered %q, executed %v", got, d.executed())
	}
	if err := os.Remove(filepath.Join(d.dir, "run")); err != nil {
		t.Fatal(err)
	}
	if got := l.take(d.sign(o)); got != "" || len(d.executed()) != 1 {
		t.Errorf("with /run alone: answered %q, executed %v", got, d.executed())
	}
}

// A file that rots is no reason to stop; that it did is told.
func TestADamagedMemory(t *testing.T) {
	d := newDevice(t)
	l := d.connect()
	o := l.order(scan)
	if got := l.take(d.sign(o)); got != "" {
		t.Fatal(got)
	}
	perm, run := filepath.Join(d.dir, "perm", "commands"), filepath.Join(d.dir, "run", "commands")
	for name, b := range map[string][]byte{"cut": []byte(`{"network":"net","entr`), "empty": {}, "huge": make([]byte, maxMemory+1)} {
		if err := os.WriteFile(perm, b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := OpenMemory("net", d.key.ID(), func() bool { return true }, perm, run)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, begun, _ := m.Find(o.ID); !begun {
			t.Errorf("%s: the other file was not read", name)
		}
	}
	if m, err := OpenMemory("another", d.key.ID(), func() bool { return true }, run); err != nil || len(m.Open()) != 0 {
		t.Errorf("another network's: %v, %+v", err, m.Open())
	}
}

// So many at once and no more, and of most kinds one.
func TestCommandsAtOnceAreBounded(t *testing.T) {
	d := newDevice(t)
	l := d.connect()
	locate := model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 1}}
	begin := func(c model.Command) string {
		t.Helper()
		r := l.Line.order(d.sign(l.order(c)))
		if r == nil {
			return ""
		}
		return r.Code
	}
	if got := begin(locate); got != "" {
		t.Fatal(got)
	}
	if got := begin(locate); got != model.CodeBusy {
		t.Errorf("a second one of the kind: %q", got)
	}
	a := d.Actions[model.CommandLocate]
	a.Many = true
	d.Actions[model.CommandLocate] = a
	n := 1
	for ; begin(locate) == ""; n++ {
	}
	if n != maxRunning {
		t.Errorf("%d at once, want %d", n, maxRunning)
	}
	close(d.block)
	d.running.Wait()
	if got := begin(locate); got != "" {
		t.Errorf("when they are done: %q", got)
	}
	d.running.Wait()
}

// What the process was at when it ended is told by the next one.
func TestInterruptedCommandsAreTold(t *testing.T) {
	d := newDevice(t)
	l := d.connect()
	o := l.order(model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 1}})
	if r := l.Line.order(d.sign(o)); r != nil {
		t.Fatal(r)
	}
	d.process()
	l = d.connect()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		said := slices.Clone(l.said)
		l.mu.Unlock()
		i := slices.IndexFunc(said, func(m wire.Message) bool { _, ok := m.(wire.CommandReport); return ok })
		if i >= 0 {
			if r := said[i].(wire.CommandReport); r.ID != o.ID || r.State != model.CommandFailed || r.Code != model.CodeInterrupted {
				t.Errorf("said %+v", r)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was said")
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A file comes in parts, a few ahead of what has arrived, then the report; a gateway
// that answers nothing gets no more than those.
func TestFilesComeInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		file := []byte(strings.Repeat("0123456789abcdef", 10*wire.PartSize/16) + "end")
		d.Actions[model.CommandCapture] = Action{Do: func(context.Context, *Task) (Result, error) { return Result{File: file}, nil }}
		l := d.connect()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		o := l.order(model.Command{Kind: model.CommandCapture})
		if r := l.Line.order(d.sign(o)); r != nil {
			t.Fatal(r)
		}
		synctest.Wait()
		var got []byte
		var ended []wire.CommandReport
		read := func() (parts int) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, m := range l.said {
				switch m := m.(type) {
				case wire.CommandPart:
					if int(m.Offset) <= len(got) {
						got = append(got[:m.Offset], m.Data...)
					}
					parts++
				case wire.CommandReport:
					if m.State.Final() {
						ended = append(ended, m)
					}
				}
			}
			l.said = nil
			return parts
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := read(); n != window || len(ended) != 0 {
			t.Errorf("%d parts and %d reports without an answer, want %d and none", n, len(ended), window)
		}
		got = nil
		for range 500 {
			time.Sleep(time.Second)
			synctest.Wait()
			read()
			if len(ended) > 0 {
				break
			}
			if _, err := l.Take(ctx, wire.CommandAck{ID: o.ID, Offset: uint64(len(got))}); err != nil {
				t.Fatal(err)
			}
		}
		if string(got) != string(file) || len(ended) != 1 || ended[0].Size != uint64(len(file)) || ended[0].State != model.CommandDone {
			t.Errorf("%d of %d octets, reports %+v", len(got), len(file), ended)
		}
		another := func() wire.CommandMessage {
			o := l.order(model.Command{Kind: model.CommandCapture})
			o.Deadline = 3_600_000
			return d.sign(o)
		}
		if r := l.Line.order(another()); r == nil || r.Code != model.CodeBusy {
			t.Errorf("another one before the first is handed over: %+v", r)
		}
		if _, err := l.Take(ctx, wire.CommandAck{ID: o.ID, State: model.CommandDone}); err != nil {
			t.Fatal(err)
		}
		if r := l.Line.order(another()); r != nil {
			t.Errorf("and after that: %+v", r)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		d.end()
		d.running.Wait()
	})
}

// TestACommandMakesAble: by what a command has done the device can do more, of which the
// gateway hears before it hears that the command is done.
func TestACommandMakesAble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		able := false
		d.Actions[model.CommandCapture] = Action{Able: func() error {
			d.mu.Lock()
			defer d.mu.Unlock()
			if !able {
				return model.RefuseCommand(model.CodeNoRadio, "none")
			}
			return nil
		}}
		d.Actions[model.CommandScan] = Action{Do: func(context.Context, *Task) (Result, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			able = true
			return Result{Value: "done"}, nil
		}}
		l := d.connect()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		if r := l.Line.order(d.sign(l.order(scan))); r != nil {
			t.Fatal(r)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		l.mu.Lock()
		var told []string
		for _, m := range l.said {
			switch m := m.(type) {
			case wire.AbilitiesMessage:
				i := slices.IndexFunc(m.Abilities, func(a model.Ability) bool { return a.Kind == model.CommandCapture })
				told = append(told, "capture: "+m.Abilities[i].Code)
			case wire.CommandReport:
				if m.State.Final() {
					told = append(told, "the end")
				}
			}
		}
		l.mu.Unlock()
		if want := []string{"capture: " + model.CodeNoRadio, "capture: ", "the end"}; !slices.Equal(told, want) {
			t.Errorf("told %q, want %q", told, want)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		d.end()
		d.running.Wait()
	})
}

func TestResultsAreBounded(t *testing.T) {
	d := newDevice(t)
	l := d.connect()
	for name, res := range map[string]Result{
		"too much": {Value: strings.Repeat("x", model.CommandResultMax)}, "too big a file": {File: make([]byte, model.CommandFileMax+1)}, "no JSON": {Value: func() {}},
	} {
		d.Actions[model.CommandScan] = Action{Do: func(context.Context, *Task) (Result, error) { return res, nil }}
		o := l.order(scan)
		if got := l.take(d.sign(o)); got != "" {
			t.Fatal(got)
		}
		e, _, _ := d.Memory.Find(o.ID)
		if e.State != model.CommandFailed || e.Code != model.CodeFailed || e.Text == "" {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// What takes longer than the gateway allows ends.
func TestACommandHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		l := d.connect()
		o := l.order(model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: 1}})
		o.Limit = 5000
		begin := time.Now()
		if got := l.take(d.sign(o)); got != "" {
			t.Fatal(got)
		}
		e, _, _ := d.Memory.Find(o.ID)
		if took := time.Since(begin); took != 5*time.Second || e.State != model.CommandFailed || e.Code != model.CodeTimeout {
			t.Errorf("after %s: %+v", took, e)
		}
	})
}
