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
	data        []byte
}

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
	var body []byte
	if db := s.db.Read().QueryRowContext(ctx, `SELECT body FROM groups WHERE id = ?`, h.group).Scan(&body); db != nil {
		return b, errors.Join(err, store.Classify(db))
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
	s.headBytes += int64(len(h.data))
	src.bytes += int64(len(h.data))
	s.headCount++
}

// Full tells whether so much of a node waits in the journal for the week files that it is to
// send no more before some of that has left it, which closes the channel; nil: it may. So no
// node takes the others' room, however fast it sends.
func (s *Store) Full(node string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.sources[node]; src == nil || src.bytes < nodeHead {
		return nil
	}
	return s.settled.Next()
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
		s.headBytes -= int64(len(h.data))
		src.bytes -= int64(len(h.data))
		s.headCount--
	}
	src.head = kept
}
