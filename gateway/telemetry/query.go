package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"halo.internal/gateway/telemetry/block"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
	"halo.internal/model/wire"
)

// Bounds of one answer.
const (
	MaxPoints = 20_000  // of a series
	maxCells  = 1 << 18 // points of all series that are gathered at a time
)

// ErrQuery is wrapped where a query asks for what cannot be answered.
var ErrQuery = errors.New("query")

// ErrTooMuch is wrapped where an answer would be too large.
var ErrTooMuch = errors.New("answer is too large")

// Func is what a series of buckets is reduced to.
type Func string

// Functions.
const (
	Mean  Func = "mean"
	Min   Func = "min"
	Max   Func = "max"
	Sum   Func = "sum"
	Count Func = "count"
	First Func = "first"
	Last  Func = "last"
	Rate  Func = "rate" // of a counter, per second; what falls has begun anew
)

// Query selects series and says how they are put together.
type Query struct {
	Nodes    []string      // canonical IDs; none: all
	Metrics  []string      // names, or their beginnings followed by *; none: all
	From, To time.Time     // the latter not included; both are rounded to whole steps
	Step     time.Duration // width of a bucket
	Points   int           // instead of Step: at most so many buckets
	Func     Func          // what Point.Value is; empty: Mean
	After    *SeriesKey    // only those that follow it
	Across   Func          // one series of each metric: Sum, Mean, Min, Max or Count of what Func gives for each node; empty: one for each node
}

// Series is what one metric was.
type Series struct {
	Node   string // empty: of all that were asked for
	Metric string
	Unit   string
	Points []apitype.Point // of buckets that have readings, in order
}

// SeriesKey is what series are sorted by.
type SeriesKey struct{ Node, Metric, Unit string }

func (k SeriesKey) compare(o SeriesKey) int {
	return cmp.Or(cmp.Compare(k.Node, o.Node), cmp.Compare(k.Metric, o.Metric), cmp.Compare(k.Unit, o.Unit))
}

// steps are those that Points chooses from.
var steps = []time.Duration{
	time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute,
	30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 28 * 24 * time.Hour,
}

// cell is a bucket in the unit of its metric. Of finite readings all that it tells is finite:
// nodes send what they like, and JSON has no other numbers.
type cell struct {
	n               int64
	min, max        float64
	scaled          float64 // sum, in units of 1/sumUnit: more readings than there can be do not overflow it
	first, last     float64
	firstAt, lastAt int64
}

// sumUnit is a power of two, by which floats are multiplied and divided exactly.
const sumUnit = 1 << 64

// total is the sum, or the largest number that there is where it lies beyond.
func (c *cell) total() float64 { return saturate(c.scaled * sumUnit) }

// mean is not beyond the extremes, as rounding alone would have it.
func (c *cell) mean() float64 { return max(c.min, min(c.max, c.scaled/float64(c.n)*sumUnit)) }

// saturate is a number, or the largest there is in place of one that is beyond.
func saturate(v float64) float64 { return max(-math.MaxFloat64, min(math.MaxFloat64, v)) }

func (c *cell) add(at int64, o cell) {
	if o.n == 0 {
		return
	}
	if c.n == 0 {
		*c = o
		c.firstAt, c.lastAt = at, at
		return
	}
	c.n, c.scaled = c.n+o.n, c.scaled+o.scaled
	c.min, c.max = min(c.min, o.min), max(c.max, o.max)
	if at < c.firstAt {
		c.first, c.firstAt = o.first, at
	}
	if at >= c.lastAt {
		c.last, c.lastAt = o.last, at
	}
}

func reading(v float64) cell {
	return cell{n: 1, min: v, max: v, scaled: v / sumUnit, first: v, last: v}
}

// grid is the buckets of one query.
type grid struct {
	from, step int64
	n          int
}

func (q *Query) grid() (g grid, err error) {
	from, to := q.From.UnixMilli(), q.To.UnixMilli()
	if from < 0 || to > latest || from >= to {
		return g, fmt.Errorf("%w: expected a time and a later one, from 1970 to 2100, got %s to %s", ErrQuery, q.From.Format(time.RFC3339), q.To.Format(time.RFC3339))
	}
	g.step = q.Step.Milliseconds()
	if q.Points > 0 && q.Step == 0 {
		for _, s := range steps {
			if g.step = s.Milliseconds(); to-floor(from, g.step) <= int64(q.Points)*g.step {
				break
			}
		}
	}
	if g.step < 1 {
		return g, fmt.Errorf("%w: expected a step of a millisecond at least, or a number of points, got %s and %d", ErrQuery, q.Step, q.Points)
	}
	g.from = floor(from, g.step)
	n := (to - g.from + g.step - 1) / g.step
	if n > MaxPoints {
		return g, fmt.Errorf("%w: expected at most %d points, got %d of %s", ErrTooMuch, MaxPoints, n, time.Duration(g.step)*time.Millisecond)
	}
	g.n = int(n)
	return g, nil
}

// matcher returns what tells wanted metrics from others.
func matcher(patterns []string) func(string) bool {
	names := map[string]bool{}
	var prefixes []string
	for _, p := range patterns {
		if begin, ok := strings.CutSuffix(p, "*"); ok {
			prefixes = append(prefixes, begin)
		} else {
			names[p] = true
		}
	}
	return func(name string) bool {
		return len(patterns) == 0 || names[name] || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
}

func (q *Query) check() error {
	switch q.Func {
	case "", Mean, Min, Max, Sum, Count, First, Last, Rate:
	default:
		return fmt.Errorf("%w: expected a function mean, min, max, sum, count, first, last or rate, got %q", ErrQuery, q.Func)
	}
	switch q.Across {
	case "", Mean, Min, Max, Sum, Count:
	default:
		return fmt.Errorf("%w: expected mean, min, max, sum or count across nodes, got %q", ErrQuery, q.Across)
	}
	return nil
}

// lines is the cells of several series.
type lines struct {
	grid  grid
	of    map[line][]cell
	cells int
}

// line names a series: one whose unit has changed is another.
type line struct{ metric, unit string }

func (l *lines) line(k line) ([]cell, error) {
	c := l.of[k]
	if c == nil {
		if l.cells += l.grid.n; l.cells > maxCells && len(l.of) > 0 {
			return nil, fmt.Errorf("%w: more than %d metrics of %d points each: ask for fewer of either", ErrTooMuch, len(l.of), l.grid.n)
		}
		c = make([]cell, l.grid.n)
		l.of[k] = c
	}
	return c, nil
}

// Range calls yield with each series that has readings, by node and metric, and returns the
// width of a bucket. It holds one node's at a time. Where that costs too much, or half of the
// time is over that ctx leaves, the error is
// *More between two nodes, or wraps ErrTooMuch where what is across all of them is asked for.
func (s *Store) Range(ctx context.Context, q Query, yield func(Series) error) (step time.Duration, err error) {
	g, err := q.grid()
	if err != nil {
		return 0, err
	}
	step = time.Duration(g.step) * time.Millisecond
	if err := q.check(); err != nil {
		return step, err
	}
	nodes, cost, late := s.nodesOf(&q), 0, halfway(ctx)
	if q.Across != "" {
		for _, node := range nodes {
			cost += s.costOf(node, g)
		}
		if cost > MostCost {
			return step, q.tooMuch(cost, g)
		}
	}
	give := func(k SeriesKey, points []apitype.Point) error {
		if len(points) == 0 || q.After != nil && k.compare(*q.After) <= 0 {
			return nil
		}
		return yield(Series{k.Node, k.Metric, k.Unit, points})
	}
	across := lines{grid: g, of: map[line][]cell{}}
	wanted := matcher(q.Metrics)
	for _, node := range nodes {
		if q.Across == "" {
			of := s.costOf(node, g)
			if cost > 0 && (cost+of > MostCost || late()) {
				return step, &More{SeriesKey{Node: node}}
			}
			cost += of
		}
		l, err := s.lines(ctx, node, wanted, g)
		if err != nil {
			return step, err
		}
		for _, k := range l.sorted() {
			points := g.points(l.of[k], q.Func)
			if q.Across == "" {
				if err := give(SeriesKey{node, k.metric, k.unit}, points); err != nil {
					return step, err
				}
				continue
			}
			if len(points) == 0 {
				continue
			}
			sum, err := across.line(k)
			if err != nil {
				return step, err
			}
			for _, p := range points {
				at := p.Time.UnixMilli()
				sum[(at-g.from)/g.step].add(at, reading(p.Value))
			}
		}
	}
	for _, k := range across.sorted() {
		if err := give(SeriesKey{"", k.metric, k.unit}, g.points(across.of[k], q.Across)); err != nil {
			return step, err
		}
	}
	return step, nil
}

func (l *lines) sorted() []line {
	all := slices.Collect(maps.Keys(l.of))
	order.By(all, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.metric, b.metric), cmp.Compare(a.unit, b.unit))
	})
	return all
}

// Nodes returns all of which there ever was anything, former ones as those who have taken
// their place.
func (s *Store) Nodes() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	nodes := map[string]bool{}
	for id := range s.sources {
		nodes[cmp.Or(s.present[id], id)] = true
	}
	return slices.Sorted(maps.Keys(nodes))
}

// lines gathers one node's series.
func (s *Store) lines(ctx context.Context, node string, wanted func(string) bool, g grid) (lines, error) {
	l := lines{grid: g, of: map[line][]cell{}}
	for _, id := range s.identities(node) {
		if err := s.gather(ctx, &l, id, wanted); err != nil {
			return l, err
		}
	}
	return l, nil
}

// gather adds what is stored under one ID.
func (s *Store) gather(ctx context.Context, l *lines, node string, wanted func(string) bool) error {
	g := l.grid
	c := scan{store: s, node: node, wanted: wanted, from: g.from, to: g.from + int64(g.n)*g.step, step: g.step}
	c.rows = func(b *block.Block) error {
		for i := range b.Columns {
			col := &b.Columns[i]
			m := c.metrics[col.Series]
			cells, err := l.line(line{m.Name, m.Unit})
			if err != nil {
				return err
			}
			next := 0
			for row, at := range b.Times {
				if col.Have != nil && !col.Have[row] {
					continue
				}
				v, ok := finite(m, wire.Int(col.Values[next]))
				if next++; ok && at >= c.from && at < c.to {
					cells[(at-g.from)/g.step].add(at, reading(v))
				}
			}
		}
		return nil
	}
	c.buckets = func(u block.Rollup, _ int) error {
		for i := range u.Series {
			r := &u.Series[i]
			m := c.metrics[r.Series]
			cells, err := l.line(line{m.Name, m.Unit})
			if err != nil {
				return err
			}
			for row, at := range u.Times {
				if k := &r.Buckets[row]; k.Count > 0 && at >= c.from && at < c.to {
					if v, ok := number(m, *k); ok {
						cells[(at-g.from)/g.step].add(at, v)
					}
				}
			}
		}
		return nil
	}
	return c.run(ctx)
}

// number is a bucket in the unit of its metric; ok is false where that is no number that
// JSON can carry.
func number(m wire.Metric, b block.Bucket) (c cell, ok bool) {
	float := m.Scale == wire.ScaleFloat
	mean := b.Mean(float)
	switch {
	case float:
	case m.Scale >= 0:
		mean /= math.Pow10(int(m.Scale))
	default:
		mean *= math.Pow10(-int(m.Scale))
	}
	is := func(v int64) float64 { return m.Number(wire.Int(v)) }
	c = cell{n: b.Count, min: is(b.Min), max: is(b.Max), scaled: mean / sumUnit * float64(b.Count), first: is(b.First), last: is(b.Last)}
	for _, v := range [...]float64{c.min, c.max, c.scaled, c.first, c.last} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return c, false
		}
	}
	return c, true
}

// points returns the cells that have readings.
func (g grid) points(cells []cell, f Func) (points []apitype.Point) {
	var before *cell
	for i := range cells {
		c := &cells[i]
		if c.n == 0 {
			continue
		}
		p := apitype.Point{Time: time.UnixMilli(g.from + int64(i)*g.step).UTC(), Count: c.n, Min: c.min, Max: c.max, Mean: c.mean(), First: c.first, Last: c.last}
		switch f {
		case Min:
			p.Value = c.min
		case Max:
			p.Value = c.max
		case Sum:
			p.Value = c.total()
		case Count:
			p.Value = float64(c.n)
		case First:
			p.Value = c.first
		case Last:
			p.Value = c.last
		case Rate:
			p.Value = g.rate(before, c)
		default:
			p.Value = p.Mean
		}
		points, before = append(points, p), c
	}
	return points
}

// rate is how much a counter grew in a bucket, per second: since the last reading before
// it, or where that is longer ago than a step since its own first one.
func (g grid) rate(before, c *cell) float64 {
	from, at := c.first, c.firstAt
	if before != nil && c.lastAt-before.lastAt <= 2*g.step {
		from, at = before.last, before.lastAt
	}
	if c.lastAt == at {
		return 0
	}
	grown := c.last - from
	if grown < 0 {
		grown = c.last // begun anew from zero
	}
	return saturate(grown / (float64(c.lastAt-at) / 1000))
}
