package telemetry

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/gateway/changes"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
	"halo.internal/model/wire"
)

const maxMetrics = 2048 // of one node

// Latest holds the newest value of each metric of each node, in RAM. Newer is
// what has the higher boot and sequence number: clocks step, those do not.
type Latest struct {
	mu     sync.RWMutex // guards what follows
	nodes  map[string]*ofNode
	newest uint64 // batch whose values were taken, counted from 2
	bell   changes.Bell
}

// ofNode are a node's latest values, by metric.
type ofNode struct {
	values map[string]value
	newest uint64 // of values
}

// value is a reading and with which batch of Latest.newest it came.
type value struct {
	apitype.Reading
	came uint64
}

func newLatest() *Latest { return &Latest{nodes: map[string]*ofNode{}, newest: 1} }

// apply takes the values of a committed batch.
func (l *Latest) apply(node string, s wire.Schema, b wire.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.of(node)
	have := of.values
	for k, m := range s.Metrics {
		old, known := have[m.Name]
		if known && cmp.Or(cmp.Compare(old.Boot, b.Boot), cmp.Compare(old.Seq, b.Seq)) > 0 || !known && len(have) >= maxMetrics {
			continue
		}
		for i := len(b.Reports) - 1; i >= 0; i-- {
			r := &b.Reports[i]
			if v, ok := finite(m, r.Values[k]); ok {
				have[m.Name] = value{apitype.Reading{Node: node, Metric: m.Name, Unit: m.Unit, Value: v, Time: r.At(), Clock: b.Clock, Boot: b.Boot, Seq: b.Seq, Urgent: b.Urgent}, l.newest + 1}
				of.newest = l.newest + 1
				break
			}
		}
	}
	if of.newest > l.newest {
		l.newest++
		l.bell.Ring()
	}
}

func (l *Latest) of(node string) *ofNode {
	of := l.nodes[node]
	if of == nil {
		of = &ofNode{values: map[string]value{}}
		l.nodes[node] = of
	}
	return of
}

// News returns the number of the newest batch whose values were taken, and a channel that
// the next one closes. Numbers begin anew with each start.
func (l *Latest) News() (newest uint64, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newest, l.bell.Next()
}

// ChangedSince returns the nodes with values that came after that batch, by ID. 0: all
// nodes.
func (l *Latest) ChangedSince(after uint64) (nodes []string) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for id, of := range l.nodes {
		if of.newest > after || after == 0 {
			nodes = append(nodes, id)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// Since returns a node's latest values that came after that batch, by name. 0: all.
func (l *Latest) Since(node string, after uint64) []apitype.Reading {
	return l.choose(node, func(v value) bool { return v.came > after || after == 0 })
}

// finite returns a value that JSON can carry.
func finite(m wire.Metric, v wire.Value) (float64, bool) {
	f := m.Number(v)
	return f, !math.IsNaN(f) && !math.IsInf(f, 0)
}

// At returns when a node made its newest reading, by a clock that it could
// trust; zero: there is none.
func (l *Latest) At(node string) (at time.Time) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	of := l.nodes[node]
	if of == nil {
		return at
	}
	for _, r := range of.values {
		if r.Clock != model.ClockNone && r.Time.After(at) {
			at = r.Time
		}
	}
	return at
}

// Told returns when a node made the last of its readings, in the order in which it told
// them; zero: there is none. A clock that was wrong once does not count for ever.
func (l *Latest) Told(node string) (at time.Time) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	of := l.nodes[node]
	if of == nil {
		return at
	}
	var boot, seq uint64
	for _, r := range of.values {
		switch c := cmp.Or(cmp.Compare(r.Boot, boot), cmp.Compare(r.Seq, seq)); {
		case c > 0:
			boot, seq, at = r.Boot, r.Seq, r.Time
		case c == 0 && r.Time.After(at):
			at = r.Time
		}
	}
	return at
}

// Node returns a node's latest values whose metric has that prefix, by name.
func (l *Latest) Node(node, prefix string) []apitype.Reading {
	return l.choose(node, func(v value) bool { return strings.HasPrefix(v.Metric, prefix) })
}

func (l *Latest) choose(node string, wanted func(value) bool) []apitype.Reading {
	l.mu.RLock()
	defer l.mu.RUnlock()
	list := []apitype.Reading{}
	if of := l.nodes[node]; of != nil {
		for _, v := range of.values {
			if wanted(v) {
				list = append(list, v.Reading)
			}
		}
	}
	order.By(list, func(a, b apitype.Reading) int { return cmp.Compare(a.Metric, b.Metric) })
	return list
}

// keptReading is how a reading lies in the journal's sources.
type keptReading struct {
	_      struct{} `cbor:",toarray"`
	Metric string
	Unit   string
	Value  float64
	Time   int64
	Clock  string
	Boot   uint64
	Seq    uint64
	Urgent bool
}

// marshal returns a node's values for its row.
func (l *Latest) marshal(node string) ([]byte, error) {
	var kept []keptReading
	for _, r := range l.Node(node, "") {
		kept = append(kept, keptReading{Metric: r.Metric, Unit: r.Unit, Value: r.Value, Time: r.Time.UnixMilli(), Clock: string(r.Clock), Boot: r.Boot, Seq: r.Seq, Urgent: r.Urgent})
	}
	b, err := cbor.Marshal(kept)
	return seal(b), err
}

// restore reads what marshal made.
func (l *Latest) restore(node string, b []byte) error {
	var kept []keptReading
	b, err := unseal(b)
	if err == nil {
		err = cbor.Unmarshal(b, &kept)
	}
	if err != nil {
		return fmt.Errorf("latest values of %s: %w", node, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.of(node).values
	for _, r := range kept[:min(len(kept), maxMetrics)] {
		have[r.Metric] = value{Reading: apitype.Reading{Node: node, Metric: r.Metric, Unit: r.Unit, Value: r.Value, Time: time.UnixMilli(r.Time).UTC(), Clock: model.ClockQuality(r.Clock), Boot: r.Boot, Seq: r.Seq, Urgent: r.Urgent}}
	}
	return nil
}
