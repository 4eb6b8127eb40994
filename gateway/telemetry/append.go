package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model/wire"
)

// MaxSpan is how far apart the stamps of one batch may be: it would become blocks of as
// many hours otherwise.
const MaxSpan = 7 * 24 * time.Hour

// ErrSpan is wrapped where a batch's stamps are further apart.
var ErrSpan = errors.New("stamps are too far apart")

// Entry is one batch to be stored.
type Entry struct {
	Node   string
	Schema wire.Schema // of the batch
	Batch  wire.Batch  // decoded, which proved it whole
	Data   []byte      // as it came; kept
	Late   bool        // part of a backlog, which leaves some of the head to what is not
}

// stamps returns the earliest and latest stamp.
func (e *Entry) stamps() (first, last int64) {
	first, last = e.Batch.Reports[0].Time, e.Batch.Reports[0].Time
	for _, r := range e.Batch.Reports {
		first, last = min(first, r.Time), max(last, r.Time)
	}
	return first, last
}

// Check tells whether the batch can be stored at all.
func (e *Entry) Check() error {
	first, last := e.stamps()
	if uint64(last)-uint64(first) > uint64(MaxSpan.Milliseconds()) {
		return fmt.Errorf("batch %v: %w: expected at most %s between them, got %d ms", e.Batch.BatchID, ErrSpan, MaxSpan, uint64(last)-uint64(first))
	}
	return nil
}

// Outcome says what Append did with an entry.
type Outcome int

// Outcomes.
const (
	Stored    Outcome = iota
	Duplicate         // it, or what it is a thinned form of, was there already
	Conflict          // another batch of that name is there, and stays
	NoSchema          // its schema is not stored any more: it has to come again
	Unfit             // Check refuses it
	Busy              // there is no room for it in the head at present: it has to come again
)

// Append commits the entries together. When it returns an error none is stored. Where the
// medium is full, what is oldest makes room.
func (s *Store) Append(ctx context.Context, entries []Entry) ([]Outcome, error) {
	out, err := s.tryAppend(ctx, entries)
	if errors.Is(err, store.ErrFull) && s.makeRoom(ctx) == nil {
		out, err = s.tryAppend(ctx, entries)
	}
	return out, err
}

func (s *Store) tryAppend(ctx context.Context, entries []Entry) ([]Outcome, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	g, out := s.judge(entries)
	if len(g.batches) == 0 {
		return out, nil
	}
	if err := s.db.Write(ctx, func(tx *sql.Tx) error {
		for _, src := range g.sources {
			if _, err := tx.ExecContext(ctx, `INSERT INTO sources (id, node, sum) VALUES (?, ?, ?)`, src.id, src.node, nodeSum(src.id, src.node)); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO groups (id, at_ms, body) VALUES (?, ?, ?)`, g.id, store.Millis(g.at), g.body)
		return err
	}); err != nil {
		return nil, err
	}
	s.take(g, entries)
	return out, nil
}

// group is what Append is about to commit.
type group struct {
	id      int64
	at      time.Time
	body    []byte
	sources []*source // that are new
	batches []groupBatch
}

type groupBatch struct {
	src   *source
	held  *held
	entry int
}

// judge says what becomes of each entry and puts those that are to be stored into a
// group. Nobody else changes what it looks at while s.writing is held.
func (s *Store) judge(entries []Entry) (g group, out []Outcome) {
	type key struct {
		node string
		batchName
	}
	out = make([]Outcome, len(entries))
	g = group{id: s.lastGroup + 1, at: s.now(), body: []byte{groupVersion}}
	fresh, pending, starts := map[string]*source{}, map[key]*held{}, make([]int, 0, len(entries))
	shares, all := map[string]*share{}, int64(0) // the latter the weight of what is about to be stored
	for i := range entries {
		e := &entries[i]
		name := batchName{e.Batch.Boot, e.Batch.Seq}
		src := s.sources[e.Node]
		if src == nil {
			src = fresh[e.Node]
		}
		there := pending[key{e.Node, name}]
		if there == nil && src != nil {
			there = src.held[name]
		}
		sch, own := s.schemas[e.Batch.Schema], shares[e.Node]
		if own == nil {
			own = newShare(src)
			shares[e.Node] = own
		}
		first, last := e.stamps()
		switch {
		case there != nil:
			out[i] = there.judge(e)
		case src != nil && src.seen.has(name.boot, name.seq):
			out[i] = Duplicate
		case sch == nil:
			out[i] = NoSchema
		case e.Check() != nil:
			out[i] = Unfit
		case !s.takes(src, e.Late, own.octets, all) || !own.fits(first, last) || s.Overdrawn(e.Node, first, last):
			out[i] = Busy
		default:
			if src == nil {
				src = newSource(s.lastSource+int64(len(fresh))+1, e.Node)
				fresh[e.Node], g.sources = src, append(g.sources, src)
			}
			h := &held{Header: e.Batch.Header, schema: sch, group: g.id, first: first, last: last, weight: Weight(len(e.Data), len(e.Batch.Reports), len(sch.Metrics)), data: e.Data}
			own.add(h)
			all += h.weight
			var at int
			g.body, at = appendItem(g.body, item{src.id, h.first, h.last, e.Data})
			g.batches, starts = append(g.batches, groupBatch{src, h, i}), append(starts, at)
			pending[key{e.Node, name}] = h
		}
	}
	for i, b := range g.batches { // they share the group's octets
		b.held.data = g.body[starts[i] : starts[i]+len(b.held.data) : starts[i]+len(b.held.data)]
	}
	return g, out
}

// take takes a group into RAM that is committed.
func (s *Store) take(g group, entries []Entry) {
	s.mu.Lock()
	for _, src := range g.sources {
		s.sources[src.node], s.byID[src.id] = src, src
		s.lastSource = src.id
	}
	for _, b := range g.batches {
		s.add(b.src, b.held)
	}
	s.lastGroup = g.id
	s.recent.add(g)
	full := s.headBytes >= headLimit
	for _, b := range g.batches {
		full = full || b.src.bytes >= nodeHead
	}
	s.mu.Unlock()
	for _, b := range g.batches {
		s.latest.apply(b.src.node, entries[b.entry].Schema, entries[b.entry].Batch)
	}
	if full {
		s.wake()
	}
}
