package telemetry

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// fill has a node send a batch of that many reports, a step apart, for so long.
func (b *bench) fill(r *rand.Rand, k *known, node string, seq *uint64, at time.Time, long, step time.Duration) time.Time {
	b.t.Helper()
	for end := at.Add(long); at.Before(end); {
		var group []Entry
		for range 60 {
			*seq++
			batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, *seq), Clock: model.ClockGPS}}
			for range 12 {
				batch.Reports = append(batch.Reports, wire.Report{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(r.Int64N(900)), wire.Int(1 << 30)}})
				at = at.Add(step)
			}
			group = append(group, entry(b.t, node, cpuAndMemory, batch))
		}
		if b.at = at; slices.ContainsFunc(b.append(group...), func(o Outcome) bool { return o != Stored }) {
			b.t.Fatal("expected all to be stored")
		}
		if k != nil {
			for _, e := range group {
				k.take(e)
			}
		}
	}
	return at
}

// answers compares ranges of a week with what is known.
func (b *bench) answers(k *known, node string, from time.Time, step time.Duration) {
	b.t.Helper()
	q := Query{Nodes: []string{node}, Metrics: []string{"system.cpu.used_percent"}, From: from, To: from.Add(7 * 24 * time.Hour), Step: step}
	g, err := q.grid()
	if err != nil {
		b.t.Fatal(err)
	}
	var got []Series
	if _, err := b.Range(b.t.Context(), q, func(s Series) error { got = append(got, s); return nil }); err != nil {
		b.t.Fatal(err)
	}
	t, ok := b.t.(*testing.T)
	if !ok {
		b.t.Fatal("expected a test")
	}
	samePoints(t, fmt.Sprintf("by %s", step), k.series(node, "system.cpu.used_percent", g), got, true)
}

// What is thinned answers as before at the width that is left, and takes in what comes
// late.
func TestThinning(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(9, 9))
	k, seq := newKnown(), uint64(0)
	monday := time.Date(2026, 11, 16, 0, 0, 0, 0, time.UTC)
	b.fill(r, k, "n-a", &seq, monday, 7*24*time.Hour, 7*time.Second)
	b.tend()
	w := weekOf(monday.UnixMilli())
	late := func() {
		t.Helper()
		for range 40 {
			seq++
			batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS}}
			at := monday.Add(time.Duration(r.IntN(7*24*3600))*time.Second + time.Duration(seq%900+50)*time.Millisecond) // where no other is
			for i := range 5 {
				batch.Reports = append(batch.Reports, wire.Report{Time: at.Add(time.Duration(i) * 7 * time.Second).UnixMilli(), Values: []wire.Value{wire.Int(r.Int64N(3000)), {}}})
			}
			e := entry(t, "n-a", cpuAndMemory, batch)
			b.append(e)
			k.take(e)
		}
	}
	for _, tc := range []struct {
		to   thinned
		step time.Duration
	}{
		{thinned{minute: w.end()}, time.Minute},
		{thinned{minute: w.end(), quarter: w.begin() + 3*dayMS}, 15 * time.Minute},
		{thinned{minute: w.end(), quarter: w.end()}, 15 * time.Minute},
		{thinned{minute: w.end(), quarter: w.end(), hour: w.end()}, time.Hour},
	} {
		late()
		before := b.Bytes()
		b.tend()
		b.tending.Lock()
		rewritten, err := b.thin(t.Context(), w, tc.to)
		b.tending.Unlock()
		if err != nil || !rewritten {
			t.Fatalf("rewritten %t, %v", rewritten, err)
		}
		t.Logf("%+v: from %d to %d octets", tc.to, before, b.Bytes())
		q := []time.Duration{tc.step, 2 * tc.step, 6 * time.Hour}
		for _, step := range q {
			b.checkCounts(t, k, monday, step)
		}
		late()
		b.checkCounts(t, k, monday, tc.step) // from the head
		b.tend()
		b.restart()
		b.checkCounts(t, k, monday, tc.step)
	}
	if got := b.Coverage("n-a").Boots[0]; got.Count != seq || len(got.Missing) != 0 {
		t.Errorf("got %+v, want all %d to have come", got, seq)
	}
}

// checkCounts compares without what was first and last: of what comes late that is not known.
func (b *bench) checkCounts(t *testing.T, k *known, from time.Time, step time.Duration) {
	t.Helper()
	q := Query{Nodes: []string{"n-a"}, Metrics: []string{"system.cpu.used_percent"}, From: from, To: from.Add(7 * 24 * time.Hour), Step: step}
	g, err := q.grid()
	if err != nil {
		t.Fatal(err)
	}
	var got []Series
	if _, err := b.Range(t.Context(), q, func(s Series) error { got = append(got, s); return nil }); err != nil {
		t.Fatal(err)
	}
	samePoints(t, fmt.Sprintf("by %s", step), k.series("n-a", "system.cpu.used_percent", g), got, false)
}

// TestBudget also on a gateway that nobody tells the time for weeks: its weeks are not all
// of the future of the one that it started in, of which the oldest would be removed.
func TestBudget(t *testing.T) {
	first := time.Date(2026, 8, 3, 0, 0, 0, 0, time.UTC)
	t.Run("a clock", func(t *testing.T) { testBudget(t, first, nil) })
	t.Run("a guess", func(t *testing.T) {
		testBudget(t, first, func(cfg *Config) {
			c, begin := clock.New(cfg.Now, first.AddDate(-1, 0, 0)), cfg.Now()
			c.Follow(clock.Span{Aged: first, Ahead: first}, func() bool { return false }, func() time.Duration { return c.Now().Sub(begin) })
			cfg.Now, cfg.Aged, cfg.Ahead, cfg.Sure = c.Now, c.Aged, c.Ahead, func() bool { return false }
		})
	})
}

func testBudget(t *testing.T, at time.Time, edit func(*Config)) {
	const budget = 2 << 20
	b := benchIn(t, t.TempDir(), func(c *Config) {
		c.Retention.Budget = budget
		if edit != nil {
			edit(c)
		}
	})
	b.space = func() (int64, int64) { return 0, 0 }
	r := rand.New(rand.NewPCG(9, 1))
	seq, first := uint64(0), at
	for range 9 {
		at = b.fill(r, nil, "n-a", &seq, at, 7*24*time.Hour, 10*time.Second)
		b.tend()
		if got := b.Bytes(); got > budget {
			t.Fatalf("%d octets are used, want at most %d", got, budget)
		}
		b.space = func() (int64, int64) { return 0, 0 }
	}
	if b.Thinned() == 0 || !slices.Contains(b.events.kinds(), "telemetry.thinned") {
		t.Fatalf("nothing was thinned: %v", b.events.kinds())
	}
	points := func(from time.Time, step time.Duration) (n int64) {
		if _, err := b.Range(t.Context(), Query{Metrics: []string{"system.cpu.*"}, From: from, To: from.Add(24 * time.Hour), Step: step}, func(s Series) error {
			for _, p := range s.Points {
				n += p.Count
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got := points(at.Add(-48*time.Hour), 10*time.Second); got != 8640 {
		t.Errorf("of the day before yesterday %d readings are left, want all 8640", got)
	}
	if got := points(first.Add(48*time.Hour), time.Hour); got != 8640 {
		t.Errorf("of the first week's hours %d readings are known, want all 8640", got)
	}
	for _, e := range b.events.list {
		if e.Kind != "telemetry.thinned" {
			t.Errorf("event %+v", e)
		}
	}
}

func TestLimits(t *testing.T) {
	b := newBench(t)
	for _, tc := range []struct{ budget, size, free, used, want int64 }{
		{128 << 20, 30 << 30, 20 << 30, 0, 128 << 20},
		{128 << 20, 300 << 20, 200 << 20, 0, 100 << 20},
		{128 << 20, 0, 0, 0, 128 << 20},
		{128 << 20, 30 << 30, 2 << 20, 50 << 20, 44 << 20},  // a reserve of 8 MiB lacks 6
		{128 << 20, 30 << 30, 0, 2 << 20, smallStore},       // others fill the disk
		{128 << 20, 32 << 20, 1 << 20, 10 << 20, 9<<20 + 0}, // a reserve of 2 MiB lacks 1
		{128 << 20, 32 << 20, 30 << 20, 10 << 20, 32 << 20 / 3},
	} {
		b.SetRetention(Retention{Keep: DefaultKeep(), Budget: tc.budget})
		b.space = func() (int64, int64) { return tc.size, tc.free }
		if got := b.limit(tc.used); got != tc.want {
			t.Errorf("%+v: got %d", tc, got)
		}
	}
}

func TestWeeksOfTheFutureGoFirst(t *testing.T) {
	b := newBench(t)
	for i, at := range []time.Time{b.at, b.at.Add(20 * 24 * time.Hour), b.at.Add(-60 * 24 * time.Hour)} {
		b.append(entry(t, "n-a", cpuAndMemory, wire.Batch{Header: wire.Header{BatchID: wire.ID(1, uint64(i)+1), Clock: model.ClockNone}, Reports: []wire.Report{{Time: at.UnixMilli(), Values: make([]wire.Value, 2)}}}))
	}
	b.tend()
	b.tending.Lock()
	defer b.tending.Unlock()
	if did, err := b.giveUp(t.Context(), b.givings(), "a test"); !did || err != nil {
		t.Fatal(did, err)
	}
	if got := b.weeks.list(); len(got) != 2 || got[1] != weekOf(b.at.UnixMilli()) {
		t.Errorf("left are %v", got)
	}
}

func TestAge(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(2, 1))
	seq, at := uint64(0), time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	b.fill(r, nil, "n-a", &seq, at, 6*time.Hour, 3*time.Second)
	b.tend()
	widths := func(after time.Duration, want ...int) {
		t.Helper()
		b.at = at.Add(after)
		b.tend()
		got := b.bodies(at)
		for _, w := range []int{raw, minute, quarter, hourly} {
			if (got[w] > 0) != slices.Contains(want, w) {
				t.Errorf("after %s: got %v blocks by width, want %v", after, got, want)
			}
		}
	}
	const d = 24 * time.Hour
	widths(30*d, raw, quarter, hourly)
	widths(100*d, minute, quarter, hourly)
	widths(380*d, quarter, hourly)
	widths(740*d, hourly)
	b.at = at.Add(6 * 365 * d)
	b.tend()
	if got := b.weeks.list(); len(got) != 0 {
		t.Errorf("left are %v", got)
	}
}

// smallDisk returns a folder on a file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("a small file system is needed, and root to make it: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp leaves no room on the file system but so much, and returns the file that takes it.
func fillUp(t *testing.T, dir string, but int64) string {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := int64(0)
	for err == nil {
		var k int
		k, err = f.Write(make([]byte, 4096))
		n += int64(k)
	}
	if err := f.Truncate(max(0, n-but)); err != nil {
		t.Fatal(err)
	}
	return ballast
}

// However full others make the file system: what was acknowledged is there, or was thinned
// and said so, and when there is room again everything goes on.
func TestFullDisk(t *testing.T) {
	for _, but := range []int64{0, 64 << 10, 200 << 10} {
		t.Run(fmt.Sprint(but>>10, " KiB left"), func(t *testing.T) {
			b := benchIn(t, smallDisk(t, "24m"), nil)
			r := rand.New(rand.NewPCG(7, 7))
			k, seq := newKnown(), uint64(0)
			at := b.fill(r, k, "n-a", &seq, epoch, 30*time.Hour, 20*time.Second)
			b.tend()
			at = b.fill(r, k, "n-a", &seq, at, 2*time.Hour, 20*time.Second)
			ballast := fillUp(t, b.dir, but)
			refused := 0
			for range 200 { // until the database has used up what room it has
				next := seq + 1
				e := numbered(t, "n-a", 2, next)
				for i := range e.Batch.Reports {
					e.Batch.Reports[i].Time = at.Add(time.Duration(next)*time.Minute + time.Duration(i)*time.Second).UnixMilli()
				}
				e = entry(t, "n-a", cpuAndMemory, e.Batch)
				o, err := b.Append(t.Context(), []Entry{e, {Node: "n-a", Schema: cpuAndMemory, Batch: e.Batch, Data: e.Data}})
				if errors.Is(err, store.ErrUnavailable) {
					refused++
					continue
				}
				if err != nil || o[0] != Stored {
					t.Fatal(o, err)
				}
				k.take(e)
				seq++
			}
			if err := b.Tend(t.Context()); err != nil && !errors.Is(err, store.ErrUnavailable) {
				t.Fatal(err)
			}
			b.answers(k, "n-a", epoch.Truncate(24*time.Hour), time.Minute)
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			b.tend()
			b.answers(k, "n-a", epoch.Truncate(24*time.Hour), time.Minute)
			b.restart()
			b.answers(k, "n-a", epoch.Truncate(24*time.Hour), time.Minute)
			if b.headCount != 0 {
				t.Errorf("%d batches are still in the journal", b.headCount)
			}
			t.Logf("refused %d times", refused)
		})
	}
}

// A disk that is full to the last octet costs the oldest week, not what is new.
func TestAFullDiskCostsTheOldest(t *testing.T) {
	b := benchIn(t, smallDisk(t, "24m"), nil)
	r := rand.New(rand.NewPCG(7, 8))
	seq, at := uint64(0), epoch.Add(-20*24*time.Hour)
	at = b.fill(r, nil, "n-a", &seq, at, 20*24*time.Hour, 30*time.Second)
	b.tend()
	weeks := b.weeks.list()
	fillUp(t, b.dir, 0)
	for range 300 {
		seq++
		e := numbered(t, "n-a", 1, seq)
		for i := range e.Batch.Reports {
			e.Batch.Reports[i].Time = at.Add(time.Duration(i) * time.Second).UnixMilli()
		}
		at = at.Add(time.Minute)
		if o := b.append(entry(t, "n-a", cpuAndMemory, e.Batch)); o[0] != Stored {
			t.Fatal(o)
		}
	}
	b.at = at
	b.tend()
	if got := b.weeks.list(); len(got) == 0 || got[0] <= weeks[0] || got[len(got)-1] != weekOf(at.UnixMilli()) {
		t.Errorf("of %v are left %v, want the oldest to be gone", weeks, got)
	}
	if !slices.Contains(b.events.kinds(), "telemetry.thinned") {
		t.Errorf("events %v", b.events.kinds())
	}
}

// A week that cannot be read for a moment is not removed for room: it is thinned when it can
// be.
func TestAWeekThatCannotBeReadForAMoment(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(3, 5))
	seq := uint64(0)
	const day = 24 * time.Hour
	b.fill(r, nil, "n-a", &seq, epoch.Add(-60*day), 2*time.Hour, 10*time.Second)
	b.fill(r, nil, "n-a", &seq, epoch.Add(-30*day), 2*time.Hour, 10*time.Second)
	b.tend()
	old := b.weeks.list()
	path := b.weeks.path(old[0])
	if err := errors.Join(b.weeks.close(), os.Rename(path, path+".elsewhere"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	b.tending.Lock()
	defer b.tending.Unlock()
	ticks := time.Now()
	b.ticks = func() time.Time { return ticks }
	for range 3 * len(b.givings()) {
		if _, err := b.giveUp(t.Context(), b.givings(), "a test"); err != nil && !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if got := b.weeks.list(); !slices.Equal(got, old) {
		t.Fatalf("left are %v of %v", got, old)
	}
	if err := errors.Join(os.Remove(path), os.Rename(path+".elsewhere", path)); err != nil {
		t.Fatal(err)
	}
	if did, err := b.giveUp(t.Context(), b.givings(), "a test"); !did || err != nil {
		t.Errorf("when it can be read: %v, %v", did, err)
	}
	if is, err := b.fromOf(t.Context(), old[0]); err != nil || is.quarter == 0 {
		t.Errorf("it is thinned to %+v, %v", is, err)
	}
}

// An old week that cannot be thinned is tried again once an hour, and has nothing else done
// more often; in the end another file takes its place.
func TestAnOldWeekThatCannotBeThinned(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(4, 4))
	seq := uint64(0)
	const day = 24 * time.Hour
	b.fill(r, nil, "n-a", &seq, epoch, 2*time.Hour, 10*time.Second)
	b.tend()
	ticks := time.Now()
	b.ticks = func() time.Time { return ticks }
	b.at = epoch.Add(100 * day)
	path := b.weeks.path(b.weeks.list()[0])
	if err := errors.Join(b.weeks.close(), os.Rename(path, path+".elsewhere"), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	for i := range stubborn {
		b.append(stamped(t, "n-a", seq+uint64(i)+1, b.at.Add(time.Duration(i)*time.Second)))
		if err, untidy := b.Store.tend(t.Context()); err != nil || untidy == nil && i < stubborn-1 || b.headCount != 0 {
			t.Fatalf("try %d: %v, and untidy %v; %d batches are left in the journal", i, err, untidy, b.headCount)
		}
		if _, err := os.Stat(path + ".damaged"); (err == nil) != (i == stubborn-1) {
			t.Fatalf("try %d: another file takes its place: %v", i, err)
		}
		for range 3 { // as when much comes
			if err, untidy := b.Store.tend(t.Context()); err != nil || i < stubborn-1 && untidy != nil {
				t.Fatalf("a moment later: %v, %v", err, untidy)
			}
			ticks = ticks.Add(retryAfter)
		}
		ticks = ticks.Add(tidyAfter)
	}
	if got := b.events.kinds(); !slices.Equal(got, []string{"telemetry.damaged"}) {
		t.Errorf("events %q", got)
	}
	b.tend()
}

// Where there is no room for it beside what comes from the nodes, no week is rewritten for its
// age, and that is no failure; once there is it is.
func TestAgeOnAMediumThatIsNearlyFull(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(4, 5))
	seq := uint64(0)
	b.fill(r, nil, "n-a", &seq, epoch, 6*time.Hour, 3*time.Second)
	b.tend()
	w := b.weeks.list()[0]
	b.at = epoch.Add(100 * 24 * time.Hour)
	free := int64(mostReserve + 1000)
	b.space = func() (int64, int64) { return 1 << 34, free }
	b.tend() // its days are over
	before := b.Commits()
	for range 2 * stubborn {
		b.tend()
	}
	if is, err := b.fromOf(t.Context(), w); err != nil || is.minute != 0 || b.Commits() != before || b.Tended() == 0 {
		t.Errorf("thinned to %+v, %d commits, %v", is, b.Commits()-before, err)
	}
	free = 1 << 30
	b.tend()
	if is, err := b.fromOf(t.Context(), w); err != nil || is.minute == 0 {
		t.Errorf("when there is room: thinned to %+v, %v", is, err)
	}
	if got := b.events.kinds(); len(got) != 0 {
		t.Errorf("events %v", got)
	}
}
