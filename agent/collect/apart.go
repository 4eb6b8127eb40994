package collect

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// Pace is how often a collector is read, and how long that may take.
type Pace struct {
	Every time.Duration
	Limit time.Duration // 0: defaultLimit
}

// Bounds of what is read apart.
const (
	MaxCollectors = 160
	defaultLimit  = 5 * time.Second
	// again is how long a collector that hung before may hang without its being told once
	// more, while the last time that was told is not long ago.
	again    = time.Minute
	againFor = 10 * time.Minute
	// patience is how late a collector that has nothing to tell may be for others to wait
	// for it the next time as long as it may take. Of one that was later they wait for as
	// long as a good reading takes: what it reads once it can again is not thrown away.
	patience  = 250 * time.Millisecond
	healthMin = time.Minute
)

// Events about collectors; fields collector and after_s, of the second took_s.
const (
	EventHung = "agent.collector.hung"
	EventBack = "agent.collector.back"
)

// Apart reads collectors apart from one another: one that hangs, or whose bus does, keeps
// none of the others waiting for longer than its limit, and is not read again before it
// has come back. What it would have read is missing meanwhile, its metrics are not: a
// batch stays one batch.
type Apart struct {
	tell func(kind string, s model.Severity, message string, fields map[string]string)

	mu      sync.Mutex // guards what follows, and the units
	units   []*unit    // in the order in which they came
	regroup chan struct{}
}

type unit struct {
	Collector
	Pace
	metrics []wire.Metric // of the last whole reading
	busy    bool
	since   time.Time     // when it was begun; monotonic
	late    int           // readings in a row beyond the limit
	slow    bool          // it was late again, or late and in vain: nobody waits long for the next reading
	took    time.Duration // the last good one
	hangs   bool          // and that was told
	toldAt  time.Time
	idle    chan struct{} // closed once it is removed and has come back
	gone    bool

	// since they were last told
	runs, good int
	longest    time.Duration
}

// NewApart returns an empty set. tell makes events.
func NewApart(tell func(kind string, s model.Severity, message string, fields map[string]string)) *Apart {
	return &Apart{tell: tell, regroup: make(chan struct{}, 1)}
}

// Add has a collector be read from now on. The name of each has to be its own.
func (a *Apart) Add(c Collector, p Pace) error {
	if p.Every <= 0 {
		return fmt.Errorf("collector %s: expected a time between readings, got %v", c.Name(), p.Every)
	}
	if p.Limit == 0 {
		p.Limit = defaultLimit
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.units {
		if u.Name() == c.Name() {
			return fmt.Errorf("collector %s: there is one already", c.Name())
		}
	}
	if len(a.units) >= MaxCollectors {
		return fmt.Errorf("collector %s: expected at most %d of them", c.Name(), MaxCollectors)
	}
	a.units = append(a.units, &unit{Collector: c, Pace: p, idle: make(chan struct{})})
	a.changed()
	return nil
}

// Remove has it be read no more. What it returns is closed once nothing of it runs: a
// collector that hangs may do so for long.
func (a *Apart) Remove(name string) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.units, func(u *unit) bool { return u.Name() == name })
	if i < 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	u := a.units[i]
	a.units = slices.Delete(a.units, i, i+1)
	u.gone = true
	if !u.busy {
		close(u.idle)
	}
	a.changed()
	return u.idle
}

func (a *Apart) changed() {
	select {
	case a.regroup <- struct{}{}:
	default: // a token waits already
	}
}

// Regroup carries a token after Groups may have changed.
func (a *Apart) Regroup() <-chan struct{} { return a.regroup }

// Groups are the times between readings that there are, each once, the shortest first.
func (a *Apart) Groups() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []time.Duration
	for _, u := range a.units {
		if !slices.Contains(list, u.Every) {
			list = append(list, u.Every)
		}
	}
	slices.Sort(list)
	return list
}

// wait is how long the next reading is waited for; the caller holds the lock.
func (u *unit) wait() time.Duration {
	if !u.slow {
		return u.Limit
	}
	return min(max(patience, 2*u.took), u.Every/2, u.Limit)
}

// outcome is what came of one reading.
type outcome struct {
	u        *unit
	readings []Reading
	err      error
}

// Collect reads the collectors of a group, all at once, and returns when each has come to
// its end or to its limit. The error joins those of single collectors.
func (a *Apart) Collect(ctx context.Context, every time.Duration) ([]Reading, error) {
	now := time.Now()
	a.mu.Lock()
	var group []*unit
	waiting := map[*unit]time.Duration{} // for how long
	done := make(chan outcome, len(a.units))
	for _, u := range a.units {
		if u.Every != every {
			continue
		}
		group = append(group, u)
		u.runs++
		if u.busy {
			continue
		}
		u.busy, u.since = true, now
		waiting[u] = u.wait()
		go a.read(ctx, u, done)
	}
	a.mu.Unlock()
	results := make(map[*unit]outcome, len(group))
	for len(waiting) > 0 && ctx.Err() == nil {
		limit := time.Duration(0) // of those that are waited for
		for _, d := range waiting {
			limit = max(limit, d-time.Since(now))
		}
		if limit == 0 {
			break
		}
		over := time.NewTimer(limit)
		select {
		case o := <-done:
			results[o.u] = o
			delete(waiting, o.u)
		case <-over.C:
		case <-ctx.Done():
		}
		over.Stop()
	}
	return a.join(ctx, group, results)
}

// read reads one collector, however long that takes.
func (a *Apart) read(ctx context.Context, u *unit, done chan<- outcome) {
	limited, cancel := context.WithTimeoutCause(ctx, u.Limit, fmt.Errorf("not within %v", u.Limit))
	defer cancel()
	readings, err := u.safely(limited)
	a.mu.Lock()
	took := time.Since(u.since)
	hung := u.hangs
	u.busy, u.hangs = false, false
	if u.late++; took <= u.Limit {
		u.late = 0
	}
	u.slow = u.late > 1 || err != nil && took > patience
	u.longest = max(u.longest, took)
	if err == nil && took <= u.Limit {
		u.good++
		u.took = took
	}
	if u.gone {
		close(u.idle)
	}
	a.mu.Unlock()
	done <- outcome{u, readings, err} // there is room for all
	if hung {
		a.tell(EventBack, model.Info, "a collector that hung has come back", map[string]string{"collector": u.Name(), "took_s": fmt.Sprintf("%.0f", took.Seconds())})
	}
}

// safely has one collector that is wrong not end the process.
func (u *unit) safely(ctx context.Context) (readings []Reading, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it panicked: %v\n%s", r, debug.Stack())
		}
	}()
	return u.Collect(ctx)
}

// join makes the group's readings, in the order of its collectors.
func (a *Apart) join(ctx context.Context, group []*unit, results map[*unit]outcome) ([]Reading, error) {
	var all []Reading
	var errs []error
	seen := make(map[string]bool)
	take := func(r Reading) {
		// Kernel names that differ may get the same label; a schema has each once.
		if !seen[r.Metric.Name] && len(all) < wire.MaxMetrics {
			seen[r.Metric.Name] = true
			all = append(all, r)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range group {
		o, ok := results[u]
		switch {
		case !ok:
			o.err = errors.New("it has not answered in time")
			a.hanging(ctx, u)
		case o.err == nil:
			u.metrics = u.metrics[:0]
			for _, r := range o.readings {
				u.metrics = append(u.metrics, r.Metric)
			}
		}
		for _, r := range o.readings {
			take(r)
		}
		if o.err != nil && !u.gone {
			for _, m := range u.metrics { // what is missing this time
				take(Reading{Metric: m})
			}
			errs = append(errs, fmt.Errorf("%s: %w", u.Name(), o.err))
		}
	}
	return all, errors.Join(errs...)
}

// hanging tells that a collector hangs, once. Its caller holds the lock.
func (a *Apart) hanging(ctx context.Context, u *unit) {
	now := time.Now()
	if u.hangs || !u.busy || u.gone || ctx.Err() != nil || now.Sub(u.since) < u.Limit || !u.toldAt.IsZero() && now.Sub(u.toldAt) < againFor && now.Sub(u.since) < again {
		return
	}
	u.hangs, u.toldAt = true, now
	fields := map[string]string{"collector": u.Name(), "after_s": fmt.Sprintf("%.0f", now.Sub(u.since).Seconds())}
	go a.tell(EventHung, model.Warning, "a collector hangs: what it reads is missing, all else is there", fields) // which may wait for a disk
}

// Health is a collector of how the others are: how often each was read in vain, and how
// long the longest reading took, since it was asked last.
func (a *Apart) Health() Collector { return apartHealth{a} }

// HealthEvery is how often Health is to be read where samples are made at that interval.
func HealthEvery(sample time.Duration) time.Duration {
	if sample >= healthMin {
		return sample
	}
	return (healthMin + sample - 1) / sample * sample
}

type apartHealth struct{ *Apart }

func (apartHealth) Name() string { return "collectors" }

func (a apartHealth) Collect(context.Context) ([]Reading, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Reading
	for _, u := range a.units {
		if u.Name() == a.Name() {
			continue
		}
		longest := u.longest
		if u.busy {
			longest = max(longest, time.Since(u.since))
		}
		success := Reading{Metric: wire.NewMetric("collector."+Label(u.Name())+".success_percent", "%", 0)}
		duration := Reading{Metric: wire.NewMetric("collector."+Label(u.Name())+".duration_ms", "ms", 0)}
		if u.runs > 0 {
			success.Value = wire.Int(int64(100 * u.good / u.runs))
			duration.Value = wire.Int(longest.Milliseconds())
		}
		u.runs, u.good, u.longest = 0, 0, 0
		out = append(out, success, duration)
	}
	return out, nil
}
