package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
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
		{"cut in half", func(d []byte) []byte { return d[:len(d)/2] }, 0}, // half of it is small tables
		{"cut by two pages", func(d []byte) []byte { return d[:len(d)-2*weekPage] }, 0.5},
		{"cut within a page", func(d []byte) []byte { return d[:len(d)-weekPage/2] }, 0.8},
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

// Of a damaged journal a new one has what can be read, and the weeks go on; nothing that is
// wrong is in it, and what is lost is told of.
func TestDamagedJournal(t *testing.T) {
	b, k, _ := filled(t)
	old := len(k.samples("n-b", epoch.Add(-240*time.Hour), epoch.Add(-time.Hour)))
	b.open()
	if err := b.PutSchema(t.Context(), "n-a", cpuAndMemory); err != nil {
		t.Fatal(err)
	}
	b.at = epoch.Add(time.Hour)
	const batches = 600
	for seq := range uint64(batches) { // what is in the journal alone, in many groups
		e := numbered(t, "n-b", 8, seq+1)
		b.append(e)
		k.take(e)
	}
	b.close()
	path := filepath.Join(b.dir, "telemetry.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	r := rand.New(rand.NewPCG(5, 5))
	scramble := func(i int) func([]byte) []byte {
		return func(d []byte) []byte {
			for k := range page {
				d[i*page+k] = byte(r.Uint32())
			}
			return d
		}
	}
	type damaging struct {
		name string
		edit func([]byte) []byte
		kept int // batches, at least
		told bool
	}
	cases := []damaging{
		{"cut to nothing", func([]byte) []byte { return nil }, 0, true},
		{"no database", scramble(0), 0, true},
		{"cut in half", func(d []byte) []byte { return d[:len(d)/2] }, 1, true},
		{"the last page is gone", func(d []byte) []byte { return d[:len(d)-page] }, batches / 2, true},
		{"a page in the middle", scramble(len(whole) / page / 2), batches / 2, false},
		{"the page before the last", scramble(len(whole)/page - 2), batches / 2, true},
	}
	for i := range 12 {
		cases = append(cases, damaging{fmt.Sprintf("%d bits, %d", 1+i, i), func(d []byte) []byte {
			for range 1 + i {
				d[r.IntN(len(d))] ^= 1 << r.IntN(8)
			}
			return d
		}, 0, false})
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
				t.Fatal(err)
			}
			damage(t, filepath.Join(dir, "telemetry.db"), tc.edit)
			c := benchIn(t, dir, nil)
			told := strings.Join(c.events.kinds(), " ")
			c.at = epoch.Add(24 * time.Hour)
			left := 0
			for _, boot := range c.Coverage("n-b").Boots {
				if boot.Boot == 8 {
					left = int(boot.Count)
				}
			}
			if left < tc.kept {
				t.Errorf("%d of %d batches are left, want %d", left, batches, tc.kept)
			}
			if (left < batches || tc.told) && told == "" {
				t.Errorf("%d of %d batches are left, and no event says so", left, batches)
			}
			if got := c.readable(k, "n-b"); got < old+6*left {
				t.Errorf("%d samples can be read, want %d", got, old+6*left)
			}
			late := numbered(t, "n-a", 9, 1)
			if o := c.append(late); o[0] != Stored {
				t.Fatalf("what comes: %v", o)
			}
			k.take(late)
			c.tend()
			c.restart()
			if got := c.readable(k, "n-b"); got < old+6*left {
				t.Errorf("after compaction %d samples can be read, want %d", got, old+6*left)
			}
			if got, err := c.Samples(t.Context(), SampleQuery{Node: "n-a", From: epoch, To: epoch.Add(time.Hour), Limit: 100}); err != nil || len(got.Items) != 6 {
				t.Errorf("what came after: got %+v, %v", got, err)
			}
		})
	}
}

// A power cut while a journal is salvaged has it done again.
func TestSalvageIsCutShort(t *testing.T) {
	b := newBench(t)
	for seq := range uint64(50) {
		b.append(numbered(t, "n-a", 1, seq+1))
	}
	b.close()
	path := filepath.Join(b.dir, "telemetry.db")
	aside, err := store.SetAside(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".salvage", []byte("it was damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open() // there is no other yet
	if got := b.Coverage("n-a").Boots; len(got) != 1 || got[0].Count != 50 {
		t.Errorf("%+v", got)
	}
	b.close()
	if err := os.WriteFile(path+".salvage", []byte("it was damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open() // there is one, and it has all
	if got := b.Coverage("n-a").Boots; len(got) != 1 || got[0].Count != 50 || b.headCount != 50 {
		t.Errorf("%+v", got)
	}
	if got := b.events.kinds(); !slices.Equal(got, []string{"repair", "repair"}) {
		t.Errorf("events %v", got)
	}
	if _, err := os.Stat(path + ".salvage"); err == nil {
		t.Error("the mark is still there")
	}
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
}

// Where there is no room to salvage a journal, that waits until there is.
func TestSalvageOnAFullDisk(t *testing.T) {
	b := benchIn(t, smallDisk(t, "8m"), nil)
	for seq := range uint64(100) {
		b.append(numbered(t, "n-a", 1, seq+1))
	}
	b.close()
	path := filepath.Join(b.dir, "telemetry.db")
	damage(t, path, func(d []byte) []byte { return d[:len(d)-100] })
	ballast := fillUp(t, b.dir, 0)
	for range 3 {
		if db, _, err := OpenJournal(t.Context(), path); err == nil {
			db.Close()
			t.Fatal("it was salvaged on a full disk")
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	b.open()
	if got := b.Coverage("n-a").Boots; len(got) != 1 || got[0].Count < 90 || len(b.events.kinds()) == 0 {
		t.Errorf("%+v, events %v", got, b.events.kinds())
	}
}

// How far a file was thinned follows from what is in it.
func TestForms(t *testing.T) {
	f := forms{}
	for d := range int64(4) {
		f.note(hourly, 24*d)
		if d >= 1 {
			f.note(quarter, 24*d)
		}
		if d >= 2 {
			f.note([]int{raw, minute}[d-2], 24*d+5)
		}
	}
	if got, want := f.thinned(), (thinned{2 * dayMS, 2 * dayMS, dayMS}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
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

// A batch that RAM has changed is read from the journal; one that the card has changed, too,
// is left out of answers, which are given all the same, and an event tells of it, at once and
// when it is gone for good.
func TestABatchThatCannotBeReadAnyMore(t *testing.T) {
	b, k := newBench(t), newKnown()
	for seq := range uint64(10) {
		e := numbered(t, "n-a", 1, seq+1)
		b.append(e)
		k.take(e)
	}
	head := b.sources["n-a"].head
	change := func(i int) {
		head[i].data = slices.Clone(head[i].data) // others share its octets
		head[i].data[len(head[i].data)/2] ^= 4
	}
	all := func() (n int) {
		t.Helper()
		if n = b.readable(k, "n-a"); n == 0 {
			t.Error("nothing can be read")
		}
		if _, err := b.Range(t.Context(), Query{From: epoch, To: epoch.Add(time.Hour), Step: time.Minute}, func(Series) error { return nil }); err != nil {
			t.Error(err)
		}
		return n
	}
	whole := all()
	change(3)
	if got := all(); got != whole {
		t.Errorf("%d readings are there, want all %d: the journal has them", got, whole)
	}
	if got := b.events.kinds(); len(got) != 0 {
		t.Errorf("events %q", got)
	}
	change(5)
	if err := b.db.Write(t.Context(), func(tx *sql.Tx) error {
		var body []byte
		if err := tx.QueryRow(`SELECT body FROM groups WHERE id = ?`, head[5].group).Scan(&body); err != nil {
			return err
		}
		body[len(body)/2] ^= 4
		_, err := tx.Exec(`UPDATE groups SET body = ? WHERE id = ?`, body, head[5].group)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := all(); got != whole-6 {
		t.Errorf("%d readings are there, want all but the six of a batch", got)
	}
	if got := b.events.kinds(); !slices.Equal(got, []string{"telemetry.unreadable"}) {
		t.Errorf("events %q", got)
	}
	b.tend()
	if got := all(); got != whole-6 {
		t.Errorf("%d readings are in the file, want all but the six of a batch", got)
	}
	last := b.events.list[len(b.events.list)-1]
	if len(b.events.list) != 2 || last.Kind != "telemetry.unreadable" || last.Severity != model.Error || last.Node != "n-a" || last.Fields["batches"] != "1" || last.Fields["batch"] != "1.6" {
		t.Errorf("events %+v", b.events.list)
	}
	if got := b.Coverage("n-a").Boots[0]; got.Count != 10 || got.Dropped != 1 {
		t.Errorf("got %+v", got)
	}
}

// A batch that RAM has changed and that the journal does not give for a moment stays in the
// journal until it does; one that it does not give for long is lost, and holds up nothing.
func TestABatchThatCannotBeReadForAMoment(t *testing.T) {
	for _, again := range []bool{true, false} {
		t.Run(fmt.Sprint("again ", again), func(t *testing.T) {
			b, k := newBench(t), newKnown()
			for seq := range uint64(10) {
				e := numbered(t, "n-a", 1, seq+1)
				b.append(e)
				k.take(e)
			}
			head := b.sources["n-a"].head
			head[3].data = slices.Clone(head[3].data)
			head[3].data[len(head[3].data)/2] ^= 4
			ticks := time.Now()
			b.ticks = func() time.Time { return ticks }
			b.fetch = func(context.Context, int64) ([]byte, error) {
				return nil, fmt.Errorf("%w: the medium is busy", store.ErrUnavailable)
			}
			for range stubborn {
				if err := b.Tend(t.Context()); !errors.Is(err, store.ErrUnavailable) {
					t.Fatalf("got %v", err)
				}
				if b.headCount != 10 {
					t.Fatalf("%d batches are left in the journal", b.headCount)
				}
				if again {
					break
				}
				ticks = ticks.Add(retryAfter)
			}
			if again {
				b.fetch = b.readGroup
			}
			b.tend()
			b.fetch = b.readGroup
			lost := 1
			if again {
				lost = 0
			}
			if got := b.readable(k, "n-a"); b.headCount != 0 || got != 60-6*lost {
				t.Errorf("%d batches are left in the journal, %d readings are there", b.headCount, got)
			}
			if got := b.Coverage("n-a").Boots[0]; got.Dropped != uint64(lost) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A series whose name is lost, by a week that was damaged, does not give its number, and with
// it its readings, to another one.
func TestNumbersOfSeriesThatAreLost(t *testing.T) {
	for name, tc := range map[string]struct {
		lose string
		make func(b *bench, w week) error
	}{
		"a row that is gone, repaired": {`DELETE FROM series WHERE id = (SELECT max(id) FROM series)`, func(b *bench, w week) error { return b.repair(b.t.Context(), w, store.ErrCorrupt) }},
		"a row that changed, repaired": {`UPDATE series SET name = 'system.memory.fred_bytes' WHERE id = (SELECT max(id) FROM series)`, func(b *bench, w week) error { return b.repair(b.t.Context(), w, store.ErrCorrupt) }},
		"a row that changed, rewritten": {`UPDATE series SET name = 'system.memory.fred_bytes' WHERE id = (SELECT max(id) FROM series)`, func(b *bench, w week) error {
			f, err := b.ready(b.t.Context(), w)
			if err != nil {
				return err
			}
			defer b.weeks.release(f)
			return b.rewrite(b.t.Context(), f, thinned{})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.append(numbered(t, "n-a", 1, 1))
			b.tend()
			w := b.weeks.list()[0]
			path := b.weeks.path(w)
			b.close()
			db, err := store.OpenAsIs(t.Context(), path, weekKind)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(tc.lose); return err })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			b.open()
			b.tending.Lock()
			err = tc.make(b, w)
			b.tending.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			other := wire.Schema{Metrics: []wire.Metric{wire.NewMetric("made.later.x", "", 0)}}
			if err := b.PutSchema(t.Context(), "n-a", other); err != nil {
				t.Fatal(err)
			}
			b.append(entry(t, "n-a", other, wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 2), Clock: model.ClockGPS}, Reports: []wire.Report{{Time: epoch.Add(10 * time.Minute).UnixMilli(), Values: []wire.Value{wire.Int(7)}}}}))
			b.tend()
			got, err := b.Samples(t.Context(), SampleQuery{Node: "n-a", From: epoch, To: epoch.Add(time.Hour), Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			count := map[string]int{}
			for _, s := range got.Items {
				count[s.Metric]++
			}
			if len(count) != 2 || count["made.later.x"] != 1 || count["system.cpu.used_percent"] != 3 {
				t.Errorf("got %v", count)
			}
		})
	}
}

// A week file may have groups that a damaged journal does not give any more: what comes after
// has other numbers, or it would be taken for what is in the file.
func TestNumbersOfGroupsThatAreLost(t *testing.T) {
	for _, tc := range []struct {
		name string
		lose string
		left int // of three batches, in the journal
	}{
		{"the last", `DELETE FROM groups WHERE id = 3`, 2},
		{"all", `DELETE FROM groups`, 0},
		{"the last of some of which nothing is left", `UPDATE groups SET body = x'ff' WHERE id >= 2`, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t)
			for seq := range uint64(3) {
				b.append(numbered(t, "n-a", 1, seq+1))
			}
			b.tending.Lock()
			m := b.plan(t.Context())
			for _, w := range m.weeks() { // and power fails before the journal is told
				if err := b.compactWeek(t.Context(), w, &m); err != nil {
					t.Fatal(err)
				}
			}
			b.tending.Unlock()
			last := b.lastGroup
			b.close()
			path := filepath.Join(b.dir, "telemetry.db")
			db, err := store.OpenAsIs(t.Context(), path, store.Kind{})
			if err != nil {
				t.Fatal(err)
			}
			err = db.Write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(tc.lose); return err })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			salvage := func() {
				t.Helper()
				if _, err := store.SetAside(path); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path+".salvage", []byte("it was damaged"), 0o600); err != nil {
					t.Fatal(err)
				}
				b.open()
				if b.headCount != tc.left || b.lastGroup <= last || b.lastGroup >= farGroups/2 {
					t.Errorf("%d batches are in the journal, the last of group %d; want %d, and one far above %d", b.headCount, b.lastGroup, tc.left, last)
				}
				last = b.lastGroup
			}
			salvage()
			b.close()
			salvage() // once more, before anything else
			for seq := range uint64(2) {
				if got := b.append(numbered(t, "n-a", 1, seq+4)); got[0] != Stored {
					t.Fatal(got)
				}
			}
			for _, what := range []string{"in the journal", "in the files", "after a start"} {
				if got := b.count("n-a"); got != 5*3 {
					t.Errorf("%s: %d readings are there, want those of five batches", what, got)
				}
				if what == "in the files" {
					b.restart()
				}
				b.tend()
			}
			if b.headCount != 0 {
				t.Errorf("%d batches are left in the journal", b.headCount)
			}
		})
	}
}

// A power cut after a damaged week was set aside, and before what was saved of it has its
// place: the start puts it there. What was not whole yet goes.
func TestRepairIsCutShort(t *testing.T) {
	for _, tc := range []struct {
		name     string
		aside    bool
		unwhole  bool
		readable bool
	}{
		{"before it was set aside", false, false, true},
		{"after it was set aside", true, false, true},
		{"after another was, while it is written", true, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, k, path := filled(t)
			b.open()
			all := b.readable(k, "n-a")
			w := b.weeks.list()[0]
			b.tending.Lock()
			_, _, err := b.salvage(t.Context(), w, path, false)
			b.tending.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			b.close()
			if tc.aside {
				if _, err := store.SetAside(path); err != nil {
					t.Fatal(err)
				}
			}
			if tc.unwhole {
				if err := os.WriteFile(path+unfinished+"-journal", []byte("of a write that was cut short"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b.open()
			if got := b.readable(k, "n-a"); tc.readable && got != all || !tc.readable && got != 0 {
				t.Errorf("%d of %d readings are there", got, all)
			}
			b.tend()
			if left, err := filepath.Glob(path + unfinished + "*"); err != nil || len(left) != 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// A week whose file cannot be opened for a reason that is not the medium's is not given up for
// an empty one, however often that was tried.
func TestAWeekThatThisProcessCannotOpen(t *testing.T) {
	b, k, path := filled(t)
	b.open()
	all := b.readable(k, "n-a")
	w := b.weeks.list()[0]
	if err := errors.Join(b.weeks.close(), os.Rename(path, path+".elsewhere"), os.Symlink(path, path)); err != nil { // a loop
		t.Fatal(err)
	}
	b.tending.Lock()
	err := b.replace(t.Context(), w, errors.New("a test"), true)
	b.tending.Unlock()
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v, want it to be unavailable", err)
	}
	if err := os.Rename(path+".elsewhere", path); err != nil {
		t.Fatal(err)
	}
	if got := b.readable(k, "n-a"); got != all || len(b.events.kinds()) != 0 {
		t.Errorf("%d of %d readings are there, events %v", got, all, b.events.kinds())
	}
}
