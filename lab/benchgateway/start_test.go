package benchgateway_test

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

	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/wire/wiretest"
)

type noEvents struct{}

func (noEvents) Add(string, model.Severity, string, string, map[string]string) {}

// filler is the store of a gateway that does not run, to be filled with what was before.
type filler struct {
	*telemetry.Store
	b       *testing.B
	journal *store.DB
	at      time.Time
	boards  map[string]*wiretest.Board
	samples int
}

func fill(b *testing.B, dir string) *filler {
	b.Helper()
	state := paths.Dir(dir)
	f := &filler{b: b, boards: map[string]*wiretest.Board{}}
	var err error
	if f.journal, _, err = telemetry.OpenJournal(b.Context(), state.File(paths.SeriesDB)); err != nil {
		b.Fatal(err)
	}
	f.Store, err = telemetry.Open(b.Context(), telemetry.Config{Journal: f.journal, Dir: state.File(paths.SeriesDir), Retention: telemetry.Retention{Budget: 1 << 40},
		Now: func() time.Time { return f.at }, Sure: func() bool { return true }, Events: noEvents{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if err := f.PutSchema(b.Context(), "n-000", wiretest.Schema()); err != nil {
		b.Fatal(err)
	}
	return f
}

// put has nodes measure from f.at on.
func (f *filler) put(nodes []string, reports int, step time.Duration) {
	f.b.Helper()
	schema := wiretest.Schema()
	var group []telemetry.Entry
	for _, n := range nodes {
		if f.boards[n] == nil {
			f.boards[n] = wiretest.NewBoard(uint64(len(f.boards)))
		}
		w := f.boards[n].Batch(1, f.at, reports, step)
		data, err := w.Encode(schema)
		if err != nil {
			f.b.Fatal(err)
		}
		w.Header.Schema = schema.ID()
		group = append(group, telemetry.Entry{Node: n, Schema: schema, Batch: w, Data: data})
		f.samples += reports * wiretest.Metrics
	}
	outcomes, err := f.Append(f.b.Context(), group)
	if err != nil {
		f.b.Fatal(err)
	}
	for _, o := range outcomes {
		if o != telemetry.Stored {
			f.b.Fatalf("outcome %d", o)
		}
	}
}

func (f *filler) tend() {
	f.b.Helper()
	if err := f.Tend(f.b.Context()); err != nil {
		f.b.Fatal(err)
	}
}

func (f *filler) close() {
	f.b.Helper()
	if err := errors.Join(f.Store.Close(), f.journal.Close()); err != nil {
		f.b.Fatal(err)
	}
}

// fillYear puts a year of telemetry into a gateway's folder: twenty nodes with twelve metrics
// every minute, and of the last hour, which is in the journal alone, 250 nodes every ten
// seconds. It returns how many samples that is.
func fillYear(b *testing.B, dir string) (samples int) {
	b.Helper()
	f, now := fill(b, dir), time.Now()
	names := make([]string, 250)
	for i := range names {
		names[i] = fmt.Sprintf("n-%03d", i)
	}
	for f.at = now.Add(-365 * 24 * time.Hour); f.at.Before(now.Add(-24 * time.Hour)); f.at = f.at.Add(12 * time.Hour) {
		f.put(names[:20], 720, time.Minute)
		f.tend()
	}
	for f.at = now.Add(-time.Hour); f.at.Before(now); f.at = f.at.Add(10 * time.Minute) {
		f.put(names, 60, 10*time.Second)
	}
	f.close()
	return f.samples
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
	samples := fillYear(b, h.Dir)
	var total, most time.Duration
	n := 0
	for b.Loop() {
		cool(b, h.Dir)
		before := h.cpu()
		took := h.start()
		b.ReportMetric(float64((h.cpu() - before).Milliseconds()), "cpu-ms")
		total, most = total+took, max(most, took)
		n++
		resp, err := http.Get(h.URL + "/health")
		if err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
		b.ReportMetric(float64(h.usage().Most)/(1<<20), "MB-most")
		h.stop()
	}
	b.ReportMetric(float64(total.Milliseconds())/float64(n), "ms")
	b.ReportMetric(float64(most.Milliseconds()), "ms-most")
	b.ReportMetric(float64(samples)/1e6, "Msamples")
	b.ReportMetric(0, "ns/op")
}
