// Package spool keeps what the gateway has not acknowledged, so that neither a
// crash of the process nor, past a delay, a power cut loses it, and so that a
// card is not worn by what the gateway has anyway.
//
// It has two tiers. A batch gets its number and goes to the live tier: RAM,
// and a file in /run, which outlives the process but not the machine. Most
// batches are acknowledged there and never touch the card. What stays
// unacknowledged, and at shutdown everything, is appended to segments on /perm
// and synced in one go.
//
// Numbers start at 1 with each boot and have no holes. The counter lies in
// /run beside the live tier and is noted before a batch can leave: a process
// that starts again within the boot goes on where the last one stopped, with
// its unacknowledged batches, so that no number is used twice and none is
// skipped. After a power cut the boot counter is higher and numbers start anew;
// what had only been in RAM is gone, and shows to the gateway as nothing at
// all, since those numbers were the last of their boot.
//
// A card that keeps nothing, or an old copy of one, counts a start twice, and the gateway
// would take what is new for what it has. So, before anything is sent in a start, the
// gateway says which starts it has something of; where this one's number is not above,
// all that waits of it, and all that comes, is named by the next (Settle).
package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// Kind tells what an item is.
type Kind byte

// Kinds, as segments record them.
const (
	Schema Kind = 1 // in segments only
	Batch  Kind = 2
	Event  Kind = 3
)

// Item is one batch or event that waits for its acknowledgement.
type Item struct {
	Kind   Kind
	ID     wire.BatchID
	Data   []byte        // a batch as encoded, an event as a stream message
	Schema wire.SchemaID // of a batch
	Urgent bool
}

type key struct {
	kind Kind
	id   wire.BatchID
}

func (i Item) key() key { return key{i.Kind, i.ID} }

// Options of a spool.
type Options struct {
	Live   string // directory in /run
	Disk   string // directory on /perm
	Boot   uint64 // boot counter
	Owner  Owner
	Budget int64 // octets of all segments together
	Delay  time.Duration
	Clock  func() (time.Time, model.ClockQuality)
	Log    *slog.Logger
}

// Limits.
const (
	MinBudget  = 4 * segmentSize
	liveBudget = 8 << 20 // octets of RAM and /run for the live tier
	// margin is how long before the delay ends a write begins, so that it is done by then.
	margin = 24 // the delay's part
)

// Spool is the whole of it. Its methods may be called from any goroutine.
type Spool struct {
	opt     Options
	changed chan struct{}

	mu      sync.Mutex // guards what follows
	live    *live
	disk    *disk               // nil while /perm can't be used
	loaded  [Event + 1]*backlog // by kind
	notices map[string]*notice
	acked   uint64 // batches, since Open
}

// backlog is what is left of a kind in the oldest segment that has any, read to be sent.
type backlog struct {
	segment uint64
	items   []Item
	schemas map[wire.SchemaID]wire.Schema
}

// Open recovers what an earlier process left. A data partition that can't be
// used is no error: Flush tells, and tries again.
func Open(opt Options) (*Spool, error) {
	if opt.Budget < MinBudget {
		return nil, fmt.Errorf("spool: expected a budget of at least %d octets, got %d", MinBudget, opt.Budget)
	}
	l, err := openLive(opt.Live, opt.Boot, opt.Log)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{opt: opt, live: l, changed: make(chan struct{}, 1), notices: make(map[string]*notice)}
	if err := s.openDisk(); err != nil {
		opt.Log.Warn("spool: data partition is not usable", "err", err)
	}
	return s, nil
}

func (s *Spool) openDisk() error {
	if s.disk != nil {
		return nil
	}
	aside, err := settle(s.opt.Disk, s.opt.Owner)
	if err != nil {
		return err
	}
	d, err := openDisk(s.opt.Disk, s.opt.Budget)
	if err == nil {
		s.disk = d
		s.renameDisk() // what an earlier process of this start has left
	}
	if aside != "" {
		s.opt.Log.Warn("spool: what another network left is set aside", "dir", aside)
		s.notify("telemetry.spool.aside", model.Warning, "the card held readings of another network or identity: they are set aside and not sent to this one", 1)
	}
	return err
}

// Boot returns the number of this start, by which what is sent is named.
func (s *Spool) Boot() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live.counters.Boot
}

// Settle takes from the gateway, before anything is sent to it, the highest number of a
// start of which it has something. Where the number of this start is no higher, all has
// another name from then on: the stream is to begin anew. Once it is settled it stays.
func (s *Spool) Settle(used uint64) (renamed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.live.counters
	if next.Settled {
		return false, nil
	}
	// Beyond that there is none: the node's key is in somebody else's hands.
	if renamed = used >= next.Boot && used < wire.MaxCounter; renamed {
		next.Boot = used + 1
	}
	if err := s.live.note(next); err != nil {
		return renamed, err
	}
	if err := s.live.rename(); err != nil { // it is tried again with the next stream
		return renamed, err
	}
	s.renameDisk()
	if !renamed {
		next.Settled = true
		return false, s.live.note(next)
	}
	s.notify("telemetry.start.repeated", model.Warning, "the gateway has readings of a later start of this node than its card counts: the card keeps nothing, or is a copy from before. Readings have the next number; replace the card", 1)
	return true, nil
}

// renameDisk names what is on disk as the live tier is. What cannot be named waits there
// under its old name, on a card that takes nothing.
func (s *Spool) renameDisk() {
	c := s.live.counters
	if s.disk == nil || c.Start == c.Boot {
		return
	}
	s.loaded = [Event + 1]*backlog{} // read again
	if err := s.disk.rename(c.Start, c.Boot); err != nil {
		s.opt.Log.Warn("spool: not all on disk has the name of this start", "boot", c.Boot, "err", err)
	}
}

// Changed carries a token after something to send was added.
func (s *Spool) Changed() <-chan struct{} { return s.changed }

func (s *Spool) wake() {
	select {
	case s.changed <- struct{}{}:
	default: // a token waits already
	}
}

// AddBatch gives the batch its number and keeps it. first is when its oldest
// reading was made, by the monotonic clock. A batch too large for one message
// becomes several.
func (s *Spool) AddBatch(schema wire.Schema, b wire.Batch, first time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	return s.addBatch(schema, b, first)
}

func (s *Spool) addBatch(schema wire.Schema, b wire.Batch, first time.Time) error {
	b.BatchID = s.live.nextBatch()
	data, err := b.Encode(schema)
	if errors.Is(err, wire.ErrTooLarge) && len(b.Reports) > 1 {
		half, rest := b, b
		half.Reports, rest.Reports = b.Reports[:len(b.Reports)/2], b.Reports[len(b.Reports)/2:]
		if err := s.addBatch(schema, half, first); err != nil {
			return err
		}
		return s.addBatch(schema, rest, first)
	}
	if err != nil {
		return err
	}
	item := Item{Kind: Batch, ID: b.BatchID, Data: data, Schema: schema.ID(), Urgent: b.Urgent}
	if err := s.live.add(item, schema, s.due(first)); err != nil {
		return fmt.Errorf("keep batch %v: %w", b.BatchID, err)
	}
	s.boundLive()
	return nil
}

func (s *Spool) due(first time.Time) time.Time {
	return first.Add(s.opt.Delay - s.opt.Delay/margin)
}

// Items returns the live items, oldest first.
func (s *Spool) Items() []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.liveItems()
}

func (s *Spool) liveItems() []Item {
	out := make([]Item, len(s.live.entries))
	for i, e := range s.live.entries {
		out[i] = e.Item
	}
	return out
}

// SchemaOf returns the schema of a live or backlog item.
func (s *Spool) SchemaOf(i Item) (wire.Schema, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sc, ok := s.live.schemas[i.Schema]; ok {
		return sc, true
	}
	if s.loaded[Batch] == nil {
		return wire.Schema{}, false
	}
	sc, ok := s.loaded[Batch].schemas[i.Schema]
	return sc, ok
}

// Ack forgets items that the gateway has committed, wherever they are.
func (s *Spool) Ack(kind Kind, ids []wire.BatchID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == Batch {
		s.acked += uint64(len(ids))
	}
	acked := make(map[key]bool, len(ids))
	for _, id := range ids {
		acked[key{kind, id}] = true
	}
	s.live.remove(acked)
	l := s.loaded[kind]
	if l == nil {
		return
	}
	kept := l.items[:0]
	for _, i := range l.items {
		if !acked[i.key()] {
			kept = append(kept, i)
		}
	}
	if l.items = kept; len(kept) == 0 {
		s.finish(l.segment, kind)
		if err := s.disk.trim(l.segment); err != nil {
			s.opt.Log.Warn("spool: segment stays as it is", "segment", l.segment, "err", err)
		}
		s.loaded[kind] = nil
		s.wake() // the next segment can be sent
	}
}

// Stats tells how much is kept.
type Stats struct {
	Live      int   // items in RAM
	Segments  int   // on disk
	DiskBytes int64 // of all segments
	DiskReady bool
	Batches   uint64 // of this boot; the newest has this number
	Acked     uint64 // batches, since Open
}

// Stats returns the present figures.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Live: len(s.live.entries), Batches: s.live.counters.Batches, Acked: s.acked}
	if s.disk != nil {
		st.DiskReady, st.Segments, st.DiskBytes = true, len(s.disk.segments), s.disk.total
	}
	return st
}
