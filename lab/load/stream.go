package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"

	"halo.internal/model/wire"
)

// Stream is a node's connection. Send and the acknowledgements go on side by side.
type Stream struct {
	conn   *websocket.Conn
	cancel context.CancelFunc
	window chan struct{} // a token for each batch that is on its way
	acked  func(id wire.BatchID, took time.Duration)
	wanted chan struct{} // the gateway asks for a whole report of neighbours
	ended  chan struct{}

	mu     sync.Mutex // guards what follows
	flying map[wire.BatchID]onItsWay
	count  int
	err    error
}

// onItsWay is a batch that is neither acknowledged nor given up.
type onItsWay struct {
	since time.Time
	data  []byte
}

// busyPause is before a batch is sent again for which the gateway has no room yet: much less
// than a board's agent waits, since what is played is in a hurry.
const busyPause = 100 * time.Millisecond

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
	c := &Stream{conn: conn, window: make(chan struct{}, window), acked: acked, wanted: make(chan struct{}, 1), ended: make(chan struct{}), flying: map[wire.BatchID]onItsWay{}}
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
	h := wire.Hello{Key: key[:], Boot: n.Boot, Version: "played", Interval: uint64(cmp.Or(n.Every, time.Minute) / time.Second)}
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
			if refused.Code == wire.RefuseBusy && refused.ID != nil && !refused.Event {
				c.again(ctx, *refused.ID)
				continue
			}
			err = fmt.Errorf("refused: %s: %s", refused.Code, refused.Text)
		}
		if err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			return
		}
		if _, ok := m.(wire.NeighboursWanted); ok {
			select {
			case c.wanted <- struct{}{}:
			default: // it is about to be sent
			}
		}
		ack, ok := m.(wire.Ack)
		if !ok {
			continue
		}
		now := time.Now()
		for _, id := range ack.IDs {
			c.mu.Lock()
			f, flew := c.flying[id]
			delete(c.flying, id)
			if flew {
				c.count++
			}
			c.mu.Unlock()
			if flew {
				<-c.window
				if c.acked != nil {
					c.acked(id, now.Sub(f.since))
				}
			}
		}
	}
}

// again sends a batch once more, in a while.
func (c *Stream) again(ctx context.Context, id wire.BatchID) {
	time.AfterFunc(busyPause, func() {
		c.mu.Lock()
		f, flew := c.flying[id]
		c.mu.Unlock()
		if flew && ctx.Err() == nil {
			_ = c.write(ctx, wire.BatchMessage{Data: f.data}) // whoever reads sees that the stream has ended
		}
	})
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
	c.flying[id] = onItsWay{time.Now(), data}
	c.mu.Unlock()
	return c.write(ctx, wire.BatchMessage{Data: data})
}

// Tell sends a message that is not acknowledged, such as a report of neighbours.
func (c *Stream) Tell(ctx context.Context, m wire.Message) error { return c.write(ctx, m) }

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
