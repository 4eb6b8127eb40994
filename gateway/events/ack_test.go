package events

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func record(t *testing.T, l *Log, e model.Event) {
	t.Helper()
	e.Time = build
	if unfit, err := l.Record(t.Context(), "n-x", []model.Event{e}); err != nil || len(unfit) > 0 {
		t.Fatal(unfit, err)
	}
}

func exec(t *testing.T, l *Log, query string, args ...any) {
	t.Helper()
	err := l.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAcknowledged(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	for i := range 3 {
		record(t, l, model.Event{Boot: 1, Seq: uint64(i + 1), Kind: "test.it", Severity: model.Warning})
	}
	list, _, err := l.List(t.Context(), Query{Limit: 10})
	if err != nil || len(list) != 3 || list[0].Acknowledged != nil {
		t.Fatalf("got %+v, %v", list, err)
	}
	id := list[1].ID
	if _, err := l.Acknowledge(t.Context(), id+1000, "user:anna", ""); err == nil {
		t.Error("an event that is not there is acknowledged")
	}
	for _, by := range []string{"user:anna", "user:olaf"} {
		e, err := l.Acknowledge(t.Context(), id, by, "seen by "+by)
		if err != nil || e.ID != id || e.Acknowledged == nil || e.Acknowledged.By != by || e.Acknowledged.Note != "seen by "+by {
			t.Errorf("got %+v, %v", e, err)
		}
	}
	for _, want := range []bool{true, false} {
		list, _, err := l.List(t.Context(), Query{Limit: 10, Acknowledged: &want})
		if n := map[bool]int{true: 1, false: 2}[want]; err != nil || len(list) != n {
			t.Errorf("acknowledged %v: got %d, %v", want, len(list), err)
		}
	}
	// What has taken another's place has its past.
	list, _, err = l.List(t.Context(), Query{Limit: 10, Node: "n-new", Before: []string{"n-x"}})
	if err != nil || len(list) != 3 {
		t.Errorf("of the one before: got %d, %v", len(list), err)
	}
}

func TestRetention(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	r, err := l.Retention(t.Context())
	if err != nil || r != DefaultRetention() {
		t.Fatalf("got %+v, %v", r, err)
	}
	seq := uint64(0)
	add := func(n int, s model.Severity, age time.Duration) {
		t.Helper()
		for range n {
			seq++
			record(t, l, model.Event{Boot: 1, Seq: seq, Kind: "test.it", Severity: s})
		}
		exec(t, l, `UPDATE events SET received = ? WHERE seq > ?`, store.Millis(l.clock.Now().Add(-age)), seq-uint64(n))
	}
	count := func(s model.Severity) (n int) {
		t.Helper()
		if err := l.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM events WHERE severity = ?`, Level(s)).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	add(80, model.Info, 20*24*time.Hour)
	add(80, model.Info, time.Hour)
	add(50, model.Error, 20*24*time.Hour)
	r = apitype.EventRetention{Info: apitype.RetentionRule{Days: 10, Count: 100}, Warning: apitype.RetentionRule{Days: 1, Count: 100}, Error: apitype.RetentionRule{Days: 30, Count: 100}}
	// A clock that is a guess: by number alone, the newest stay.
	if err := l.SetRetention(t.Context(), etag.Match{}, r); err != nil || count(model.Info) != 100 || count(model.Error) != 50 {
		t.Errorf("by number: %d, %d, %v", count(model.Info), count(model.Error), err)
	}
	l.clock.SetQuality(model.ClockGPS)
	before := count(model.Info)
	for range 50 {
		if err := l.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := count(model.Info)
		if before-now > before/agedAtOnce+1 {
			t.Fatalf("%d of %d went at once", before-now, before)
		}
		before = now
	}
	if count(model.Info) != 80 || count(model.Error) != 50 {
		t.Errorf("by age: %d, %d", count(model.Info), count(model.Error))
	}
	// What is stored next is counted right.
	add(1, model.Info, 0)
	if info, failures := l.shares[holder{"n-x", 0}].count, l.shares[holder{"n-x", 2}].count; info != 81 || failures != 50 {
		t.Errorf("counted %d and %d, want 81 and 50", info, failures)
	}
}

// A clock that is years ahead for a day costs no event.
func TestAClockThatIsAheadAgesNothing(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	now, ran := build.AddDate(1, 0, 0), time.Duration(0)
	l.clock = clock.New(func() time.Time { return now }, build)
	l.clock.SetQuality(model.ClockGPS)
	l.clock.Follow(clock.Span{Aged: now, Ahead: now}, func() bool { return true }, func() time.Duration { return ran })
	for seq := range uint64(100) {
		record(t, l, model.Event{Boot: 1, Seq: seq + 1, Kind: "test.it", Severity: model.Info})
	}
	now = now.AddDate(20, 0, 0)
	for range 24 {
		if err := l.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
		now, ran = now.Add(time.Hour), ran+time.Hour
	}
	if list, _, err := l.List(t.Context(), Query{Limit: 200}); err != nil || len(list) != 100 {
		t.Errorf("%d are left, %v", len(list), err)
	}
}

// What there is too much of goes from whoever has most of it, also by the number that people
// set, and an event for many others' sake never is one that is worse.
func TestWhoHasMostLosesByNumber(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	seq := uint64(0)
	add := func(node string, n int, s model.Severity) {
		t.Helper()
		list := make([]model.Event, n)
		for i := range list {
			seq++
			list[i] = model.Event{Boot: 1, Seq: seq, Kind: "test.it", Severity: s}
		}
		if _, err := l.Record(t.Context(), node, list); err != nil {
			t.Fatal(err)
		}
	}
	add("n-quiet", 20, model.Info)
	add("n-noisy", 5, model.Error)
	add("n-noisy", 400, model.Info)
	add("n-other", 30, model.Info)
	r := apitype.EventRetention{Info: apitype.RetentionRule{Days: 10, Count: 100}, Warning: apitype.RetentionRule{Days: 1, Count: 100}, Error: apitype.RetentionRule{Days: 30, Count: 100}}
	if err := l.SetRetention(t.Context(), etag.Match{}, r); err != nil {
		t.Fatal(err)
	}
	if want := (shares{{"n-quiet", 0}: l.shares[holder{"n-quiet", 0}], {"n-noisy", 0}: l.shares[holder{"n-noisy", 0}], {"n-noisy", 2}: l.shares[holder{"n-noisy", 2}], {"n-other", 0}: l.shares[holder{"n-other", 0}]}); len(l.shares) != len(want) ||
		want[holder{"n-quiet", 0}].count != 20 || want[holder{"n-noisy", 0}].count != 50 || want[holder{"n-noisy", 2}].count != 5 || want[holder{"n-other", 0}].count != 30 {
		t.Errorf("left are %v", l.shares)
	}
	counted := fmt.Sprint(l.shares)
	if err := l.db.Write(t.Context(), func(tx *sql.Tx) error { return l.count(t.Context(), tx) }); err != nil || counted != fmt.Sprint(l.shares) {
		t.Errorf("counted %s, there are %v, %v", counted, l.shares, err)
	}
	list, _, err := l.List(t.Context(), Query{Node: "n-noisy", Severity: model.Info, Limit: 500})
	if err != nil || len(list) != 55 || list[0].Seq != 425 || list[49].Seq != 376 {
		t.Errorf("of the noisy one %d are left, from %d to %d, %v: want the newest", len(list), list[49].Seq, list[0].Seq, err)
	}
}

// Events that were dropped between others that are kept are known to be missing.
func TestDroppedEventsAreMissed(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	whole := func(after, to int64) bool {
		t.Helper()
		w, err := l.Whole(t.Context(), after, to)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	record(t, l, model.Event{Boot: 1, Seq: 1, Kind: "test.it", Severity: model.Error})
	report(t, l, "n-noisy", 1, 200, "")
	report(t, l, "n-noisy", 1, 200, "") // once more: they take no numbers
	newest, _, err := l.News(t.Context())
	if err != nil || newest != 201 || !whole(0, 201) || !whole(100, 201) || !whole(201, 201) {
		t.Fatalf("all %d are there, %v", newest, err)
	}
	r := DefaultRetention()
	r.Info.Count = 100
	if err := l.SetRetention(t.Context(), etag.Match{}, r); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[int64]bool{0: false, 1: false, 50: false, 100: false, 101: true, 150: true, 201: true} {
		if got := whole(after, 201); got != want {
			t.Errorf("after %d: whole is %v", after, got)
		}
	}
	if !whole(0, 1) {
		t.Error("the first is kept")
	}
}

// What people have said of retention holds, though nothing can be dropped at once.
func TestRetentionHoldsWhereNothingCanBeDropped(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	report(t, l, "n-x", 1, 20, "")
	exec(t, l, `CREATE TRIGGER stuck BEFORE DELETE ON events BEGIN SELECT raise(ABORT, 'not now'); END`)
	want := DefaultRetention()
	want.Info.Count = 10
	if err := l.SetRetention(t.Context(), etag.Match{}, want); err != nil {
		t.Errorf("got %v", err)
	}
	if got, err := l.Retention(t.Context()); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	exec(t, l, `DROP TRIGGER stuck`)
	if err := l.retain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, _, err := l.List(t.Context(), Query{Limit: 100}); err != nil || len(list) != 10 {
		t.Errorf("%d are left, %v", len(list), err)
	}
}

// Of many who have one each somebody loses it, and never the newest of all.
func TestManyWithOneEventEach(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{20, maxOctets})
	for i := range 60 {
		if _, err := l.Record(t.Context(), fmt.Sprintf("n-%02d", i), []model.Event{{Boot: 1, Seq: 1, Kind: "test.it", Severity: model.Info, Time: build}}); err != nil {
			t.Fatal(err)
		}
		list, _, err := l.List(t.Context(), Query{Limit: 100})
		if err != nil || len(list) != min(i+1, 20) || list[0].Source != fmt.Sprintf("n-%02d", i) {
			t.Fatalf("after %d: %d events, the newest of %s, %v", i+1, len(list), list[0].Source, err)
		}
	}
}

func TestTheNewestEventOutlivesItsAge(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "config.db"), share{maxStored, maxOctets})
	l.clock.SetQuality(model.ClockGPS)
	for seq := range uint64(20) {
		record(t, l, model.Event{Boot: 1, Seq: seq + 1, Kind: "test.it", Severity: model.Info})
	}
	exec(t, l, `UPDATE events SET received = ?`, store.Millis(l.clock.Now().AddDate(-2, 0, 0)))
	newest, _, err := l.News(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := l.retain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if list, _, err := l.List(t.Context(), Query{Limit: 100}); err != nil || len(list) != 1 || list[0].ID != newest {
		t.Fatalf("kept are %+v, want %d alone, %v", list, newest, err)
	}
	record(t, l, model.Event{Boot: 1, Seq: 21, Kind: "test.it", Severity: model.Info})
	if next, _, err := l.News(t.Context()); err != nil || next != newest+1 {
		t.Errorf("the next one is %d after %d, %v", next, newest, err)
	}
}
