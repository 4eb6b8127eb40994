package telemetry

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"halo.internal/gateway/store/powercut"
	"halo.internal/model"
)

// strict takes no events: what a power cut leaves is in order.
type strict struct{ t *testing.T }

func (s strict) Add(kind string, _ model.Severity, node, message string, _ map[string]string) {
	s.t.Errorf("event %s of %q: %s", kind, node, message)
}

// Whenever power is cut, what was acknowledged is found afterwards, and nothing else than was
// sent: while batches are committed, while the log is brought to its place and begun anew,
// while the journal is compacted into weeks, and while the process stops and starts.
func TestPowerCut(t *testing.T) {
	cuts, commits := 150, 400
	if os.Getenv("HALO_SOAK") != "" {
		cuts = 6000
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "telemetry"), 0o700); err != nil { // nothing but SQLite is recorded
		t.Fatal(err)
	}
	rec := powercut.Record(t, dir)
	s, err := openForCrash(t.Context(), dir, 1, strict{t})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.PutSchema(t.Context(), "n-0", modelSchemas[0]); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(9, 9))
	type ack struct {
		steps int
		seq   uint64
	}
	acks := []ack{{rec.Steps(), 0}}
	for i := range commits {
		first := acks[i].seq + 1
		last := first + random.Uint64N(8)
		if err := s.appendCrashBatches(t.Context(), 1, first, last); err != nil {
			t.Fatal(err)
		}
		acks = append(acks, ack{rec.Steps(), last})
		if i%70 == 69 {
			if err := s.Tend(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if i%150 == 149 {
			if err := errors.Join(s.Close(), s.db.Close()); err != nil {
				t.Fatal(err)
			}
			if s, err = openForCrash(t.Context(), dir, 1, strict{t}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(s.Close(), s.db.Close()); err != nil {
		t.Fatal(err)
	}
	brought, syncs := rec.Writes("telemetry.db"), rec.Syncs()
	at := make([]int, cuts)
	for i := range at { // at any time; when most has to be synced; while the log is brought to its place
		switch from := acks[0].steps; i % 3 {
		case 0:
			at[i] = from + random.IntN(rec.Steps()-from+1)
		case 1:
			at[i] = max(from, syncs[random.IntN(len(syncs))])
		default:
			at[i] = max(from, brought[random.IntN(len(brought))]+random.IntN(4)-1)
		}
	}
	slices.Sort(at)
	disk, folder := rec.Disk(), t.TempDir()
	powercut.Careless(t, folder)
	for i, steps := range at {
		disk.Forward(steps)
		dir := filepath.Join(folder, strconv.Itoa(i))
		if err := disk.Cut(random, dir); err != nil {
			t.Fatal(err)
		}
		s, err := openForCrash(t.Context(), dir, 1, strict{t})
		if err != nil {
			t.Fatalf("cut behind %d of %d steps: %v", steps, rec.Steps(), err)
		}
		n, _ := slices.BinarySearchFunc(acks, steps+1, func(a ack, steps int) int { return a.steps - steps })
		acked, came := acks[n-1].seq, uint64(0)
		for _, b := range s.Coverage("n-1").Boots {
			if came = b.Last; len(b.Missing) != 0 {
				t.Errorf("missing %v", b.Missing)
			}
		}
		if came != acked && (n == len(acks) || came != acks[n].seq) { // the next commit is whole or not at all
			t.Fatalf("cut behind %d of %d steps: %d batches were acknowledged, %d came", steps, rec.Steps(), acked, came)
		}
		verifySamples(t, s, 1, map[uint64]uint64{1: came}, 1)
		if err := errors.Join(s.Close(), s.db.Close(), os.RemoveAll(dir)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cuts among %d steps, %d of which wrote to the database itself", cuts, rec.Steps(), len(brought))
}
