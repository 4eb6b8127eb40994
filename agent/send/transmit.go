package send

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"halo.internal/agent/spool"
	"halo.internal/model"
	"halo.internal/model/order"
	"halo.internal/model/wire"
)

// transmit sends readings, events and heartbeats.
func (s *session) transmit(ctx context.Context) error {
	check := time.NewTicker(min(s.StatusCheck, s.AckTimeout/4))
	defer check.Stop()
	var last model.NodeStatus
	var lastAt time.Time
	for {
		s.cork.hold()
		along := false
		if now := s.Status(); time.Since(lastAt) >= s.StatusEvery || !reflect.DeepEqual(lasting(now), lasting(last)) {
			if err := s.write(ctx, wire.StatusMessage{Status: now}); err != nil {
				return fmt.Errorf("send status: %w", err)
			}
			last, lastAt, along = now, time.Now(), true
		}
		sent, err := s.sendAll(ctx)
		if err == nil {
			err = s.sendNeighbours(ctx, along || sent)
		}
		if err != nil {
			return err
		}
		s.cork.letGo()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Spool.Changed():
		case <-s.acked:
		case <-check.C:
			if err := s.overdue(time.Now()); err != nil {
				return err
			}
		}
	}
}

// sendNeighbours sends the report of neighbours that is due, if one is.
func (s *session) sendNeighbours(ctx context.Context, along bool) error {
	if s.Neighbours == nil {
		return nil
	}
	r, ok := s.Neighbours.Next(time.Now(), along)
	if !ok {
		return nil
	}
	if err := s.write(ctx, wire.NeighboursMessage{Report: r}); err != nil {
		return fmt.Errorf("send report of neighbours: %w", err)
	}
	return nil
}

// lasting leaves out of a status what changes all the time.
func lasting(st model.NodeStatus) model.NodeStatus {
	st.UptimeS = 0
	if st.Position != nil { // telemetry has it; that there is one, or none, is worth a status
		st.Position = &model.Position{Source: st.Position.Source}
	}
	st.Interfaces = slices.Clone(st.Interfaces)
	for i := range st.Interfaces {
		st.Interfaces[i].RxBytes, st.Interfaces[i].TxBytes = 0, 0
	}
	return st
}

// sendAll sends what may be sent now, and tells whether anything was.
func (s *session) sendAll(ctx context.Context) (some bool, err error) {
	for {
		s.mu.Lock()
		clear(s.settled) // the lists below do not have them any more
		s.mu.Unlock()
		live := s.Spool.Items()
		order.By(live, func(a, b spool.Item) int { // urgent ones first
			switch {
			case a.Urgent == b.Urgent:
				return 0
			case a.Urgent:
				return -1
			}
			return 1
		})
		for _, i := range live {
			if i.Kind == spool.Event && !i.Urgent && s.paused(spool.Event) {
				continue
			}
			did, err := s.send(ctx, i, false)
			if err != nil {
				return some, err
			}
			some = some || did
		}
		events, err := s.sendBacklog(ctx, spool.Event)
		if err != nil {
			return some, err
		}
		batches, err := s.sendBacklog(ctx, spool.Batch)
		if err != nil || events+batches == 0 {
			return some, err
		}
		some = true
	}
}

// sendBacklog sends what may be sent now of a kind's backlog, a part of it at a time, and
// returns how many items that were.
func (s *session) sendBacklog(ctx context.Context, kind spool.Kind) (sent int, err error) {
	for _, i := range s.Spool.Backlog(kind) {
		if sent == backlogAtOnce || !s.room(i) { // what comes behind it is not to overtake it
			break
		}
		did, err := s.send(ctx, i, true)
		if err != nil {
			return sent, err
		}
		if did {
			sent++
		}
	}
	return sent, nil
}

// paused tells whether the gateway takes no more of a kind at present.
func (s *session) paused(k spool.Kind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.lanes[k].after)
}

// room tells whether an item of the backlog may follow.
func (s *session) room(i spool.Item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes[i.Kind].room(len(i.Data))
}

// send sends an item, and before it the schema that it needs, unless this
// connection has sent it already.
func (s *session) send(ctx context.Context, i spool.Item, backlog bool) (bool, error) {
	k := sentKey{i.Kind, i.ID}
	s.mu.Lock()
	before, again := s.sent[k]
	known, settled := s.schemas[i.Schema], s.settled[k]
	s.mu.Unlock()
	if settled || again && (!before.at.IsZero() || time.Now().Before(before.after)) {
		return false, nil
	}
	if i.Kind == spool.Event {
		return true, s.deliver(ctx, k, i.Data, sentItem{backlog: part(backlog, i), urgent: i.Urgent})
	}
	if !known {
		schema, ok := s.Spool.SchemaOf(i)
		if !ok {
			return false, nil // acknowledged or written to disk since it was listed
		}
		if err := s.write(ctx, wire.SchemaMessage{Schema: schema}); err != nil {
			return false, fmt.Errorf("send schema: %w", err)
		}
		s.mu.Lock()
		s.schemas[i.Schema] = true
		s.mu.Unlock()
	}
	b, err := wire.Marshal(wire.BatchMessage{Data: i.Data})
	if err != nil {
		return false, fmt.Errorf("send batch %v: %w", i.ID, err)
	}
	return true, s.deliver(ctx, k, b, sentItem{backlog: part(backlog, i), repeats: before.repeats})
}

func part(backlog bool, i spool.Item) int {
	if backlog {
		return len(i.Data)
	}
	return 0
}

// deliver notes an item as sent, and then sends it: its acknowledgement must
// not come first.
func (s *session) deliver(ctx context.Context, k sentKey, message []byte, item sentItem) error {
	item.at = time.Now()
	s.mu.Lock()
	s.sent[k] = item
	s.lanes[k.kind].flying += item.backlog
	s.mu.Unlock()
	if err := s.writeRaw(ctx, message); err != nil {
		return fmt.Errorf("send %v: %w", k.id, err)
	}
	return nil
}

// overdue ends a connection that does not acknowledge.
func (s *session) overdue(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, i := range s.sent {
		if !i.at.IsZero() && now.Sub(i.at) > s.AckTimeout {
			return fmt.Errorf("expected an acknowledgement of %v within %v, got none", k.id, s.AckTimeout)
		}
	}
	return nil
}
