package telemetry

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/gateway/clock"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// TestStepsOfTheClockLoseNothing of what was acknowledged, nor of a year that is kept,
// however the clock is set, and put right again. Only what was stamped by years ahead goes,
// once the clock has been right for days, and an event says so.
func TestStepsOfTheClockLoseNothing(t *testing.T) {
	const week, weeks = 7 * 24 * time.Hour, 30
	first := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	b := &bench{t: t, dir: t.TempDir(), events: &told{}, at: first}
	var ran time.Duration
	c := clock.New(func() time.Time { return b.at }, first.AddDate(-2, 0, 0))
	guess := false
	sure := func() bool { return !guess }
	c.Follow(clock.Span{}, sure, func() time.Duration { return ran })
	b.edit = func(cfg *Config) { cfg.Now, cfg.Aged, cfg.Ahead, cfg.Sure = c.Now, c.Aged, c.Ahead, sure }
	b.open()
	t.Cleanup(b.close)
	if err := b.PutSchema(t.Context(), "n-a", cpuAndMemory); err != nil {
		t.Fatal(err)
	}
	right := first // what time it truly is
	pass := func(d time.Duration) {
		for ; d > 0; d -= time.Hour { // gateway-api looks at its clock once a minute
			b.at, right, ran = b.at.Add(time.Hour), right.Add(time.Hour), ran+time.Hour
			c.Aged()
		}
	}
	seq := uint64(0)
	acknowledged := map[int64]bool{}
	put := func(at time.Time) {
		t.Helper()
		seq++
		batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS}}
		for i := range 12 {
			stamp := at.Add(time.Duration(i) * 10 * time.Second).UnixMilli()
			batch.Reports = append(batch.Reports, wire.Report{Time: stamp, Values: []wire.Value{wire.Int(int64(seq)), wire.Int(1 << 30)}})
			acknowledged[stamp] = true
		}
		if out := b.append(entry(t, "n-a", cpuAndMemory, batch)); out[0] != Stored {
			t.Fatalf("got %v", out)
		}
	}
	for range weeks {
		put(b.at)
		b.tend()
		pass(week)
	}
	b.tend()
	bodies := func() (all [weeks]map[int]int) {
		for i := range all {
			all[i] = b.bodies(first.Add(time.Duration(i) * week))
		}
		return all
	}
	kept, before := b.weeks.list(), bodies()
	acknowledged = map[int64]bool{} // of these, the old ones are minutes by now
	check := func(what string) {
		t.Helper()
		for range 3 {
			b.tend()
			pass(time.Hour)
		}
		for _, w := range kept {
			if !slices.Contains(b.weeks.list(), w) {
				t.Fatalf("%s: week %v is gone", what, w)
			}
		}
		for i, is := range bodies() {
			for _, width := range []int{raw, minute, quarter, hourly} {
				if is[width] < before[i][width] {
					t.Errorf("%s: of week %d are left %v blocks by width, of %v", what, i, is, before[i])
				}
			}
		}
		got, err := b.Samples(t.Context(), SampleQuery{Node: "n-a", From: first.AddDate(-2, 0, 0), To: first.AddDate(60, 0, 0), Metrics: []string{"*"}, Limit: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		there := map[int64]bool{}
		for _, s := range got.Items {
			there[s.Time.UnixMilli()] = true
		}
		gone := map[string]bool{}
		for _, e := range b.events.list {
			if gone[e.Fields["week"]] = true; e.Kind != "telemetry.misdated" || e.Node != "" {
				t.Errorf("%s: event %+v", what, e)
			}
		}
		for at := range acknowledged {
			if !there[at] && (!gone[weekOf(at).String()] || at < right.Add(maxAhead).UnixMilli()) {
				t.Fatalf("%s: a reading of %v was acknowledged and is lost", what, time.UnixMilli(at).UTC())
			}
		}
	}
	for _, step := range []struct {
		what                string
		years, months, days int
		guess               bool
	}{
		{"two years ahead", 2, 0, 0, false}, {"decades ahead", 30, 0, 0, false}, {"a year back", -1, 0, 0, false}, {"two months back", 0, -2, 0, false},
		{"a guess, a day late", 0, 0, -1, true}, {"a guess, two months late", 0, -2, 0, true},
	} {
		put(right) // it is in the journal when the clock is set
		b.at, guess = right.AddDate(step.years, step.months, step.days), step.guess
		put(b.at)                   // of nodes that have the gateway's time
		put(right.Add(time.Minute)) // and of those that have a better one
		check(step.what)
		b.restart()
		put(right)
		check(step.what + ", after a restart")
		put(b.at)
		b.at, guess = right, false
		put(right)
		check(step.what + " and right again")
		pass(week)
		b.at = right
	}
}

// TestAClockThatIsWrongForLong is believed in the end: what is too old goes, and no more.
func TestAClockThatIsWrongForLong(t *testing.T) {
	const day = 24 * time.Hour
	b := &bench{t: t, dir: t.TempDir(), events: &told{}, at: epoch.Add(time.Hour)}
	var ran time.Duration
	c := clock.New(func() time.Time { return b.at }, epoch)
	c.SetQuality(model.ClockGPS)
	c.Follow(clock.Span{}, func() bool { return true }, func() time.Duration { return ran })
	b.edit = func(cfg *Config) { cfg.Now, cfg.Aged, cfg.Ahead = c.Now, c.Aged, c.Ahead }
	b.open()
	t.Cleanup(b.close)
	if err := b.PutSchema(t.Context(), "n-a", cpuAndMemory); err != nil {
		t.Fatal(err)
	}
	b.append(numbered(t, "n-a", 1, 1))
	b.tend()
	weeks := len(b.weeks.list())
	if b.at = b.at.AddDate(6, 0, 0); weeks == 0 {
		t.Fatal("there is nothing")
	}
	left := 0
	for d := range 366 {
		b.tend()
		if b.at, ran = b.at.Add(day), ran+day; len(b.weeks.list()) == weeks {
			left = d
		}
	}
	if left < 200 || left > 300 || len(b.weeks.list()) != 0 {
		t.Errorf("it was there for %d days, and %v is left", left, b.weeks.list())
	}
}

// Of batches some of which wait for a week that cannot be written the same is said in the end
// as if all had been written at once.
func TestMarksOfAWeekThatWaits(t *testing.T) {
	before := epoch.Add(-7 * 24 * time.Hour)
	run := func(bad bool) []apitype.Mark {
		b := newBench(t)
		put := func(seq uint64, at time.Time) { b.append(stamped(t, "n-a", seq, at)) }
		path := b.weeks.path(weekOf(before.UnixMilli()))
		if bad {
			if err := os.MkdirAll(filepath.Join(path, "what is no file"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		for i, at := range []time.Time{before, before.Add(time.Minute), epoch, before.Add(2 * time.Minute), epoch.Add(time.Minute), epoch.Add(2 * time.Minute), before.Add(3 * time.Minute)} {
			if seq := uint64(i) + 1; seq != 6 {
				put(seq, at)
			}
		}
		tend := func() {
			if err := b.Tend(t.Context()); (err != nil) != bad {
				t.Fatal(err)
			}
		}
		tend()
		put(8, epoch.Add(3*time.Minute))
		tend()
		put(9, before.Add(4*time.Minute))
		if bad {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			bad = false
		}
		waiting := b.allMarks(t, "n-a")
		tend()
		if got := b.allMarks(t, "n-a"); len(got) != len(waiting) {
			t.Errorf("from the journal %+v\nfrom the files %+v", waiting, got)
		}
		return b.allMarks(t, "n-a")
	}
	want, got := run(false), run(true)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 4 {
		t.Errorf("%d marks; (-want +got)\n%s", len(want), diff)
	}
}
