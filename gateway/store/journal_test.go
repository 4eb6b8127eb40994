package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

var schema = wire.Schema{Metrics: []wire.Metric{
	wire.NewMetric("system.cpu.used_percent", "%", 1),
	wire.NewMetric("system.memory.free_bytes", "B", 0),
}}

var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// batch makes one of three reports, ten seconds apart, that says its own number.
func batch(t *testing.T, node string, boot, seq uint64) Entry {
	t.Helper()
	return batchOf(t, schema, node, boot, seq)
}

// batchOf makes one by another schema that begins with the same two metrics.
func batchOf(t *testing.T, schema wire.Schema, node string, boot, seq uint64) Entry {
	t.Helper()
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(boot, seq), Schema: schema.ID(), Clock: model.ClockGateway}}
	for i := range 3 {
		at := epoch.Add(time.Duration(seq)*30*time.Second + time.Duration(i)*10*time.Second)
		b.Reports = append(b.Reports, wire.Report{Time: at.UnixMilli(), Values: append([]wire.Value{wire.Int(int64(seq * 10)), wire.Int(int64(i))}, make([]wire.Value, len(schema.Metrics)-2)...)})
	}
	data, err := b.Encode(schema)
	if err != nil {
		t.Fatal(err)
	}
	return Entry{Node: node, Schema: schema, Batch: b, Data: data}
}

func openJournal(t *testing.T, path string, budget int64) *Journal {
	t.Helper()
	d, _, err := OpenTelemetry(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	j := NewJournal(d, budget)
	if err := j.PutSchema(t.Context(), "n-a", schema); err != nil {
		t.Fatal(err)
	}
	return j
}

func add(t *testing.T, j *Journal, entries ...Entry) []Outcome {
	t.Helper()
	o, err := j.Append(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestEachBatchIsStoredOnce(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), 1<<30)
	other := batch(t, "n-a", 1, 9)
	other.Batch.Seq = 2
	got := add(t, j, batch(t, "n-a", 1, 1), batch(t, "n-a", 1, 2), batch(t, "n-a", 1, 1), batch(t, "n-b", 1, 1), batch(t, "n-a", 2, 1), other)
	if diff := cmp.Diff([]Outcome{Stored, Stored, Duplicate, Stored, Stored, Conflict}, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

// A node whose spool is full leaves reports out of batches that it keeps, also
// of those that are stored and whose acknowledgement was lost.
func TestAThinnedFormOfWhatIsStoredIsNoConflict(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), 1<<30)
	whole := batch(t, "n-a", 1, 1)
	add(t, j, whole)
	form := func(change func(*wire.Batch)) Entry {
		b := whole.Batch
		b.Reports = slices.Clone(b.Reports)
		change(&b)
		data, err := b.Encode(schema)
		if err != nil {
			t.Fatal(err)
		}
		return Entry{Node: "n-a", Schema: schema, Batch: b, Data: data}
	}
	for _, tc := range []struct {
		name   string
		change func(*wire.Batch)
		want   Outcome
	}{
		{"every second report", func(b *wire.Batch) { b.Reports = []wire.Report{b.Reports[0], b.Reports[2]} }, Duplicate},
		{"thinned to one", func(b *wire.Batch) { b.Reports = b.Reports[:1] }, Duplicate},
		{"another value", func(b *wire.Batch) {
			b.Reports = []wire.Report{b.Reports[0], {Time: b.Reports[2].Time, Values: []wire.Value{wire.Int(1), wire.Int(2)}}}
		}, Conflict},
		{"another time", func(b *wire.Batch) { b.Reports[0].Time++; b.Reports = b.Reports[:1] }, Conflict},
		{"other order", func(b *wire.Batch) { b.Reports = []wire.Report{b.Reports[2], b.Reports[0]} }, Conflict},
		{"more reports", func(b *wire.Batch) { b.Reports = append(b.Reports, b.Reports[2]) }, Conflict},
		{"another clock", func(b *wire.Batch) { b.Clock = model.ClockNone; b.Reports = b.Reports[:1] }, Conflict},
	} {
		if got := add(t, j, form(tc.change)); got[0] != tc.want {
			t.Errorf("%s: got outcome %d, want %d", tc.name, got[0], tc.want)
		}
	}
	longer := schema
	longer.Metrics = append(slices.Clone(longer.Metrics), wire.NewMetric("system.load.one", "", 2))
	if err := j.PutSchema(t.Context(), "n-a", longer); err != nil {
		t.Fatal(err)
	}
	if got := add(t, j, batchOf(t, longer, "n-a", 1, 1)); got[0] != Conflict {
		t.Errorf("by another schema: got outcome %d, want a conflict", got[0])
	}
}

func TestCoverageTellsLossesFromDrops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	j := openJournal(t, path, 1<<30)
	for _, seq := range []uint64{2, 3, 7, 8, 10} {
		add(t, j, batch(t, "n-a", 4, seq))
	}
	add(t, j, batch(t, "n-a", 5, 1))
	got, err := j.Coverage(t.Context(), "n-a")
	if err != nil {
		t.Fatal(err)
	}
	want := apitype.Coverage{Node: "n-a", Boots: []apitype.BootCoverage{
		{Boot: 4, First: 2, Last: 10, Count: 5, Missing: []apitype.SeqRange{{From: 1, To: 1}, {From: 4, To: 6}, {From: 9, To: 9}}},
		{Boot: 5, First: 1, Last: 1, Count: 1, Missing: []apitype.SeqRange{}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("coverage (-want +got):\n%s", diff)
	}
}

func TestBudgetDropsTheOldestAndSaysSo(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), 200<<10)
	var seq uint64
	var dropped int64
	for dropped == 0 {
		var group []Entry
		for range 100 {
			seq++
			group = append(group, batch(t, "n-a", 1, seq))
		}
		add(t, j, group...)
		var err error
		if dropped, err = j.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if seq > 100_000 {
			t.Fatal("nothing was ever dropped")
		}
	}
	if used, err := j.db.Bytes(t.Context()); err != nil || used > 200<<10 {
		t.Errorf("after dropping %d bytes are used (%v), want at most %d", used, err, 200<<10)
	}
	if j.Dropped() != dropped {
		t.Errorf("the journal counts %d dropped, want %d", j.Dropped(), dropped)
	}
	c, err := j.Coverage(t.Context(), "n-a")
	if err != nil {
		t.Fatal(err)
	}
	b := c.Boots[0]
	if b.Dropped != uint64(dropped) || b.First != uint64(dropped)+1 || b.Last != seq || len(b.Missing) != 0 {
		t.Errorf("got %+v, want %d dropped from the beginning and nothing missing up to %d", b, dropped, seq)
	}
}

func TestLatestSurvivesARestartAndOldBatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	j := openJournal(t, path, 1<<30)
	live := NewLatest()
	for _, id := range [][2]uint64{{1, 1}, {2, 1}, {2, 3}, {2, 2}, {1, 9}} { // the spool comes late
		e := batch(t, "n-a", id[0], id[1])
		add(t, j, e)
		live.Apply("n-a", schema, e.Batch)
	}
	rebuilt := NewLatest()
	if err := rebuilt.Rebuild(t.Context(), j, []string{"n-a", "n-b"}); err != nil {
		t.Fatal(err)
	}
	want := live.Node("n-a", "")
	if diff := cmp.Diff(want, rebuilt.Node("n-a", "")); diff != "" {
		t.Errorf("after a restart (-live +rebuilt):\n%s", diff)
	}
	if len(want) != 2 || want[0].Value != 3 || want[0].Boot != 2 || want[0].Seq != 3 || !want[0].Time.Equal(epoch.Add(110*time.Second)) {
		t.Errorf("got %+v, want the last report of batch 2.3", want)
	}
	if got := rebuilt.Node("n-a", "system.memory."); len(got) != 1 || got[0].Value != 2 || got[0].Unit != "B" {
		t.Errorf("by prefix: got %+v", got)
	}
}

func TestRangePagesWholeBatches(t *testing.T) {
	j := openJournal(t, filepath.Join(t.TempDir(), "t.db"), 1<<30)
	for seq := range uint64(10) {
		add(t, j, batch(t, "n-a", 1, seq+1))
	}
	q := RangeQuery{Node: "n-a", From: epoch.Add(70 * time.Second), To: epoch.Add(200 * time.Second), Prefix: "system.cpu.", Limit: 4}
	var values []string
	for pages := 1; ; pages++ {
		l, err := j.Range(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range l.Items {
			values = append(values, fmt.Sprintf("%s %v", s.Time.Sub(epoch), s.Value))
		}
		if q.Cursor = l.Next; q.Cursor == "" {
			if pages < 2 {
				t.Errorf("everything came on %d page", pages)
			}
			break
		}
	}
	want := []string{"1m10s 2", "1m20s 2", "1m30s 3", "1m40s 3", "1m50s 3", "2m0s 4", "2m10s 4", "2m20s 4", "2m30s 5", "2m40s 5", "2m50s 5", "3m0s 6", "3m10s 6", "3m20s 6"}
	if diff := cmp.Diff(want, values); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}
