package spool

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/model"
	"halo.internal/model/wire"
)

var schema = wire.Schema{Metrics: []wire.Metric{wire.NewMetric("test.a.x", "", 0), wire.NewMetric("test.b.y", "", 1)}}

// board is the state that outlives a process: /run until the power goes, /perm
// beyond that.
type board struct {
	t          *testing.T
	run, perm  string
	boot       uint64
	owner      Owner
	budget     int64
	logged     bytes.Buffer
	reports    int // per batch
	nextReport int64
}

func newBoard(t *testing.T) *board {
	t.Setenv("TMPDIR", "/dev/shm") // thousands of syncs are slow on a disk, and prove nothing there
	return &board{t: t, run: t.TempDir(), perm: t.TempDir(), boot: 1, owner: Owner{"network-key", "n-test"}, budget: 64 << 20, reports: 6}
}

func (b *board) open() *Spool {
	b.t.Helper()
	s, err := Open(Options{
		Live: filepath.Join(b.run, "live"), Disk: filepath.Join(b.perm, "spool"), Boot: b.boot, Owner: b.owner, Budget: b.budget, Delay: 2 * time.Minute,
		Clock: func() (time.Time, model.ClockQuality) { return time.UnixMilli(1_800_000_000_000), model.ClockGateway },
		Log:   slog.New(slog.NewTextHandler(&b.logged, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *board) powerCut() {
	b.t.Helper()
	if err := os.RemoveAll(filepath.Join(b.run, "live")); err != nil {
		b.t.Fatal(err)
	}
	b.boot++
}

func (b *board) add(s *Spool, n int) {
	b.t.Helper()
	for range n {
		var reports []wire.Report
		for range b.reports {
			b.nextReport++
			// Values that no packing makes small, so that sizes tell.
			noise := b.nextReport * 2654435761 % 1000003
			reports = append(reports, wire.Report{Time: b.nextReport, Values: []wire.Value{wire.Int(noise), wire.Int(noise * 7 % 999983)}})
		}
		if err := s.AddBatch(schema, wire.Batch{Header: wire.Header{Clock: model.ClockGateway}, Reports: reports}, time.Now()); err != nil {
			b.t.Fatal(err)
		}
	}
}

// drain plays a gateway that takes all of the backlog and the live items.
func drain(t *testing.T, s *Spool) []Item {
	t.Helper()
	var got []Item
	for _, kind := range []Kind{Batch, Event} {
		got = append(got, drainKind(t, s, kind)...)
	}
	for _, i := range s.Items() {
		got = append(got, i)
		checkItem(t, s, i)
		s.Ack(i.Kind, []wire.BatchID{i.ID})
	}
	if st := s.Stats(); st.Live != 0 || st.Segments != 0 || st.DiskBytes != 0 {
		t.Errorf("after all was acknowledged: %+v", st)
	}
	return got
}

// drainKind plays one that takes all of a kind's backlog.
func drainKind(t *testing.T, s *Spool, kind Kind) (got []Item) {
	t.Helper()
	for {
		items := s.Backlog(kind)
		if len(items) == 0 {
			return got
		}
		got = append(got, items...)
		for _, i := range items {
			if i.Kind != kind {
				t.Fatalf("expected kind %d, got %d", kind, i.Kind)
			}
			checkItem(t, s, i)
			s.Ack(i.Kind, []wire.BatchID{i.ID})
		}
	}
}

func checkItem(t *testing.T, s *Spool, i Item) {
	t.Helper()
	if i.Kind != Batch {
		return
	}
	sc, ok := s.SchemaOf(i)
	if !ok {
		t.Fatalf("batch %v: no schema", i.ID)
	}
	if _, err := wire.Decode(i.Data, sc); err != nil {
		t.Fatal(err)
	}
}

func names(items []Item) string {
	var out []string
	for _, i := range items {
		out = append(out, fmt.Sprintf("%d:%v", i.Kind, i.ID))
	}
	return strings.Join(out, " ")
}

func batches(boot uint64, from, to int) string {
	var out []string
	for n := from; n <= to; n++ {
		out = append(out, fmt.Sprintf("2:%d.%d", boot, n))
	}
	return strings.Join(out, " ")
}

func TestNumbersGoOnAfterACrash(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	b.add(s, 3)
	s.Ack(Batch, []wire.BatchID{wire.ID(1, 1), wire.ID(1, 3)})
	s = b.open() // killed and started again: 3 is used although nothing of it is left
	b.add(s, 2)
	if got, want := names(s.Items()), "2:1.2 2:1.4 2:1.5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	b.powerCut()
	s = b.open()
	b.add(s, 1)
	if got, want := names(drain(t, s)), "2:2.1"; got != want {
		t.Errorf("after a power cut: got %s, want %s", got, want)
	}
}

func TestKilledBetweenFileAndCounter(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	b.add(s, 1)
	counters := filepath.Join(b.run, "live", countersFile)
	before, err := os.ReadFile(counters)
	if err != nil {
		t.Fatal(err)
	}
	b.add(s, 1)
	if err := os.WriteFile(counters, before, 0o600); err != nil {
		t.Fatal(err)
	}
	s = b.open()
	b.add(s, 1)
	if got, want := names(s.Items()), batches(1, 1, 3); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestOnlyWhatIsDueReachesTheDisk(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	b.add(s, 2)
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		live  int
	}{{0, 2}, {100 * time.Second, 2}, {2 * time.Minute, 0}} {
		if err := s.Flush(now.Add(step.after), false); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.Live != step.live {
			t.Errorf("after %v: got %+v, want %d live", step.after, st, step.live)
		}
	}
	b.powerCut()
	if got, want := names(drain(t, b.open())), batches(1, 1, 2); got != want {
		t.Errorf("after a power cut: got %s, want %s", got, want)
	}
}

func TestOldestFirstOverManySegmentsAndBoots(t *testing.T) {
	b := newBoard(t)
	b.reports = 300
	var want []string
	for range 3 {
		s := b.open()
		for range 60 {
			b.add(s, 2)
			if err := s.Flush(time.Now(), true); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, batches(b.boot, 1, 120))
		b.powerCut()
	}
	s := b.open()
	if st := s.Stats(); st.Segments < 4 {
		t.Errorf("expected several segments, got %+v", st)
	}
	if got := names(drain(t, s)); got != strings.Join(want, " ") {
		t.Errorf("got %s", got)
	}
}

// mixed fills segments with both kinds: as many batches and events, the former large.
func (b *board) mixed(s *Spool, segments int) (n int) {
	b.t.Helper()
	b.reports = 300
	for s.Stats().Segments < segments {
		for range 4 {
			n++
			b.add(s, 1)
			if err := s.AddEvent("test.event", model.Info, fmt.Sprint("event ", n), nil); err != nil {
				b.t.Fatal(err)
			}
		}
		if err := s.Flush(time.Now(), true); err != nil {
			b.t.Fatal(err)
		}
	}
	return n
}

func events(boot uint64, n int) string {
	var out []string
	for k := range n {
		out = append(out, fmt.Sprintf("3:%d.%d", boot, model.AgentEvents+uint64(k)+1))
	}
	return strings.Join(out, " ")
}

// While nothing of one kind is acknowledged, all of the other is sent, also what comes
// meanwhile; what has been acknowledged takes neither room for long nor, after a power cut, the
// air once more; and nothing of the kind that waits is lost.
func TestOneKindDoesNotHoldUpTheOther(t *testing.T) {
	for _, tc := range []struct {
		held, other Kind
		waits       int // octets of what is held, of a hundred
	}{{Event, Batch, 25}, {Batch, Event, 100}} {
		t.Run(fmt.Sprint("kind ", tc.held), func(t *testing.T) {
			b := newBoard(t)
			s := b.open()
			n := b.mixed(s, 5)
			all := s.Stats().DiskBytes
			want := map[Kind]string{Batch: batches(1, 1, n), Event: events(1, n)}
			head := names(s.Backlog(tc.held))
			if got := names(drainKind(t, s, tc.other)); got != want[tc.other] {
				t.Errorf("got %s of one kind, want %s", got, want[tc.other])
			}
			if got := names(s.Backlog(tc.held)); got != head || !strings.HasPrefix(want[tc.held], head) {
				t.Errorf("of the other, at first %s, then %s", head, got)
			}
			if st := s.Stats(); st.Segments < 4 || st.DiskBytes > all*int64(tc.waits)/100 {
				t.Errorf("of %d octets are left %+v", all, st)
			}
			b.add(s, 1)
			if err := s.AddEvent("test.event", model.Info, "late", nil); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(time.Now(), true); err != nil {
				t.Fatal(err)
			}
			want = map[Kind]string{Batch: batches(1, 1, n+1), Event: events(1, n+1)}
			if got := drainKind(t, s, tc.other); len(got) != 1 || !strings.HasSuffix(want[tc.other], names(got)) {
				t.Errorf("of what came meanwhile: got %s", names(got))
			}
			b.powerCut()
			s = b.open()
			if got := drainKind(t, s, Batch); tc.held == Event && len(got) > 1 {
				t.Errorf("%d batches are sent again", len(got))
			} else if tc.held == Batch && names(got) != want[Batch] {
				t.Errorf("got %s, want %s", names(got), want[Batch])
			}
			if got := names(drain(t, s)); tc.held == Event && got != want[Event] {
				t.Errorf("got %s, want %s", got, want[Event])
			}
		})
	}
}

// A spool that is full of what was acknowledged drops nothing of what waits.
func TestWhatWaitsStaysWhereTheRestIsAcknowledged(t *testing.T) {
	b := newBoard(t)
	b.budget = MinBudget
	s := b.open()
	n := 0
	for range 4 { // each time as much as there is room for
		before := s.Stats().Segments
		n += b.mixed(s, before+2)
		drainKind(t, s, Batch)
	}
	// The event of what the spool had to drop would be one more.
	if got, want := names(drainKind(t, s, Event)), events(1, n); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := names(drain(t, s)); got != "" {
		t.Errorf("besides: %s", got)
	}
}

// TestCutAtEveryOctet cuts a segment as a power cut may and checks that all
// records before the cut are there, none after it, and that work goes on.
func TestCutAtEveryOctet(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	var sizes []int64 // of the file after each batch
	for range 5 {
		b.add(s, 1)
		if err := s.Flush(time.Now(), true); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, s.Stats().DiskBytes)
	}
	path := filepath.Join(b.perm, "spool", segmentName(1))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		b.powerCut()
		s := b.open()
		b.add(s, 1)
		if err := s.Flush(time.Now(), true); err != nil {
			t.Fatal(err)
		}
		complete := 0
		for _, size := range sizes {
			if int64(cut) >= size {
				complete++
			}
		}
		want := strings.TrimSpace(batches(1, 1, complete) + " " + batches(b.boot, 1, 1))
		var got []Item
		for _, i := range drain(t, s) {
			if i.Kind == Batch {
				got = append(got, i)
			}
		}
		if names(got) != want {
			t.Fatalf("cut at %d of %d: got %s, want %s", cut, len(whole), names(got), want)
		}
	}
}

func TestDamageCostsOneRecordAndIsTold(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	b.add(s, 3)
	if err := s.Flush(time.Now(), true); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.perm, "spool", segmentName(1))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := parseSegment(data)
	at := bytes.Index(data, c.items[1].Data)
	data[at+10] ^= 0x40
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = b.open()
	if got, want := names(drain(t, s)), "2:1.1 2:1.3 3:1."+fmt.Sprint(model.AgentEvents+1); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFullSpoolThinsTheOldestThenDropsIt(t *testing.T) {
	b := newBoard(t)
	b.budget, b.reports = MinBudget, 60
	s := b.open()
	added := 0
	fill := func(until func([]Item) bool) []Item {
		for range 10000 {
			b.add(s, 5)
			added += 5
			if err := s.Flush(time.Now(), true); err != nil {
				t.Fatal(err)
			}
			if st := s.Stats(); st.DiskBytes > MinBudget {
				t.Fatalf("budget of %d exceeded: %+v", MinBudget, st)
			}
			if events := eventsOf(s.Items()); until(events) {
				return events
			}
		}
		t.Fatal("it never came")
		return nil
	}
	has := func(kind string) func([]Item) bool {
		return func(items []Item) bool {
			return slices.ContainsFunc(items, func(i Item) bool { return bytes.Contains(i.Data, []byte(kind)) })
		}
	}
	fill(has("telemetry.spool.thinned"))
	b.add(s, 1)
	added++
	counts := map[int]int{}
	next := uint64(1)
	for _, seg := range s.disk.segments {
		c, err := s.disk.load(seg)
		if err != nil || c.damaged != 0 {
			t.Fatalf("%v, %d octets damaged", err, c.damaged)
		}
		for _, i := range c.items {
			if i.Kind != Batch {
				continue
			}
			if i.ID.Seq != next {
				t.Fatalf("batch %d is missing, %v came", next, i.ID)
			}
			next++
			got, err := wire.Decode(i.Data, schema)
			if err != nil {
				t.Fatal(err)
			}
			counts[len(got.Reports)]++
		}
	}
	if counts[30] == 0 || counts[60] == 0 {
		t.Errorf("reports per batch: got %v, want some of 30 and some of 60", counts)
	}
	fill(has("telemetry.spool.dropped"))
}

func eventsOf(items []Item) (out []Item) {
	for _, i := range items {
		if i.Kind == Event {
			out = append(out, i)
		}
	}
	return out
}

// TestFullFileSystem fills a file system for real.
func TestFullFileSystem(t *testing.T) {
	b := newBoard(t)
	b.reports = 100
	if err := unix.Mount("tmpfs", b.perm, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mounting a tmpfs needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.perm, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := b.open()
	var failed error
	added := 0
	for failed == nil && added < 1000 {
		b.add(s, 1)
		added++
		failed = s.Flush(time.Now(), true)
	}
	if !strings.Contains(fmt.Sprint(failed), "no space left") {
		t.Fatalf("got %v, want no space left", failed)
	}
	b.add(s, 3)
	added += 3
	if got, want := names(drain(t, s)), batches(1, 1, added); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// There is room again.
	b.add(s, 1)
	if err := s.Flush(time.Now(), true); err != nil {
		t.Error(err)
	}
}

func TestMissingDataPartition(t *testing.T) {
	b := newBoard(t)
	if err := os.WriteFile(filepath.Join(b.perm, "spool"), nil, 0o600); err != nil { // a file where a directory has to be
		t.Fatal(err)
	}
	s := b.open()
	b.add(s, 2)
	if err := s.Flush(time.Now(), true); err == nil {
		t.Error("a missing directory was no error")
	}
	if err := os.Remove(filepath.Join(b.perm, "spool")); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(time.Now(), true); err != nil {
		t.Error(err)
	}
	if got, want := names(drain(t, s)), batches(1, 1, 2); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLiveTierIsBounded(t *testing.T) {
	b := newBoard(t)
	if err := os.WriteFile(filepath.Join(b.perm, "spool"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := b.open()
	b.add(s, 2500)
	if s.live.size > liveBudget {
		t.Errorf("got %d octets, want at most %d", s.live.size, liveBudget)
	}
	items := s.Items()
	if len(eventsOf(items)) != 1 || items[len(items)-1].ID != wire.ID(1, 2500) {
		t.Errorf("got %d events and last %v, want one event and the newest batches", len(eventsOf(items)), items[len(items)-1].ID)
	}
}

func TestEventsOfHaloMesh(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	events := []model.Event{
		{Boot: 1, Seq: 1, Kind: "node.started", Severity: model.Info, Time: time.UnixMilli(5).UTC()},
		{Boot: 1, Seq: 2, Severity: model.Info}, // no kind: can't travel
		{Boot: 1, Seq: 3, Kind: "mesh.port.proven", Severity: model.Warning},
	}
	if err := s.TakeEvents(events); err != nil {
		t.Fatal(err)
	}
	if err := s.AddEvent("agent.test", model.Info, "own", nil); err != nil {
		t.Fatal(err)
	}
	s = b.open()
	if boot, seq := s.MeshEvents(); boot != 1 || seq != 3 {
		t.Errorf("got %d.%d, want 1.3", boot, seq)
	}
	if err := s.TakeEvents(events[2:]); err != nil { // once more, as after a crash in between
		t.Fatal(err)
	}
	if err := s.AddEvent("agent.test", model.Info, "own", nil); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("3:1.1 3:1.3 3:1.%d 3:1.%d", model.AgentEvents+1, model.AgentEvents+2)
	if got := names(s.Items()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := s.Flush(time.Now(), true); err != nil {
		t.Fatal(err)
	}
	b.powerCut()
	if got := names(drain(t, b.open())); got != want {
		t.Errorf("from disk: got %s, want %s", got, want)
	}
}

func TestTooLargeBatchIsSplit(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	var wide wire.Schema
	for i := range 120 {
		wide.Metrics = append(wide.Metrics, wire.NewMetric(fmt.Sprintf("test.m%d.x", i), "", 0))
	}
	var reports []wire.Report
	noise := int64(1)
	for range 200 {
		r := wire.Report{}
		for range wide.Metrics {
			noise = noise*6364136223846793005 + 1442695040888963407
			r.Values = append(r.Values, wire.Int(noise))
		}
		reports = append(reports, r)
	}
	if err := s.AddBatch(wide, wire.Batch{Header: wire.Header{Clock: model.ClockNone}, Reports: reports}, time.Now()); err != nil {
		t.Fatal(err)
	}
	total := 0
	for n, i := range s.Items() {
		if i.ID.Seq != uint64(n+1) {
			t.Errorf("got %v, want number %d", i.ID, n+1)
		}
		got, err := wire.Decode(i.Data, wide)
		if err != nil {
			t.Fatal(err)
		}
		total += len(got.Reports)
	}
	if total != 200 {
		t.Errorf("got %d reports, want 200", total)
	}
}

func FuzzSegment(f *testing.F) {
	data, err := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 1), Clock: model.ClockNone}, Reports: []wire.Report{{Values: []wire.Value{wire.Int(1), wire.Int(2)}}}}.Encode(schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encodeSegment(content{items: []Item{{Kind: Batch, Data: data, Schema: schema.ID()}}, schemas: map[wire.SchemaID]wire.Schema{schema.ID(): schema}}))
	f.Add(segmentHeader(3))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := parseSegment(b)
		again := parseSegment(encodeSegment(c))
		if again.damaged != 0 || names(again.items) != names(c.items) {
			t.Errorf("got %s with %d octets damaged, want %s", names(again.items), again.damaged, names(c.items))
		}
	})
}
