package telemetry

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// written is how many octets this process has written to files.
func written(t *testing.T) (n int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "wchar: ")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// No pattern of late readings has more written than is charged for it.
func TestAllThatIsWrittenIsCharged(t *testing.T) {
	for _, tc := range []struct {
		what    string
		rows    int // of an hour
		metrics int
		hours   int
	}{
		{"small blocks", 20, 2, 500},
		{"usual blocks", 360, 2, 500},
		{"large blocks", 1000, 60, 10},
	} {
		t.Run(tc.what, func(t *testing.T) {
			b := newStill(t)
			var s wire.Schema
			for k := range tc.metrics {
				s.Metrics = append(s.Metrics, wire.NewMetric(fmt.Sprintf("noise.of.m%d", k), "", wire.ScaleFloat))
			}
			if err := b.PutSchema(t.Context(), "n-a", s); err != nil {
				t.Fatal(err)
			}
			r, seq, hours := rand.New(rand.NewPCG(1, 2)), uint64(0), tc.hours
			begin := b.at.Add(-time.Duration(hours+200) * time.Hour).Truncate(time.Hour)
			put := func(times ...time.Time) {
				t.Helper()
				seq++
				batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS}}
				for _, at := range times {
					rep := wire.Report{Time: at.UnixMilli()}
					for range s.Metrics {
						rep.Values = append(rep.Values, wire.Float(r.NormFloat64()))
					}
					batch.Reports = append(batch.Reports, rep)
				}
				if got := b.append(entry(t, "n-a", s, batch)); got[0] != Stored {
					t.Fatal(got)
				}
			}
			for h := range hours {
				var times []time.Time
				for i := range tc.rows {
					times = append(times, begin.Add(time.Duration(h)*time.Hour+time.Duration(i)*3*time.Second))
					if len(times)*tc.metrics > 6000 {
						put(times...)
						times = nil
					}
				}
				put(times...)
				if b.headBytes > headLimit/4 {
					b.tend()
				}
			}
			b.tend()
			const journal = 128 << 10 // is written for a compaction, also where nothing is late
			for turn, every := range []int{1, 1, 24, 24, 168, 168} {
				b.sources["n-a"].rewritten = account{}
				for h := 0; h < hours; h += every {
					put(begin.Add(time.Duration(h)*time.Hour + 59*time.Minute + time.Duration(turn)*time.Second))
				}
				all := written(t)
				b.tend()
				all, owed := written(t)-all, b.owed("n-a")
				t.Logf("a reading each %d h of %d: %d octets written, %d charged", every, hours, all, owed)
				if all > owed+journal {
					t.Errorf("a reading each %d h of %d: %d octets are written, %d are charged", every, hours, all, owed)
				}
			}
		})
	}
}
