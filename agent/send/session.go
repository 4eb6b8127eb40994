package send

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"halo.internal/agent/spool"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// session is one connection.
type session struct {
	Options
	host     string
	conn     *websocket.Conn
	welcomed bool          // set by the handshake, before the goroutines start
	acked    chan struct{} // a token after acknowledgements came

	mu       sync.Mutex // guards what follows
	sent     map[sentKey]sentItem
	settled  map[sentKey]bool       // acknowledged since the spool was last listed
	schemas  map[wire.SchemaID]bool // that the gateway knows
	window   int                    // octets of backlog that may be on their way
	flying   int                    // octets of backlog that are
	progress bool                   // something was acknowledged
}

type sentKey struct {
	kind spool.Kind
	id   wire.BatchID
}

// sentItem is an item that was sent on this connection.
type sentItem struct {
	at      time.Time // zero while it is to be repeated
	backlog int       // octets, when it came from the backlog
	repeats int       // for want of its schema
}

func (s *session) run(ctx context.Context, client *http.Client) error {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, resp, err := websocket.Dial(dialCtx, s.URL, &websocket.DialOptions{HTTPClient: client})
	cancel()
	if err != nil {
		if resp != nil {
			return fmt.Errorf("connect: expected a WebSocket, got %s: %w", resp.Status, err)
		}
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(wire.MaxMessage)
	s.conn = conn
	if err := s.greet(ctx); err != nil {
		return err
	}
	s.Health(health.OK, "")
	s.Log.Info("stream to the gateway is up", "peer", s.host)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.receive(ctx) })
	g.Go(func() error { return s.transmit(ctx) })
	return g.Wait()
}

// transmit is the only writer.
func (s *session) transmit(ctx context.Context) error {
	check := time.NewTicker(min(s.StatusCheck, s.AckTimeout/4))
	defer check.Stop()
	var last model.NodeStatus
	var lastAt time.Time
	for {
		if now := s.Status(); time.Since(lastAt) >= s.StatusEvery || !reflect.DeepEqual(lasting(now), lasting(last)) {
			if err := s.write(ctx, wire.StatusMessage{Status: now}); err != nil {
				return fmt.Errorf("send status: %w", err)
			}
			last, lastAt = now, time.Now()
		}
		if err := s.sendAll(ctx); err != nil {
			return err
		}
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

// lasting leaves out of a status what changes all the time.
func lasting(st model.NodeStatus) model.NodeStatus {
	st.UptimeS = 0
	st.Interfaces = slices.Clone(st.Interfaces)
	for i := range st.Interfaces {
		st.Interfaces[i].RxBytes, st.Interfaces[i].TxBytes = 0, 0
	}
	return st
}

// sendAll sends what may be sent now.
func (s *session) sendAll(ctx context.Context) error {
	for {
		s.mu.Lock()
		clear(s.settled) // the lists below do not have them any more
		s.mu.Unlock()
		live := s.Spool.Items()
		slices.SortStableFunc(live, func(a, b spool.Item) int { // urgent ones first
			switch {
			case a.Urgent == b.Urgent:
				return 0
			case a.Urgent:
				return -1
			}
			return 1
		})
		for _, i := range live {
			if _, err := s.send(ctx, i, false); err != nil {
				return err
			}
		}
		sent := 0
		for _, i := range s.Spool.Backlog() {
			if sent == backlogAtOnce || !s.room(len(i.Data)) {
				break
			}
			did, err := s.send(ctx, i, true)
			if err != nil {
				return err
			}
			if did {
				sent++
			}
		}
		if sent == 0 {
			return nil
		}
	}
}

// room tells whether as many octets of backlog may follow. One item always
// may.
func (s *session) room(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flying == 0 || s.flying+n <= s.window
}

// send sends an item, and before it the schema that it needs, unless this
// connection has sent it already.
func (s *session) send(ctx context.Context, i spool.Item, backlog bool) (bool, error) {
	k := sentKey{i.Kind, i.ID}
	s.mu.Lock()
	before, again := s.sent[k]
	known, settled := s.schemas[i.Schema], s.settled[k]
	s.mu.Unlock()
	if settled || again && !before.at.IsZero() {
		return false, nil
	}
	if i.Kind == spool.Event {
		return true, s.deliver(ctx, k, i.Data, sentItem{backlog: part(backlog, i)})
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
	s.flying += item.backlog
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
		case wire.Unknown:
			// A later gateway: what it wants is not known here.
		default:
			return fmt.Errorf("receive: expected an acknowledgement, got %T", m)
		}
	}
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
		s.flying -= s.sent[k].backlog
		s.window = min(s.window+s.sent[k].backlog, maxWindow)
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

var errBusy = errors.New("gateway is busy")

// refuse handles a no to the node, which ends the connection, or to one batch.
func (s *session) refuse(m wire.Refuse) error {
	if m.ID == nil {
		return refused{m.Code, m.Text}
	}
	k := sentKey{spool.Batch, *m.ID}
	s.mu.Lock()
	i, ok := s.sent[k]
	s.mu.Unlock()
	if !ok {
		return nil
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
	return fmt.Errorf("%w: batch %v: %s: %s", errBusy, m.ID, m.Code, m.Text)
}

// repeat has every schema sent anew, and that batch once more.
func (s *session) repeat(k sentKey, i sentItem) error {
	if i.repeats > 0 {
		return fmt.Errorf("gateway does not keep the schema of batch %v", k.id)
	}
	s.mu.Lock()
	clear(s.schemas)
	s.flying -= i.backlog
	s.sent[k] = sentItem{repeats: i.repeats + 1}
	s.mu.Unlock()
	s.proceed()
	return nil
}
