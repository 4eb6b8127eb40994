package telemetry

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/model/apitype"
)

// filled is a week of some nodes, closed.
func filled(t *testing.T) (b *bench, k *known, path string) {
	t.Helper()
	b, k = newBench(t), newKnown()
	r := rand.New(rand.NewPCG(3, 3))
	monday := time.Date(2026, 11, 16, 0, 0, 0, 0, time.UTC)
	for _, node := range []string{"n-a", "n-b", "n-c"} {
		seq := uint64(0)
		b.fill(r, k, node, &seq, monday, 50*time.Hour, 10*time.Second)
	}
	b.tend()
	b.close()
	return b, k, filepath.Join(b.dir, "telemetry", "2026-W47.db")
}

// readable returns how many samples of a node can be read, each of which has to be a true
// one.
func (b *bench) readable(k *known, node string) (n int) {
	b.t.Helper()
	from, to := epoch.Add(-10*24*time.Hour), epoch.Add(10*24*time.Hour)
	want := map[apitype.Sample]bool{}
	for _, s := range k.samples(node, from, to) {
		want[s] = true
	}
	q := SampleQuery{Node: node, From: from, To: to, Limit: 10_000}
	for {
		page, err := b.Samples(b.t.Context(), q)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, s := range page.Items {
			if !want[s] {
				b.t.Fatalf("%s: %+v was never sent", node, s)
			}
			n++
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return n
		}
	}
}

func damage(t *testing.T, path string, edit func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, edit(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Of a damaged week what can be read is kept, nothing that is wrong is answered, and it
// takes in what comes.
func TestDamagedWeek(t *testing.T) {
	b, k, path := filled(t)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := len(k.samples("n-a", epoch.Add(-240*time.Hour), epoch)) + len(k.samples("n-b", epoch.Add(-240*time.Hour), epoch)) + len(k.samples("n-c", epoch.Add(-240*time.Hour), epoch))
	r := rand.New(rand.NewPCG(8, 8))
	flip := func(n int) func([]byte) []byte {
		return func(d []byte) []byte {
			for range n {
				d[r.IntN(len(d))] ^= 1 << r.IntN(8)
			}
			return d
		}
	}
	page := func(i int) func([]byte) []byte {
		return func(d []byte) []byte {
			for k := range weekPage {
				d[i*weekPage+k] = byte(r.Uint32())
			}
			return d
		}
	}
	type damaging struct {
		name string
		edit func([]byte) []byte
		kept float64 // of all, at least
	}
	cases := []damaging{
		{"cut in half", func(d []byte) []byte { return d[:len(d)/2] }, 0},
		{"cut within a page", func(d []byte) []byte { return d[:len(d)-weekPage/2] }, 0},
		{"cut to nothing", func(d []byte) []byte { return nil }, 0},
		{"no database", page(0), 0},
		{"a page in the middle", page(len(whole) / weekPage / 2), 0.8},
		{"the last page", page(len(whole)/weekPage - 1), 0.8},
	}
	for i := range 12 {
		cases = append(cases, damaging{fmt.Sprintf("%d bits, %d", 1+i, i), flip(1 + i), 0})
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
				t.Fatal(err)
			}
			damage(t, filepath.Join(dir, "telemetry", "2026-W47.db"), tc.edit)
			c := benchIn(t, dir, nil)
			c.at = epoch.Add(3 * 24 * time.Hour)
			read := func() (n int) {
				for _, node := range []string{"n-a", "n-b", "n-c"} {
					n += c.readable(k, node)
				}
				return n
			}
			before := read()
			late := numbered(t, "n-a", 9, 1) // makes it be written to
			c.append(late)
			c.tend()
			k.take(late)
			after := read() - 6
			c.tend()
			if float64(after) < tc.kept*float64(all) || after < before-all/10 {
				t.Errorf("of %d samples %d could be read before the repair, and %d after", all, before, after)
			}
			told := strings.Contains(strings.Join(c.events.kinds(), " "), "telemetry.damaged")
			if after < all && !told && tc.name != "cut to nothing" {
				t.Errorf("%d of %d are left, and no event says so: %v", after, all, c.events.kinds())
			}
			if got, err := c.Samples(t.Context(), SampleQuery{Node: "n-a", From: epoch, To: epoch.Add(time.Hour), Limit: 100}); err != nil || len(got.Items) != 6 {
				t.Errorf("what came after: got %+v, %v", got, err)
			}
		})
	}
}

// A damaged journal is set aside; the weeks stay, and take in what the new one has.
func TestDamagedJournal(t *testing.T) {
	b, k, _ := filled(t)
	n := len(k.samples("n-b", epoch.Add(-240*time.Hour), epoch))
	damage(t, filepath.Join(b.dir, "telemetry.db"), func(d []byte) []byte { return d[:len(d)/2] })
	b.at = epoch.Add(3 * 24 * time.Hour)
	b.open()
	if got := b.events.kinds(); !slices.Equal(got, []string{"repair"}) {
		t.Errorf("events %v", got)
	}
	if err := b.PutSchema(t.Context(), "n-a", cpuAndMemory); err != nil {
		t.Fatal(err)
	}
	b.append(numbered(t, "n-a", 9, 1)) // group 1 again, which the file had of the other journal
	b.tend()
	if got := b.readable(k, "n-b"); got != n {
		t.Errorf("%d samples are left, want all %d", got, n)
	}
	if got, err := b.Samples(t.Context(), SampleQuery{Node: "n-a", From: epoch, To: epoch.Add(time.Hour), Limit: 100}); err != nil || len(got.Items) != 6 {
		t.Errorf("what came after: got %+v, %v", got, err)
	}
}

// A bit that flips in the journal costs what it is in.
func TestDamagedBatchInTheJournal(t *testing.T) {
	b := newBench(t)
	for seq := range uint64(10) {
		b.append(numbered(t, "n-a", 1, seq+1))
	}
	e := numbered(t, "n-a", 1, 5)
	b.close()
	damage(t, filepath.Join(b.dir, "telemetry.db"), func(d []byte) []byte {
		at := strings.Index(string(d), string(e.Data))
		if at < 0 {
			t.Fatal("the batch is not in the file")
		}
		d[at+len(e.Data)/2] ^= 4
		return d
	})
	b.open()
	if got := b.events.kinds(); !slices.Equal(got, []string{"telemetry.unreadable"}) {
		t.Errorf("events %v", got)
	}
	if c := b.Coverage("n-a").Boots[0]; c.Count != 9 || len(c.Missing) != 1 {
		t.Errorf("got %+v", c)
	}
	if o := b.append(e); o[0] != Stored {
		t.Errorf("sent again: got outcome %v, want Stored", o)
	}
}
