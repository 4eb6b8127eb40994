package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

func TestEachBatchIsStoredOnce(t *testing.T) {
	b := newBench(t)
	other := numbered(t, "n-a", 1, 9)
	other.Batch.Seq = 2
	far := numbered(t, "n-a", 1, 3)
	far.Batch.Reports[0].Time -= MaxSpan.Milliseconds()
	far = entry(t, "n-a", cpuAndMemory, far.Batch)
	unknown := numberedBy(t, release(1, 1), "n-a", 1, 4)
	group := []Entry{numbered(t, "n-a", 1, 1), numbered(t, "n-a", 1, 2), numbered(t, "n-a", 1, 1), numbered(t, "n-b", 1, 1), numbered(t, "n-a", 2, 1), other, far, unknown}
	want := []Outcome{Stored, Stored, Duplicate, Stored, Stored, Conflict, Unfit, NoSchema}
	if diff := cmp.Diff(want, b.append(group...)); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	for what, again := range map[string]func(){"at once": func() {}, "after a restart": b.restart} {
		again()
		want := []Outcome{Duplicate, Duplicate, Duplicate, Duplicate, Duplicate, Conflict, Unfit, NoSchema}
		if diff := cmp.Diff(want, b.append(group...)); diff != "" {
			t.Errorf("again, %s (-want +got):\n%s", what, diff)
		}
	}
}

// A node whose spool is full leaves reports out of batches that it keeps, also
// of those that are stored and whose acknowledgement was lost.
func TestAThinnedFormOfWhatIsStoredIsNoConflict(t *testing.T) {
	b := newBench(t)
	whole := numbered(t, "n-a", 1, 1)
	b.append(whole)
	form := func(change func(*wire.Batch)) Entry {
		b := whole.Batch
		b.Reports = slices.Clone(b.Reports)
		change(&b)
		return entry(t, "n-a", cpuAndMemory, b)
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
		if got := b.append(form(tc.change)); got[0] != tc.want {
			t.Errorf("%s: got outcome %d, want %d", tc.name, got[0], tc.want)
		}
	}
	longer := release(1, 1)
	if err := b.PutSchema(t.Context(), "n-a", longer); err != nil {
		t.Fatal(err)
	}
	if got := b.append(numberedBy(t, longer, "n-a", 1, 1)); got[0] != Conflict {
		t.Errorf("by another schema: got outcome %d, want a conflict", got[0])
	}
}

func TestCoverage(t *testing.T) {
	b := newBench(t)
	for _, seq := range []uint64{2, 3, 7, 8, 10} {
		b.append(numbered(t, "n-a", 4, seq))
	}
	b.append(numbered(t, "n-a", 5, 1))
	want := apitype.Coverage{Node: "n-a", Boots: []apitype.BootCoverage{
		{Boot: 4, First: 2, Last: 10, Count: 5, Missing: []apitype.SeqRange{{From: 1, To: 1}, {From: 4, To: 6}, {From: 9, To: 9}}},
		{Boot: 5, First: 1, Last: 1, Count: 1, Missing: []apitype.SeqRange{}},
	}}
	if diff := cmp.Diff(want, b.Coverage("n-a")); diff != "" {
		t.Errorf("coverage (-want +got):\n%s", diff)
	}
	b.restart()
	if diff := cmp.Diff(want, b.Coverage("n-a")); diff != "" {
		t.Errorf("coverage after a restart (-want +got):\n%s", diff)
	}
	if got := b.Coverage("n-z"); got.Node != "n-z" || len(got.Boots) != 0 || got.Boots == nil {
		t.Errorf("of a node that never sent: got %+v", got)
	}
}

func TestLatestSurvivesARestartAndOldBatches(t *testing.T) {
	b := newBench(t)
	for _, id := range [][2]uint64{{1, 1}, {2, 1}, {2, 3}, {2, 2}, {1, 9}} { // the spool comes late
		b.append(numbered(t, "n-a", id[0], id[1]))
	}
	want := b.Latest().Node("n-a", "")
	b.restart()
	if diff := cmp.Diff(want, b.Latest().Node("n-a", "")); diff != "" {
		t.Errorf("after a restart (-live +rebuilt):\n%s", diff)
	}
	if len(want) != 2 || want[0].Value != 3 || want[0].Boot != 2 || want[0].Seq != 3 || !want[0].Time.Equal(epoch.Add(110*time.Second)) {
		t.Errorf("got %+v, want the last report of batch 2.3", want)
	}
	if got := b.Latest().Node("n-a", "system.memory."); len(got) != 1 || got[0].Value != 2 || got[0].Unit != "B" {
		t.Errorf("by prefix: got %+v", got)
	}
	if got := b.Latest().At("n-a"); !got.Equal(epoch.Add(290*time.Second)) && !got.Equal(epoch.Add(110*time.Second)) {
		t.Errorf("newest reading at %v", got)
	}
}

func TestANodeHasRoomForSoManySchemas(t *testing.T) {
	b := newBench(t)
	for n := range 3 * maxSchemas { // of updates, none of which has batches in the journal
		if err := b.PutSchema(t.Context(), "n-a", release(n, 3)); err != nil {
			t.Fatalf("update %d: %v", n, err)
		}
	}
	if got := len(b.schemas); got != maxSchemas {
		t.Errorf("got %d schemas, want %d", got, maxSchemas)
	}
	if ids := b.Schemas("n-a"); len(ids) == 0 || len(ids) > wire.MaxSchemas {
		t.Errorf("got %d that a node need not send", len(ids))
	}
	var err error
	for n := 0; n < 100 && err == nil; n++ { // all in use
		s := release(n, 100)
		if err = b.PutSchema(t.Context(), "n-x", s); err == nil {
			b.append(numberedBy(t, s, "n-x", 1, uint64(n+1)))
		}
	}
	if !errors.Is(err, ErrTooManySchemas) {
		t.Errorf("a node that keeps inventing: got %v, want ErrTooManySchemas", err)
	}
	b.restart()
	if err := b.PutSchema(t.Context(), "n-y", release(1000, 100)); err != nil {
		t.Errorf("another node's: %v", err)
	}
	if got := b.append(numberedBy(t, release(0, 100), "n-x", 1, 1)); got[0] != Duplicate {
		t.Errorf("what was stored before: got outcome %v, want Duplicate", got[0])
	}
}

func TestSubscribe(t *testing.T) {
	b := newBench(t)
	b.append(numbered(t, "n-a", 1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	news := b.Subscribe(ctx, 0)
	c := <-news
	if c.Group != 1 || c.Missed || len(c.Batches) != 1 || c.Batches[0].Node != "n-a" {
		t.Fatalf("got %+v", c)
	}
	if got, err := c.Batches[0].Decode(); err != nil || !cmp.Equal(got, numbered(t, "n-a", 1, 1).Batch, cmp.AllowUnexported(wire.BatchID{})) {
		t.Errorf("got %+v, %v", got, err)
	}
	for seq := range uint64(recentGroups + 10) { // nobody takes them meanwhile
		b.append(numbered(t, "n-a", 1, seq+2))
	}
	last, missed := c.Group, false
	for last < b.Group() {
		c := <-news
		if c.Group != last+1 != c.Missed {
			t.Fatalf("got group %d after %d, missed %t", c.Group, last, c.Missed)
		}
		last, missed = c.Group, missed || c.Missed
	}
	if !missed {
		t.Error("expected to be told that some were missed")
	}
	b.append(numbered(t, "n-b", 1, 1))
	if c := <-news; c.Batches[0].Node != "n-b" || c.Missed {
		t.Errorf("got %+v", c)
	}
	cancel()
	if _, more := <-news; more {
		t.Error("expected the end")
	}
}

func FuzzGroup(f *testing.F) {
	g := []byte{groupVersion}
	for i := range 3 {
		g, _ = appendItem(g, item{int64(i + 1), int64(-i), int64(i * 1000), make([]byte, i*7)})
	}
	f.Add(g)
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := parseGroup(b)
		again := []byte{groupVersion}
		for _, it := range items {
			again, _ = appendItem(again, it)
		}
		back, err2 := parseGroup(again)
		if err2 != nil || !cmp.Equal(items, back, cmp.AllowUnexported(item{})) {
			t.Fatalf("%v: read %v, written and read %v, %v", err, items, back, err2)
		}
	})
}

// One node's part of the head, and that of backlogs, are bounded; who has had nothing yet,
// and what is new, always gets in; and there is room again when the files have what came.
func TestTheHeadIsShared(t *testing.T) {
	b := newBench(t)
	var noise wire.Schema
	for k := range 32 {
		noise.Metrics = append(noise.Metrics, wire.NewMetric(fmt.Sprintf("noise.of.m%d", k), "", wire.ScaleFloat))
	}
	if err := b.PutSchema(t.Context(), "n-a", noise); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(4, 4))
	batch := wire.Batch{Header: wire.Header{Clock: model.ClockGPS}}
	for i := range 200 {
		rep := wire.Report{Time: epoch.Add(time.Duration(i) * time.Second).UnixMilli()}
		for range noise.Metrics {
			rep.Values = append(rep.Values, wire.Float(r.NormFloat64()))
		}
		batch.Reports = append(batch.Reports, rep)
	}
	seq := map[string]uint64{}
	put := func(node string, late bool) (Outcome, int64) {
		t.Helper()
		batch.BatchID = wire.ID(1, seq[node]+1)
		e := entry(t, node, noise, batch)
		e.Late = late
		takes := b.Takes(node, late)
		got := b.append(e)[0]
		if got == Stored {
			seq[node]++
		}
		if takes != (got == Stored) || !takes && got != Busy {
			t.Fatalf("%s: takes: %v, and then %v", node, takes, got)
		}
		return got, int64(len(e.Data))
	}
	fill := func(node string, late bool) (octets int64) {
		t.Helper()
		for {
			got, n := put(node, late)
			if got == Busy {
				return octets
			}
			octets += n
		}
	}
	const most = 66 << 10 // of a batch
	for _, tc := range []struct {
		late bool
		room int64
	}{{true, backlogHead}, {false, mostHead}} { // what is new beside its backlog
		fill("n-evil", tc.late)
		if got, want := b.headBytes, tc.room/(headShare+1); got < want-most || got > want+most {
			t.Errorf("late: %v: one node has %d octets, want some %d of %d", tc.late, got, want, tc.room)
		}
	}
	for range 3 { // many come home at once, and each sends all it may
		for node := range 40 {
			fill(fmt.Sprint("n-", node), true)
		}
	}
	for node := range 40 {
		if seq[fmt.Sprint("n-", node)] == 0 {
			t.Errorf("node %d got nothing in", node)
		}
	}
	if b.headBytes > mostHead-2<<20 {
		t.Errorf("%d octets are in the head", b.headBytes)
	}
	if !b.Takes("n-new", true) {
		t.Error("who comes last has no room")
	}
	if got, _ := put("n-39", false); got != Stored {
		t.Errorf("what is new: %v", got)
	}
	// All in one commit, which nobody has looked at before.
	var group []Entry
	for k := range 2 * mostHead / len(entry(t, "n-x", noise, func() wire.Batch { batch.BatchID = wire.ID(1, 1); return batch }()).Data) {
		batch.BatchID = wire.ID(2, uint64(k)+1)
		group = append(group, entry(t, fmt.Sprint("n-", 100+k%8), noise, batch))
	}
	outcomes := b.append(group...)
	if b.headBytes > mostHead+most || !slices.Contains(outcomes, Busy) || !slices.Contains(outcomes, Stored) {
		t.Errorf("%d octets are in the head", b.headBytes)
	}
	if err := b.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"n-evil", "n-39", "n-new"} {
		if got, _ := put(node, true); got != Stored {
			t.Errorf("%s: %v when the files have what came", node, got)
		}
	}
}

// constants is a batch of values that take no room as they come.
func constants(t testing.TB, node string, seq uint64) Entry {
	t.Helper()
	s := wire.Schema{}
	for i := range 64 {
		s.Metrics = append(s.Metrics, wire.NewMetric(fmt.Sprintf("test.constant.m%d", i), "", 0))
	}
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS}}
	for i := range wire.MaxValues / len(s.Metrics) {
		rep := wire.Report{Time: epoch.Add(time.Duration(i) * time.Second).UnixMilli()}
		for range s.Metrics {
			rep.Values = append(rep.Values, wire.Int(7))
		}
		b.Reports = append(b.Reports, rep)
	}
	return entry(t, node, s, b)
}

// However small a batch comes, the head has room for as many as can be moved into the files:
// what it unfolds to counts, also after a start.
func TestRoomForBatchesThatUnfold(t *testing.T) {
	b := newBench(t)
	e := constants(t, "n-a", 1)
	if err := b.PutSchema(t.Context(), "n-a", e.Schema); err != nil {
		t.Fatal(err)
	}
	stored := int64(0)
	for stored < 1000 && b.append(e)[0] == Stored {
		stored++
		e = constants(t, "n-a", uint64(stored)+1)
	}
	if most := int64(mostHead/(headShare+1)/(2*wire.MaxValues)) + 1; stored < most/2 || stored > most {
		t.Errorf("the head took %d batches of %d octets each, want %d", stored, len(e.Data), most)
	}
	head := b.headBytes
	if want := stored * 2 * wire.MaxValues; head != want {
		t.Errorf("they count for %d, want %d", head, want)
	}
	b.restart()
	if b.headBytes != head {
		t.Errorf("after a start they count for %d, want %d", b.headBytes, head)
	}
	before := b.Commits()
	if err := b.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.Commits() - before; got > 32 {
		t.Errorf("%d commits moved them", got)
	}
	if b.headBytes != 0 || b.sources["n-a"].bytes != 0 {
		t.Errorf("then they count for %d and %d", b.headBytes, b.sources["n-a"].bytes)
	}
}

// A node has a few weeks in the head at most: each is a file that is written to, for however
// little. What is of another waits until these have been.
func TestWeeksInTheHead(t *testing.T) {
	b := newBench(t)
	at := func(i int) time.Time { return b.at.Add(-time.Duration(7*i) * 24 * time.Hour) }
	seq := uint64(0)
	put := func(i int) Outcome {
		t.Helper()
		seq++
		got := b.append(stamped(t, "n-a", seq, at(i).Add(time.Duration(seq)*time.Millisecond)))[0]
		if got != Stored {
			seq--
		}
		return got
	}
	var group []Entry
	for i := range headWeeks / 2 { // within one commit, too
		seq++
		group = append(group, stamped(t, "n-a", seq, at(i)))
	}
	b.append(group...)
	for i := range headWeeks / 2 {
		if got := put(headWeeks/2 + i); got != Stored {
			t.Fatalf("week %d: got %v", headWeeks/2+i, got)
		}
	}
	check := func(what string) {
		t.Helper()
		if got := put(headWeeks); got != Busy {
			t.Errorf("%s: one week more: got %v, want Busy", what, got)
		}
		if got := put(3); got != Stored {
			t.Errorf("%s: a week that is there: got %v", what, got)
		}
		both := []Entry{stamped(t, "n-b", seq, at(0)), stamped(t, "n-a", seq+1, at(headWeeks+1))}
		if got := b.append(both...); got[1] != Busy {
			t.Errorf("%s: with another's: got %v", what, got)
		}
	}
	check("at first")
	b.restart()
	check("after a start")
	before := b.Commits()
	b.tend()
	if got := b.Commits() - before; got > 4*headWeeks {
		t.Errorf("%d commits for %d weeks", got, headWeeks)
	}
	for i := range headWeeks {
		if got := put(headWeeks + i); got != Stored {
			t.Errorf("after compaction, week %d: got %v", i, got)
		}
	}
	group = nil
	for i := range 40 {
		group = append(group, stamped(t, "n-c", uint64(i)+1, at(i)))
	}
	if got := b.append(group...); slices.Index(got, Busy) != headWeeks {
		t.Errorf("in one commit: got %v", got)
	}
	b.tend()
	if got := b.count("n-a"); got != int(seq) {
		t.Errorf("%d readings are there, want %d", got, seq)
	}
}

// A week's file is checked whole once in a process, however often it is closed and opened, and
// once more when another has taken its place.
func TestAWeekIsCheckedOnce(t *testing.T) {
	b, _, _ := filled(t)
	b.open()
	w := b.weeks.list()[0]
	ready := func() *weekFile {
		t.Helper()
		f, err := b.ready(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		b.weeks.release(f)
		b.weeks.mu.Lock()
		defer b.weeks.mu.Unlock()
		if err := b.weeks.evict(0); err != nil {
			t.Fatal(err)
		}
		return f
	}
	first := ready()
	// A check would find this, and nothing else looks there.
	damage(t, b.weeks.path(w), func(d []byte) []byte {
		page := d[len(d)-weekPage:]
		for i := range page {
			page[i] = 0xff
		}
		return d
	})
	if second := ready(); second == first {
		t.Fatal("it was not closed")
	}
	if got := b.events.kinds(); len(got) != 0 {
		t.Errorf("it was checked again: %v", got)
	}
	b.tending.Lock()
	err := b.repair(t.Context(), w, store.ErrCorrupt)
	b.tending.Unlock()
	if err != nil || b.weeks.whole[w] {
		t.Errorf("after a repair: checked %t, %v", b.weeks.whole[w], err)
	}
	b.restart()
	if b.weeks.whole[w] {
		t.Error("after a start it counts as checked")
	}
}
