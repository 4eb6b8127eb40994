package commands_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/agent/command"
	"halo.internal/gateway/commands"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// liar is a node's side of a stream that a test plays.
type liar struct {
	*board
	nonce  []byte
	detach func()

	mu   sync.Mutex
	said []wire.Message // by the gateway
}

func (b *board) lie() *liar {
	b.t.Helper()
	l := &liar{board: b, nonce: command.Nonce()}
	l.detach = b.commands.Attach(b.id(), l.nonce, time.Now(), func(m wire.Message) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.said = append(l.said, m)
	})
	b.t.Cleanup(func() { l.detach() })
	return l
}

// heard returns what the gateway has said since the last time.
func (l *liar) heard() []wire.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.said
	l.said = nil
	return said
}

func (l *liar) say(m wire.Message) []wire.Message {
	l.t.Helper()
	if !l.commands.Take(l.t.Context(), l.id(), m) {
		l.t.Fatalf("%T is no message about commands", m)
	}
	return l.heard()
}

// order is the command that the gateway has just handed over.
func (l *liar) order() wire.Order {
	l.t.Helper()
	said := l.heard()
	if len(said) != 1 {
		l.t.Fatalf("the gateway said %+v", said)
	}
	m, ok := said[0].(wire.CommandMessage)
	if !ok || !l.site.key.Public().Verify(wire.CommandContext, m.Order, m.Signature) {
		l.t.Fatalf("the gateway said %+v", said)
	}
	o, err := wire.DecodeOrder(m.Order)
	if err != nil || o.Node != l.id() || !bytes.Equal(o.Session, l.nonce) || o.Epoch != 40_000 || o.By != "user:root" {
		l.t.Fatalf("the order is %+v, %v", o, err)
	}
	return o
}

var capture = model.Command{Kind: model.CommandCapture}

// A node says what it likes of commands that are none of its own: no job changes.
func TestANodeSpeaksForItselfAlone(t *testing.T) {
	s := newSite(t)
	victim, other := s.board(nil), s.board(nil)
	v, l := victim.lie(), other.lie()
	j := victim.give(scan)
	o := v.order()
	for _, id := range []wire.CommandID{o.ID, wire.NewCommandID(o.ID.Epoch, 999), wire.NewCommandID(1, o.ID.Number)} {
		for _, state := range []model.CommandState{model.CommandRunning, model.CommandDone, model.CommandFailed} {
			l.say(wire.CommandReport{ID: id, State: state, Result: []byte(`"forged"`)})
		}
		l.say(wire.CommandPart{ID: id, Data: []byte("forged")})
	}
	// Nor of what was given up: what counts is who was asked, and in which epoch.
	if _, err := s.jobs.Cancel(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	v.say(wire.CommandReport{ID: wire.NewCommandID(1, o.ID.Number), State: model.CommandDone})
	if got, err := s.jobs.Get(t.Context(), j.ID); err != nil || got.State != apitype.JobQueued {
		t.Errorf("got %+v, %v", got, err)
	}
	v.say(wire.CommandReport{ID: o.ID, State: model.CommandDone, Result: []byte(`{"own":true}`)})
	if got := s.ends(j.ID, apitype.JobDone, ""); string(got.Result) != `{"own":true}` {
		t.Errorf("got %s", got.Result)
	}
}

// Files are taken of captures alone, in order, as much as was announced; what else
// comes is not held.
func TestFilesOfHostileNodes(t *testing.T) {
	s := newSite(t)
	l := s.board(nil).lie()
	j := l.give(scan)
	o := l.order()
	for range 100 {
		for _, m := range l.say(wire.CommandPart{ID: o.ID, Data: make([]byte, wire.PartSize)}) {
			if a, ok := m.(wire.CommandAck); !ok || a.State != model.CommandGone {
				t.Fatalf("a file of a scan: the gateway said %+v", m)
			}
		}
	}
	l.say(wire.CommandReport{ID: o.ID, State: model.CommandDone, Size: 100}) // which never came
	if got, err := s.jobs.Get(t.Context(), j.ID); err != nil || got.Final() {
		t.Errorf("got %+v, %v", got, err)
	}
	l.say(wire.CommandReport{ID: o.ID, State: model.CommandDone, Result: []byte(`{"a":`)}) // no JSON
	if got := s.ends(j.ID, apitype.JobDone, ""); got.Result != nil || got.File != nil {
		t.Errorf("got %+v", got)
	}

	j = l.give(capture)
	l.heard()
	id := wire.NewCommandID(40_000, uint64(j.ID))
	offset := func(m wire.CommandPart) uint64 {
		t.Helper()
		said := l.say(m)
		a, ok := said[0].(wire.CommandAck)
		if len(said) != 1 || !ok {
			t.Fatalf("the gateway said %+v", said)
		}
		return a.Offset
	}
	for _, tc := range []struct {
		at   uint64
		data string
		want uint64
	}{{5, "late", 0}, {0, "abc", 3}, {3, "def", 6}, {3, "xyz", 6}, {100, "x", 6}, {0, "ABC", 3}, {3, "DEF", 6}} {
		if got := offset(wire.CommandPart{ID: id, Offset: tc.at, Data: []byte(tc.data)}); got != tc.want {
			t.Errorf("%q at %d: the gateway has %d, want %d", tc.data, tc.at, got, tc.want)
		}
	}
	if said := l.say(wire.CommandReport{ID: id, State: model.CommandDone, Size: 5}); len(said) != 0 {
		t.Errorf("of another size: %+v", said)
	}
	offset(wire.CommandPart{ID: id, Offset: 0, Data: []byte("abcdef")})
	l.say(wire.CommandReport{ID: id, State: model.CommandDone, Size: 6})
	s.ends(j.ID, apitype.JobDone, "")
	if _, b, err := s.jobs.File(t.Context(), j.ID); err != nil || string(b) != "abcdef" {
		t.Errorf("got %q, %v", b, err)
	}
	if said := l.say(wire.CommandPart{ID: id, Offset: 0, Data: []byte("more")}); said[0].(wire.CommandAck).State != model.CommandGone {
		t.Errorf("after the end: %+v", said)
	}
}

// However many captures are asked for, what is held of them is bounded.
func TestCapturesAtOnceAreBounded(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	n := 0
	for ; n < 100; n++ {
		if _, err := b.try(capture, 0); err != nil {
			break
		}
	}
	if n != 8 {
		t.Errorf("%d captures at once", n)
	}
}

// A word that comes late, or twice, or for a job that was given up.
func TestTheNodesLastWordCounts(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	j, err := b.try(scan, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	s.ends(j.ID, apitype.JobExpired, model.CodeExpired)
	l := b.lie()
	id := wire.NewCommandID(40_000, uint64(j.ID))
	// It was executed after all, before the gateway was killed and forgot that it was sent.
	if said := l.say(wire.CommandReport{ID: id, State: model.CommandDone}); len(said) != 1 || said[0] != (wire.CommandAck{ID: id, State: model.CommandDone}) {
		t.Errorf("the gateway said %+v", said)
	}
	s.ends(j.ID, apitype.JobDone, "")
	if said := l.say(wire.CommandReport{ID: id, State: model.CommandFailed, Code: "x"}); len(said) != 1 {
		t.Errorf("once more: %+v", said)
	}
	s.ends(j.ID, apitype.JobDone, "") // the first last word
	if said := l.say(wire.CommandReport{ID: id, State: model.CommandRunning}); len(said) != 2 || said[0] != (wire.CommandCancel{ID: id}) {
		t.Errorf("it runs on: %+v", said)
	}
}

// What is taken back while it is being stored that the node has begun is taken back all the
// same.
func TestACommandIsTakenBackWhileItBegins(t *testing.T) {
	s := newSite(t)
	l := s.board(nil).lie()
	id := wire.NewCommandID(40_000, 1)
	ctx, cancel := context.WithCancel(t.Context())
	begins, stored := make(chan struct{}), make(chan struct{})
	ended := make(chan wire.CommandReport, 1)
	go func() {
		r, err := s.commands.Do(ctx, commands.Order{ID: id, Node: l.id(), Command: capture, By: "user:root", Limit: time.Minute, Expires: time.Now().Add(time.Minute)}, func(r wire.CommandReport) {
			if r.State == model.CommandRunning {
				close(begins)
				<-stored
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %+v, %v", r, err)
		}
		ended <- r
	}()
	var said []wire.Message
	hears := func() bool { said = l.heard(); return len(said) != 0 }
	s.until("the node has it", hears)
	running := make(chan []wire.Message, 1)
	go func() { running <- l.say(wire.CommandReport{ID: id, State: model.CommandRunning}) }()
	<-begins
	cancel()
	s.until("it is taken back", hears)
	if len(said) != 1 || said[0] != wire.Message(wire.CommandCancel{ID: id}) {
		t.Errorf("the gateway said %+v", said)
	}
	close(stored)
	if said := <-running; len(said) != 1 || said[0] != wire.Message(wire.CommandAck{ID: id, State: model.CommandRunning}) {
		t.Errorf("once it was stored the gateway said %+v", said)
	}
	l.say(wire.CommandReport{ID: id, State: model.CommandCancelled})
	if r := <-ended; r.State != model.CommandCancelled {
		t.Errorf("it ended as %+v", r)
	}
}

// A connection that breaks before the node has said anything: the same command comes
// again, signed for the next one, and due no later.
func TestACommandIsSignedForEachConnection(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	l := b.lie()
	j := b.give(scan)
	first := l.order()
	l.detach()
	l = b.lie()
	second := l.order()
	if first.ID != second.ID || bytes.Equal(first.Session, second.Session) || second.Deadline > 300_000 || first.Deadline > 301_000 {
		t.Errorf("first %+v, second %+v", first, second)
	}
	l.say(wire.CommandReport{ID: second.ID, State: model.CommandRunning})
	l.detach()
	l = b.lie()
	if said := l.heard(); len(said) != 0 {
		t.Errorf("what has begun was handed over again: %+v", said)
	}
	l.say(wire.CommandReport{ID: second.ID, State: model.CommandDone})
	s.ends(j.ID, apitype.JobDone, "")
}

// A node of a release before commands gets none, and people are told so.
func TestANodeThatTakesNone(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	j := b.give(scan) // while nobody knows
	detach := s.commands.Attach(b.id(), nil, time.Now(), func(m wire.Message) { t.Errorf("the node was sent %+v", m) })
	defer detach()
	_, err := b.try(scan, 0)
	if err == nil || !strings.Contains(err.Error(), model.CodeUnsupported) {
		t.Errorf("got %v", err)
	}
	if _, err := s.jobs.Cancel(t.Context(), j.ID); err != nil {
		t.Error(err)
	}
}

func TestMessagesOfOthersAreNotTaken(t *testing.T) {
	s := newSite(t)
	for _, m := range []wire.Message{wire.Ack{}, wire.CommandMessage{}, wire.CommandAck{}, wire.CommandCancel{}, wire.Unknown{Type: 99}} {
		if s.commands.Take(t.Context(), identity.New().ID(), m) {
			t.Errorf("%T was taken", m)
		}
	}
}
