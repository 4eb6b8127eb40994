package telemetry

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/wire"
)

var cpuAndMemory = wire.Schema{Metrics: []wire.Metric{
	wire.NewMetric("system.cpu.used_percent", "%", 1),
	wire.NewMetric("system.memory.free_bytes", "B", 0),
}}

// epoch is a Friday noon: its week is 2026-W47.
var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// told is the events of a test.
type told struct {
	mu   sync.Mutex
	list []model.Event
}

func (l *told) Add(kind string, s model.Severity, node, message string, fields map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, model.Event{Kind: kind, Severity: s, Node: node, Message: message, Fields: fields})
}

func (l *told) kinds() (kinds []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.list {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// bench is a store in a folder of its own, whose clock the test sets.
type bench struct {
	*Store
	t      testing.TB
	dir    string
	db     *store.DB
	events *told
	at     time.Time
	edit   func(*Config)
}

func newBench(t testing.TB) *bench {
	t.Helper()
	return benchIn(t, t.TempDir(), nil)
}

func benchIn(t testing.TB, dir string, edit func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, dir: dir, events: &told{}, at: epoch.Add(time.Hour), edit: edit}
	b.open()
	t.Cleanup(b.close)
	if err := b.PutSchema(t.Context(), "n-a", cpuAndMemory); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) open() {
	b.t.Helper()
	db, repair, err := OpenJournal(b.t.Context(), filepath.Join(b.dir, "telemetry.db"))
	if err != nil {
		b.t.Fatal(err)
	}
	if repair.Reason != "" {
		b.events.Add("repair", model.Error, "", repair.Reason, nil)
	}
	c := Config{Journal: db, Dir: filepath.Join(b.dir, "telemetry"), Retention: Retention{Budget: 1 << 30}, Now: func() time.Time { return b.at }, Sure: func() bool { return true }, Events: b.events, Log: slog.New(slog.DiscardHandler)}
	if b.edit != nil {
		b.edit(&c)
	}
	if b.Store, err = Open(b.t.Context(), c); err != nil {
		b.t.Fatal(err)
	}
	b.db = db
}

func (b *bench) close() {
	b.t.Helper()
	if b.Store == nil {
		return
	}
	if err := b.Store.Close(); err != nil {
		b.t.Error(err)
	}
	if err := b.db.Close(); err != nil {
		b.t.Error(err)
	}
	b.Store = nil
}

// restart is a stop and a start.
func (b *bench) restart() {
	b.t.Helper()
	b.close()
	b.open()
}

func (b *bench) append(entries ...Entry) []Outcome {
	b.t.Helper()
	o, err := b.Append(b.t.Context(), entries)
	if err != nil {
		b.t.Fatal(err)
	}
	return o
}

// numbered makes a batch of three reports, ten seconds apart, that says its own number.
func numbered(t testing.TB, node string, boot, seq uint64) Entry {
	t.Helper()
	return numberedBy(t, cpuAndMemory, node, boot, seq)
}

// numberedBy makes one by another schema that begins with the same two metrics.
func numberedBy(t testing.TB, s wire.Schema, node string, boot, seq uint64) Entry {
	t.Helper()
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(boot, seq), Schema: s.ID(), Clock: model.ClockGateway}}
	for i := range 3 {
		at := epoch.Add(time.Duration(seq)*30*time.Second + time.Duration(i)*10*time.Second)
		b.Reports = append(b.Reports, wire.Report{Time: at.UnixMilli(), Values: append([]wire.Value{wire.Int(int64(seq * 10)), wire.Int(int64(i))}, make([]wire.Value, len(s.Metrics)-2)...)})
	}
	return entry(t, node, s, b)
}

func entry(t testing.TB, node string, s wire.Schema, b wire.Batch) Entry {
	t.Helper()
	b.Schema = s.ID()
	data, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return Entry{Node: node, Schema: s, Batch: b, Data: data}
}

// release is the schema of a node after its nth update.
func release(n, metrics int) wire.Schema {
	s := wire.Schema{Metrics: slices.Clone(cpuAndMemory.Metrics)}
	for k := range metrics {
		s.Metrics = append(s.Metrics, wire.NewMetric(fmt.Sprintf("release%d.some-sensor.metric%d", n, k), "", 0))
	}
	return s
}
