package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

const (
	maxMetrics   = 2048 // of one node
	rebuildDepth = 8    // batches of each node read at start: more than one schema may be in use
)

// Latest holds the newest value of each metric of each node, in RAM. Newer is
// what has the higher boot and sequence number: clocks step, those do not.
type Latest struct {
	mu    sync.RWMutex // guards nodes
	nodes map[string]map[string]apitype.Reading
}

// NewLatest returns an empty one.
func NewLatest() *Latest { return &Latest{nodes: map[string]map[string]apitype.Reading{}} }

// Rebuild fills it from the newest batches of the journal.
func (l *Latest) Rebuild(ctx context.Context, j *Journal, nodes []string) error {
	var errs []error
	for _, n := range nodes {
		if err := j.newest(ctx, n, rebuildDepth, func(b wire.Batch, s wire.Schema) { l.Apply(n, s, b) }); err != nil {
			errs = append(errs, fmt.Errorf("latest values of %s: %w", n, err))
		}
	}
	return errors.Join(errs...)
}

// Apply takes the values of a committed batch.
func (l *Latest) Apply(node string, s wire.Schema, b wire.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.nodes[node]
	if have == nil {
		have = map[string]apitype.Reading{}
		l.nodes[node] = have
	}
	for _, r := range b.Reports {
		for k, m := range s.Metrics {
			v, ok := finite(m, r.Values[k])
			if !ok {
				continue
			}
			old, known := have[m.Name]
			if known && cmp.Or(cmp.Compare(old.Boot, b.Boot), cmp.Compare(old.Seq, b.Seq)) > 0 || !known && len(have) >= maxMetrics {
				continue
			}
			have[m.Name] = apitype.Reading{Node: node, Metric: m.Name, Unit: m.Unit, Value: v, Time: r.At(), Clock: b.Clock, Boot: b.Boot, Seq: b.Seq, Urgent: b.Urgent}
		}
	}
}

// At returns when a node made its newest reading, by a clock that it could
// trust; zero: there is none.
func (l *Latest) At(node string) (at time.Time) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, r := range l.nodes[node] {
		if r.Clock != model.ClockNone && r.Time.After(at) {
			at = r.Time
		}
	}
	return at
}

// Node returns a node's latest values whose metric has that prefix, by name.
func (l *Latest) Node(node, prefix string) []apitype.Reading {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := []apitype.Reading{}
	for name, r := range l.nodes[node] {
		if strings.HasPrefix(name, prefix) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b apitype.Reading) int { return cmp.Compare(a.Metric, b.Metric) })
	return list
}
