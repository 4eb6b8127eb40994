package telemetry

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry/block"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// lateSchema is wide, so that an hour's or some days' readings are more than are unpacked at a
// time.
func lateSchema() wire.Schema { return release(1, 14) }

// put appends readings of lateSchema that far apart and returns how many there are of each
// metric. Batches are numbered from seq on.
func (b *bench) put(seq *uint64, from, to time.Time, every time.Duration) (rows int) {
	b.t.Helper()
	s, r := lateSchema(), rand.New(rand.NewPCG(*seq, 9))
	if err := b.PutSchema(b.t.Context(), "n-a", s); err != nil {
		b.t.Fatal(err)
	}
	for at := from; at.Before(to); {
		*seq++
		batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, *seq), Clock: model.ClockGPS}}
		for ; at.Before(to) && len(batch.Reports) < wire.MaxReports; at = at.Add(every) {
			rep := wire.Report{Time: at.UnixMilli()}
			for range s.Metrics {
				rep.Values = append(rep.Values, wire.Int(r.Int64N(1000)))
			}
			batch.Reports = append(batch.Reports, rep)
		}
		rows += len(batch.Reports)
		if got := b.append(entry(b.t, "n-a", s, batch)); got[0] != Stored {
			b.t.Fatalf("batch %d: got outcome %v", *seq, got[0])
		}
	}
	return rows
}

// counts returns how many readings of each metric the blocks of a width have; they have to have as
// many of each.
func (b *bench) counts(w week, width int) (n int64) {
	b.t.Helper()
	f, err := b.weeks.acquire(b.t.Context(), w, false)
	if err != nil {
		b.t.Fatal(err)
	}
	defer b.weeks.release(f)
	of := map[int]int64{}
	for hour := w.begin() / hourMS; hour < w.end()/hourMS; hour++ {
		body, err := b.stored(b.t.Context(), f, "n-a", width, hour, nil)
		if err != nil {
			b.t.Fatal(err)
		}
		if body == nil {
			continue
		}
		u, err := block.ReadRollup(body, f.isFloat)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, s := range u.Series {
			for _, k := range s.Buckets {
				of[s.Series] += k.Count
			}
		}
	}
	if len(of) != len(lateSchema().Metrics) {
		b.t.Fatalf("there are %d metrics, want %d", len(of), len(lateSchema().Metrics))
	}
	for series, c := range of {
		if n = max(n, c); c != n {
			b.t.Fatalf("metric %d has %d readings, and another one %d", series, c, n)
		}
	}
	return n
}

// unfinished has a compaction of a week end with an error after it has committed a part.
func (b *bench) unfinished(w week) {
	b.t.Helper()
	src := b.sources["n-a"]
	last := src.head[len(src.head)-1]
	whole := last.data
	last.data = slices.Clone(whole)
	last.data[len(whole)/2] ^= 1
	b.fetch = func(context.Context, int64) ([]byte, error) { return nil, store.ErrUnavailable }
	before := b.Commits()
	m := b.plan(b.t.Context())
	if err := b.compactWeek(b.t.Context(), w, &m); err == nil {
		b.t.Fatal("it was compacted")
	}
	if b.Commits() == before {
		b.t.Fatal("it has committed nothing")
	}
	last.data, b.fetch = whole, b.readGroup
}

// What comes late for a week of which readings are not kept any more is counted once, also
// where a power cut, or an error, has its compaction begin anew.
func TestWhatIsLateIsCountedOnce(t *testing.T) {
	monday := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	w := weekOf(monday.UnixMilli())
	for _, tc := range []struct {
		name         string
		length       time.Duration // of what is there, and of what is late
		every, late  time.Duration
		to           thinned
		widths, then []int // of what is there after; and once it is rolled up
	}{
		{"quarters", 6 * 24 * time.Hour, 10 * time.Minute, 10 * time.Second, thinned{w.end(), w.end(), 0}, []int{quarter, hourly}, nil},
		{"hours", 6 * 24 * time.Hour, 10 * time.Minute, 10 * time.Second, thinned{w.end(), w.end(), w.end()}, []int{hourly}, nil},
		{"minutes", time.Hour, time.Second, 85 * time.Millisecond, thinned{minute: w.end()}, []int{minute}, []int{quarter, hourly}},
	} {
		for _, cut := range []bool{false, true} {
			name := tc.name + ", an error"
			if cut {
				name = tc.name + ", a power cut"
			}
			t.Run(name, func(t *testing.T) {
				b := newBench(t)
				b.at = monday.Add(20 * 24 * time.Hour)
				var seq uint64
				want := b.put(&seq, monday, monday.Add(tc.length), tc.every)
				b.tend()
				b.tending.Lock()
				thinned, err := b.thin(t.Context(), w, tc.to)
				b.tending.Unlock()
				if err != nil || !thinned {
					t.Fatalf("thinned: %t, %v", thinned, err)
				}
				for _, width := range tc.widths {
					if got := b.counts(w, width); got != int64(want) {
						t.Fatalf("width %d: %d readings are counted at first, want %d", width, got, want)
					}
				}
				late := b.put(&seq, monday.Add(time.Millisecond), monday.Add(tc.length), tc.late)
				if late*len(lateSchema().Metrics) < mostValues*5/4 {
					t.Fatalf("%d readings are not enough", late)
				}
				for range 2 {
					b.unfinished(w)
				}
				if cut {
					b.restart()
				}
				b.tend()
				for _, width := range slices.Concat(tc.widths, tc.then) {
					if got := b.counts(w, width); got != int64(want+late) {
						t.Errorf("width %d: %d readings are counted, want %d", width, got, want+late)
					}
				}
			})
		}
	}
}

// A week of which only a part has come into its file is not thinned before the rest has: that
// part would be in the rollups, and come into them once more with all.
func TestAWeekIsNotThinnedInBetween(t *testing.T) {
	monday := time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)
	w := weekOf(monday.UnixMilli())
	b := newBench(t)
	b.at = monday.Add(20 * 24 * time.Hour)
	var seq uint64
	want := b.put(&seq, monday, monday.Add(6*24*time.Hour), 10*time.Second)
	thin := func(want bool) {
		t.Helper()
		b.tending.Lock()
		defer b.tending.Unlock()
		if thinned, err := b.thin(t.Context(), w, thinned{w.end(), w.end(), 0}); err != nil || thinned != want {
			t.Fatalf("thinned: %t, %v; want %t", thinned, err, want)
		}
	}
	b.unfinished(w)
	thin(false)
	b.tend()
	thin(true)
	for _, width := range []int{quarter, hourly} {
		if got := b.counts(w, width); got != int64(want) {
			t.Errorf("width %d: %d readings are counted, want %d", width, got, want)
		}
	}
}
