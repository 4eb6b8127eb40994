package commands_test

import (
	"errors"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// unfinished is how many commands have not ended.
func (s *site) unfinished() int {
	s.t.Helper()
	list, err := s.jobs.Active(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list)
}

// taken has the database take things again, and waits until a job has ended.
func (s *site) taken(takes func(), id int64, state, code string) {
	s.t.Helper()
	takes()
	s.ends(id, state, code)
	if n := s.unfinished(); n != 0 {
		s.t.Errorf("%d jobs have not ended", n)
	}
}

// What could not be stored when a command expired is stored later.
func TestACommandThatExpiresWhileTheCardIsFull(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	const wait = 2 * time.Second // counted from before it is stored, which takes its time
	j, err := b.try(capture, wait)
	if err != nil {
		t.Fatal(err)
	}
	takes := storetest.Refuse(t, s.db)
	time.Sleep(wait + 200*time.Millisecond)
	l := b.lie() // it is too late for it all the same
	if said := l.heard(); len(said) != 0 {
		t.Errorf("the gateway said %+v", said)
	}
	if now, err := s.jobs.Get(t.Context(), j.ID); err != nil || now.Final() {
		t.Fatalf("got %+v, %v", now, err)
	}
	if _, err := s.jobs.Cancel(t.Context(), j.ID); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("taking it back: got %v", err)
	}
	s.taken(takes, j.ID, apitype.JobExpired, model.CodeExpired)
}

// A cancel that cannot be stored changes nothing: the node gets the command. Asked again it
// is taken back.
func TestACancelThatCannotBeStored(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	for _, again := range []bool{false, true} {
		j := b.give(capture)
		takes := storetest.Refuse(t, s.db)
		if got, err := s.jobs.Cancel(t.Context(), j.ID); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("got %+v, %v", got, err)
		}
		if now, err := s.jobs.Get(t.Context(), j.ID); err != nil || now.State != apitype.JobQueued || now.Cancelled {
			t.Errorf("got %+v, %v", now, err)
		}
		if again {
			takes()
			if got, err := s.jobs.Cancel(t.Context(), j.ID); err != nil || got.State != apitype.JobCancelled {
				t.Errorf("again: got %+v, %v", got, err)
			}
			if said := b.lie().heard(); len(said) != 0 || s.unfinished() != 0 {
				t.Errorf("the gateway said %+v", said)
			}
			continue
		}
		l := b.lie()
		o := l.order()
		done := wire.CommandReport{ID: o.ID, State: model.CommandDone}
		if said := l.say(done); len(said) != 0 {
			t.Errorf("what was not stored is acknowledged: %+v", said)
		}
		if got, err := s.jobs.Cancel(t.Context(), j.ID); err != nil || got.Final() { // the node has the last word
			t.Errorf("got %+v, %v", got, err)
		}
		if said := l.heard(); len(said) != 1 || said[0] != wire.Message(wire.CommandCancel{ID: o.ID}) {
			t.Errorf("the gateway said %+v", said)
		}
		takes()
		l.say(done)
		s.ends(j.ID, apitype.JobDone, "")
		l.detach()
	}
}

// The commands of a node that was revoked end, however long that cannot be stored.
func TestARevocationWhileTheCardIsFull(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	j := b.give(capture)
	takes := storetest.Refuse(t, s.db)
	s.commands.Drop(b.id())
	if said := b.lie().heard(); len(said) != 0 {
		t.Errorf("the gateway said %+v", said)
	}
	if _, err := s.jobs.Cancel(t.Context(), j.ID); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("taking it back: got %v", err)
	}
	s.taken(takes, j.ID, apitype.JobCancelled, "")
}

// Neither does it wait for how a command ends that the node says it has begun meanwhile.
func TestARevokedNodeSaysThatItHasBegun(t *testing.T) {
	s := newSite(t)
	b := s.board(nil)
	j := b.give(capture)
	l := b.lie()
	o := l.order()
	takes := storetest.Refuse(t, s.db)
	s.commands.Drop(b.id())
	takes()
	l.say(wire.CommandReport{ID: o.ID, State: model.CommandRunning})
	s.taken(takes, j.ID, apitype.JobCancelled, "")
}
