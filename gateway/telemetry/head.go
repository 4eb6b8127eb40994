package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"halo.internal/gateway/store"
	"halo.internal/model/wire"
)

// The head is what the journal holds, in RAM: batches as they came, whose columns are
// unpacked when somebody asks. It begins where the last compaction ended.

// held is a batch of the head. It does not change.
type held struct {
	wire.Header
	schema      *schema
	group       int64
	first, last int64 // stamps, Unix milliseconds
	weight      int64 // see Weight
	data        []byte
}

// Weight is what a batch counts for where that is bounded which a node sends: its octets, or
// two for each value that it unfolds to where that is more. Columns of constants are next to
// nothing as they come, and take as long as any to be moved into the week files.
func Weight(octets, reports, metrics int) int64 { return int64(max(octets, 2*reports*metrics)) }

func (h *held) name() batchName { return batchName{h.Boot, h.Seq} }

// decode unpacks the columns.
func (h *held) decode() (wire.Batch, error) {
	p, err := wire.Open(h.data)
	if err == nil && p.Schema != h.schema.id {
		err = fmt.Errorf("batch %v: expected schema %v, got %v", p.BatchID, h.schema.id, p.Schema)
	}
	if err != nil {
		return wire.Batch{}, fmt.Errorf("journal: %w", err)
	}
	b, err := p.UnpackColumns(len(h.schema.Metrics))
	if err != nil {
		return b, fmt.Errorf("journal: %w", err)
	}
	return b, nil
}

// unpack is decode of a batch that may have changed since it came: in RAM, then the journal
// still has it as it was.
func (s *Store) unpack(ctx context.Context, source int64, h *held) (wire.Batch, error) {
	b, err := h.decode()
	if err == nil {
		return b, nil
	}
	body, lack := s.fetch(ctx, h.group)
	if lack != nil {
		return b, errors.Join(err, lack)
	}
	items, damage := parseGroup(body)
	for _, it := range items {
		if it.source != source {
			continue
		}
		if is, err := wire.DecodeHeader(it.data); err == nil && is == h.Header {
			again := *h
			again.data = it.data
			return again.decode()
		}
	}
	return b, errors.Join(err, damage)
}

// readGroup reads a group from the journal.
func (s *Store) readGroup(ctx context.Context, id int64) (body []byte, err error) {
	return body, store.Classify(s.db.Read().QueryRowContext(ctx, `SELECT body FROM groups WHERE id = ?`, id).Scan(&body))
}

// sumSize is the octets of the checksum at a batch's end.
const sumSize = 4

// leaveOut tells of a batch that an answer does without, since it cannot be read.
func (s *Store) leaveOut(node string, h *held, err error) {
	s.Log.Error("a batch cannot be read", "node", node, "batch", h.BatchID, "err", err)
	s.given.tell(s, "telemetry.unreadable", node, "a batch of its in the journal cannot be read: answers do without", map[string]string{"batch": h.BatchID.String()})
}

// judge says what becomes of a batch of whose name another one is in the head.
func (h *held) judge(e *Entry) Outcome {
	if bytes.Equal(h.data, e.Data) {
		return Duplicate
	}
	// A form that was thinned before the acknowledgement of the whole arrived, or the other way round.
	if h.Header != e.Batch.Header || len(h.data) < sumSize {
		return Conflict
	}
	if whole, err := h.decode(); err == nil && whole.Covers(e.Batch) {
		return Duplicate
	}
	return Conflict
}

// add takes a batch into the head. The caller holds s.mu, or is alone.
func (s *Store) add(src *source, h *held) {
	src.head = append(src.head, h)
	src.held[h.name()] = h
	src.note(h.name())
	h.schema.held++
	s.headBytes += h.weight
	src.bytes += h.weight
	for w := weekOf(h.first); w <= weekOf(h.last); w++ {
		src.weeks[w]++
	}
	s.headCount++
}

// Takes tells whether the head has room for one more batch of a node; late: of a backlog. If
// it has not, the node has to send it again some time later.
func (s *Store) Takes(node string, late bool) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.takes(s.sources[node], late, 0, 0)
}

// takes is Takes after own octets of the node's, and all of any, that are about to be stored:
// a node may have a fraction of the room that is left. So hundreds of nodes that bring their
// backlogs at once have equal parts (dynamic thresholds: Choudhury and Hahne, IEEE/ACM
// Transactions on Networking 6(2), 1998). Who has hardly had anything yet gets in also where
// they have taken all that.
func (s *Store) takes(src *source, late bool, own, all int64) bool {
	room := int64(mostHead)
	if late {
		room = backlogHead
	}
	if src != nil {
		own += src.bytes
	}
	all += s.headBytes
	return own < (room-all)/headShare || own < headFirst && all < mostHead
}

// share is what a node has in the head, with what is about to be stored of it.
type share struct {
	octets int64 // of the latter alone, by weight
	weeks  map[week]bool
}

func newShare(src *source) *share {
	n := &share{weeks: map[week]bool{}}
	if src != nil {
		for w := range src.weeks {
			n.weeks[w] = true
		}
	}
	return n
}

// fits tells whether a node may have a batch of those stamps in the head: each week is a file
// to be written to, however little is for it.
func (n *share) fits(first, last int64) bool {
	more := 0
	for w := weekOf(first); w <= weekOf(last); w++ {
		if !n.weeks[w] {
			more++
		}
	}
	return more == 0 || len(n.weeks)+more <= headWeeks
}

func (n *share) add(h *held) {
	n.octets += h.weight
	for w := weekOf(h.first); w <= weekOf(h.last); w++ {
		n.weeks[w] = true
	}
}

// forget takes out of the head what is settled. The caller holds s.mu.
func (s *Store) forget(src *source, settled func(*held) bool) {
	kept := src.head[:0:0]
	for _, h := range src.head {
		if !settled(h) {
			kept = append(kept, h)
			continue
		}
		delete(src.held, h.name())
		h.schema.held--
		s.headBytes -= h.weight
		src.bytes -= h.weight
		for w := weekOf(h.first); w <= weekOf(h.last); w++ {
			if src.weeks[w]--; src.weeks[w] == 0 {
				delete(src.weeks, w)
			}
		}
		s.headCount--
	}
	src.head = kept
}
