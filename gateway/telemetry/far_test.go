package telemetry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// stamped is a batch of one report.
func stamped(t testing.TB, node string, seq uint64, at time.Time) Entry {
	t.Helper()
	return entry(t, node, cpuAndMemory, wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS},
		Reports: []wire.Report{{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(int64(seq)), wire.Int(1)}}}})
}

// count tells how many readings of a node there are.
func (b *bench) count(node string) int {
	b.t.Helper()
	got, err := b.Samples(b.t.Context(), SampleQuery{Node: node, From: time.UnixMilli(earliest), To: time.UnixMilli(latest), Metrics: []string{"system.cpu.*"}, Limit: 1 << 20})
	if err != nil {
		b.t.Fatal(err)
	}
	return len(got.Items)
}

// A node that makes up as many weeks as it can, while the gateway does not know the time,
// stops nobody: others' readings get into the files, also those of nodes that do know the
// time, months from the gateway's guess. And what it has made goes once the gateway knows.
func TestAThousandWeeks(t *testing.T) {
	const day = 24 * time.Hour
	b := &bench{t: t, dir: t.TempDir(), events: &told{}, at: epoch}
	var ran time.Duration
	guess := true
	sure := func() bool { return !guess }
	c := clock.New(func() time.Time { return b.at }, epoch.AddDate(-2, 0, 0))
	c.Follow(clock.Span{}, sure, func() time.Duration { return ran })
	b.edit = func(cfg *Config) {
		cfg.Now, cfg.Aged, cfg.Ahead, cfg.Sure = c.Now, c.Aged, c.Ahead, sure
		cfg.Retention.Keep = Keep{Raw: 140 * day, Minute: 140 * day, Quarter: 140 * day, Hour: 140 * day}
	}
	b.open()
	t.Cleanup(b.close)
	if err := b.PutSchema(t.Context(), "n-a", cpuAndMemory); err != nil {
		t.Fatal(err)
	}
	truth := epoch.Add(100 * day)
	honest := uint64(0)
	others := func() {
		t.Helper()
		honest++
		for node, at := range map[string]time.Time{"n-guess": b.at, "n-gps": truth} {
			if got := b.append(stamped(t, node, honest, at.Add(time.Duration(honest)*time.Second))); got[0] != Stored {
				t.Fatalf("%s: got %v", node, got)
			}
		}
	}
	evil := uint64(0)
	flood := func() {
		t.Helper()
		var group []Entry
		for i := range 1000 {
			evil++
			group = append(group, stamped(t, "n-evil", evil, epoch.Add(time.Duration(200+7*i)*day)))
		}
		for some := range slices.Chunk(group, headWeeks) {
			if got := b.append(some...); slices.Contains(got, Busy) {
				t.Fatal(got)
			}
			if err := b.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(what string) {
		t.Helper()
		b.tend()
		if b.headCount != 0 {
			t.Fatalf("%s: %d batches are left in the journal", what, b.headCount)
		}
		for _, node := range []string{"n-guess", "n-gps"} {
			if got := b.count(node); got != int(honest) {
				t.Errorf("%s: of %s are %d readings there, want %d", what, node, got, honest)
			}
		}
	}
	flood()
	others()
	check("at first")
	made := b.count("n-evil")
	if most := 140/7 + fewWeeks; made > most {
		t.Errorf("the node has readings in %d weeks, want %d at most", made, most)
	}
	if got := b.Coverage("n-evil").Boots[0]; got.Count != evil || got.Dropped != evil-uint64(made) {
		t.Errorf("got %+v, want %d of %d to be dropped", got, evil-uint64(made), evil)
	}
	if !slices.Contains(b.events.kinds(), "telemetry.misdated") {
		t.Errorf("events %q", b.events.kinds())
	}
	b.restart()
	flood()
	others()
	check("after a restart")
	if got := b.count("n-evil"); got != made {
		t.Errorf("the node has readings in %d weeks, want %d", got, made)
	}
	b.at = b.at.Add(7 * day)
	others()
	check("the next Monday")

	guess, b.at = false, truth
	files := len(b.weeks.list())
	b.ticks = func() time.Time { return epoch.Add(ran) }
	for range files {
		others()
		check("with a clock")
		left := len(b.weeks.list())
		b.tend() // as when much comes
		if got := len(b.weeks.list()); got != left {
			t.Errorf("%d weeks were removed within a moment", left-got+1)
		}
		b.at, truth, ran = b.at.Add(time.Hour), truth.Add(time.Hour), ran+time.Hour
	}
	if got := b.count("n-evil"); got != 0 {
		t.Errorf("%d of its readings are of a future that cannot be, and still there", got)
	}
	gone := 0
	for _, e := range b.events.list {
		if e.Kind == "telemetry.misdated" && e.Node == "" && e.Fields["week"] != "" {
			gone++
		}
	}
	if gone != made {
		t.Errorf("%d events tell of weeks that were removed, want %d", gone, made)
	}
}

// A week whose file cannot be written does not hold up the others: what it lacks stays in
// the journal, over a restart, until it can be written, or another file takes its place.
func TestAWeekThatCannotBeWritten(t *testing.T) {
	for _, mended := range []bool{true, false} {
		t.Run(fmt.Sprint("mended ", mended), func(t *testing.T) {
			b := newBench(t)
			before, now := b.at.Add(-7*24*time.Hour), b.at
			bad := filepath.Join(b.dir, "telemetry", weekOf(before.UnixMilli()).String()+weekSuffix)
			if err := os.MkdirAll(filepath.Join(bad, "what is no file"), 0o700); err != nil {
				t.Fatal(err)
			}
			seq := uint64(0)
			put := func(at time.Time) {
				t.Helper()
				seq++
				if got := b.append(stamped(t, "n-a", seq, at.Add(time.Duration(seq)*time.Second)), stamped(t, "n-b", seq, at.Add(time.Duration(seq)*time.Second))); got[0] != Stored {
					t.Fatal(got)
				}
			}
			put(before)
			for range 20 {
				put(now)
			}
			if err := b.Tend(t.Context()); err == nil {
				t.Fatal("expected an error about the week before")
			}
			if b.headCount != 2 {
				t.Errorf("%d batches are left in the journal, want those of the week before", b.headCount)
			}
			if got := b.bodies(now)[raw]; got != 2 {
				t.Errorf("%d blocks of this week are written, want 2", got)
			}
			b.restart()
			if mended {
				if err := os.RemoveAll(bad); err != nil {
					t.Fatal(err)
				}
			} else {
				ticks := time.Now()
				b.ticks = func() time.Time { return ticks }
				try := func() {
					t.Helper()
					put(now)
					if err := b.Tend(t.Context()); err == nil {
						t.Fatal("expected an error about the week before")
					}
				}
				for range stubborn - 1 {
					try()
					try() // a moment later, as when much comes: it does not count
					ticks = ticks.Add(retryAfter)
				}
				if _, err := os.Stat(bad + ".damaged"); err == nil {
					t.Error("another file has taken its place too soon")
				}
				try()
				if _, err := os.Stat(bad + ".damaged"); err != nil {
					t.Error(err)
				}
				if got := b.events.kinds(); !slices.Equal(got, []string{"telemetry.damaged"}) {
					t.Errorf("events %q", got)
				}
			}
			b.tend()
			if b.headCount != 0 {
				t.Errorf("%d batches are left in the journal", b.headCount)
			}
			for _, node := range []string{"n-a", "n-b"} {
				if got := b.count(node); got != int(seq) {
					t.Errorf("%s: %d readings are there, want %d", node, got, seq)
				}
				if got := b.Coverage(node).Boots[0]; got.Count != seq || got.Dropped != 0 {
					t.Errorf("%s: got %+v", node, got)
				}
			}
		})
	}
}

// While a week cannot be written, what comes meanwhile has nothing tried again before its
// time: each try writes the card.
func TestTriesAreAMinuteApart(t *testing.T) {
	b := newBench(t)
	if err := os.MkdirAll(filepath.Join(b.weeks.path(weekOf(epoch.UnixMilli())), "what is no file"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.append(stamped(t, "n-a", 1, epoch))
	var looks atomic.Int64 // at the clock, in each try
	b.Sure = func() bool { looks.Add(1); return true }
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- b.Run(ctx) }()
	for end := time.Now().Add(10 * time.Second); looks.Load() == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	time.Sleep(100 * time.Millisecond) // the first try is over
	once := looks.Load()
	for range 50 {
		b.wake()
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-ran; err != nil || once == 0 || looks.Load() != once {
		t.Errorf("%d looks at the clock after the first try with %d, %v", looks.Load()-once, once, err)
	}
}
