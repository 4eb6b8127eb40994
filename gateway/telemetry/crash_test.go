package telemetry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// The child of a crash test is this test's own program.
const (
	crashDir   = "HALO_TELEMETRY_CRASH_DIR"
	crashRound = "HALO_TELEMETRY_CRASH_ROUND"
	crashLate  = "HALO_TELEMETRY_CRASH_LATE" // not empty: what it appends is late
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := crashChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var crashBegin = time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)

// crashBatch is a batch that follows from its name.
func crashBatch(node int, round, seq uint64) (wire.Batch, wire.Schema) {
	r := rand.New(rand.NewPCG(uint64(node)<<32|round, seq))
	s := modelSchemas[0]
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(round, seq), Schema: s.ID(), Clock: model.ClockGPS}}
	at := crashBegin.Add(time.Duration(round)*7*time.Minute + time.Duration(seq)*15*time.Second)
	for i := range 6 {
		b.Reports = append(b.Reports, wire.Report{Time: at.Add(time.Duration(i)*2*time.Second + time.Duration(node)*time.Millisecond).UnixMilli(), Values: []wire.Value{wire.Int(r.Int64N(1000)), wire.Int(int64(seq))}})
	}
	return b, s
}

// crashChild appends, compacts and rewrites files until it is killed, and says what it has
// acknowledged.
func crashChild(dir string) error {
	round, err := strconv.ParseUint(os.Getenv(crashRound), 10, 64)
	if err != nil {
		return err
	}
	ctx := context.Background()
	s, err := openForCrash(ctx, dir, round, stderrEvents{})
	if err != nil {
		return err
	}
	if err := s.PutSchema(ctx, "n-0", modelSchemas[0]); err != nil {
		return err
	}
	late := os.Getenv(crashLate) != ""
	if late {
		s.mayRewrite = allowance{burst: 256 << 10, perSecond: 2 << 20} // what a compaction costs is owed for longer than a slow disk takes for the next commit
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if err := s.Tend(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "tend:", err)
				os.Exit(1)
			}
			if late {
				continue
			}
			if err := s.rewriteAll(ctx); err != nil {
				fmt.Fprintln(os.Stderr, "rewrite:", err)
				os.Exit(1)
			}
		}
	})
	for seq := uint64(1); ; {
		if late {
			if stored, err := s.appendLate(ctx, round, seq); err != nil {
				return err
			} else if !stored {
				fmt.Println("busy")
				time.Sleep(time.Millisecond)
				continue
			}
		} else if err := s.appendCrashBatches(ctx, round, seq, seq); err != nil {
			return err
		}
		fmt.Println(seq)
		seq++
	}
}

// lateBatch is of a node that spreads readings over sixty hours of weeks ago.
func lateBatch(round, seq uint64) wire.Batch {
	s := modelSchemas[0]
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(round, seq), Schema: s.ID(), Clock: model.ClockGPS}}
	for h := range 60 {
		at := crashBegin.Add(time.Duration(h-20*24) * time.Hour).Add(time.Duration(round)*20*time.Second + time.Duration(seq)*time.Millisecond)
		b.Reports = append(b.Reports, wire.Report{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(int64(seq)), wire.Int(int64(round))}})
	}
	return b
}

// appendLate commits one, if it is taken.
func (s *Store) appendLate(ctx context.Context, round, seq uint64) (stored bool, err error) {
	b := lateBatch(round, seq)
	data, err := b.Encode(modelSchemas[0])
	if err != nil {
		return false, err
	}
	out, err := s.Append(ctx, []Entry{{Node: "n-0", Schema: modelSchemas[0], Batch: b, Data: data}})
	if err != nil || out[0] != Stored && out[0] != Busy {
		return false, fmt.Errorf("round %d, batch %d: outcome %v, %w", round, seq, out, err)
	}
	return out[0] == Stored, nil
}

// appendCrashBatches commits batches of three nodes together.
func (s *Store) appendCrashBatches(ctx context.Context, round, first, last uint64) error {
	var entries []Entry
	for seq := first; seq <= last; seq++ {
		for node := range 3 {
			b, sch := crashBatch(node, round, seq)
			data, err := b.Encode(sch)
			if err != nil {
				return err
			}
			entries = append(entries, Entry{Node: fmt.Sprint("n-", node), Schema: sch, Batch: b, Data: data})
		}
	}
	outcomes, err := s.Append(ctx, entries)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		if o != Stored {
			return fmt.Errorf("round %d, batch %v: outcome %d", round, entries[i].Batch.BatchID, o)
		}
	}
	return nil
}

// rewriteAll rewrites the weeks as they are, as thinning does.
func (s *Store) rewriteAll(ctx context.Context) error {
	s.tending.Lock()
	defer s.tending.Unlock()
	for _, w := range s.weeks.list() {
		f, err := s.ready(ctx, w)
		if err != nil {
			return err
		}
		err = s.rewrite(ctx, f, f.from)
		s.weeks.release(f)
		if err != nil {
			return err
		}
	}
	return nil
}

type stderrEvents struct{}

func (stderrEvents) Add(kind string, _ model.Severity, node, message string, _ map[string]string) {
	fmt.Fprintln(os.Stderr, "event", kind, node, message)
}

func openForCrash(ctx context.Context, dir string, round uint64, events Events) (*Store, error) {
	db, repair, err := OpenJournal(ctx, filepath.Join(dir, "telemetry.db"))
	if err != nil {
		return nil, err
	}
	if repair.Reason != "" {
		return nil, errors.New(repair.Reason)
	}
	now := crashBegin.Add(time.Duration(round) * 10 * time.Minute)
	return Open(ctx, Config{Journal: db, Dir: filepath.Join(dir, "telemetry"), Retention: Retention{Budget: 1 << 30}, Now: func() time.Time { return now }, Sure: func() bool { return true }, Events: events, Log: slog.New(slog.DiscardHandler)})
}

// Whenever the process is killed, what it acknowledged is found afterwards, and nothing
// else than was sent.
func TestKilled(t *testing.T) {
	rounds := uint64(30)
	if os.Getenv("HALO_SOAK") != "" {
		rounds = 1000
	}
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(4, 4))
	acked := map[uint64]uint64{} // by round, the last number
	for round := uint64(1); round <= rounds; round++ {
		acked[round], _ = crash(t, dir, round, time.Duration(r.IntN(80))*time.Millisecond)
		s, err := openForCrash(t.Context(), dir, round, stderrEvents{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		verify(t, s, acked, round)
		if err := errors.Join(s.Close(), s.db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	total := uint64(0)
	for _, n := range acked {
		total += n
	}
	t.Logf("%d batches of each of three nodes were acknowledged", total)
}

// What is late of a node that owes too much for what was written anew is not acknowledged; what
// was is there, once, whenever the process is killed.
func TestKilledWhileRewriting(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(4, 5))
	k, refused, total := newKnown(), 0, uint64(0)
	for round := uint64(1); round <= 12 || refused == 0 && round < maxBoots; round++ {
		acked, busy := crash(t, dir, round, time.Duration(r.IntN(250)*int(1+round/12))*time.Millisecond, crashLate+"=1")
		refused += busy
		s, err := openForCrash(t.Context(), dir, round, stderrEvents{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		came := uint64(0)
		for _, b := range s.Coverage("n-0").Boots {
			if b.Boot == round {
				came = b.Last
			}
			if len(b.Missing) != 0 {
				t.Errorf("boot %d: missing %v", b.Boot, b.Missing)
			}
		}
		if came < acked || came > acked+1 {
			t.Fatalf("round %d: %d batches were acknowledged, %d came", round, acked, came)
		}
		for seq := range came {
			k.take(Entry{Node: "n-0", Schema: modelSchemas[0], Batch: lateBatch(round, seq+1)})
		}
		total += came
		sameSamples(t, s, k, "n-0", crashBegin.Add(-21*24*time.Hour), crashBegin, round)
		if err := errors.Join(s.Close(), s.db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d batches came, %d times one was not taken", total, refused)
	if refused == 0 {
		t.Error("all was taken at once")
	}
}

// crash runs a child, kills it, and returns the number of the last batch that it
// acknowledged, and how often one was not taken.
func crash(t *testing.T, dir string, round uint64, after time.Duration, env ...string) (last uint64, busy int) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(append(os.Environ(), crashDir+"="+dir, crashRound+"="+strconv.FormatUint(round, 10)), env...)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs logged
	child.Stderr = &errs
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Errorf("round %d: expected the child to be ready, got %q: %s", round, lines.Text(), errs.text())
	}
	timer := time.AfterFunc(after+5*time.Millisecond, func() { _ = child.Process.Kill() })
	defer timer.Stop()
	for lines.Scan() {
		if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
			last = n
		} else {
			busy++
		}
	}
	_ = child.Wait() // it was killed
	if s := errs.text(); s != "" {
		t.Fatalf("round %d: the child says %s", round, s)
	}
	return last, busy
}

type logged struct {
	mu sync.Mutex
	b  []byte
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, b...)
	return len(b), nil
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

var _ io.Writer = (*logged)(nil)

func verify(t *testing.T, s *Store, acked map[uint64]uint64, upTo uint64) {
	t.Helper()
	node := int(upTo % 3)
	name := fmt.Sprint("n-", node)
	came := map[uint64]uint64{}
	for _, b := range s.Coverage(name).Boots {
		if len(b.Missing) != 0 {
			t.Errorf("boot %d: missing %v", b.Boot, b.Missing)
		}
		came[b.Boot] = b.Last
	}
	for round, last := range acked {
		if _, known := came[round]; !known && round+maxBoots <= upTo {
			came[round] = last
		}
		if came[round] < last || came[round] > last+1 {
			t.Fatalf("round %d: %d batches were acknowledged, %d came", round, last, came[round])
		}
		acked[round] = came[round] // one that was committed and not acknowledged any more stays
	}
	verifySamples(t, s, node, came, upTo)
}

// verifySamples expects a node's readings of all that came, and no others.
func verifySamples(t *testing.T, s *Store, node int, came map[uint64]uint64, upTo uint64) {
	t.Helper()
	name, k := fmt.Sprint("n-", node), newKnown()
	for round := uint64(1); round <= upTo; round++ {
		for seq := uint64(1); seq <= came[round]; seq++ {
			b, sch := crashBatch(node, round, seq)
			k.take(Entry{Node: name, Schema: sch, Batch: b})
		}
	}
	sameSamples(t, s, k, name, crashBegin, crashBegin.Add(30*24*time.Hour), upTo)
}

// sameSamples expects a node's readings that are known, and no others.
func sameSamples(t *testing.T, s *Store, k *known, name string, from, to time.Time, upTo uint64) {
	t.Helper()
	want, have := k.samples(name, from, to), 0
	q := SampleQuery{Node: name, From: from, To: to, Limit: 5000}
	for {
		page, err := s.Samples(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range inOrder(page.Items) {
			if have >= len(want) || want[have] != got {
				t.Fatalf("round %d: sample %d of %d: got %+v", upTo, have, len(want), got)
			}
			have++
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if have != len(want) {
		t.Fatalf("round %d: expected %d samples, got %d", upTo, len(want), have)
	}
}
