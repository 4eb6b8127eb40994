package live

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"

	"halo.internal/gateway/changes"
	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
)

// eventPage is how many events are read at once.
const eventPage = 200

// eventSource tells of events. They are kept, and their IDs with them: who was away while
// the gateway was off goes on where he was.
type eventSource struct {
	log *events.Log
	// lineage returns the canonical IDs of the nodes whose place a node has taken.
	lineage func(ctx context.Context, id string) ([]string, error)
}

// News implements Source.
func (s eventSource) News(ctx context.Context) (uint64, <-chan struct{}, error) {
	n, next, err := s.log.News(ctx)
	return uint64(n), next, err
}

// Since implements Source.
func (s eventSource) Since(ctx context.Context, f Filter, after uint64) (uint64, bool, iter.Seq2[Change, error], error) {
	newest, _, err := s.log.News(ctx)
	if err != nil {
		return 0, false, nil, err
	}
	to := uint64(newest)
	if whole, err := s.whole(ctx, after, to); err != nil || !whole {
		return to, false, nil, err
	}
	q := events.Query{Kind: f.Kind, Severity: model.Severity(f.Severity), Limit: eventPage}
	if len(f.Nodes) > 0 {
		q.Node = f.Nodes[0]
		if q.Before, err = s.lineage(ctx, q.Node); err != nil {
			return 0, false, nil, err
		}
	}
	return to, true, func(yield func(Change, error) bool) {
		since := int64(after)
		q.Since = &since
		for {
			list, next, err := s.log.List(ctx, q)
			for _, e := range list {
				if uint64(e.ID) > to {
					next = "" // it is told in its turn
					break
				}
				if !yield(Change{Item: e}, nil) {
					return
				}
			}
			if err == nil && next == "" {
				var whole bool
				if whole, err = s.whole(ctx, after, to); whole {
					return
				}
				err = cmp.Or(err, errDropped) // asked again, there is a gap
			}
			if err != nil {
				yield(Change{}, err)
				return
			}
			if since, err = strconv.ParseInt(next, 10, 64); err != nil {
				yield(Change{}, err)
				return
			}
		}
	}, nil
}

// errDropped is for events that were dropped while they were told.
var errDropped = errors.New("some events are not kept any more")

// whole tells whether the events between are kept: each owner's and each severity's go by
// themselves, and an old one that stays says nothing of later ones. What is before all is
// all that is kept.
func (s eventSource) whole(ctx context.Context, after, to uint64) (bool, error) {
	if after == 0 || after > to {
		return after == 0, nil
	}
	return s.log.Whole(ctx, int64(after), int64(to))
}

// Readings are latest values and in which order they came.
type Readings interface {
	News() (newest uint64, next <-chan struct{})
	ChangedSince(after uint64) (nodes []string)
	Since(node string, after uint64) []apitype.Reading
}

// readingSource tells of latest values. It knows of each when it came, so that there are
// no gaps.
type readingSource struct{ latest Readings }

// News implements Source.
func (s readingSource) News(context.Context) (uint64, <-chan struct{}, error) {
	n, next := s.latest.News()
	return n, next, nil
}

// Since implements Source.
func (s readingSource) Since(_ context.Context, f Filter, after uint64) (uint64, bool, iter.Seq2[Change, error], error) {
	to, _ := s.latest.News()
	nodes := s.latest.ChangedSince(after)
	return to, true, func(yield func(Change, error) bool) {
		for _, n := range nodes {
			if len(f.Nodes) > 0 && !slices.Contains(f.Nodes, n) {
				continue
			}
			for _, r := range together(s.latest.Since(n, after), f.Metrics) {
				if !yield(Change{Item: r}, nil) {
					return
				}
			}
		}
	}, nil
}

// together groups a node's readings by when they were made, the oldest first.
func together(list []apitype.Reading, prefixes []string) (groups []apitype.LiveReadings) {
	order.By(list, func(a, b apitype.Reading) int {
		return cmp.Or(cmp.Compare(a.Boot, b.Boot), cmp.Compare(a.Seq, b.Seq), a.Time.Compare(b.Time))
	})
	for _, r := range list {
		if len(prefixes) > 0 && !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(r.Metric, p) }) {
			continue
		}
		if n := len(groups); n == 0 || groups[n-1].Boot != r.Boot || groups[n-1].Seq != r.Seq || !groups[n-1].Time.Equal(r.Time) {
			groups = append(groups, apitype.LiveReadings{Node: r.Node, Time: r.Time, Clock: r.Clock, Boot: r.Boot, Seq: r.Seq, Urgent: r.Urgent})
		}
		g := &groups[len(groups)-1]
		g.Values = append(g.Values, apitype.LiveValue{Metric: r.Metric, Unit: r.Unit, Value: r.Value})
	}
	return groups
}

// keyed tells of things that have an ID, and in which order they changed.
type keyed[T any] struct {
	log *changes.Log[string]
	// one returns a thing; false: there is none.
	one func(ctx context.Context, id string) (T, bool, error)
	// page returns a page of all, and the cursor of the next.
	page func(ctx context.Context, cursor string) (list []T, next string, err error)
	id   func(T) string
}

// News implements Source.
func (s keyed[T]) News(context.Context) (uint64, <-chan struct{}, error) {
	n, next := s.log.News()
	return n, next, nil
}

// Since implements Source.
func (s keyed[T]) Since(ctx context.Context, f Filter, after uint64) (uint64, bool, iter.Seq2[Change, error], error) {
	wanted := func(id string) bool { return len(f.Nodes) == 0 || slices.Contains(f.Nodes, id) }
	if after == 0 {
		to, _ := s.log.News() // before the look: what changes meanwhile is told again
		return to, true, func(yield func(Change, error) bool) {
			for cursor := ""; ; {
				list, next, err := s.page(ctx, cursor)
				if err != nil {
					yield(Change{}, err)
					return
				}
				for _, v := range list {
					if wanted(s.id(v)) && !yield(Change{Item: v}, nil) {
						return
					}
				}
				if cursor = next; next == "" {
					return
				}
			}
		}, nil
	}
	ids, to, whole := s.log.Since(after)
	return to, whole, func(yield func(Change, error) bool) {
		for _, id := range ids {
			if !wanted(id) {
				continue
			}
			v, there, err := s.one(ctx, id)
			switch {
			case err != nil:
				yield(Change{}, err)
				return
			case there && !yield(Change{Item: v}, nil), !there && !yield(Change{Gone: id}, nil):
				return
			}
		}
	}, nil
}
