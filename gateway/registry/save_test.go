package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/events"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// running is a registry whose Run runs.
type running struct {
	*fixture
	nodes []string
	stop  func()
}

// run joins n nodes, lets each say how it is, and waits until that is written.
func run(t *testing.T, n int) *running {
	t.Helper()
	f := &running{fixture: newFixture(t)}
	token := f.token(uint32(n))
	for range n {
		key := identity.New()
		if _, err := f.join(t, key, f.request(key, token)); err != nil {
			t.Fatal(err)
		}
		f.nodes = append(f.nodes, key.ID())
	}
	f.begin = time.Now()
	f.start(t)
	for _, id := range f.nodes {
		f.Online(id, 1)
		f.Status(id, status("ok"))
	}
	f.pass(2 * saveEvery)
	return f
}

func (f *running) start(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := f.Registry
	go func() { done <- r.Run(ctx) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// pass lets time go by.
func (f *running) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// crashed is the registry as the next start finds it when the power is cut now.
func (f *running) crashed(t *testing.T) *running {
	t.Helper()
	f.kinds(t) // events wait for a second at most
	next := &running{fixture: &fixture{path: filepath.Join(t.TempDir(), "config.db"), key: f.key, now: f.now, begin: f.begin, mono: f.mono}, nodes: f.nodes}
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(f.path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(next.path+suffix, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next.open(t)
	next.start(t)
	return next
}

func (f *running) node(t *testing.T, id string) apitype.Node {
	t.Helper()
	n, err := f.Node(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// told returns the states of which events have told of a node.
func (f *running) told(t *testing.T, id string) (states []string) {
	t.Helper()
	f.kinds(t)
	zero := int64(0)
	list, _, err := f.events.List(t.Context(), events.Query{Kind: kindState, Node: id, Since: &zero, Limit: 500})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		states = append(states, e.Fields[fieldState])
	}
	return states
}

func status(state string, addresses ...string) model.NodeStatus {
	s := model.NodeStatus{State: state, Version: "1", Slot: "a", Interfaces: []model.Interface{{Name: "eth0", Up: true}}}
	for _, a := range addresses {
		s.Interfaces[0].Addresses = append(s.Interfaces[0].Addresses, netip.MustParsePrefix(a))
	}
	return s
}

func TestManyChangesAreOneTransactionAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := run(t, 20)
		defer f.stop()
		before := f.db.Commits()
		for i := range 100 {
			state := []string{"degraded", "ok"}[i%2]
			for _, id := range f.nodes {
				f.Status(id, status(state, fmt.Sprintf("10.0.0.%d/24", i)))
				f.Online(id, 1)()
			}
			if n := f.node(t, f.nodes[i%20]); n.State != state || !n.LastSeen.Equal(f.wall()) {
				t.Fatalf("live: %+v, want %s, seen at %v", n, state, f.wall())
			}
			list, err := f.Interfaces(t.Context(), f.nodes[0])
			if err != nil || len(list) != 1 || !list[0].Present || list[0].Addresses[0].Addr().As4()[3] != byte(i) {
				t.Fatalf("live interfaces: %+v, %v", list, err)
			}
			f.pass(600 * time.Millisecond)
		}
		if got := f.db.Commits() - before; got > 1 {
			t.Errorf("20 nodes that changed 100 times in a minute cost %d transactions, want 1 at most", got)
		}
		f.pass(saveEvery)
		if got := f.db.Commits() - before; got == 0 || got > 2 {
			t.Errorf("a minute later %d transactions were written, want 1 or 2", got)
		}
		before = f.db.Commits()
		f.pass(10 * saveEvery)
		if got := f.db.Commits() - before; got != 0 {
			t.Errorf("%d transactions without a change", got)
		}
	})
}

// Release, slot and boot say what runs where: that is in config.db at once, but
// a node that tells another release each second does not wear the card.
func TestWhatANodeIsIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := run(t, 3)
		defer f.stop()
		before := f.db.Commits()
		s := status("ok")
		s.Version, s.Slot = "2", "b"
		f.Online(f.nodes[0], 7)
		f.Status(f.nodes[0], s)
		f.Status(f.nodes[1], s)
		synctest.Wait()
		if got := f.db.Commits() - before; got == 0 || got > 3 {
			t.Errorf("%d transactions, want one to three", got)
		}
		next := f.crashed(t)
		defer next.stop()
		for i, boot := range []uint64{7, 1} {
			if n := next.node(t, f.nodes[i]); n.Version != "2" || n.Slot != "b" || n.Boot != boot {
				t.Errorf("after a crash: release %s, slot %s, boot %d", n.Version, n.Slot, n.Boot)
			}
		}
		before = f.db.Commits()
		for i := range 59 {
			s.Version = fmt.Sprint(i)
			f.Status(f.nodes[0], s)
			f.pass(time.Second)
		}
		if got := f.db.Commits() - before; got > 1 {
			t.Errorf("a release that changes each second cost %d transactions in a minute", got)
		}
	})
}

func TestACrashLosesAMinuteOfStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := run(t, 2)
		f.Status(f.nodes[0], status("degraded"))
		f.pass(saveEvery)
		written := f.wall()
		f.Status(f.nodes[0], status("failed"))
		f.pass(saveEvery - time.Second)
		next := f.crashed(t)
		if n := next.node(t, f.nodes[0]); n.State != "degraded" || written.Sub(*n.LastSeen) > saveEvery {
			t.Errorf("after a crash: %s, last seen %v; want the state of a minute before %v", n.State, n.LastSeen, f.wall())
		}
		next.Heard(f.nodes[1], f.wall().Add(-time.Second))
		next.Heard(f.nodes[1], f.wall().Add(time.Hour)) // a clock that is wrong
		if n := next.node(t, f.nodes[1]); !n.LastSeen.Equal(f.wall().Add(-time.Second)) {
			t.Errorf("last seen %v, want the time of its newest reading", n.LastSeen)
		}
		next.stop()

		f.Status(f.nodes[0], status("ok", "10.0.0.1/24"))
		f.Seen(f.nodes[1])
		f.stop() // in order
		next = f.crashed(t)
		for _, id := range f.nodes {
			if n := next.node(t, id); n.State != "ok" || !n.LastSeen.Equal(f.wall()) {
				t.Errorf("after an orderly end: %s, last seen %v, want ok at %v", n.State, n.LastSeen, f.wall())
			}
		}
		if list, err := next.Interfaces(t.Context(), f.nodes[0]); err != nil || len(list) != 1 || len(list[0].Addresses) != 1 {
			t.Errorf("interfaces: %+v, %v", list, err)
		}
		next.stop()
	})
}

func TestAStateThatComesAndGoesIsToldOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := run(t, 2)
		defer f.stop()
		id := f.nodes[0]
		f.Status(id, status("degraded"))
		if got := f.told(t, id); !slices.Equal(got, []string{"degraded"}) {
			t.Errorf("told %v at once, want the first change", got)
		}
		for i := range 29 { // ends with ok
			f.pass(2 * time.Second)
			f.Status(id, status([]string{"ok", "degraded"}[i%2]))
		}
		if got := f.told(t, id); len(got) != 1 {
			t.Errorf("told %v within a minute, want one", got)
		}
		f.pass(2 * time.Second)
		if got := f.told(t, id); !slices.Equal(got, []string{"degraded", "ok"}) {
			t.Errorf("told %v, want the last state after a minute", got)
		}
		f.Status(id, status("failed"))
		f.Status(id, status("ok"))
		f.pass(2 * tellEvery)
		if got := f.told(t, id); !slices.Equal(got, []string{"degraded", "ok", "ok"}) {
			t.Errorf("told %v, want also that it left ok and came back", got)
		}
		f.pass(time.Hour)
		if got := f.told(t, id); len(got) != 3 {
			t.Errorf("told %v without a change", got)
		}

		// The power is cut before the last state was told, and before it was written.
		f.Status(id, status("degraded"))
		f.Status(id, status("ok"))
		next := f.crashed(t)
		next.Status(id, status("ok"))
		next.pass(2 * tellEvery)
		if got := next.told(t, id); got[len(got)-1] != "ok" {
			t.Errorf("after a crash the log ends with %v, the node is ok", got)
		}
		if got := next.told(t, f.nodes[1]); len(got) != 0 {
			t.Errorf("the other node has not changed and was told as %v", got)
		}
		next.stop()
	})
}

func TestWhatCouldNotBeWrittenIsTriedAgain(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	if _, err := f.join(t, key, f.request(key, f.token(1))); err != nil {
		t.Fatal(err)
	}
	f.Status("n-nobody", status("ok")) // not a member: it keeps nothing from the others
	f.Status(key.ID(), status("failed"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.save(ended, false); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if f.saveBy.IsZero() {
		t.Error("no further try is planned")
	}
	f.flush(t)
	f.open(t)
	if n, err := f.Node(t.Context(), key.ID()); err != nil || n.State != "failed" {
		t.Errorf("after a restart: %+v, %v", n, err)
	}
	if list, err := f.Interfaces(t.Context(), key.ID()); err != nil || len(list) != 1 || !list[0].Present {
		t.Errorf("interfaces: %+v, %v", list, err)
	}
}

// One body that cannot be read must not keep the gateway from starting.
func TestAStoredStatusThatCannotBeRead(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	if _, err := f.join(t, key, f.request(key, f.token(1))); err != nil {
		t.Fatal(err)
	}
	f.Status(key.ID(), status("ok"))
	f.flush(t)
	f.alter(t, `UPDATE nodes SET status = '{"state":"ok","uptime_s":[' WHERE id = '`+key.ID()+`'`)
	f.open(t)
	if n, err := f.Node(t.Context(), key.ID()); err != nil || n.State != "" {
		t.Errorf("got %+v, %v; want a node of which nothing is known", n, err)
	}
	if got := f.kinds(t); !slices.Contains(got, "node.status.unreadable") {
		t.Errorf("events %v", got)
	}
	f.Status(key.ID(), status("failed"))
	f.flush(t)
	f.open(t)
	if n, err := f.Node(t.Context(), key.ID()); err != nil || n.State != "failed" {
		t.Errorf("after the node told it anew: %+v, %v", n, err)
	}
}

// A node whose interface is refused keeps what is stored of it, and the others
// are written.
func TestARefusedStatusLeavesNothingHalfWritten(t *testing.T) {
	f := newFixture(t)
	keys := []identity.Key{identity.New(), identity.New()}
	token := f.token(2)
	for _, key := range keys {
		if _, err := f.join(t, key, f.request(key, token)); err != nil {
			t.Fatal(err)
		}
		f.Status(key.ID(), status("ok"))
	}
	f.flush(t)
	f.alter(t, `CREATE TRIGGER never BEFORE INSERT ON interfaces WHEN NEW.node = '`+keys[0].ID()+`' BEGIN SELECT RAISE(ABORT, 'never'); END`)
	for _, key := range keys {
		f.Status(key.ID(), status("failed"))
	}
	f.flush(t)
	if got := f.kinds(t); !slices.Contains(got, "node.status.unfit") {
		t.Errorf("events %v", got)
	}
	f.open(t)
	for i, want := range []string{"ok", "failed"} {
		if n, err := f.Node(t.Context(), keys[i].ID()); err != nil || n.State != want {
			t.Errorf("node %d: %+v, %v; want state %s", i, n, err, want)
		}
		if list, err := f.Interfaces(t.Context(), keys[i].ID()); err != nil || len(list) != 1 || !list[0].Present {
			t.Errorf("node %d: interfaces %+v, %v; want one that is present", i, list, err)
		}
	}
}

func (f *fixture) alter(t *testing.T, statement string) {
	t.Helper()
	err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), statement)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
