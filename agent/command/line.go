package command

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/model"
	"halo.internal/model/wire"
)

const (
	againEvery    = 30 * time.Second // a final report that is not acknowledged is sent again
	progressEvery = 2 * time.Second
	window        = 4 // parts of a file that are on their way
	partWait      = time.Minute
	abilityEvery  = time.Minute // between looks whether the device can do what it could not
)

// Line is one connection to the gateway.
type Line struct {
	engine *Engine
	nonce  []byte
	write  func(context.Context, wire.Message) error
	began  time.Time // of the connection: the welcome
	wake   chan struct{}
	parts  chan wire.CommandAck

	// Of the goroutine of reports alone.
	sent   map[wire.CommandID]sent
	could  string    // the abilities that were told
	looked time.Time // at them
}

// sent is what was sent of a command last.
type sent struct {
	state    model.CommandState
	progress uint8
	text     string
	at       time.Time
}

// Nonce returns a new one for the hello of a connection.
func Nonce() []byte {
	b := make([]byte, wire.SessionSize)
	rand.Read(b)
	return b
}

// Open begins a connection whose welcome has just come. Orders on it have to be
// signed for that nonce. write sends a message, and may be called at any time. The
// connection before has ended.
func (e *Engine) Open(nonce []byte, write func(context.Context, wire.Message) error) *Line {
	l := &Line{engine: e, nonce: nonce, write: write, began: time.Now(), wake: make(chan struct{}, 1), sent: map[wire.CommandID]sent{}, parts: make(chan wire.CommandAck, 2*window)}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.line = l
	return l
}

func (l *Line) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look already
	}
}

// Take handles a message of the gateway's, if it is about commands.
func (l *Line) Take(ctx context.Context, m wire.Message) (taken bool, err error) {
	switch m := m.(type) {
	case wire.CommandMessage:
		if r := l.order(m); r != nil {
			err = l.write(ctx, *r)
		}
	case wire.CommandAck:
		if m.State != "" {
			l.engine.acknowledged(m)
			break
		}
		select {
		case l.parts <- m:
		default: // more than there were parts
		}
	case wire.CommandCancel:
		l.engine.cancelled(m.ID)
	default:
		return false, nil
	}
	return true, err
}

// order judges an order, and begins it if it is good. What it returns, if anything,
// is to be told.
func (l *Line) order(m wire.CommandMessage) *wire.CommandReport {
	e := l.engine
	if !e.Network.Verify(wire.CommandContext, m.Order, m.Signature) {
		e.refuse("signature", "the network's key has not signed it")
		return nil
	}
	o, err := wire.DecodeOrder(m.Order)
	if err != nil {
		id, node, session, peekErr := wire.PeekOrder(m.Order)
		if peekErr != nil || node != e.Node || string(session) != string(l.nonce) {
			e.refuse("form", err.Error())
			return nil
		}
		return refused(id, &model.CommandRefusal{Code: model.CodeUnsupported, Text: err.Error()})
	}
	switch {
	case o.Node != e.Node:
		e.refuse("node", fmt.Sprintf("it is for node %.32q", o.Node))
		return nil
	case string(o.Session) != string(l.nonce):
		e.refuse("session", "it was signed for another connection")
		return nil
	}
	entry, begun, forgotten := e.Memory.Find(o.ID)
	if begun {
		l.again(o.ID, entry)
		return nil
	}
	known := max(e.Epoch(), e.Memory.Epoch())
	elapsed := time.Since(l.began)
	r := &model.CommandRefusal{}
	switch {
	case o.Epoch < known:
		r.Code, r.Text = model.CodeEpoch, fmt.Sprintf("the gateway's epoch is %d, and %d was heard", o.Epoch, known)
		e.refuse(r.Code, r.Text)
	case elapsed > time.Duration(o.Deadline)*time.Millisecond:
		r.Code, r.Text = model.CodeExpired, fmt.Sprintf("it came %s too late", (elapsed-time.Duration(o.Deadline)*time.Millisecond).Round(time.Millisecond))
	case forgotten:
		r.Code, r.Text = model.CodeReplayed, "it is older than what is remembered here"
		e.refuse(r.Code, r.Text)
	default:
		r = l.ready(&o)
	}
	if r == nil {
		return nil // it runs
	}
	return refused(o.ID, r)
}

// ready begins an order that is to be believed, or says why not.
func (l *Line) ready(o *wire.Order) *model.CommandRefusal {
	if _, known := l.engine.Actions[o.Command.Kind]; !known {
		return &model.CommandRefusal{Code: model.CodeUnsupported, Text: fmt.Sprintf("this release does not know %.32q", o.Command.Kind)}
	}
	if err := o.Command.Check(); err != nil {
		return &model.CommandRefusal{Code: model.CodeInvalid, Text: err.Error()}
	}
	if r := l.engine.able(o.Command.Kind); r != nil {
		return r
	}
	return l.engine.begin(*o)
}

func refused(id wire.CommandID, r *model.CommandRefusal) *wire.CommandReport {
	return &wire.CommandReport{ID: id, State: model.CommandRefused, Code: r.Code, Text: wire.Clip(r.Text)}
}

// again has what became of a command told once more.
func (l *Line) again(id wire.CommandID, entry Entry) {
	e := l.engine
	e.mu.Lock()
	t := e.tasks[id]
	if t == nil { // the gateway had it, and has forgotten
		t = e.task(id, model.Command{Kind: entry.Kind})
		t.report = entry.report()
		e.tasks[id] = t
	}
	t.again = true
	e.mu.Unlock()
	l.poke()
}

// Run tells the gateway what this device can do and what becomes of its commands,
// until ctx ends or the connection does.
func (l *Line) Run(ctx context.Context) error {
	defer l.close()
	g, ctx := errgroup.WithContext(ctx)
	files := make(chan *Task)
	g.Go(func() error { return l.reports(ctx, files) })
	g.Go(func() error { return l.files(ctx, files) })
	return g.Wait()
}

func (l *Line) close() {
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	if l.engine.line == l {
		l.engine.line = nil
	}
}

// reports sends what is to be told.
func (l *Line) reports(ctx context.Context, files chan<- *Task) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		if l.looked.IsZero() || time.Since(l.looked) >= abilityEvery {
			if err := l.abilities(ctx); err != nil {
				return err
			}
		}
		if err := l.tell(ctx, files); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wake:
		case <-tick.C:
		}
	}
}

// abilities tells what the device can do, where that is not what was told.
func (l *Line) abilities(ctx context.Context) error {
	l.looked = time.Now()
	can := l.engine.Abilities()
	if fmt.Sprint(can) == l.could {
		return nil
	}
	l.could = fmt.Sprint(can)
	if err := l.write(ctx, wire.AbilitiesMessage{Abilities: can}); err != nil {
		return fmt.Errorf("send abilities: %w", err)
	}
	return nil
}

// tell sends the reports that are due. By what a command has done the device may be able
// to do more: whoever hears that it is done may ask for that.
func (l *Line) tell(ctx context.Context, files chan<- *Task) error {
	e := l.engine
	now := time.Now()
	var due []wire.CommandReport
	var withFile []*Task
	e.mu.Lock()
	for id := range l.sent {
		if e.tasks[id] == nil {
			delete(l.sent, id)
		}
	}
	for id, t := range e.tasks {
		r, s := t.report, l.sent[id]
		fresh := s.state != r.State || !r.State.Final() && (s.progress != r.Progress || s.text != r.Text) && (s.progress == 0 || now.Sub(s.at) >= progressEvery)
		again := t.again || (r.State.Final() || !t.isTold) && now.Sub(s.at) >= againEvery && now.Sub(t.sentAt) >= againEvery
		switch {
		case !fresh && !again:
		case r.Size > 0:
			withFile = append(withFile, t)
		default:
			due = append(due, r)
			l.sent[id], t.again = sent{r.State, r.Progress, r.Text, now}, false
		}
	}
	e.mu.Unlock()
	if slices.ContainsFunc(due, func(r wire.CommandReport) bool { return r.State.Final() }) {
		if err := l.abilities(ctx); err != nil {
			return err
		}
	}
	for _, r := range due {
		if err := l.write(ctx, r); err != nil {
			return fmt.Errorf("report command %v: %w", r.ID, err)
		}
	}
	for _, t := range withFile {
		select {
		case files <- t:
			l.sent[t.id] = sent{state: t.report.State, at: now}
			e.mu.Lock()
			t.again = false
			e.mu.Unlock()
		default: // one is on its way, perhaps this
		}
	}
	return nil
}

// files sends the files of commands, one after the other, each with its report behind.
func (l *Line) files(ctx context.Context, files <-chan *Task) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case t := <-files:
			if err := l.file(ctx, t); err != nil {
				return err
			}
		}
	}
}

// file sends a file, a few parts ahead of what the gateway has, so that readings come
// between them. Where nothing comes back it is given up for now.
func (l *Line) file(ctx context.Context, t *Task) error {
	for len(l.parts) > 0 { // of an attempt before
		<-l.parts
	}
	stuck := time.NewTimer(partWait)
	defer stuck.Stop()
	for next, have := 0, 0; have < len(t.file); {
		for next < len(t.file) && next-have < window*wire.PartSize {
			end := min(next+wire.PartSize, len(t.file))
			if err := l.write(ctx, wire.CommandPart{ID: t.id, Offset: uint64(next), Data: t.file[next:end]}); err != nil {
				return fmt.Errorf("send file of command %v: %w", t.id, err)
			}
			next = end
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-l.parts:
			if a.ID == t.id && int(a.Offset) <= next && int(a.Offset) > have {
				have = int(a.Offset)
				stuck.Reset(partWait)
			}
		case <-t.acked: // the gateway does not want it any more
			return nil
		case <-stuck.C:
			return nil
		}
	}
	if err := l.write(ctx, t.report); err != nil {
		return fmt.Errorf("report command %v: %w", t.id, err)
	}
	l.engine.mu.Lock()
	defer l.engine.mu.Unlock()
	t.sentAt = time.Now()
	return nil
}
