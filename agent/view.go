package agent

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/agent/spool"
	"halo.internal/health"
	"halo.internal/model"
)

// view is the latest that the agent knows: of halo-mesh, of its own readings,
// of its spool.
type view struct {
	mu       sync.Mutex // guards what follows
	mesh     model.MeshStatus
	whole    model.MeshStatus // with what the kernel was asked for
	wholeAt  time.Time
	health   health.Report // of halo-mesh
	clients  []model.Client
	readings map[time.Duration]round // of each group, by the time between its readings
	read     time.Time
	spool    *spool.Spool
}

// round is what a group's collectors read last, and when.
type round struct {
	at   time.Time
	list []collect.Reading
}

// A round counts as the latest for as many intervals, and for as long as its collectors may
// have taken besides.
const (
	roundsFresh = 3
	roundLimit  = 30 * time.Second
)

// fresh tells whether a round of a group still says how things are.
func (r round) fresh(every time.Duration, now time.Time) bool {
	return now.Sub(r.at) <= roundsFresh*every+roundLimit
}

func (v *view) saw(st model.MeshStatus, h health.Report) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mesh, v.health = st, h
}

// looked keeps what halo-mesh has asked the kernel for.
func (v *view) looked(st model.MeshStatus) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.whole, v.wholeAt = st, time.Now()
}

// around is what halo-mesh said last of all that is around, and when.
func (v *view) around() (model.MeshStatus, time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.whole, v.wholeAt
}

func (v *view) last() (model.MeshStatus, health.Report) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mesh, v.health
}

func (v *view) sawClients(list []model.Client) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.clients = list
}

func (v *view) clientsNow() []model.Client {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.clients
}

func (v *view) volatile() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.mesh.Volatile
}

func (v *view) opened(s *spool.Spool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.spool = s
}

// spoolNow is the spool; nil before it is open.
func (v *view) spoolNow() *spool.Spool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.spool
}

// value is the latest of a metric, in its unit, unless that is old.
func (v *view) value(metric string) (float64, bool) {
	n, _, ok := v.reading(metric)
	return n, ok
}

// reading is value, and when it was read. Of two groups that have the metric, as when a chip
// is read at another interval from now on, the later counts, also where it was read in vain.
func (v *view) reading(metric string) (n float64, at time.Time, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	for every, l := range v.readings {
		if !l.fresh(every, now) || !l.at.After(at) {
			continue
		}
		for _, r := range l.list {
			if r.Metric.Name == metric {
				n, at, ok = 0, l.at, r.Value.Present
				if ok {
					n = r.Metric.Number(r.Value)
				}
				break
			}
		}
	}
	return n, at, ok
}

// keep wraps the collectors so that the latest readings can be asked for. What a group has
// read that there is no more is forgotten.
func (v *view) keep(collectors func(context.Context, time.Duration) ([]collect.Reading, error), groups func() []time.Duration) func(context.Context, time.Duration) ([]collect.Reading, error) {
	return func(ctx context.Context, every time.Duration) ([]collect.Reading, error) {
		r, err := collectors(ctx, every)
		now, there := time.Now(), groups()
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.readings == nil {
			v.readings = make(map[time.Duration]round)
		}
		if v.read = now; len(r) > 0 {
			v.readings[every] = round{now, slices.Clone(r)} // what is not worth sending is left out of the other
		} else {
			delete(v.readings, every)
		}
		maps.DeleteFunc(v.readings, func(every time.Duration, _ round) bool { return !slices.Contains(there, every) })
		return r, err
	}
}

// quality is the clock's, as halo-mesh knows it.
func (v *view) quality() model.ClockQuality {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mesh.Clock == "" {
		return model.ClockNone // halo-mesh has not answered yet
	}
	return v.mesh.Clock
}

func (v *view) status() model.AgentStatus {
	quality := v.quality()
	v.mu.Lock()
	st := model.AgentStatus{Time: v.read.UTC(), Clock: quality, Readings: []model.Reading{}}
	now := time.Now()
	for _, every := range slices.Sorted(maps.Keys(v.readings)) {
		if !v.readings[every].fresh(every, now) {
			continue
		}
		for _, r := range v.readings[every].list {
			if n := r.Metric.Number(r.Value); !math.IsNaN(n) && !math.IsInf(n, 0) { // JSON has no other numbers
				st.Readings = append(st.Readings, model.Reading{Metric: r.Metric.Name, Value: n, Unit: r.Metric.Unit})
			}
		}
	}
	kept := v.spool
	v.mu.Unlock()
	if kept != nil { // outside of the lock: the spool asks for the clock's quality while it has its own
		s := kept.Stats()
		st.Spool = model.SpoolStatus{Live: s.Live, Segments: s.Segments, Bytes: s.DiskBytes, Ready: s.DiskReady, Batches: s.Batches, Acked: s.Acked}
	}
	return st
}
