package send

import (
	"context"
	"fmt"
	"time"

	"halo.internal/agent/spool"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// receive handles what the gateway says.
func (s *session) receive(ctx context.Context) error {
	for {
		m, err := s.read(ctx)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch m := m.(type) {
		case wire.Ack:
			s.ack(spool.Batch, m.IDs)
		case wire.AckEvents:
			s.ack(spool.Event, m.IDs)
		case wire.Refuse:
			if err := s.refuse(m); err != nil {
				return err
			}
		case wire.NeighboursWanted:
			if s.Neighbours != nil {
				s.Neighbours.Again()
				s.proceed()
			}
		case wire.BoardWanted:
			if s.Board != nil {
				if err := s.write(ctx, wire.BoardMessage{Board: s.Board()}); err != nil {
					return fmt.Errorf("send board: %w", err)
				}
			}
		case wire.InventoryWanted:
			if s.Inventory != nil {
				digest, v := s.Inventory()
				if digest == "" {
					continue // there is none that can be told, which the next heartbeat says
				}
				if err := s.write(ctx, wire.InventoryMessage{Digest: digest, Inventory: v}); err != nil {
					return fmt.Errorf("send inventory: %w", err)
				}
			}
		case wire.Unknown:
			// A later gateway: what it wants is not known here.
		default:
			if err := s.command(ctx, m); err != nil {
				return err
			}
		}
	}
}

// command hands on what is about commands.
func (s *session) command(ctx context.Context, m wire.Message) error {
	taken := false
	if s.line != nil {
		var err error
		if taken, err = s.line.Take(ctx, m); err != nil {
			return err
		}
	}
	if !taken {
		return fmt.Errorf("receive: expected an acknowledgement or a command, got %T", m)
	}
	return nil
}

// ack forgets what was acknowledged. Only what this connection has sent can
// be: anything else is a mistake that would lose readings.
func (s *session) ack(kind spool.Kind, ids []wire.BatchID) {
	var valid []wire.BatchID
	s.mu.Lock()
	for _, id := range ids {
		if i, ok := s.sent[sentKey{kind, id}]; ok && !i.at.IsZero() {
			valid = append(valid, id)
		}
	}
	s.mu.Unlock()
	if len(valid) == 0 {
		return
	}
	s.Spool.Ack(kind, valid) // before they count as not sent, or they would be sent again
	s.mu.Lock()
	for _, id := range valid {
		k := sentKey{kind, id}
		l := &s.lanes[kind]
		l.flying -= s.sent[k].backlog
		l.window = min(l.window+s.sent[k].backlog, maxWindow)
		delete(s.sent, k)
		s.settled[k] = true
	}
	s.progress = true
	s.mu.Unlock()
	s.proceed()
}

// proceed has the transmitter look again.
func (s *session) proceed() {
	select {
	case s.acked <- struct{}{}:
	default: // a token waits already
	}
}

// refuse handles a no to the node, which ends the connection, or to one batch or event.
func (s *session) refuse(m wire.Refuse) error {
	if m.ID == nil {
		return refused{m.Code, m.Text}
	}
	k := sentKey{spool.Batch, *m.ID}
	if m.Event {
		k.kind = spool.Event
	}
	s.mu.Lock()
	i, ok := s.sent[k]
	s.mu.Unlock()
	if !ok {
		return nil
	}
	if m.Code == wire.RefuseBusy {
		s.postpone(k, i, m.Text)
		return nil
	}
	if m.Event {
		return fmt.Errorf("gateway refused event %v: %s: %s", m.ID, m.Code, m.Text)
	}
	switch m.Code {
	case wire.RefuseUnknownSchema:
		return s.repeat(k, i)
	case wire.RefuseBatch:
		// It can never be taken: keeping it would hold up all behind it for ever.
		s.ack(spool.Batch, []wire.BatchID{*m.ID})
		s.Log.Error("gateway refused a batch", "batch", m.ID.String(), "err", m.Text)
		return s.Spool.AddEvent("telemetry.batch.refused", model.Error, "the gateway can't take a batch; its readings are lost",
			map[string]string{"batch": m.ID.String(), "reason": m.Text})
	}
	return fmt.Errorf("gateway refused batch %v: %s: %s", m.ID, m.Code, m.Text)
}

// postpone has an item sent again some time later, and before that no other of the backlog of
// its kind: the gateway takes no more of these at present, and of other things it does. Then
// they begin with one, since it may take as little as that.
func (s *session) postpone(k sentKey, i sentItem, why string) {
	s.Log.Debug("the gateway wants something later", "item", k.id.String(), "err", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	after := time.Now().Add(s.BusyPause)
	l := &s.lanes[k.kind]
	l.flying -= i.backlog
	if k.kind == spool.Batch {
		clear(s.schemas) // its own may be what was not taken
	}
	if i.backlog > 0 || k.kind == spool.Event && !i.urgent { // what is urgent has tried its luck alone
		l.after, l.window = after, 0
	}
	s.sent[k] = sentItem{after: after, repeats: i.repeats}
}

// repeat has every schema sent anew, and that batch once more.
func (s *session) repeat(k sentKey, i sentItem) error {
	if i.repeats > 0 {
		return fmt.Errorf("gateway does not keep the schema of batch %v", k.id)
	}
	s.mu.Lock()
	clear(s.schemas)
	s.lanes[k.kind].flying -= i.backlog
	s.sent[k] = sentItem{repeats: i.repeats + 1}
	s.mu.Unlock()
	s.proceed()
	return nil
}
