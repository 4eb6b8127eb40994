package spool

import (
	"halo.internal/model"
)

// Backlog returns what is left of the oldest segment on disk, oldest first;
// nothing when all is acknowledged.
func (s *Spool) Backlog() []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.loaded == nil && s.disk != nil {
		seg, ok := s.disk.oldest()
		if !ok {
			return nil
		}
		content, err := s.disk.load(seg)
		if err != nil || content.damaged > 0 {
			s.opt.Log.Warn("spool: segment is damaged", "segment", seg.index, "octets", content.damaged, "err", err)
			s.notify("telemetry.spool.damaged", model.Error, "part of the spool can't be read; those readings are lost", 1)
		}
		if len(content.items) == 0 {
			s.removeSegment(seg.index)
			continue
		}
		s.loaded = &backlog{segment: seg.index, items: content.items, schemas: content.schemas}
	}
	if s.loaded == nil {
		return nil
	}
	return append([]Item(nil), s.loaded.items...)
}

func (s *Spool) removeSegment(index uint64) {
	if err := s.disk.remove(index); err != nil {
		s.opt.Log.Warn("spool: segment stays", "segment", index, "err", err)
	}
}
