package epoch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
)

// card is what a gateway has on its card, over its starts.
type card struct {
	t    *testing.T
	dir  string
	db   *store.DB
	keep *Keeper
}

func newCard(t *testing.T) *card {
	c := &card{t: t, dir: t.TempDir()}
	c.start(0)
	return c
}

func (c *card) file() string { return filepath.Join(c.dir, "gateway", "epoch") }

// start is a start after the power went, whatever was going on.
func (c *card) start(announced uint64) uint64 {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Dir(c.file()), 0o755); err != nil {
		c.t.Fatal(err)
	}
	db, _, err := store.OpenConfig(c.t.Context(), filepath.Join(c.dir, "config.db"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { db.Close() })
	e, err := Settle(c.t.Context(), db, Evidence{File: c.file(), Announced: announced, Now: today})
	if err != nil {
		c.t.Fatal(err)
	}
	c.db, c.keep = db, NewKeeper(db, c.file(), e)
	return e
}

func (c *card) raise(heard uint64) uint64 {
	c.t.Helper()
	c.keep.Hear(heard)
	e, err := c.keep.Raise(c.t.Context())
	if err != nil || c.keep.Now() != e {
		c.t.Fatalf("got %d, %v, now %d", e, err, c.keep.Now())
	}
	return e
}

func TestRaise(t *testing.T) {
	c := newCard(t)
	if e := c.raise(0); e != 40_001 {
		t.Errorf("got %d, want one more than 40000", e)
	}
	if e := c.raise(40_009); e != 40_010 {
		t.Errorf("got %d, want one more than was heard", e)
	}
	if e := c.raise(7); e != 40_011 {
		t.Errorf("got %d, want one more than it had", e)
	}
	if e := c.start(40_011); e != 40_011 {
		t.Errorf("the next start has %d, want it unchanged", e)
	}
	for _, heard := range []uint64{most, most + 1, 1<<64 - 1} {
		keep := NewKeeper(c.db, c.file(), 40_011)
		keep.Hear(heard)
		if e, err := keep.Raise(t.Context()); !errors.Is(err, ErrHighest) || keep.Now() != 40_011 {
			t.Errorf("above %d: got %d, %v", heard, e, err)
		}
	}
	if e := c.raise(most - 1); e != most {
		t.Errorf("got %d, want the highest", e)
	}
}

// A power cut, or a failure, may come before the file, between file and
// database, and behind both. The epoch never goes down, is never used before it
// is kept, and a cut raise is made whole by the next start.
func TestRaiseIsCut(t *testing.T) {
	c := newCard(t)
	if err := os.RemoveAll(filepath.Dir(c.file())); err != nil {
		t.Fatal(err)
	}
	c.keep.Hear(50_000)
	if e, err := c.keep.Raise(t.Context()); err == nil || c.keep.Now() != 40_000 {
		t.Fatalf("the file cannot be written: got %d, %v, in use %d", e, err, c.keep.Now())
	}
	if e := c.start(40_000); e != 40_000 {
		t.Errorf("cut before the file: the next start has %d, want 40000", e)
	}

	if err := c.db.Close(); err != nil {
		t.Fatal(err)
	}
	c.keep.Hear(50_000)
	if e, err := c.keep.Raise(t.Context()); err == nil || c.keep.Now() != 40_000 {
		t.Fatalf("the database cannot be written: got %d, %v, in use %d", e, err, c.keep.Now())
	}
	if e := c.start(40_000); e != 50_002 {
		t.Errorf("cut between file and database: the next start has %d, want the file's 50001 raised once more", e)
	}
	if e := c.start(40_000); e != 50_002 {
		t.Errorf("and the start after it %d, want it unchanged", e)
	}

	c.raise(0)
	if e := c.start(50_002); e != 50_003 { // halo-mesh was not told any more
		t.Errorf("cut behind both: the next start has %d, want 50003", e)
	}
}

// Who asked for a raise may be gone before the database has it.
func TestRaiseIsNotCutByItsCaller(t *testing.T) {
	c := newCard(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if e, err := c.keep.Raise(gone); err != nil || e != 40_001 {
		t.Errorf("got %d, %v", e, err)
	}
	if e := c.start(0); e != 40_001 {
		t.Errorf("the next start has %d", e)
	}
}

func TestJudge(t *testing.T) {
	type step struct {
		fresh bool
		heard uint64
		want  uint64
	}
	for _, tc := range []struct {
		name  string
		steps []step
		kinds []string
	}{
		{"nothing as high", []step{{true, 39_999, 40_000}, {false, 39_999, 40_000}}, nil},
		{"a fresh card had the epoch of another", []step{{true, 40_000, 40_001}, {false, 40_000, 40_001}}, []string{"gateway.epoch-raised"}},
		{"an old card had it", []step{{false, 40_000, 40_000}, {false, 40_000, 40_000}}, []string{"gateway.epoch-behind"}},
		{"a fresh card follows", []step{{true, 40_001, 40_002}, {true, 40_001, 40_002}}, []string{"gateway.epoch-raised"}},
		{"a fresh card, and another node has heard more", []step{{true, 40_001, 40_002}, {true, 40_007, 40_008}}, []string{"gateway.epoch-raised", "gateway.epoch-raised"}},
		{"an old card asks, once for each", []step{{false, 40_001, 40_000}, {false, 40_001, 40_000}, {false, 40_002, 40_000}}, []string{"gateway.epoch-behind", "gateway.epoch-behind"}},
		{"fresh no more", []step{{true, 40_001, 40_002}, {false, 40_003, 40_002}, {false, 40_003, 40_002}}, []string{"gateway.epoch-raised", "gateway.epoch-behind"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCard(t)
			fresh := false
			refused := uint64(0)
			c.keep.Watch = func(_, heard uint64) { refused = heard }
			j, kinds := newJudge(t, c, func(context.Context) (bool, error) { return fresh, nil })
			for i, s := range tc.steps {
				fresh = s.fresh
				j.Heard(t.Context(), s.heard)
				if got := c.keep.Now(); got != s.want {
					t.Errorf("step %d: epoch %d, want %d", i, got, s.want)
				}
				want := uint64(0)
				if s.heard >= s.want {
					want = s.heard
				}
				if refused != want {
					t.Errorf("step %d: the watcher was told of %d, want %d", i, refused, want)
				}
			}
			if got := kinds(); !slices.Equal(got, tc.kinds) {
				t.Errorf("events %v, want %v", got, tc.kinds)
			}
		})
	}
}

// Two fresh cards of one network see each other's raises.
func TestFreshCardsDoNotOutbidEachOtherForEver(t *testing.T) {
	c := newCard(t)
	j, kinds := newJudge(t, c, func(context.Context) (bool, error) { return true, nil })
	for range 3 * mostByItself {
		j.Heard(t.Context(), c.keep.Now()+1)
	}
	if got := c.keep.Now(); got != 40_000+2*mostByItself {
		t.Errorf("the epoch went to %d, want %d raises by 2", got, mostByItself)
	}
	if got := kinds(); len(got) != mostByItself+1 || got[mostByItself] != "gateway.epoch-behind" {
		t.Errorf("events %v", got)
	}
}

// While another gateway lives, for which this one has stood down, its epoch is not
// outbid; when it is gone, the rule is as it was.
func TestALivingGatewayIsNotOutbid(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		c := newCard(t)
		j, kinds := newJudge(t, c, func(context.Context) (bool, error) { return fresh, nil })
		aside := true
		j.Aside = func() bool { return aside }
		for range 3 {
			j.Heard(t.Context(), 40_001)
		}
		if got := c.keep.Now(); got != 40_000 || len(kinds()) != 0 {
			t.Errorf("fresh %v: epoch %d, events %v", fresh, got, kinds())
		}
		aside = false
		j.Heard(t.Context(), 40_001)
		want, kind := uint64(40_000), "gateway.epoch-behind"
		if fresh {
			want, kind = 40_002, "gateway.epoch-raised"
		}
		if got := c.keep.Now(); got != want || !slices.Equal(kinds(), []string{kind}) {
			t.Errorf("fresh %v, the other is gone: epoch %d, events %v; want %d and %s", fresh, got, kinds(), want, kind)
		}
	}
}

// What fails is tried again.
func TestJudgeTriesAgain(t *testing.T) {
	c := newCard(t)
	unreadable := errors.New("database is locked")
	var err error = unreadable
	j, kinds := newJudge(t, c, func(context.Context) (bool, error) { return true, err })
	j.Heard(t.Context(), 40_001)
	if err := os.RemoveAll(filepath.Dir(c.file())); err != nil {
		t.Fatal(err)
	}
	err = nil
	j.Heard(t.Context(), 40_001)
	if got := c.keep.Now(); got != 40_000 {
		t.Fatalf("epoch %d is used and not kept", got)
	}
	if err := os.MkdirAll(filepath.Dir(c.file()), 0o755); err != nil {
		t.Fatal(err)
	}
	j.Heard(t.Context(), 40_001)
	if got := c.keep.Now(); got != 40_002 {
		t.Errorf("epoch %d, want 40002", got)
	}
	if got := kinds(); !slices.Equal(got, []string{"gateway.epoch-raised"}) {
		t.Errorf("events %v", got)
	}
}

// A raise from before nodes had shown what they have heard does not help; that
// is told, though the same was told before it.
func TestARaiseThatIsNotEnoughIsTold(t *testing.T) {
	c := newCard(t)
	j, kinds := newJudge(t, c, func(context.Context) (bool, error) { return false, nil })
	j.Heard(t.Context(), 40_009)
	c.keep = NewKeeper(c.db, c.file(), 40_000) // of which nothing was heard yet
	c.raise(0)
	j.Keeper = c.keep
	j.Heard(t.Context(), 40_009)
	j.Heard(t.Context(), 40_009)
	if got := kinds(); !slices.Equal(got, []string{"gateway.epoch-behind", "gateway.epoch-behind"}) {
		t.Errorf("events %v", got)
	}
	if got := c.raise(0); got != 40_010 {
		t.Errorf("the next raise gives %d, want more than was heard", got)
	}
}

func newJudge(t *testing.T, c *card, fresh func(context.Context) (bool, error)) (*Judge, func() []string) {
	quiet := slog.New(slog.DiscardHandler)
	log := events.New(c.db, clock.New(time.Now, today), 1, quiet)
	return &Judge{Keeper: c.keep, Fresh: fresh, Events: log, Log: quiet}, func() []string {
		t.Helper()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := log.Run(ended); err != nil { // writes what waits
			t.Fatal(err)
		}
		zero := int64(0)
		list, _, err := log.List(t.Context(), events.Query{Since: &zero, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, e := range list {
			kinds = append(kinds, e.Kind)
		}
		return kinds
	}
}
