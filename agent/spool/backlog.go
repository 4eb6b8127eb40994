package spool

import (
	"slices"

	"halo.internal/model"
)

// Backlog returns what is left of a kind in the oldest segment on disk that has any, oldest
// first; nothing when all of the kind is acknowledged. The kinds go through the segments
// each for itself: what the gateway takes slowly of one does not hold up the other.
func (s *Spool) Backlog(kind Kind) []Item {
	for {
		if items, more := s.loadNext(kind); !more {
			return items
		}
	}
}

// loadNext loads one segment, unless one is; more: it has none of the kind. Between two of
// them whoever has something to keep has its turn: after a start there may be many.
func (s *Spool) loadNext(kind Kind) (items []Item, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.loaded[kind]; l != nil {
		return slices.Clone(l.items), false
	}
	if s.disk == nil {
		return nil, false
	}
	seg, ok := s.disk.oldest(kind)
	if !ok {
		return nil, false
	}
	content, err := s.disk.load(seg)
	if kind == Batch && (err != nil || content.damaged > 0) { // told once: it is loaded for its events, too
		s.opt.Log.Warn("spool: segment is damaged", "segment", seg.index, "octets", content.damaged, "err", err)
		s.notify("telemetry.spool.damaged", model.Error, "part of the spool can't be read; those readings are lost", 1)
	}
	items = slices.DeleteFunc(content.items, func(i Item) bool { return i.Kind != kind })
	if len(items) == 0 {
		s.finish(seg.index, kind)
		return nil, true
	}
	s.loaded[kind] = &backlog{segment: seg.index, items: items, schemas: content.schemas}
	return slices.Clone(items), false
}

func (s *Spool) finish(index uint64, kind Kind) {
	if err := s.disk.finish(index, kind); err != nil {
		s.opt.Log.Warn("spool: segment stays", "segment", index, "err", err)
	}
}
