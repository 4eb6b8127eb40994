package telemetry

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/telemetry/block"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// walk is a batch of that many reports ten seconds apart, of values as sensors have them.
func walk(t testing.TB, r *rand.Rand, node string, s wire.Schema, boot, seq uint64, at time.Time, reports int) Entry {
	t.Helper()
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(boot, seq), Clock: model.ClockGateway}}
	for i := range reports {
		rep := wire.Report{Time: at.Add(time.Duration(i) * 10 * time.Second).UnixMilli()}
		for k := range s.Metrics {
			rep.Values = append(rep.Values, wire.Int(int64(1000*k)+r.Int64N(200)))
		}
		b.Reports = append(b.Reports, rep)
	}
	return entry(t, node, s, b)
}

// bodies counts the blocks of a week by width.
func (b *bench) bodies(at time.Time) map[int]int {
	b.t.Helper()
	f, err := b.weeks.acquire(b.t.Context(), weekOf(at.UnixMilli()), false)
	if err != nil {
		b.t.Fatal(err)
	}
	defer b.weeks.release(f)
	n := map[int]int{}
	if err := each(b.t.Context(), f.db.Read(), func(rows *sql.Rows) error {
		var width, count int
		err := rows.Scan(&width, &count)
		n[width] = count
		return err
	}, `SELECT width, count(*) FROM blocks GROUP BY width`); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bench) tend() {
	b.t.Helper()
	if err := b.Tend(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func TestCompaction(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(1, 1))
	seq := uint64(0)
	at := time.Date(2026, 11, 22, 22, 0, 0, 0, time.UTC) // a Sunday: the week's last hours
	for range 240 {
		seq++
		b.append(walk(t, r, "n-a", cpuAndMemory, 1, seq, at, 6), walk(t, r, "n-b", cpuAndMemory, 1, seq, at, 6))
		at = at.Add(time.Minute)
	}
	b.at = at.Add(2 * time.Minute)
	b.tend()
	if _, err := os.Stat(filepath.Join(b.dir, "telemetry", "2026-W47.db")); err != nil {
		t.Error(err)
	}
	if got := b.bodies(at.Add(-4 * time.Hour)); got[raw] != 4 || got[quarter] != 2 || got[hourly] != 2 {
		t.Errorf("the week that is over: got %v blocks by width, want 4 of readings, 2 and 2", got)
	}
	if got := b.bodies(at); got[raw] != 4 || len(got) != 1 {
		t.Errorf("the week that began: got %v blocks by width, want 4 of readings", got)
	}
	var groups int
	if err := b.db.Read().QueryRow(`SELECT count(*) FROM groups`).Scan(&groups); err != nil || groups != 0 || b.headBytes != 0 || b.headCount != 0 {
		t.Errorf("%d groups, %d octets of %d batches are left in the journal, %v", groups, b.headBytes, b.headCount, err)
	}
	before := b.Coverage("n-a")
	latest := b.Latest().Node("n-a", "")
	b.restart()
	if c := b.Coverage("n-a"); len(c.Boots) != 1 || c.Boots[0].Count != seq || before.Boots[0].Count != seq {
		t.Errorf("got coverage %+v, want %d batches", c, seq)
	}
	if got := b.Latest().Node("n-a", ""); len(got) != len(latest) || got[0] != latest[0] {
		t.Errorf("latest: got %+v, want %+v", got, latest)
	}
	if got := b.append(walk(t, r, "n-a", cpuAndMemory, 1, seq, at, 6)); got[0] != Duplicate {
		t.Errorf("what was compacted: got outcome %v, want Duplicate", got[0])
	}
	if b.Group() != int64(seq) {
		t.Errorf("groups are numbered from %d on, want %d", b.Group(), seq)
	}
	if got := b.events.kinds(); len(got) != 0 {
		t.Errorf("events %v", got)
	}
}

// What a week file has is not put in twice when power fails before the journal is told.
func TestCompactionIsCutShort(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2026, 11, 22, 23, 30, 0, 0, time.UTC)
	for seq := range uint64(60) {
		b.append(walk(t, r, "n-a", cpuAndMemory, 1, seq+1, at.Add(time.Duration(seq)*time.Minute), 6))
	}
	b.at = at.Add(time.Hour)
	m := b.plan(t.Context())
	weeks := m.weeks()
	if len(weeks) != 2 {
		t.Fatalf("got weeks %v, want two", weeks)
	}
	if err := b.compactWeek(t.Context(), weeks[0], &m); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.append(walk(t, r, "n-a", cpuAndMemory, 1, 61, at, 6)) // late, and of the week that has the others
	b.tend()
	f, err := b.weeks.acquire(t.Context(), weeks[0], false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.weeks.release(f)
	got, err := b.stored(t.Context(), f, "n-a", raw, floor(at.UnixMilli(), hourMS)/hourMS, nil)
	if err != nil || got == nil || len(got.Times) != 180 {
		t.Errorf("got %+v, %v, want 180 rows", got, err)
	}
}

func TestNonsenseStamps(t *testing.T) {
	b := newBench(t)
	report := func(at time.Time) wire.Report {
		return wire.Report{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(1), wire.Int(2)}}
	}
	for i, at := range []time.Time{b.at.Add(40 * 24 * time.Hour), b.at.Add(-6 * 365 * 24 * time.Hour), time.UnixMilli(-1 << 60), b.at.Add(20 * 24 * time.Hour), b.at} {
		b.append(entry(t, "n-a", cpuAndMemory, wire.Batch{Header: wire.Header{BatchID: wire.ID(1, uint64(i)+1), Clock: model.ClockNone}, Reports: []wire.Report{report(at)}}))
	}
	b.tend()
	if got := b.events.kinds(); len(got) != 1 || got[0] != "telemetry.misdated" || b.events.list[0].Node != "n-a" || b.events.list[0].Fields["batches"] != "3" {
		t.Errorf("got events %+v", b.events.list)
	}
	if got := len(b.weeks.list()); got != 2 {
		t.Errorf("got %d week files, want 2", got)
	}
	b.restart()
	if c := b.Coverage("n-a").Boots[0]; c.Count != 5 || c.Dropped != 3 {
		t.Errorf("got %+v, want 5 batches of which 3 were dropped", c)
	}
}

func TestCrowdedHour(t *testing.T) {
	r := newRows()
	s := &schema{Schema: wire.Schema{Metrics: []wire.Metric{wire.NewMetric("a.b.c", "", 0)}}}
	for i := range 3 * block.MaxRows {
		r.addReport(s, []int{4}, byte(i%3), &wire.Report{Time: int64(i), Values: []wire.Value{wire.Int(int64(i))}})
	}
	body, left, err := r.encode("x")
	if err != nil || left != 3*block.MaxRows-3*block.MaxRows/4 {
		t.Fatalf("left out %d, %v", left, err)
	}
	got, err := block.Decode(body, "x", nil)
	if err != nil || got.Times[1] != 4 || got.Columns[0].Values[1] != 4 || got.Columns[0].Have != nil {
		t.Errorf("got %v, %v", got.Times[:2], err)
	}
}

func TestWeeks(t *testing.T) {
	for name, monday := range map[string]time.Time{
		"2026-W48": time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
		"2026-W01": time.Date(2025, 12, 29, 0, 0, 0, 0, time.UTC),
		"2026-W53": time.Date(2026, 12, 28, 0, 0, 0, 0, time.UTC),
		"1970-W01": time.Date(1969, 12, 29, 0, 0, 0, 0, time.UTC),
	} {
		w := weekOf(monday.UnixMilli())
		if w.String() != name || w.begin() != monday.UnixMilli() || weekOf(w.end()-1) != w || weekOf(w.begin()-1) != w-1 {
			t.Errorf("%s: got %v from %d", name, w, w.begin())
		}
		if got, ok := weekNamed(name + ".db"); !ok || got != w {
			t.Errorf("%s: read as %v, %t", name, got, ok)
		}
	}
	for _, name := range []string{"2025-W53.db", "2026-W00.db", "2026-W48.db.new", "2026-48.db", "W48.db"} {
		if w, ok := weekNamed(name); ok {
			t.Errorf("%s: read as %v", name, w)
		}
	}
}

// wide is the nth schema of as many metrics as one may have.
func wide(n int) wire.Schema {
	var s wire.Schema
	for k := range wire.MaxMetrics {
		s.Metrics = append(s.Metrics, wire.NewMetric(fmt.Sprintf("x.y.m%d", n*wire.MaxMetrics+k), "", wire.ScaleFloat))
	}
	return s
}

// A node whose readings are of more metrics, or wider, than a block holds does not hold up
// the others' compaction, nor the rollups of a day that is over.
func TestANodeOfTooManyMetrics(t *testing.T) {
	b := newBench(t)
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	r := rand.New(rand.NewPCG(5, 5))
	const schemas = 4 * 9 // nine nodes know four of them each
	seqs := map[string]uint64{}
	put := func(node string, s wire.Schema, at time.Time) {
		t.Helper()
		seqs[node]++
		batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seqs[node]), Clock: model.ClockGPS}, Reports: []wire.Report{{Time: at.UnixMilli()}}}
		for range s.Metrics {
			batch.Reports[0].Values = append(batch.Reports[0].Values, wire.Float(r.NormFloat64()))
		}
		if got := b.append(entry(t, node, s, batch)); got[0] != Stored {
			t.Fatal(got)
		}
	}
	for n := range schemas {
		node := fmt.Sprint("n-", n/4)
		if err := b.PutSchema(t.Context(), node, wide(n)); err != nil {
			t.Fatal(err)
		}
		put(node, wide(n), day)
	}
	for n := range schemas { // it need not have brought them
		put("n-evil", wide(n), day.Add(time.Duration(n)*time.Second))
	}
	for half := range 2 * 24 * 4 { // all quarters of the day of as many as one may bring
		for n := range 4 {
			put("n-0", wide(n), day.Add(time.Duration(half)*450*time.Second+time.Second))
		}
	}
	b.append(numbered(t, "n-honest", 1, 1), numbered(t, "n-honest", 1, 2))
	b.at = day.Add(36 * time.Hour)
	b.tend()
	if b.headCount != 0 {
		t.Fatalf("%d batches are left in the journal", b.headCount)
	}
	for node, most := range map[string]int{"n-evil": nodeSeries, "n-0": nodeSeries} {
		got, err := b.Samples(t.Context(), SampleQuery{Node: node, From: day, To: day.Add(time.Minute), Limit: 1 << 20})
		if err != nil || len(got.Items) < most {
			t.Errorf("of %s are %d readings there, %v; want %d", node, len(got.Items), err, most)
		}
	}
	if got := b.bodies(day); got[quarter] < 11 || got[hourly] < 11 {
		t.Errorf("got %v blocks by width, want rollups of all 11 nodes", got)
	}
	for _, kind := range []string{"telemetry.series", "telemetry.crowded"} {
		if !slices.Contains(b.events.kinds(), kind) {
			t.Errorf("events %q, want %s", b.events.kinds(), kind)
		}
	}
}
