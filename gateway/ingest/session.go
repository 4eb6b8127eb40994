package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/wire"
)

const (
	writeTimeout  = 30 * time.Second
	usualInterval = time.Minute // of a node that does not tell its own
	quietMargin   = 10 * time.Second
	probeTimeout  = 30 * time.Second
	maxBad        = 16 // unreadable batches before the stream is given up
)

// session is one node's stream.
type session struct {
	server *Server
	conn   *websocket.Conn
	ctx    context.Context
	cancel context.CancelFunc
	node   string
	remote netip.Addr
	out    *answers
	quiet  time.Duration // without a word the link is probed
	bad    int

	// receive's alone
	later  map[wire.SchemaID]bool // schemas that are not taken yet
	status *model.NodeStatus      // the last one, that is to count later
	asked  int                    // for whole reports of neighbours
	board  asking

	inventory string // digest of the inventory that it was asked for last, and that is none of those kept
	wanted    bool   // the inventory is still to come

	gateway bool // the node is the gateway's own device

	nonce    []byte // of the node's hello, for commands
	welcomed time.Time
	boot     uint64
	every    time.Duration // between two sendings; 0: not told
}

// serve runs the stream until it ends, and returns why it did.
func (c *session) serve() error {
	ctx, end := context.WithCancelCause(c.ctx)
	heard := make(chan struct{}, 1)
	var others sync.WaitGroup
	others.Go(func() { end(c.answer(ctx)) })
	others.Go(func() { end(c.probe(ctx, heard)) })
	end(c.receive(ctx, heard)) // here: 250 nodes less of a goroutine are two megabytes less
	others.Wait()
	return context.Cause(ctx)
}

func (c *session) receive(ctx context.Context, heard chan<- struct{}) error {
	for {
		m, err := c.read(ctx)
		if err != nil {
			return err
		}
		select {
		case heard <- struct{}{}:
		default: // the probe has not looked since the last one
		}
		c.server.Registry.Seen(c.node)
		c.alive()
		if err := c.take(ctx, m); err != nil {
			return err
		}
		c.settleStatus()
	}
}

// take handles one message.
func (c *session) take(ctx context.Context, m wire.Message) error {
	switch m := m.(type) {
	case wire.SchemaMessage:
		return c.schema(ctx, m.Schema)
	case wire.BatchMessage:
		return c.batch(ctx, m.Data)
	case wire.EventMessage:
		e := m.Event
		if !c.allow(&nodeEvents) {
			c.refuseEvent(nodeEvents.String(), wire.ID(e.Boot, e.Seq))
			return nil
		}
		if err := events.Check(&e, c.node, c.gateway); err != nil {
			kind := "event.malformed"
			if errors.Is(err, events.ErrForeign) {
				kind = "event.foreign"
			}
			c.server.report(kind, c.node, err.Error(), c.remote)
			c.ackEvent(wire.ID(m.Event.Boot, m.Event.Seq)) // it will never fit: the node need not keep it
			return nil
		}
		err := c.server.commit.put(ctx, job{node: c.node, event: &e, from: c})
		if errors.Is(err, errOverdue) {
			c.refuseEvent(overdue, wire.ID(e.Boot, e.Seq))
			return nil
		}
		return err
	case wire.StatusMessage:
		c.status = &m.Status
	default:
		if c.server.Commands != nil {
			c.server.Commands.Take(ctx, c.node, m)
		}
	case wire.NeighboursMessage:
		c.neighbours(m)
	case wire.BoardMessage:
		c.described(ctx, m.Board)
	case wire.InventoryMessage:
		c.tookInventory(ctx, m)
	}
	return nil // types of later releases
}

// settleStatus hands on what the node said last of itself, once it may.
func (c *session) settleStatus() {
	if c.status != nil && c.allow(&nodeStatuses) {
		c.server.Registry.Status(c.node, *c.status)
		c.askForBoard()
		c.askForInventory(c.status.Inventory)
		c.status = nil
	}
}

func (c *session) schema(ctx context.Context, s wire.Schema) error {
	id := s.ID()
	if _, err := c.server.Telemetry.Schema(id); err == nil {
		return nil // it costs nothing
	}
	if !c.may(&newSchemas, 1) {
		c.postpone(id)
		return nil
	}
	err := c.server.Telemetry.PutSchema(ctx, c.node, s)
	switch {
	case err == nil:
		c.had(&newSchemas, 1)
	case errors.Is(err, telemetry.ErrTooManySchemas):
		c.server.report("telemetry.schemas", c.node, err.Error(), c.remote)
		c.postpone(id)
		return nil
	case errors.Is(err, store.ErrUnavailable):
		c.postpone(id)
		return nil
	}
	return err
}

// postpone has the node send a schema, and the batches that need it, again some time later.
func (c *session) postpone(id wire.SchemaID) {
	if c.later == nil || len(c.later) >= wire.MaxSchemas {
		c.later = map[wire.SchemaID]bool{}
	}
	c.later[id] = true
}

// batch verifies a batch and hands it on. What is wrong with it is the node's
// or the link's fault: it is told, and there is an event.
func (c *session) batch(ctx context.Context, data []byte) error {
	packed, err := wire.Open(data)
	if err != nil {
		return c.badBatch(err, nil)
	}
	s, err := c.server.Telemetry.Schema(packed.Schema)
	switch {
	case err == nil:
	case c.later[packed.Schema]:
		c.refuse(wire.RefuseBusy, "its schema was not taken yet", packed.BatchID)
		return nil
	default:
		c.refuse(wire.RefuseUnknownSchema, "send schema "+packed.Schema.String(), packed.BatchID)
		return nil
	}
	times, err := packed.Times()
	if err != nil {
		return c.badBatch(err, &packed.BatchID)
	}
	weight := telemetry.Weight(len(data), len(times), len(s.Metrics))
	late := !packed.Urgent && c.server.commit.isLate(times[len(times)-1])
	switch { // it does not wait here: what is urgent comes behind it
	case !c.server.Telemetry.Takes(c.node, late):
		c.refuse(wire.RefuseBusy, noRoom, packed.BatchID)
		return nil
	case !c.may(&nodeOctets, int(weight)):
		c.refuse(wire.RefuseBusy, nodeOctets.String(), packed.BatchID)
		return nil
	case c.server.Telemetry.Overdrawn(c.node, slices.Min(times), slices.Max(times)):
		c.server.report("stream.held-back", c.node, overdrawn, c.remote)
		c.refuse(wire.RefuseBusy, overdrawn, packed.BatchID)
		return nil
	}
	// Before it is unpacked, which takes room: who has to wait for that holds what came, and no more.
	j := job{node: c.node, from: c, late: late, cost: costOf(len(times), len(s.Metrics), len(data)), weight: weight}
	if err := c.server.commit.admit(ctx, &j); err != nil {
		return c.unlessOverdue(err, packed.BatchID)
	}
	b, err := packed.UnpackColumns(len(s.Metrics))
	if err == nil {
		j.batch = &telemetry.Entry{Node: c.node, Schema: s, Batch: b, Data: data, Late: late}
		err = j.batch.Check()
	}
	if err != nil {
		j.release()
		return c.badBatch(err, &packed.BatchID)
	}
	return c.unlessOverdue(c.server.commit.put(ctx, j), packed.BatchID)
}

// unlessOverdue has the node send a batch again later for which there was no room in time.
func (c *session) unlessOverdue(err error, id wire.BatchID) error {
	if errors.Is(err, errOverdue) {
		c.refuse(wire.RefuseBusy, overdue, id)
		return nil
	}
	return err
}

// noRoom is said of a batch for which Telemetry has no room at present.
const noRoom = "what came before has to be moved from the journal into the week files first"

// overdue is said of what would wait for a commit that takes too long.
const overdue = "what came before is not stored yet"

// overdrawn is said of a batch that is late where too much was written anew for such ones.
const overdrawn = "too much in the week files had to be written anew for what came late of it: what is late is not taken yet"

func (c *session) badBatch(err error, id *wire.BatchID) error {
	c.server.report("telemetry.malformed", c.node, "a batch was refused: "+err.Error(), c.remote)
	if id == nil {
		// Nothing in it can be believed, its number included: the node sends what is unacknowledged again.
		return fmt.Errorf("unreadable batch: %w", err)
	}
	c.refuse(wire.RefuseBatch, clip(err.Error()), *id)
	if c.bad++; c.bad >= maxBad {
		return fmt.Errorf("%d unreadable batches, the last: %w", c.bad, err)
	}
	return nil
}

func clip(s string) string { return s[:min(len(s), wire.MaxText)] }

// answer writes what waits in out.
func (c *session) answer(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.out.some:
		}
		for _, m := range c.out.take() {
			limit, cancel := context.WithTimeout(ctx, writeTimeout)
			err := c.write(limit, m)
			cancel()
			if err != nil {
				return err
			}
		}
	}
}

// probe asks for a sign of life after a silence: a link that died says nothing.
func (c *session) probe(ctx context.Context, heard <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-heard:
		case <-time.After(c.quiet):
			limit, cancel := context.WithTimeout(ctx, probeTimeout)
			err := c.conn.Ping(limit)
			cancel()
			if err != nil {
				return fmt.Errorf("no sign of life: %w", err)
			}
		}
	}
}

// send queues an answer; a node that does not read its answers is cut off.
func (c *session) send(m wire.Message) {
	if !c.out.put(m) {
		c.cancel()
	}
}

func (c *session) ack(id wire.BatchID)      { c.send(wire.Ack{IDs: []wire.BatchID{id}}) }
func (c *session) ackEvent(id wire.BatchID) { c.send(wire.AckEvents{IDs: []wire.BatchID{id}}) }

func (c *session) refuse(code, text string, id wire.BatchID) {
	c.send(wire.Refuse{Code: code, Text: text, ID: &id})
}

// refuseEvent has the node send an event again later.
func (c *session) refuseEvent(text string, id wire.BatchID) {
	c.send(wire.Refuse{Code: wire.RefuseBusy, Text: text, ID: &id, Event: true})
}

// reject refuses the node itself.
func (c *session) reject(ctx context.Context, code, text string) error {
	return errors.Join(fmt.Errorf("%s: %s", code, text), c.write(ctx, wire.Refuse{Code: code, Text: clip(text)}))
}

func (c *session) read(ctx context.Context) (wire.Message, error) {
	kind, b, err := c.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageBinary {
		return nil, errors.New("expected binary messages, got text")
	}
	return wire.Unmarshal(b)
}

func (c *session) write(ctx context.Context, m wire.Message) error {
	b, err := wire.Marshal(m)
	if err != nil {
		return err
	}
	return c.conn.Write(ctx, websocket.MessageBinary, b)
}
