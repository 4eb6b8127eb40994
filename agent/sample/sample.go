// Package sample stamps what the collectors read, on ticks aligned to the wall
// clock, and gathers the reports of one send interval into a batch. All
// reports of a batch have the same metrics and the same clock quality: where
// either changes, a new batch begins. A reading that crosses a limit closes
// its batch at once.
package sample

import (
	"context"
	"hash/fnv"
	"log/slog"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Options of a sampler.
type Options struct {
	Collect  func(context.Context) ([]collect.Reading, error)
	Add      func(wire.Schema, wire.Batch, time.Time) error // keeps a batch; the time is when its oldest reading was made
	Clock    func() (time.Time, model.ClockQuality)
	Interval time.Duration // between samples
	Send     time.Duration // between batches
	Node     string        // canonical ID: spreads the batches of many nodes over the interval
	Earliest time.Time     // a clock before this is not believed, and nothing is stamped with it
	Log      *slog.Logger
}

// onTime is how much later than its tick a sample may be to be stamped with
// the tick itself: regular times take no room in a batch.
const onTime = 100 * time.Millisecond

// Run samples until ctx ends, and then closes the last batch.
func Run(ctx context.Context, opt Options) {
	s := &sampler{Options: opt, urgent: make(map[string]bool)}
	tick := time.NewTimer(0) // the first sample at once: a node that came up shows
	defer tick.Stop()
	seal := time.NewTimer(s.phase())
	defer seal.Stop()
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			s.seal(false)
			return
		case <-tick.C:
			at, quality := s.Clock()
			s.sample(ctx, at, quality)
			if first {
				s.seal(false)
			}
			now, _ := s.Clock()
			tick.Reset(now.Truncate(s.Interval).Add(s.Interval).Sub(now))
		case <-seal.C:
			s.seal(false)
			seal.Reset(s.Send)
		}
	}
}

type sampler struct {
	Options
	urgent map[string]bool // metrics beyond their limit at the last sample
	failed string          // what the collectors reported last
	early  bool            // the clock was not believed last time

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

func (s *sampler) sample(ctx context.Context, at time.Time, quality model.ClockQuality) {
	if early := at.Before(s.Earliest); early {
		if !s.early {
			s.Log.Warn("clock is before this build: nothing is sampled", "time", at)
		}
		s.early = early
		return
	}
	s.early = false
	if tick := at.Truncate(s.Interval); at.Sub(tick) < onTime {
		at = tick
	}
	readings, err := s.Collect(ctx)
	s.complain(err)
	if len(readings) == 0 || ctx.Err() != nil {
		return
	}
	var schema wire.Schema
	report := wire.Report{Time: at.UnixMilli()}
	urgent, crossed := make(map[string]bool), false
	for _, r := range readings {
		schema.Metrics = append(schema.Metrics, r.Metric)
		report.Values = append(report.Values, r.Value)
		if r.Urgent {
			urgent[r.Metric.Name] = true
			crossed = crossed || !s.urgent[r.Metric.Name]
		}
	}
	s.urgent = urgent
	if len(s.reports) > 0 && (quality != s.clock || !schema.Equal(s.schema)) {
		s.seal(false)
	}
	s.bound(len(schema.Metrics))
	if len(s.reports) == 0 {
		s.schema, s.clock, s.first = schema, quality, time.Now()
	}
	s.reports = append(s.reports, report)
	if crossed {
		s.seal(true)
	}
}

// bound closes a batch that has no room for another report.
func (s *sampler) bound(metrics int) {
	if len(s.reports) >= min(wire.MaxReports, wire.MaxValues/metrics) {
		s.seal(false)
	}
}

// seal closes the open batch.
func (s *sampler) seal(urgent bool) {
	if len(s.reports) == 0 {
		return
	}
	b := wire.Batch{Header: wire.Header{Clock: s.clock, Urgent: urgent}, Reports: s.reports}
	if err := s.Add(s.schema, b, s.first); err != nil {
		// Not even RAM takes it. Keeping it here would take RAM too.
		s.Log.Error("readings are lost", "reports", len(s.reports), "err", err)
	}
	s.reports = nil
}

// complain logs what the collectors report when it changes.
func (s *sampler) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == s.failed {
		return
	}
	if s.failed = text; text != "" {
		s.Log.Warn("some readings are missing", "err", err)
	} else {
		s.Log.Info("all readings are back")
	}
}
