// Package load plays nodes that send telemetry to a real gateway-api, over the real
// protocol: they join it, hold the stream as halo-agent does, send batches and note what was
// acknowledged, and when. Each speaks from its own overlay address, which the machine has to
// have: see Overlay.
package load

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

const (
	timeout   = 30 * time.Second
	maxAnswer = 64 << 10
)

// Network is a gateway and the key of its network, with which tokens are made.
type Network struct {
	Key identity.Key
	URL string // of its plain HTTP on the overlay
}

// Node is a member.
type Node struct {
	Name string
	Addr netip.Addr // in the overlay
	Boot uint64
	key  identity.Key
	of   Network
}

// ID is the node's canonical ID.
func (n *Node) ID() string { return n.key.ID() }

// Join makes so many members, whose names begin so.
func (w Network) Join(ctx context.Context, prefix string, count int) ([]*Node, error) {
	client := &http.Client{Timeout: timeout}
	defer client.CloseIdleConnections()
	token := identity.NewJoinToken(uint32(count), time.Now().Add(time.Hour)).Text(w.Key)
	nodes := make([]*Node, count)
	for i := range nodes {
		n := &Node{Name: fmt.Sprintf("%s%03d", prefix, i+1), Boot: 1, key: identity.New(), of: w}
		wg := n.key.WireGuardPublic()
		proof, err := identity.ProvePossession(w.Key.Public(), n.key.Public(), n.key.WireGuard())
		if err != nil {
			return nil, err
		}
		r := model.JoinRequest{Network: w.Key.Public().Base64(), IdentityKey: n.key.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
			Possession: base64.StdEncoding.EncodeToString(proof), Token: token, Name: n.Name, Board: "played", Boot: n.Boot}
		_, problem, err := w.join(ctx, client, r)
		if err != nil {
			return nil, err
		}
		if problem == nil || problem.Nonce == "" {
			return nil, fmt.Errorf("join of %s: expected a nonce, got %v", n.Name, problem)
		}
		r.Nonce = problem.Nonce
		r.Signature = base64.StdEncoding.EncodeToString(n.key.Sign(model.JoinContext, r.SignedBytes()))
		m, problem, err := w.join(ctx, client, r)
		if err != nil {
			return nil, err
		}
		if problem != nil {
			return nil, fmt.Errorf("join of %s: %w", n.Name, problem)
		}
		n.Addr, nodes[i] = m.OverlayV4, n
	}
	return nodes, nil
}

func (w Network) join(ctx context.Context, client *http.Client, r model.JoinRequest) (m model.Membership, problem *apitype.Problem, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return m, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+"/v1/nodes/join", bytes.NewReader(body))
	if err != nil {
		return m, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return m, nil, fmt.Errorf("join: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return m, nil, fmt.Errorf("join: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return m, nil, json.Unmarshal(answer, &m)
	}
	problem = &apitype.Problem{}
	if err := json.Unmarshal(answer, problem); err != nil {
		return m, nil, fmt.Errorf("join: expected a problem, got %s: %w", resp.Status, err)
	}
	return m, problem, nil
}

// Stream is a node's connection. Send and the acknowledgements go on side by side.
type Stream struct {
	conn   *websocket.Conn
	cancel context.CancelFunc
	window chan struct{} // a token for each batch that is on its way
	acked  func(id wire.BatchID, took time.Duration)
	ended  chan struct{}

	mu     sync.Mutex // guards what follows
	flying map[wire.BatchID]time.Time
	count  int
	err    error
}

// Connect opens a node's stream, on which at most window batches are unacknowledged. acked,
// if there is one, is called with each that is acknowledged.
func (n *Node) Connect(ctx context.Context, window int, s wire.Schema, acked func(id wire.BatchID, took time.Duration)) (*Stream, error) {
	u, err := url.Parse(n.of.URL)
	if err != nil {
		return nil, err
	}
	from := &net.TCPAddr{IP: n.Addr.AsSlice()}
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{LocalAddr: from, Timeout: timeout}).DialContext, DisableKeepAlives: true}}
	dial, done := context.WithTimeout(ctx, timeout)
	defer done()
	conn, _, err := websocket.Dial(dial, "ws://"+u.Host+"/v1/nodes/stream", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		return nil, fmt.Errorf("%s: connect: %w", n.Name, err)
	}
	conn.SetReadLimit(wire.MaxMessage)
	c := &Stream{conn: conn, window: make(chan struct{}, window), acked: acked, ended: make(chan struct{}), flying: map[wire.BatchID]time.Time{}}
	if err := c.greet(dial, n, u.Host, s); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", n.Name, err), conn.CloseNow())
	}
	reading, cancel := context.WithCancel(ctx)
	c.cancel = cancel
	go c.read(reading)
	return c, nil
}

func (c *Stream) greet(ctx context.Context, n *Node, host string, s wire.Schema) error {
	m, err := c.next(ctx)
	if err != nil {
		return err
	}
	challenge, ok := m.(wire.Challenge)
	if !ok {
		return fmt.Errorf("expected a challenge, got %T", m)
	}
	key := n.key.Public()
	h := wire.Hello{Key: key[:], Boot: n.Boot, Version: "played", Interval: 60}
	h.Signature = n.key.Sign(wire.StreamContext, h.SignedBytes(challenge.Nonce, host))
	if err := c.write(ctx, h); err != nil {
		return err
	}
	if m, err = c.next(ctx); err != nil {
		return err
	}
	if _, ok := m.(wire.Welcome); !ok {
		return fmt.Errorf("expected a welcome, got %+v", m)
	}
	return c.write(ctx, wire.SchemaMessage{Schema: s})
}

func (c *Stream) next(ctx context.Context) (wire.Message, error) {
	_, b, err := c.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	return wire.Unmarshal(b)
}

func (c *Stream) write(ctx context.Context, m wire.Message) error {
	b, err := wire.Marshal(m)
	if err != nil {
		return err
	}
	return c.conn.Write(ctx, websocket.MessageBinary, b)
}

// read takes acknowledgements until the stream ends.
func (c *Stream) read(ctx context.Context) {
	defer close(c.ended)
	for {
		m, err := c.next(ctx)
		if refused, ok := m.(wire.Refuse); ok && err == nil {
			err = fmt.Errorf("refused: %s: %s", refused.Code, refused.Text)
		}
		if err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
		ack, ok := m.(wire.Ack)
		if !ok {
			continue
		}
		now := time.Now()
		for _, id := range ack.IDs {
			c.mu.Lock()
			at, flew := c.flying[id]
			delete(c.flying, id)
			if flew {
				c.count++
			}
			c.mu.Unlock()
			if flew {
				<-c.window
				if c.acked != nil {
					c.acked(id, now.Sub(at))
				}
			}
		}
	}
}

// Send sends an encoded batch, once there is room in the window.
func (c *Stream) Send(ctx context.Context, id wire.BatchID, data []byte) error {
	select {
	case c.window <- struct{}{}:
	case <-c.ended:
		return c.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	c.flying[id] = time.Now()
	c.mu.Unlock()
	return c.write(ctx, wire.BatchMessage{Data: data})
}

// Settle waits until all that was sent is acknowledged.
func (c *Stream) Settle(ctx context.Context) error {
	for {
		c.mu.Lock()
		left := len(c.flying)
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-c.ended:
			return c.failure()
		case <-ctx.Done():
			return fmt.Errorf("%d batches are not acknowledged: %w", left, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Acked returns how many batches were acknowledged.
func (c *Stream) Acked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

func (c *Stream) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Errorf("the stream has ended: %w", c.err)
}

// Close ends the stream.
func (c *Stream) Close() {
	c.cancel()
	_ = c.conn.CloseNow() // what was not acknowledged the other side may forget
	<-c.ended
}
