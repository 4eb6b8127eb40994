package endpoints

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const gw, mast, hut = "n-gateway", "n-mast", "n-hut"

type fixture struct {
	*Book
	t      *testing.T
	now    time.Time
	config Config
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.db")
	storetest.PutConfig(t, path)
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	f := &fixture{t: t, now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	c := clock.New(func() time.Time { return f.now }, f.now.Add(-time.Hour))
	c.SetQuality(model.ClockGPS)
	f.config = Config{DB: db, Clock: c, Events: events.New(db, c, 1, slog.New(slog.DiscardHandler)), Gateway: gw}
	f.start()
	return f
}

func (f *fixture) start() {
	f.t.Helper()
	b, err := New(f.t.Context(), f.config)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Book = b
}

// report is a heartbeat some time later.
func (f *fixture) report(node string, list ...model.Client) {
	f.now = f.now.Add(time.Minute)
	f.Report(node, list)
}

func (f *fixture) save() {
	f.t.Helper()
	if err := f.Book.save(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

var names = map[string]string{gw: "gw", mast: "mast", hut: "hut"}

func there(node string) (string, bool) { return names[node], true }

// one is the only endpoint.
func (f *fixture) one() apitype.Endpoint {
	f.t.Helper()
	l := f.List(Query{}, there)
	if len(l.Items) != 1 {
		f.t.Fatalf("got %+v, want one", l.Items)
	}
	return l.Items[0]
}

func phone(present bool) model.Client {
	return model.Client{MAC: "02:00:00:00:00:07", Addresses: []netip.Addr{netip.MustParseAddr("10.43.1.7")}, Hostname: "phone", Name: "phone", Iface: "br0", Present: present}
}

func TestAPhoneThatRoams(t *testing.T) {
	f := newFixture(t)
	f.report(mast, phone(true))
	f.report(hut)
	first := f.one()
	if first.Node != mast || !first.Present || first.DNS != "phone.mast.halo" || first.Hostname != "phone" || first.Interface != "br0" {
		t.Errorf("got %+v", first)
	}
	// It goes to the hut. The mast has its lease still, and says so.
	f.report(hut, phone(true))
	f.report(mast, phone(true))
	f.report(hut, phone(true))
	e := f.one()
	if e.ID != first.ID || e.Node != hut || !e.Present {
		t.Errorf("moved: got %+v", e)
	}
	// And back, when the mast has not had it for a while.
	f.report(mast)
	f.report(mast, phone(true))
	if e := f.one(); e.Node != mast {
		t.Errorf("back: got %+v", e)
	}
	// It leaves: the hut's old word does not bring it back.
	f.report(mast, phone(false))
	f.report(hut, phone(true)) // whose lease is not over
	f.report(hut)
	if e := f.one(); e.Present || e.ID != first.ID {
		t.Errorf("gone: got %+v", e)
	}
	f.save()
	f.start()
	d, err := f.Get(first.ID, there)
	if err != nil || d.Present || d.FirstSeen != first.FirstSeen || len(d.Places) < 3 || d.Places[len(d.Places)-1].Node != mast {
		t.Errorf("after a restart: got %+v, %v", d, err)
	}
	// Right after it, what nodes say may be of long ago: who has it, is believed.
	f.report(mast, phone(true))
	f.report(hut, phone(true))
	f.report(mast, phone(true))
	if e := f.one(); e.Node != hut || !e.Present {
		t.Errorf("right after a restart: got %+v", e)
	}
	f.report(hut)
	f.report(mast, phone(true))
	if e := f.one(); e.Node != mast || !e.Present {
		t.Errorf("and then it goes: got %+v", e)
	}
	moves := 0
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.config.Events.Run(ended); err != nil {
		t.Fatal(err)
	}
	list, _, err := f.config.Events.List(t.Context(), events.Query{Kind: eventMoved, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	if moves = len(list); moves != 2 {
		t.Errorf("%d events in 20 min, want one in %s", moves, tellEvery)
	}
}

// A guest on a bridged port: the gateway hears of it by the translation table, its node
// by its own port.
func TestAGuest(t *testing.T) {
	f := newFixture(t)
	guest := model.Client{MAC: "02:00:00:00:00:0a", Iface: "bat0", Guest: true, Present: true, Behind: "02:00:00:00:01:01"}
	f.report(gw, guest) // whose originator nobody knows
	e := f.one()
	if e.Node != "" || e.Behind != guest.Behind || !e.Present || !e.Guest {
		t.Errorf("behind nobody: got %+v", e)
	}
	guest.Node = hut
	f.report(gw, guest)
	if got := f.one(); got.Node != hut || got.ID != e.ID || got.Behind != "" {
		t.Errorf("behind the hut: got %+v", got)
	}
	own := guest
	own.Node, own.Behind = "", ""
	f.report(mast, own)
	f.report(gw, guest) // the mesh has not heard of the move yet
	if got := f.one(); got.Node != mast || got.DNS != "" {
		t.Errorf("the mast's own word: got %+v", got)
	}
}

func TestWhatPeopleSay(t *testing.T) {
	f := newFixture(t)
	f.report(mast, phone(true))
	id := f.one().ID
	name, note := " Anna's phone ", "blue"
	e, err := f.Update(t.Context(), id, etag.Match{}, apitype.UpdateEndpoint{Name: &name, Note: &note}, there)
	if err != nil || e.Name != "Anna's phone" || e.Note != "blue" {
		t.Errorf("got %+v, %v", e, err)
	}
	f.start() // it is on the card at once
	if e := f.one(); e.Name != "Anna's phone" || e.Present {
		t.Errorf("after a restart: got %+v", e)
	}
	// Named ones are not forgotten, others are.
	f.report(hut, model.Client{MAC: "02:00:00:00:00:08", Present: true})
	f.report(hut)
	f.now = f.now.Add(forgetAfter + time.Hour)
	f.save()
	if e := f.one(); e.ID != id {
		t.Errorf("got %+v", e)
	}
	f.Adopt(mast, "n-new")
	if e := f.one(); e.Node != "n-new" {
		t.Errorf("adopted: got %+v", e)
	}
	if err := f.Forget(t.Context(), id, etag.Match{}); err != nil || len(f.List(Query{}, there).Items) != 0 {
		t.Errorf("forgotten: %v", err)
	}
	if err := f.Forget(t.Context(), id, etag.Match{}); err == nil {
		t.Error("forgotten twice")
	}
	f.start()
	if n := len(f.List(Query{}, there).Items); n != 0 {
		t.Errorf("%d come back", n)
	}
}

// A clock that is years ahead for a while has nobody forgotten.
func TestTheClockIsSet(t *testing.T) {
	f := newFixture(t)
	f.config.Clock.Follow(clock.Span{Aged: f.now, Ahead: f.now}, func() bool { return true }, func() time.Duration { return 0 })
	f.report(mast, phone(true))
	f.report(mast)
	id := f.one().ID
	for _, years := range []int{3, -3, -1, 1} {
		f.now = f.now.AddDate(years, 0, 0)
		f.save()
		if e := f.one(); e.ID != id {
			t.Errorf("%d years on: got %+v", years, e)
		}
	}
	// Nor does it take that long until reports are believed again.
	f.start()
	f.now = f.now.AddDate(-1, 0, 0)
	f.report(hut, phone(true))
	if e := f.one(); e.Node != hut {
		t.Errorf("got %+v", e)
	}
}

func TestPagesAndFilters(t *testing.T) {
	f := newFixture(t)
	var list []model.Client
	for i := range 9 {
		list = append(list, model.Client{MAC: fmt.Sprintf("02:00:00:00:00:%02x", i+1), Present: i%3 != 0, Hostname: "x"})
	}
	f.report(mast, list[:5]...)
	f.report(hut, list[5:]...)
	seen := []string{}
	for cursor := ""; ; {
		l := f.List(Query{Cursor: cursor, Limit: 2}, there)
		for _, e := range l.Items {
			seen = append(seen, e.ID)
		}
		if cursor = l.Next; cursor == "" {
			break
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(seen)))) != 9 {
		t.Errorf("pages have %q", seen)
	}
	yes := true
	if n := len(f.List(Query{Node: mast, Present: &yes}, there).Items); n != 3 {
		t.Errorf("present behind the mast: %d", n)
	}
	if all, present := f.Count(func(n string) (string, bool) { return n, n == mast }); all != 9 || present != 3 {
		t.Errorf("counted %d, %d", all, present)
	}
}

// What nodes report is theirs to choose.
func TestANodeThatMakesUpClients(t *testing.T) {
	f := newFixture(t)
	f.report(mast, phone(true))
	for round := range 40 {
		var list []model.Client
		for i := range 2 * model.MaxClients {
			list = append(list, model.Client{MAC: fmt.Sprintf("06:00:00:%02x:%02x:%02x", round, i>>8, i&255), Present: true, Hostname: string(make([]byte, 300))})
		}
		f.report(hut, list...)
	}
	f.report(hut, model.Client{MAC: "nonsense"}, model.Client{MAC: "01:00:5e:00:00:01", Present: true}, model.Client{MAC: "00:00:00:00:00:00", Present: true},
		model.Client{MAC: "08:00:00:00:00:01", Present: true, Addresses: make([]netip.Addr, 1000)})
	l := f.List(Query{}, there)
	if len(l.Items) > maxEndpoints {
		t.Errorf("%d endpoints", len(l.Items))
	}
	found := false
	for _, e := range l.Items {
		if len(e.Hostname) > maxText || len(e.Addresses) > maxAddresses {
			t.Fatalf("got %+v", e)
		}
		found = found || e.MAC == "02:00:00:00:00:07"
	}
	if !found {
		t.Error("one that is there was pushed out")
	}
	f.save()
	f.start()
	if n := len(f.List(Query{}, there).Items); n != len(l.Items) {
		t.Errorf("after a restart: %d, want %d", n, len(l.Items))
	}
}

// What could not be stored is not so: neither now, nor later, nor after a restart.
func TestAChangeThatCannotBeStored(t *testing.T) {
	f := newFixture(t)
	f.report(mast, phone(true))
	e := f.one()
	kept := "anna's"
	if _, err := f.Update(t.Context(), e.ID, etag.Match{}, apitype.UpdateEndpoint{Name: &kept}, there); err != nil {
		t.Fatal(err)
	}
	takes := storetest.Refuse(t, f.config.DB)
	other, note := "bert's", "lost"
	if got, err := f.Update(t.Context(), e.ID, etag.Match{}, apitype.UpdateEndpoint{Name: &other, Note: &note}, there); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("renamed: got %+v, %v", got, err)
	}
	if err := f.Forget(t.Context(), e.ID, etag.Match{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("forgotten: got %v", err)
	}
	as := func(when string) {
		t.Helper()
		if got := f.one(); got.ID != e.ID || got.Name != kept || got.Note != "" || got.Node != mast {
			t.Errorf("%s: got %+v", when, got)
		}
	}
	as("at once")
	takes()
	f.save()
	as("later")
	f.start()
	as("after a restart")
	if got, err := f.Update(t.Context(), e.ID, etag.Match{}, apitype.UpdateEndpoint{Name: &other}, there); err != nil || got.Name != other {
		t.Errorf("again: got %+v, %v", got, err)
	}
	if err := f.Forget(t.Context(), e.ID, etag.Match{}); err != nil {
		t.Error(err)
	}
	f.start()
	if l := f.List(Query{}, there); len(l.Items) != 0 {
		t.Errorf("forgotten: got %+v", l.Items)
	}
}

// Whoever waits for the one writer is let in in any order: what is written last has to be
// what is known last.
func TestConcurrentUpdatesLeaveTheLastOne(t *testing.T) {
	f := newFixture(t)
	f.report(mast, phone(true))
	f.save()
	id := f.one().ID
	held, release := make(chan struct{}), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		return f.config.DB.Write(t.Context(), func(*sql.Tx) error {
			close(held)
			<-release
			return nil
		})
	})
	<-held
	for i := range 16 {
		g.Go(func() error {
			name := fmt.Sprint("phone ", i)
			_, err := f.Update(t.Context(), id, etag.Match{}, apitype.UpdateEndpoint{Name: &name}, there)
			return err
		})
	}
	time.Sleep(50 * time.Millisecond) // all of them wait
	close(release)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	want := f.one().Name
	f.start()
	if got := f.one().Name; got != want {
		t.Errorf("config.db has %q, memory had %q", got, want)
	}
}

func TestARowThatMemoryDoesNotKnowStopsNoSave(t *testing.T) {
	f := newFixture(t)
	err := f.config.DB.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO endpoints (id, mac, name, note, node, body, first_seen, last_seen) VALUES ('e-other', ?, '', '', '', '{}', 1, 1)`, phone(true).MAC)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.report(mast, phone(true))
	want := f.one().ID
	f.save()
	f.start()
	if got := f.one(); got.ID != want || got.Node != mast {
		t.Errorf("got %+v, want %s", got, want)
	}
}
