package spool

import (
	"fmt"
	"time"
)

// Flush writes the live tier to disk when something in it is due, or all of it
// when asked. What is on disk is removed from the live tier.
func (s *Spool) Flush(now time.Time, all bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.live.entries) == 0 || !all && !s.live.anyDue(now) {
		return nil
	}
	if err := s.openDisk(); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer s.wake() // what was written is backlog now
	items := s.liveItems()
	for len(items) > 0 {
		n := portion(items)
		cost, err := s.disk.append(items[:n], s.live.schemas, s.pinned())
		s.told(cost)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		written := make(map[key]bool, n)
		for _, i := range items[:n] {
			written[i.key()] = true
		}
		s.live.remove(written)
		items = items[n:]
	}
	return nil
}

// portion tells how many of items go into one write: about a segment full.
func portion(items []Item) int {
	size := 0
	for n, i := range items {
		if size += len(i.Data); size > segmentSize && n > 0 {
			return n
		}
	}
	return len(items)
}

// pinned is the segment whose batches are being sent: those of others can be thinned.
func (s *Spool) pinned() uint64 {
	if s.loaded[Batch] == nil {
		return noSegment
	}
	return s.loaded[Batch].segment
}
