package send

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// gateway is a stream server whose manners a test chooses. What it has stored
// outlives its connections.
type gateway struct {
	t      *testing.T
	server *httptest.Server
	url    string
	// on decides what becomes of a batch or event, by default reply.ack.
	on func(id wire.BatchID) reply
	// admit returns a refusal, or nil.
	admit func() *wire.Refuse

	mu        sync.Mutex
	schemas   map[wire.SchemaID]wire.Schema
	batches   map[wire.BatchID][]byte
	order     []wire.BatchID // as first stored
	events    map[wire.BatchID]model.Event
	statuses  []model.NodeStatus
	boards    []model.Board
	hellos    []wire.Hello
	received  int           // batches, duplicates among them
	described int           // schemas, likewise
	changed   chan struct{} // a token after anything came
}

// reply is what a gateway does with an item.
type reply struct {
	store  bool   // commit it
	ack    int    // how often to acknowledge it
	refuse string // code of a refusal
	hangUp bool   // end the connection afterwards
	forget bool   // lose the schemas, before anything else
}

var proper = reply{store: true, ack: 1}

func newGateway(t *testing.T) *gateway {
	g := &gateway{t: t, schemas: make(map[wire.SchemaID]wire.Schema), batches: make(map[wire.BatchID][]byte), events: make(map[wire.BatchID]model.Event), changed: make(chan struct{}, 1)}
	g.server = httptest.NewServer(http.HandlerFunc(g.stream))
	g.url = "ws" + strings.TrimPrefix(g.server.URL, "http") + "/v1/nodes/stream"
	t.Cleanup(g.server.Close)
	return g
}

func (g *gateway) stream(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(wire.MaxMessage)
	if err := g.serve(r.Context(), conn, r.Host); err != nil {
		return // the node or a test ended it
	}
}

func (g *gateway) serve(ctx context.Context, conn *websocket.Conn, host string) error {
	write := func(m wire.Message) error {
		b, err := wire.Marshal(m)
		if err != nil {
			g.t.Error(err)
			return err
		}
		return conn.Write(ctx, websocket.MessageBinary, b)
	}
	nonce := make([]byte, wire.NonceSize)
	rand.Read(nonce)
	if err := write(wire.Challenge{Nonce: nonce}); err != nil {
		return err
	}
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		m, err := wire.Unmarshal(b)
		if err != nil {
			g.t.Errorf("the node sent: %v", err)
			return err
		}
		if err := g.take(m, nonce, host, write); err != nil {
			return err
		}
	}
}

func (g *gateway) take(m wire.Message, nonce []byte, host string, write func(wire.Message) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer func() {
		select {
		case g.changed <- struct{}{}:
		default: // a token waits already
		}
	}()
	switch m := m.(type) {
	case wire.Hello:
		if key := identity.PublicKey(m.Key); !key.Verify(wire.StreamContext, m.SignedBytes(nonce, host), m.Signature) {
			g.t.Error("the hello's signature does not fit")
		}
		g.hellos = append(g.hellos, m)
		if g.admit != nil {
			if r := g.admit(); r != nil {
				if err := write(*r); err != nil {
					return err
				}
				return fmt.Errorf("refused")
			}
		}
		known := []wire.SchemaID{}
		for id := range g.schemas {
			known = append(known, id)
		}
		last := uint64(0)
		for id := range g.batches {
			last = max(last, id.Boot)
		}
		for id := range g.events {
			last = max(last, id.Boot)
		}
		return write(wire.Welcome{Time: 1, Clock: model.ClockGateway, Schemas: known, Boot: last})
	case wire.SchemaMessage:
		g.schemas[m.Schema.ID()] = m.Schema
		g.described++
	case wire.StatusMessage:
		g.statuses = append(g.statuses, m.Status)
		if m.Status.BoardFile != nil {
			return write(wire.BoardWanted{})
		}
	case wire.BoardMessage:
		g.boards = append(g.boards, m.Board)
	case wire.BatchMessage:
		return g.batch(m.Data, write)
	case wire.EventMessage:
		id := wire.ID(m.Event.Boot, m.Event.Seq)
		r := g.reply(id)
		if r.store {
			g.events[id] = m.Event
		}
		return g.finish(r, wire.AckEvents{IDs: []wire.BatchID{id}}, id, write)
	}
	return nil
}

func (g *gateway) reply(id wire.BatchID) reply {
	if g.on == nil {
		return proper
	}
	return g.on(id)
}

func (g *gateway) batch(data []byte, write func(wire.Message) error) error {
	g.received++
	h, err := wire.DecodeHeader(data)
	if err != nil {
		g.t.Errorf("the node sent: %v", err)
		return err
	}
	r := g.reply(h.BatchID)
	if r.forget {
		clear(g.schemas)
	}
	schema, ok := g.schemas[h.Schema]
	if !ok {
		return write(wire.Refuse{Code: wire.RefuseUnknownSchema, ID: &h.BatchID})
	}
	if _, err := wire.Decode(data, schema); err != nil {
		g.t.Errorf("the node sent: %v", err)
	}
	if r.store {
		if before, ok := g.batches[h.BatchID]; !ok {
			g.batches[h.BatchID] = data
			g.order = append(g.order, h.BatchID)
		} else if !bytes.Equal(before, data) {
			g.t.Errorf("batch %v came with two contents", h.BatchID)
		}
	}
	return g.finish(r, wire.Ack{IDs: []wire.BatchID{h.BatchID}}, h.BatchID, write)
}

func (g *gateway) finish(r reply, ack wire.Message, id wire.BatchID, write func(wire.Message) error) error {
	for range r.ack {
		if err := write(ack); err != nil {
			return err
		}
	}
	if r.refuse != "" {
		_, event := ack.(wire.AckEvents)
		if err := write(wire.Refuse{Code: r.refuse, Text: "as the test wants", ID: &id, Event: event}); err != nil {
			return err
		}
	}
	if r.hangUp {
		return fmt.Errorf("hung up")
	}
	return nil
}
