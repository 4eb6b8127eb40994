package spool

import (
	"errors"
	"fmt"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// boundLive keeps the live tier within its budget while the disk takes
// nothing.
func (s *Spool) boundLive() {
	var m made
	for s.live.size > liveBudget && len(s.live.entries) > 1 {
		// Files of /run take whole pages: leaving out reports frees nothing. The
		// oldest goes.
		s.live.remove(map[key]bool{s.live.entries[0].key(): true})
		m.dropped++
	}
	s.told(m)
}

// notice bounds how often one kind of event is made.
type notice struct {
	last  time.Time
	count int
}

const noticeInterval = time.Hour

// told makes events of what making room has cost. Its caller holds the lock.
func (s *Spool) told(m made) {
	if m.thinned > 0 {
		s.notify("telemetry.spool.thinned", model.Warning, "the spool is full: every second of the oldest readings was left out", m.thinned)
	}
	if m.dropped > 0 {
		s.notify("telemetry.spool.dropped", model.Error, "the spool is full: the oldest readings were dropped", m.dropped)
	}
}

// notify makes an event, at most one per kind and hour; the next one carries
// the count of all since. Its caller holds the lock.
func (s *Spool) notify(kind string, severity model.Severity, message string, count int) {
	n := s.notices[kind]
	if n == nil {
		n = &notice{}
		s.notices[kind] = n
	}
	n.count += count
	now := time.Now()
	if !n.last.IsZero() && now.Sub(n.last) < noticeInterval {
		return
	}
	fields := map[string]string{"count": fmt.Sprint(n.count)}
	n.last, n.count = now, 0 // first: keeping the event may itself drop something
	if err := s.addEvent(kind, severity, message, fields); err != nil {
		s.opt.Log.Warn("event is lost", "kind", kind, "err", err)
	}
}

// AddEvent keeps an event of the agent's own.
func (s *Spool) AddEvent(kind string, severity model.Severity, message string, fields map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	return s.addEvent(kind, severity, message, fields)
}

func (s *Spool) addEvent(kind string, severity model.Severity, message string, fields map[string]string) error {
	at, quality := s.opt.Clock()
	next := s.live.counters
	next.Events++
	if err := s.live.note(next); err != nil {
		return fmt.Errorf("event %s: %w", kind, err)
	}
	e := model.Event{
		Boot: next.Boot, Seq: model.AgentEvents + next.Events, Time: at.UTC(), Clock: quality,
		Node: s.opt.Owner.Node, Kind: kind, Severity: severity, Message: message, Fields: fields,
	}
	return s.keepEvent(e)
}

// MeshEvents returns the last event taken over from halo-mesh.
func (s *Spool) MeshEvents() (boot, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live.counters.MeshBoot, s.live.counters.MeshSeq
}

// TakeEvents takes over events of halo-mesh, oldest first.
func (s *Spool) TakeEvents(events []model.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	for _, e := range events {
		named := e
		if e.Boot == s.live.counters.Start {
			named.Boot = s.live.counters.Boot
		}
		err := s.keepEvent(named)
		switch {
		case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLarge):
			s.opt.Log.Warn("event is lost", "kind", e.Kind, "err", err) // it would never travel
		case err != nil:
			return fmt.Errorf("event %d.%d: %w", e.Boot, e.Seq, err)
		}
		next := s.live.counters
		next.MeshBoot, next.MeshSeq = e.Boot, e.Seq
		if err := s.live.note(next); err != nil {
			return fmt.Errorf("event %d.%d: %w", e.Boot, e.Seq, err)
		}
	}
	return nil
}

func (s *Spool) keepEvent(e model.Event) error {
	data, err := wire.Marshal(wire.EventMessage{Event: e})
	if err != nil {
		return err
	}
	item := Item{Kind: Event, ID: wire.ID(e.Boot, e.Seq), Data: data, Urgent: e.Urgent()}
	if err := s.live.add(item, wire.Schema{}, s.due(time.Now())); err != nil {
		return err
	}
	s.boundLive()
	return nil
}
