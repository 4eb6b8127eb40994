package benchgateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/wire/wiretest"
)

type noEvents struct{}

func (noEvents) Add(string, model.Severity, string, string, map[string]string) {}

// fillYear puts a year of telemetry into a gateway's folder that does not run: twenty nodes
// with twelve metrics every minute, and of the last hour, which is in the journal alone, 250
// nodes every ten seconds. It returns how many samples that is.
func fillYear(b *testing.B, dir string) (samples int) {
	b.Helper()
	ctx := b.Context()
	state, now := paths.Dir(dir), time.Now()
	at := now.Add(-365 * 24 * time.Hour)
	db, _, err := telemetry.OpenJournal(ctx, state.File(paths.SeriesDB))
	if err != nil {
		b.Fatal(err)
	}
	s, err := telemetry.Open(ctx, telemetry.Config{Journal: db, Dir: state.File(paths.SeriesDir), Retention: telemetry.Retention{Budget: 1 << 40},
		Now: func() time.Time { return at }, Sure: func() bool { return true }, Events: noEvents{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	schema := wiretest.Schema()
	if err := s.PutSchema(ctx, "n-000", schema); err != nil {
		b.Fatal(err)
	}
	boards := make([]*wiretest.Board, 250)
	for i := range boards {
		boards[i] = wiretest.NewBoard(uint64(i))
	}
	put := func(nodes, reports int, step time.Duration) {
		var group []telemetry.Entry
		for i, board := range boards[:nodes] {
			w := board.Batch(1, at, reports, step)
			data, err := w.Encode(schema)
			if err != nil {
				b.Fatal(err)
			}
			w.Header.Schema = schema.ID()
			group = append(group, telemetry.Entry{Node: fmt.Sprintf("n-%03d", i), Schema: schema, Batch: w, Data: data})
			samples += reports * wiretest.Metrics
		}
		outcomes, err := s.Append(ctx, group)
		if err != nil {
			b.Fatal(err)
		}
		for _, o := range outcomes {
			if o != telemetry.Stored {
				b.Fatalf("outcome %d", o)
			}
		}
	}
	for day := 0; at.Before(now.Add(-24 * time.Hour)); day++ {
		for range 2 {
			put(20, 720, time.Minute)
			at = at.Add(12 * time.Hour)
		}
		if err := s.Tend(ctx); err != nil {
			b.Fatal(err)
		}
	}
	for at = now.Add(-time.Hour); at.Before(now); at = at.Add(10 * time.Minute) {
		put(250, 60, 10*time.Second)
	}
	if err := errors.Join(s.Close(), db.Close()); err != nil {
		b.Fatal(err)
	}
	return samples
}

// cool has the kernel forget what it has of a folder's files, so that they come from the
// disk.
func cool(b *testing.B, dir string) {
	b.Helper()
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkColdStart reports how long a gateway with a year of telemetry takes from its
// process' start until its API answers, what is on the disk not being in RAM.
func BenchmarkColdStart(b *testing.B) {
	h := newHalo(b)
	h.stop() // it has made its databases
	samples := fillYear(b, h.dir)
	var total, most time.Duration
	n := 0
	for b.Loop() {
		cool(b, h.dir)
		took := h.start(b)
		b.ReportMetric(float64(h.cpu().Milliseconds()), "cpu-ms")
		total, most = total+took, max(most, took)
		n++
		resp, err := http.Get(h.URL + "/health")
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		_, peak := h.memory()
		b.ReportMetric(float64(peak)/(1<<20), "MB-most")
		h.stop()
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(n), "ms")
	b.ReportMetric(float64(most.Milliseconds()), "ms-most")
	b.ReportMetric(float64(samples)/1e6, "Msamples")
	b.ReportMetric(0, "ns/op")
}
