// Package sample stamps what the collectors read, on ticks aligned to the wall
// clock, and gathers the reports of one send interval into a batch. Collectors
// that are read at the same interval are a group, which has batches of its own;
// all of them are closed together, so that they travel in one go. All
// reports of a batch have the same metrics and the same clock quality: where
// either changes, a new batch begins. A reading that crosses a limit closes
// its batch at once, and so does a metric that was not there before.
package sample

import (
	"context"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Options of a sampler.
type Options struct {
	// Collect reads the collectors of a group.
	Collect func(ctx context.Context, every time.Duration) ([]collect.Reading, error)
	Groups  func() []time.Duration // nil: Interval alone
	Regroup <-chan struct{}        // a token when Groups has changed
	// Weigh decides what of a group's readings is worth sending; nil: all is. What is not
	// is left out of its report.
	Weigh func(at time.Time, readings []collect.Reading)
	// Add keeps a batch; the time is when its oldest reading was made. nil: nobody keeps
	// any, and what is read is for Collect's own use.
	Add      func(wire.Schema, wire.Batch, time.Time) error
	Clock    func() (time.Time, model.ClockQuality)
	Interval time.Duration // between samples
	Send     time.Duration // between batches
	Node     string        // canonical ID: spreads the batches of many nodes over the interval
	Earliest time.Time     // a clock before this is not believed: nothing is stamped with it, but all is read
	Log      *slog.Logger
}

// onTime is how much later than its tick a sample may be to be stamped with
// the tick itself: regular times take no room in a batch. Of short intervals it is a
// quarter.
const onTime = 100 * time.Millisecond

// Run samples until ctx ends, and then closes the last batches.
func Run(ctx context.Context, opt Options) {
	s := &sampler{Options: opt, groups: make(map[time.Duration]*group)}
	defer s.running.Wait()
	s.regroup(ctx)
	seal := time.NewTimer(s.phase())
	defer seal.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-opt.Regroup:
			s.regroup(ctx)
		case <-seal.C:
			for _, g := range s.groups {
				g.close()
			}
			seal.Reset(s.Send)
		}
	}
}

type sampler struct {
	Options
	groups  map[time.Duration]*group
	running sync.WaitGroup
}

// regroup begins and ends groups.
func (s *sampler) regroup(ctx context.Context) {
	want := map[time.Duration]bool{s.Interval: true}
	if s.Groups != nil {
		for _, every := range s.Groups() {
			want[every] = true
		}
	}
	for every, g := range s.groups {
		if !want[every] {
			g.cancel()
			delete(s.groups, every)
		}
	}
	for every := range want {
		if s.groups[every] != nil {
			continue
		}
		g := &group{Options: s.Options, every: every, urgent: make(map[string]bool)}
		inner, cancel := context.WithCancel(ctx)
		g.cancel = cancel
		s.groups[every] = g
		s.running.Go(func() { g.run(inner) })
	}
}

// run samples one group.
func (g *group) run(ctx context.Context) {
	tick := time.NewTimer(0) // the first sample at once: a node that came up shows
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			g.close()
			return
		case <-tick.C:
			at, quality := g.Clock()
			g.sample(ctx, at, quality)
			now, _ := g.Clock()
			tick.Reset(now.Truncate(g.every).Add(g.every).Sub(now))
		}
	}
}

type group struct {
	Options
	every  time.Duration
	cancel context.CancelFunc
	urgent map[string]bool // metrics beyond their limit at the last sample
	failed string          // what the collectors reported last
	early  bool            // the clock was not believed last time
	known  wire.Schema     // of the last report, whatever was closed since

	mu sync.Mutex // guards the open batch
	// The open batch.
	schema  wire.Schema
	clock   model.ClockQuality
	reports []wire.Report
	first   time.Time // monotonic, of the oldest report
}

// phase is this node's place in the send interval.
func (s *sampler) phase() time.Duration {
	h := fnv.New32a()
	h.Write([]byte(s.Node))
	// Half a second after a tick at the earliest, so that the sample is in.
	return s.Send*time.Duration(h.Sum32()%997)/997 + min(s.Interval/20, time.Second/2)
}

func (g *group) sample(ctx context.Context, at time.Time, quality model.ClockQuality) {
	early := at.Before(g.Earliest)
	if early && !g.early {
		g.Log.Warn("clock is before this build: nothing of what is read is kept", "time", at)
	}
	g.early = early
	if tick := at.Truncate(g.every); at.Sub(tick) < min(onTime, g.every/4) {
		at = tick
	}
	began := time.Now()
	readings, err := g.Collect(ctx, g.every)
	if ctx.Err() != nil {
		return
	}
	g.complain(err)
	if early || g.Add == nil {
		return
	}
	// The clock may have been set while it was read: what is stamped with the time before
	// would be of another time than what is read next.
	if now, _ := g.Clock(); now.Before(g.Earliest) {
		return
	} else if moved := now.Round(0).Sub(at.Round(0)) - time.Since(began); moved > jump || moved < -jump {
		at = now.Add(-time.Since(began))
	}
	if g.Weigh != nil {
		g.Weigh(at, readings)
	}
	g.take(at, quality, readings)
}

// jump is how far the clock moves when it is set, and not slewed or read late.
const jump = time.Second

// take adds a report of the readings.
func (g *group) take(at time.Time, quality model.ClockQuality, readings []collect.Reading) {
	var schema wire.Schema
	report := wire.Report{Time: at.UnixMilli()}
	urgent, crossed, some := make(map[string]bool), false, false
	for _, r := range readings {
		schema.Metrics = append(schema.Metrics, r.Metric)
		report.Values = append(report.Values, r.Value)
		some = some || r.Value.Present
		if r.Urgent {
			urgent[r.Metric.Name] = true
			crossed = crossed || !g.urgent[r.Metric.Name]
		}
	}
	g.urgent = urgent
	if !some {
		return
	}
	news := g.news(schema)
	g.known = schema
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.reports) > 0 && (quality != g.clock || !schema.Equal(g.schema)) {
		g.seal(false)
	}
	g.bound(len(schema.Metrics))
	if len(g.reports) == 0 {
		g.schema, g.clock, g.first = schema, quality, time.Now()
	}
	g.reports = append(g.reports, report)
	if crossed || news {
		g.seal(crossed)
	}
}

// news tells whether there is a metric that was not there before: what has been plugged
// in is to be seen.
func (g *group) news(s wire.Schema) bool {
	if s.Equal(g.known) {
		return false
	}
	was := make(map[string]bool, len(g.known.Metrics))
	for _, m := range g.known.Metrics {
		was[m.Name] = true
	}
	for _, m := range s.Metrics {
		if !was[m.Name] {
			return true
		}
	}
	return false
}

// bound closes a batch that has no room for another report.
func (g *group) bound(metrics int) {
	if len(g.reports) >= min(wire.MaxReports, wire.MaxValues/metrics) {
		g.seal(false)
	}
}

// close closes the open batch.
func (g *group) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seal(false)
}

// seal closes the open batch. Its caller holds the lock.
func (g *group) seal(urgent bool) {
	if len(g.reports) == 0 {
		return
	}
	b := wire.Batch{Header: wire.Header{Clock: g.clock, Urgent: urgent}, Reports: g.reports}
	if err := g.Add(g.schema, b, g.first); err != nil {
		// Not even RAM takes it. Keeping it here would take RAM too.
		g.Log.Error("readings are lost", "reports", len(g.reports), "err", err)
	}
	g.reports = nil
}

// complain logs what the collectors report when it changes.
func (g *group) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == g.failed {
		return
	}
	if g.failed = text; text != "" {
		g.Log.Warn("some readings are missing", "err", err)
	} else {
		g.Log.Info("all readings are back")
	}
}
