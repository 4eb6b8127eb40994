package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"halo.internal/gateway/telemetry/block"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
	"halo.internal/model/wire"
)

// SampleQuery selects readings of one node as they were made.
type SampleQuery struct {
	Node     string
	From, To time.Time // both included
	Metrics  []string  // names, or their beginnings followed by *; none: all
	Cursor   string
	Limit    int // samples; a page ends with the instant that reaches it
}

// errEnough ends a scan whose page is full.
var errEnough = errors.New("enough")

// Samples reads a page of readings in the order of time, and the cursor of the next page,
// or "". A page also ends, maybe without any, when half of the time is over that ctx leaves.
// What was thinned is not among them: Range has that.
func (s *Store) Samples(ctx context.Context, q SampleQuery) (apitype.SampleList, error) {
	list := apitype.SampleList{Node: q.Node, Items: []apitype.Sample{}}
	for i, id := range s.identities(q.Node) {
		q.Node = id
		more, err := s.samplesOf(ctx, q)
		if err != nil {
			return list, err
		}
		if i == 0 {
			list = more
			continue
		}
		p := together(page[apitype.Sample]{list.Items, list.Next}, page[apitype.Sample]{more.Items, more.Next}, func(r apitype.Sample) int64 { return r.Time.UnixMilli() }, q.Limit)
		list.Items, list.Next = p.items, p.next
	}
	return list, nil
}

// samplesOf is Samples of what is stored under one ID.
func (s *Store) samplesOf(ctx context.Context, q SampleQuery) (apitype.SampleList, error) {
	list := apitype.SampleList{Node: q.Node, Items: []apitype.Sample{}}
	from, to, err := since(q.Cursor, q.From.UnixMilli(), q.To.UnixMilli()+1)
	if err != nil {
		return list, err
	}
	c := scan{store: s, node: q.Node, wanted: matcher(q.Metrics), from: from, to: to}
	c.rows = func(b *block.Block) error {
		next := make([]int, len(b.Columns))
		order.By(b.Columns, func(x, y block.Column) int { return x.Series - y.Series })
		for row, at := range b.Times {
			if at >= c.to {
				return errEnough
			}
			for i := range b.Columns {
				col := &b.Columns[i]
				if col.Have != nil && !col.Have[row] {
					continue
				}
				m := c.metrics[col.Series]
				v, ok := finite(m, wire.Int(col.Values[next[i]]))
				if next[i]++; ok && at >= c.from {
					list.Items = append(list.Items, apitype.Sample{Time: time.UnixMilli(at).UTC(), Metric: m.Name, Unit: m.Unit, Value: v})
				}
			}
			if len(list.Items) >= q.Limit {
				list.Next = strconv.FormatInt(at, 10)
				return errEnough
			}
		}
		return nil
	}
	late := halfway(ctx)
	c.before = func(day int64) error {
		if late() {
			list.Next = strconv.FormatInt(day-1, 10)
			return errEnough
		}
		return nil
	}
	err = c.run(ctx)
	if err != nil && !errors.Is(err, errEnough) {
		return list, fmt.Errorf("samples of %s: %w", q.Node, err)
	}
	return list, nil
}

// since returns which part of [from, to) follows a page with that cursor.
func since(cursor string, from, to int64) (int64, int64, error) {
	if cursor != "" {
		at, err := strconv.ParseInt(cursor, 10, 64)
		if err != nil {
			return 0, 0, apitype.Refuse(http.StatusBadRequest, "", "cursor: expected the value of \"next\" of an earlier page")
		}
		from = max(from, at+1)
	}
	return max(from, 0), min(to, latest), nil
}

// Metrics returns the metrics of which there may be readings in [from, to], by name: names,
// or their beginnings followed by *; none: all.
func (s *Store) Metrics(ctx context.Context, from, to time.Time, wanted []string) ([]apitype.Metric, error) {
	is, found := matcher(wanted), map[apitype.Metric]bool{}
	note := func(m wire.Metric) {
		if is(m.Name) {
			found[apitype.Metric{Metric: m.Name, Unit: m.Unit}] = true
		}
	}
	s.mu.RLock()
	for _, sch := range s.schemas {
		if sch.held > 0 {
			for _, m := range sch.Metrics {
				note(m)
			}
		}
	}
	s.mu.RUnlock()
	for _, w := range s.weeks.list() {
		if w.begin() > to.UnixMilli() || w.end() <= from.UnixMilli() {
			continue
		}
		if err := s.readWeek(ctx, w, func(f *weekFile) error {
			if f != nil {
				for _, m := range f.series {
					note(m)
				}
			}
			return nil
		}); err != nil {
			return nil, fmt.Errorf("metrics of %v: %w", w, err)
		}
	}
	all := slices.Collect(maps.Keys(found))
	order.By(all, func(a, b apitype.Metric) int {
		return cmp.Or(cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Unit, b.Unit))
	})
	return all, nil
}
