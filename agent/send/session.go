package send

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	"halo.internal/agent/command"
	"halo.internal/agent/spool"
	"halo.internal/health"
	"halo.internal/model/wire"
)

// session is one connection.
type session struct {
	Options
	host     string
	conn     *websocket.Conn
	line     *command.Line // nil: no commands
	welcomed bool          // set by the handshake, before the goroutines start
	acked    chan struct{} // a token after acknowledgements came
	cork     cork          // of the transmitter

	mu       sync.Mutex // guards what follows
	sent     map[sentKey]sentItem
	settled  map[sentKey]bool       // acknowledged since the spool was last listed
	schemas  map[wire.SchemaID]bool // that the gateway knows
	lanes    [spool.Event + 1]lane  // of the backlog, by spool.Kind
	progress bool                   // something was acknowledged
}

// lane is how much of the backlog of one kind is sent: what the gateway takes no more of does
// not hold up the other kind.
type lane struct {
	window int       // octets that may be on their way
	flying int       // octets that are
	after  time.Time // nothing before; the gateway takes no more at present
}

// room tells whether as many octets may follow. One item always may.
func (l *lane) room(n int) bool {
	return !time.Now().Before(l.after) && (l.flying == 0 || l.flying+n <= l.window)
}

type sentKey struct {
	kind spool.Kind
	id   wire.BatchID
}

// sentItem is an item that was sent on this connection.
type sentItem struct {
	at      time.Time // zero while it is to be repeated
	after   time.Time // not before; zero: at once
	backlog int       // octets, when it came from the backlog
	repeats int       // for want of its schema
	urgent  bool      // an event that does not wait for others
}

func (s *session) run(ctx context.Context, client *http.Client) error {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, resp, err := websocket.Dial(s.cork.traced(dialCtx), s.URL, &websocket.DialOptions{HTTPClient: client})
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
	if s.Neighbours != nil {
		s.Neighbours.Begin()
	}
	s.Health(health.OK, "")
	s.Log.Info("stream to the gateway is up", "peer", s.host)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.receive(ctx) })
	g.Go(func() error { return s.transmit(ctx) })
	if s.line != nil {
		g.Go(func() error { return s.line.Run(ctx) })
	}
	return g.Wait()
}
