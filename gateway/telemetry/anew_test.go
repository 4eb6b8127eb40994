package telemetry

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/gateway/store/powercut"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// newStill is newBench of a process whose time stands still, on a medium whose power nobody
// cuts.
func newStill(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	powercut.Careless(t, dir)
	b := benchIn(t, dir, nil)
	ticks := time.Now()
	b.ticks = func() time.Time { return ticks }
	return b
}

// sender is a node that keeps what was not taken.
type sender struct {
	b    *bench
	node string
	seq  uint64
	r    *rand.Rand
}

// batch is one with a reading at each of these times.
func (s *sender) batch(at ...time.Time) Entry {
	s.b.t.Helper()
	s.seq++
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, s.seq), Clock: model.ClockGPS}}
	for _, at := range at {
		b.Reports = append(b.Reports, wire.Report{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(s.r.Int64N(900)), wire.Int(s.r.Int64N(1 << 20))}})
	}
	return entry(s.b.t, s.node, cpuAndMemory, b)
}

// backlog is what a node has measured for so long, an hour in a batch, every so often.
func (s *sender) backlog(from time.Time, long, step time.Duration) (all []Entry) {
	s.b.t.Helper()
	for at := from; at.Before(from.Add(long)); {
		var times []time.Time
		for end := at.Add(time.Hour); at.Before(end); at = at.Add(step) {
			times = append(times, at)
		}
		all = append(all, s.batch(times...))
	}
	return all
}

// spread is a reading at that offset of each of so many hours, in batches of a week.
func (s *sender) spread(from time.Time, hours int, offset time.Duration) (all []Entry) {
	s.b.t.Helper()
	for h := 0; h < hours; {
		var times []time.Time
		for end := min(hours, h+167); h < end; h++ {
			times = append(times, from.Add(time.Duration(h)*time.Hour+offset))
		}
		all = append(all, s.batch(times...))
	}
	return all
}

func newSender(b *bench, node string) *sender {
	return &sender{b: b, node: node, r: rand.New(rand.NewPCG(5, uint64(len(node))))}
}

// home has a node send its backlog, in order, and compacts after so many batches each. All is
// taken.
func (s *sender) home(backlog []Entry, every int) {
	s.b.t.Helper()
	for sent := 0; sent < len(backlog); sent += every {
		for i, o := range s.b.append(backlog[sent:min(sent+every, len(backlog))]...) {
			if o != Stored {
				s.b.t.Fatalf("batch %d of %d: %v", sent+i, len(backlog), o)
			}
		}
		s.b.tend()
	}
}

const (
	rewriteWeeks = 15 // with the current one as many as a node may have in the head
	rewriteHours = rewriteWeeks * 168
)

// A node that spreads readings over all hours of the weeks that it may have in the head has
// no more written anew than its allowance, once it owes what that costs; everything else goes
// on, its own live readings too, and what is late of it is taken when it owes no more.
func TestRewritingIsBounded(t *testing.T) {
	b := newStill(t)
	ticks := b.ticks()
	b.ticks = func() time.Time { return ticks }
	evil, good := newSender(b, "n-evil"), newSender(b, "n-good")
	begin := time.Date(2026, 8, 3, 0, 0, 0, 0, time.UTC)
	b.at = begin.Add(rewriteHours * time.Hour).Add(30 * time.Minute)
	evil.home(evil.backlog(begin, rewriteHours*time.Hour, 3*time.Minute), 400)
	if got := b.owed("n-evil"); got > rewriteBurst/4 {
		t.Errorf("for its first readings it owes %d octets", got)
	}
	had := b.count("n-evil")

	const (
		every = 40 * time.Minute
		days  = 4
	)
	start, owed, charged, pass, late, passes := b.at, b.owed("n-evil"), int64(0), int64(0), 0, 0
	var waiting []Entry
	for turn := 0; b.at.Before(start.Add(days * 24 * time.Hour)); turn++ {
		if waiting == nil {
			waiting = evil.spread(begin, rewriteHours, time.Minute+time.Duration(turn)*time.Millisecond)
		}
		taken := b.append(waiting...)
		for i, o := range taken {
			if o != taken[0] || o != Stored && o != Busy {
				t.Fatalf("turn %d, batch %d: got %v, and %v of the first", turn, i, o, taken[0])
			}
		}
		if taken[0] == Stored {
			waiting, late, passes = nil, late+rewriteHours, passes+1
		}
		if got := b.append(good.batch(b.at), evil.batch(b.at), good.batch(begin.Add(time.Duration(turn)*time.Minute))); got[0] != Stored || got[1] != Stored || got[2] != Stored {
			t.Fatalf("turn %d: what is live, and what is late of others: got %v", turn, got)
		}
		late++
		b.tend()
		if b.headCount != 0 {
			t.Fatalf("turn %d: %d batches are left in the journal", turn, b.headCount)
		}
		now := b.owed("n-evil")
		charged += now - owed
		pass = max(pass, now-owed)
		b.at, ticks = b.at.Add(every), ticks.Add(every)
		owed = b.owed("n-evil")
	}
	most := rewriteBurst + pass + days*24*3600*rewritePerSecond
	t.Logf("%d times of %d, %.1f MB each: %.0f MB of %.0f", passes, days*24*60/40, float64(pass)/1e6, float64(charged)/1e6, float64(most)/1e6)
	if charged > most || passes < days || waiting == nil {
		t.Errorf("%d octets were written anew in %d days, want at most %d; %d times", charged, days, most, passes)
	}
	ticks = ticks.Add(24 * time.Hour)
	for _, o := range b.append(waiting...) {
		if o != Stored {
			t.Fatalf("when it owes no more: got %v", o)
		}
	}
	b.tend()
	if got := b.count("n-evil"); got != had+late+rewriteHours {
		t.Errorf("%d readings are there, want %d", got, had+late+rewriteHours)
	}
	if got, want := b.count("n-good"), int(good.seq); got != want {
		t.Errorf("%d readings of the other are there, want %d", got, want)
	}
}

// owed is what a node owes.
func (b *bench) owed(node string) int64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.mayRewrite.owes(b.sources[node].rewritten, b.ticks())
}

// All of the backlog of a node that comes home is taken, however often compaction parts it,
// also into weeks that are thinned, and it owes little for that.
func TestABacklogIsNoRewriting(t *testing.T) {
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		long, step time.Duration
		every      int // batches, of an hour each, from one compaction to the next
		thin       bool
	}{
		"a day":                           {long: day, step: 10 * time.Second, every: 1},
		"sixteen weeks":                   {long: 112 * day, step: 30 * time.Second, every: 500},
		"sixteen weeks, little by little": {long: 112 * day, step: 5 * time.Minute, every: 48},
		"weeks that are thinned":          {long: 30 * day, step: 5 * time.Minute, every: 48, thin: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStill(t) // nothing is paid off meanwhile
			begin := b.at.Add(-tc.long).Truncate(time.Hour)
			if tc.thin {
				other := newSender(b, "n-other")
				other.home(other.backlog(begin, tc.long, time.Hour), 1000)
				b.tending.Lock()
				for _, w := range b.weeks.list() {
					if _, err := b.thin(t.Context(), w, thinned{w.end(), w.end(), 0}); err != nil {
						t.Fatal(err)
					}
				}
				b.tending.Unlock()
			}
			home := newSender(b, "n-home")
			home.home(home.backlog(begin, tc.long, tc.step), tc.every)
			owed := b.owed("n-home")
			t.Logf("%d batches; it owes %.1f MB", home.seq, float64(owed)/1e6)
			if owed > rewriteBurst/2 {
				t.Errorf("it owes %d octets", owed)
			}
			got, want := 0, int(tc.long/tc.step)
			if _, err := b.Range(t.Context(), Query{Nodes: []string{"n-home"}, Metrics: []string{"system.cpu.*"}, From: begin, To: begin.Add(tc.long), Step: time.Hour}, func(s Series) error {
				for _, p := range s.Points {
					got += int(p.Count)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("%d readings are there, want %d", got, want)
			}
		})
	}
}

// Of what many nodes bring home at once, each pays its part of what a file takes.
func TestNodesShareWhatAFileTakes(t *testing.T) {
	b := newStill(t)
	const nodes = 40
	var group []Entry
	for n := range nodes {
		group = append(group, newSender(b, fmt.Sprint("n-", n)).batch(b.at.Add(-30*24*time.Hour)))
	}
	b.append(group...)
	b.tend()
	for n := range nodes {
		if got := b.owed(fmt.Sprint("n-", n)); got != filePages/nodes {
			t.Errorf("n-%d owes %d octets, want %d", n, got, filePages/nodes)
		}
	}
}

func TestWhatIsChargedForRewriting(t *testing.T) {
	old := epoch.Add(-20 * 24 * time.Hour)
	for _, tc := range []struct {
		what  string
		first time.Time // readings that the files have
		then  []time.Time
		files int // that are charged for
		most  int // blocks
	}{
		{"live, of this hour and the one before", epoch, []time.Time{epoch.Add(time.Minute), epoch.Add(time.Hour)}, 0, 0},
		{"an hour that has nothing yet", old, []time.Time{old.Add(24 * time.Hour)}, 1, 0},
		{"an hour that has something, and its day's rollups", old, []time.Time{old.Add(time.Minute)}, 1, 3},
		{"two of one hour", old, []time.Time{old.Add(time.Minute), old.Add(2 * time.Minute)}, 1, 3},
		{"a day that has rollups", old, []time.Time{old.Add(time.Hour)}, 1, 2},
		{"hours of two weeks", old, []time.Time{old.Add(time.Minute), old.Add(7 * 24 * time.Hour)}, 2, 3},
		{"an hour of the future", epoch.Add(40 * time.Hour), []time.Time{epoch.Add(40*time.Hour + time.Minute)}, 1, 1},
	} {
		t.Run(tc.what, func(t *testing.T) {
			b := newStill(t)
			s := newSender(b, "n-a")
			b.append(s.batch(tc.first))
			b.tend()
			before := b.owed("n-a")
			for _, at := range tc.then {
				b.append(s.batch(at))
			}
			b.tend()
			got, low := b.owed("n-a")-before, int64(tc.files*filePages+tc.most*blockPages)
			if got < low || got > low+int64(tc.most)*1000 {
				t.Errorf("charged are %d octets, want %d and those of %d blocks, twice", got, low, tc.most)
			}
			b.tend()
			if again := b.owed("n-a") - before; again != got {
				t.Errorf("%d octets more are charged for nothing", again-got)
			}
		})
	}
}

func TestWhatIsOwedIsPaidOff(t *testing.T) {
	a, now := allowance{burst: 1000, perSecond: 10}, time.Now()
	var of account
	if got := a.owes(of, now); got != 0 {
		t.Errorf("at first: got %d", got)
	}
	a.charge(&of, 500, now)
	a.charge(&of, 700, now.Add(20*time.Second))
	for after, want := range map[time.Duration]int64{20 * time.Second: 1000, 60 * time.Second: 600, 120 * time.Second: 0, 1000 * time.Hour: 0} {
		if got := a.owes(of, now.Add(after)); got != want {
			t.Errorf("after %v: owes %d, want %d", after, got, want)
		}
	}
}

// What an admin imports is nobody's fault, however much of it is late.
func TestImportsAreNotCharged(t *testing.T) {
	b := newStill(t)
	s := newSender(b, "n-a")
	begin := b.at.Add(-20 * 24 * time.Hour).Truncate(time.Hour)
	s.home(s.backlog(begin, 10*24*time.Hour, 10*time.Minute), 1000)
	before := b.sources["n-a"].rewritten
	var readings []Imported
	for h := range 240 {
		readings = append(readings, Imported{Node: "n-a", Metric: "system.cpu.used_percent", Unit: "%", Time: begin.Add(time.Duration(h)*time.Hour + time.Second).UnixMilli(), Value: 1})
	}
	res, err := b.Import(t.Context(), readings)
	if err != nil || res.Stored != len(readings) {
		t.Fatalf("got %+v, %v", res, err)
	}
	b.tend()
	if got := b.sources["n-a"].rewritten; got != before {
		t.Errorf("owed are %+v, want %+v", got, before)
	}
}
