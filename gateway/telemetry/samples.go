package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"halo.internal/gateway/telemetry/block"
	"halo.internal/model/apitype"
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
// or "". What was thinned is not among them: Range has that.
func (s *Store) Samples(ctx context.Context, q SampleQuery) (apitype.SampleList, error) {
	list := apitype.SampleList{Node: q.Node, Items: []apitype.Sample{}}
	from, to := q.From.UnixMilli(), q.To.UnixMilli()+1
	if q.Cursor != "" {
		at, err := strconv.ParseInt(q.Cursor, 10, 64)
		if err != nil {
			return list, apitype.Refuse(http.StatusBadRequest, "", "cursor: expected the value of \"next\" of an earlier page")
		}
		from = max(from, at+1)
	}
	c := scan{store: s, node: q.Node, wanted: matcher(q.Metrics), from: max(from, 0), to: min(to, latest)}
	c.rows = func(b *block.Block) error {
		next := make([]int, len(b.Columns))
		slices.SortFunc(b.Columns, func(x, y block.Column) int { return x.Series - y.Series })
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
	err := c.run(ctx)
	if err != nil && !errors.Is(err, errEnough) {
		return list, fmt.Errorf("samples of %s: %w", q.Node, err)
	}
	return list, nil
}

const maxMarks = 1000 // of one answer

// Marks returns what is to be said of a node's readings in [from, to), in the order of time:
// starts, corrections of its clock, and what never came.
func (s *Store) Marks(ctx context.Context, node string, from, to time.Time) ([]Mark, error) {
	low, high := from.UnixMilli(), to.UnixMilli()
	s.mu.RLock()
	var fresh []mark
	have := seen{}
	if src := s.sources[node]; src != nil {
		fresh, _ = marksOf(src.head, src.seen, src.tail)
		for boot, spans := range src.seen {
			have[boot] = slices.Clone(spans)
		}
	}
	s.mu.RUnlock()
	list := []Mark{}
	add := func(m mark) {
		spans, known := have[m.boot]
		if m, ok := m.still(spans, known); ok && len(list) < maxMarks && m.at >= low && m.at < high {
			list = append(list, m.public())
		}
	}
	for _, w := range s.weeks.list() {
		if w.begin() >= high || w.end() <= low {
			continue
		}
		if err := s.readWeek(ctx, w, func(f *weekFile) error { return f.marks(ctx, node, low, high, add) }); err != nil {
			return nil, err
		}
	}
	for _, m := range fresh {
		add(m)
	}
	slices.SortStableFunc(list, func(a, b Mark) int { return a.At.Compare(b.At) })
	return slices.Compact(list), nil
}
