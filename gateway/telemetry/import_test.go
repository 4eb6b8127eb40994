package telemetry

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// exported is a node's readings as an export has them.
func (b *bench) exported(node string) (all []Imported) {
	b.t.Helper()
	q := SampleQuery{Node: node, From: time.Unix(0, 0), To: b.at.Add(400 * 24 * time.Hour), Limit: 10_000}
	for {
		page, err := b.Samples(b.t.Context(), q)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, s := range page.Items {
			all = append(all, Imported{node, s.Metric, s.Unit, s.Time.UnixMilli(), s.Value})
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return all
		}
	}
}

func (b *bench) imports(all []Imported) (res ImportResult) {
	b.t.Helper()
	for part := range slices.Chunk(all, 5000) {
		did, err := b.Import(b.t.Context(), part)
		if err != nil {
			b.t.Fatal(err)
		}
		res.Add(did)
	}
	return res
}

// What one gateway has measured, another one takes in, once however often it comes, and
// answers alike.
func TestImportOfWhatAnotherHas(t *testing.T) {
	a, k := newBench(t), newKnown()
	r := rand.New(rand.NewPCG(6, 1))
	seq := uint64(0)
	b := newBench(t)
	a.at = epoch.Add(9 * 24 * time.Hour)
	b.at = a.at
	a.fill(r, k, "n-a", &seq, epoch.Add(-time.Hour), 60*time.Hour, 20*time.Second)
	a.tend()
	a.fill(r, k, "n-a", &seq, epoch.Add(8*24*time.Hour), time.Hour, 20*time.Second)
	all := a.exported("n-a")
	half := slices.Clone(all[:len(all)/2])
	r.Shuffle(len(half), func(i, j int) { half[i], half[j] = half[j], half[i] })
	if got, want := b.imports(half), (ImportResult{Stored: len(half)}); got != want {
		t.Fatalf("half: %+v, want %+v", got, want)
	}
	if got, want := b.imports(all), (ImportResult{Stored: len(all) - len(half), Duplicate: len(half)}); got != want {
		t.Fatalf("all: %+v, want %+v", got, want)
	}
	b.restart()
	if got, want := b.imports(all), (ImportResult{Duplicate: len(all)}); got != want {
		t.Fatalf("again: %+v, want %+v", got, want)
	}
	b.tend() // rolls up
	got := b.exported("n-a")
	for _, list := range [][]Imported{got, all} { // series have other numbers
		slices.SortFunc(list, func(a, b Imported) int { return cmp.Or(cmp.Compare(a.Time, b.Time), cmp.Compare(a.Metric, b.Metric)) })
	}
	if !slices.Equal(got, all) {
		t.Errorf("%d readings went in, others came out: %d", len(all), len(got))
	}
	for _, step := range []time.Duration{time.Minute, 15 * time.Minute, time.Hour} {
		b.answers(k, "n-a", epoch.Truncate(24*time.Hour), step)
	}
	if len(b.Latest().Node("n-a", "")) != 0 || len(b.Coverage("n-a").Boots) != 0 {
		t.Error("what was imported is neither the latest that a node has sent, nor a batch of it")
	}
}

// What the node itself has sent is a duplicate, whether it is in a file or still in the
// journal, and stays.
func TestImportBesideTheNode(t *testing.T) {
	b := newBench(t)
	b.append(numbered(t, "n-a", 1, 1), numbered(t, "n-a", 1, 2))
	in := b.exported("n-a")
	in[0].Value += 7 // somebody else knows better
	later := in[len(in)-1]
	later.Time += 500
	if got, want := b.imports(append(in, later)), (ImportResult{Stored: 1, Duplicate: len(in)}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	b.append(numbered(t, "n-a", 1, 3))
	got := b.exported("n-a")
	if len(got) != len(in)+1+6 || got[0].Value == in[0].Value {
		t.Errorf("%d readings, want %d; the first is %v", len(got), len(in)+7, got[0])
	}
	series := map[string]bool{}
	for _, s := range b.ranged(Query{Nodes: []string{"n-a"}, From: epoch, To: epoch.Add(time.Hour), Step: time.Hour}) {
		if series[s.Metric] {
			t.Errorf("%s became two series", s.Metric)
		}
		series[s.Metric] = true
	}
}

func (b *bench) ranged(q Query) (all []Series) {
	b.t.Helper()
	if _, err := b.Range(b.t.Context(), q, func(s Series) error { all = append(all, s); return nil }); err != nil {
		b.t.Fatal(err)
	}
	return all
}

// Numbers come out as they went in.
func TestImportedNumbers(t *testing.T) {
	b := newBench(t)
	values := []float64{0, -0.1, 23.45, 1e-9, 1 << 52, 1 << 60, 1e21, math.Pi, -1e300, math.MaxFloat64, math.SmallestNonzeroFloat64, 0.1 + 0.2, 5e15 + 0.5}
	var in []Imported
	for i, v := range values {
		in = append(in, Imported{"n-a", fmt.Sprintf("test.each.m%d", i), "x", epoch.UnixMilli(), v}, Imported{"n-a", "test.all.metric", "x", epoch.UnixMilli() + int64(i), v})
	}
	if got := b.imports(in); got.Stored != len(in) {
		t.Fatalf("%+v", got)
	}
	got := map[Imported]bool{}
	for _, r := range b.exported("n-a") {
		got[r] = true
	}
	for _, r := range in {
		if !got[r] {
			t.Errorf("%v did not come out", r)
		}
	}
	for v, want := range map[float64]int8{0: 0, 12: 0, 0.5: 1, -12.34: 2, 1e-12: 12, 1e-13: wire.ScaleFloat, 1e16: wire.ScaleFloat, math.Pi: wire.ScaleFloat, 48.137154: 6} {
		if got := placesOf(v); got != want {
			t.Errorf("%v: %d decimal places, want %d", v, got, want)
		}
	}
}

func TestWhatIsNotImported(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(6, 2))
	seq := uint64(0)
	old := b.at.Add(-500 * 24 * time.Hour)
	b.fill(r, nil, "n-a", &seq, old, 2*time.Hour, 20*time.Second)
	b.at = epoch.Add(time.Hour)
	b.tend() // of a year ago there are quarters of an hour
	read := func(at time.Time) Imported { return Imported{"n-a", "system.cpu.used_percent", "%", at.UnixMilli(), 3} }
	in := []Imported{read(old.Add(time.Minute)), read(b.at.Add(-6 * 365 * 24 * time.Hour)), read(b.at.Add(100 * 24 * time.Hour)), read(b.at)}
	if got, want := b.imports(in), (ImportResult{Stored: 1, Summarised: 1, Misdated: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	var many []Imported
	for i := range nodeSeries + 10 {
		many = append(many, Imported{"n-b", fmt.Sprintf("test.m%d.metric", i), "", b.at.UnixMilli(), 1})
	}
	if got, want := b.imports(many), (ImportResult{Stored: nodeSeries, Refused: 10}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	var crowd []Imported
	for i := range 3 * 30_000 {
		crowd = append(crowd, Imported{"n-c", "test.c.metric", "", epoch.UnixMilli() + int64(i), 1})
	}
	var res ImportResult
	for part := range slices.Chunk(crowd, 30_000) {
		did, err := b.Import(t.Context(), part)
		if err != nil {
			t.Fatal(err)
		}
		res.Add(did)
	}
	if want := (ImportResult{Stored: 60_000, Crowded: 30_000}); res != want {
		t.Errorf("%+v, want %+v", res, want)
	}
	if _, err := b.Import(t.Context(), make([]Imported, MaxImport+1)); !errors.Is(err, ErrTooMuch) {
		t.Error(err)
	}
	b.edit = func(c *Config) { c.Sure = func() bool { return false } }
	b.restart()
	if _, err := b.Import(t.Context(), in); !errors.Is(err, ErrClock) {
		t.Error(err)
	}
	for _, bad := range []Imported{{"n-a", "nothing", "", 1, 1}, {"n-a", "test.c.metric", "", 1, math.NaN()}, {"n-a", "test.c.metric", "a unit that is too long", 1, 1}} {
		if bad.Check() == nil {
			t.Errorf("%+v: expected an error", bad)
		}
	}
}

// On a full disk nothing is taken in, nothing is given up for it, and everything goes on
// when there is room.
func TestImportOnAFullDisk(t *testing.T) {
	b := benchIn(t, smallDisk(t, "16m"), nil)
	b.imports(noisy("n-a", epoch, 20_000))
	ballast := fillUp(t, b.dir, 8<<10)
	before := b.exported("n-a")
	_, err := b.Import(t.Context(), noisy("n-b", epoch, 30_000))
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("expected no room, got %v", err)
	}
	if !slices.Equal(b.exported("n-a"), before) || len(b.exported("n-b")) != 0 {
		t.Error("a failed import changed something")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if got := b.imports(noisy("n-b", epoch, 30_000)); got.Stored != 30_000 {
		t.Errorf("%+v", got)
	}
	if slices.Contains(b.events.kinds(), "telemetry.thinned") {
		t.Errorf("events %v", b.events.kinds())
	}
}

// noisy is readings that take much room, a second apart.
func noisy(node string, at time.Time, n int) (list []Imported) {
	r := rand.New(rand.NewPCG(6, 6))
	for i := range n {
		list = append(list, Imported{node, "test.noise.metric", "", at.Add(time.Duration(i) * time.Second).UnixMilli(), r.NormFloat64()})
	}
	return list
}

// What is read into a damaged week has it repaired.
func TestImportIntoADamagedWeek(t *testing.T) {
	b, _, path := filled(t)
	damage(t, path, func(d []byte) []byte { return d[:len(d)/2] })
	c := benchIn(t, b.dir, nil)
	c.at = epoch.Add(24 * time.Hour)
	in := noisy("n-z", epoch, 1000)
	if got := c.imports(in); got.Stored != len(in) || !slices.Equal(c.exported("n-z"), in) {
		t.Errorf("%+v", got)
	}
	if !slices.Contains(c.events.kinds(), "telemetry.damaged") {
		t.Errorf("events %v", c.events.kinds())
	}
}

// Shorter ages and a smaller budget hold at once.
func TestRetentionChangesWhileItRuns(t *testing.T) {
	const day = 24 * time.Hour
	b := newBench(t)
	b.space = func() (int64, int64) { return 0, 0 }
	for _, age := range []time.Duration{50 * day, 30 * day, 8 * day} {
		b.imports(noisy("n-a", b.at.Add(-age), 20_000))
	}
	b.tend()
	raw := func(age time.Duration) int {
		page, err := b.Samples(t.Context(), SampleQuery{Node: "n-a", From: b.at.Add(-age), To: b.at.Add(-age + day), Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Items)
	}
	if raw(50*day) == 0 || raw(30*day) == 0 {
		t.Fatal("by default it is kept longer")
	}
	b.SetRetention(Retention{Keep: Keep{Raw: 10 * day, Minute: 20 * day, Quarter: 40 * day, Hour: 43 * day}, Budget: 1 << 30})
	b.tend()
	if raw(50*day) != 0 || raw(30*day) != 0 || raw(8*day) == 0 {
		t.Errorf("left of 50, 30 and 8 days: %d, %d, %d", raw(50*day), raw(30*day), raw(8*day))
	}
	if points := b.ranged(Query{Nodes: []string{"n-a"}, From: b.at.Add(-60 * day), To: b.at, Step: day}); len(points) != 1 || points[0].Points[0].Time.Before(b.at.Add(-32*day)) {
		t.Errorf("left are %+v", points)
	}
	b.SetRetention(Retention{Keep: DefaultKeep(), Budget: 100 << 10})
	b.tend()
	if got := b.Bytes(); got > 300<<10 {
		t.Errorf("%d octets of a budget of %d", got, 100<<10)
	}
}

// A clock that jumps to and fro within a batch is one mark of it.
func TestMarksOfAWildClock(t *testing.T) {
	b := newBench(t)
	batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 1), Clock: model.ClockNone}}
	for i := range 100 {
		batch.Reports = append(batch.Reports, wire.Report{Time: epoch.Add(time.Duration(i%10)*time.Minute).UnixMilli() + int64(i), Values: []wire.Value{wire.Int(1), wire.Int(2)}})
	}
	b.append(entry(t, "n-a", cpuAndMemory, batch))
	b.tend()
	page, err := b.Marks(t.Context(), MarkQuery{Node: "n-a", From: epoch.Add(-time.Hour), To: epoch.Add(time.Hour), Limit: 10})
	clocks := slices.DeleteFunc(page.Items, func(m apitype.Mark) bool { return m.Kind != MarkClock })
	if err != nil || len(clocks) != 1 || clocks[0].Detail != "-539999 ms, the first of 9 times" {
		t.Errorf("%+v %v", clocks, err)
	}
}
