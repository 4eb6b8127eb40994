// Package send keeps one WebSocket to the gateway and sends over it what the
// spool holds, until the gateway has acknowledged it. Live items go before the
// backlog, and the backlog goes oldest first, as fast as acknowledgements come
// back, so that a long outage is caught up with while present readings still
// arrive.
//
// There is no resending within a connection: an item that stays unacknowledged
// for too long ends it, and the next one sends everything that is not
// acknowledged again. The gateway tells duplicates by their numbers.
package send

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"

	"halo.internal/agent/command"
	"halo.internal/agent/spool"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Spool is what is sent.
type Spool interface {
	Items() []spool.Item
	Backlog(spool.Kind) []spool.Item
	SchemaOf(spool.Item) (wire.Schema, bool)
	Ack(spool.Kind, []wire.BatchID)
	Changed() <-chan struct{}
	// Boot is the number of this start. Settle is called with what the gateway has, before
	// anything is sent; renamed: the stream is to begin anew, under another number.
	Boot() uint64
	Settle(used uint64) (renamed bool, err error)
	AddEvent(kind string, s model.Severity, message string, fields map[string]string) error
}

var _ Spool = (*spool.Spool)(nil)

// Neighbours makes the reports of what is around the device, see package neighbourhood.
type Neighbours interface {
	// Begin is called when a stream has begun, Again when the gateway wants a whole
	// report.
	Begin()
	Again()
	// Next returns the report that is to be sent now, if one is; along tells whether
	// readings are.
	Next(now time.Time, along bool) (report model.Report, ok bool)
}

// Options of a sender. Zero durations take the defaults.
type Options struct {
	URL     string // of the stream, ws://
	Key     identity.Key
	Life    []byte // of this start of the machine (wire.Hello)
	Version string
	Spool   Spool
	// Interval between two batches, told to the gateway so that it knows when it
	// has waited too long.
	Interval time.Duration
	Status   func() model.NodeStatus
	Board    func() model.Board // sent when the gateway asks; nil: it is not known
	// Inventory is what is on the node's buses, and the digest that its status names; nil:
	// it is not told.
	Inventory func() (digest string, v model.Inventory)
	Commands  *command.Engine // nil: the node takes none
	// Neighbours may be nil: nothing is reported then.
	Neighbours Neighbours
	Health     func(health.State, string) // of the stream
	Retry      <-chan struct{}            // a token ends a pause: the way to the gateway may be back
	Log        *slog.Logger

	AckTimeout  time.Duration // an item unacknowledged for as long ends the connection
	BusyPause   time.Duration // before something that the gateway does not take at present is sent again
	StatusEvery time.Duration // at the latest
	StatusCheck time.Duration // how often the status is compared with the one sent
	MinPause    time.Duration // between two attempts to connect, doubled with each in vain
	MaxPause    time.Duration
}

const (
	dialTimeout   = 15 * time.Second
	greetTimeout  = 20 * time.Second
	writeTimeout  = 30 * time.Second
	minWindow     = 2 << 10   // octets of backlog on their way, at first
	maxWindow     = 128 << 10 // and as acknowledgements come: the gateway commits every few seconds
	backlogAtOnce = 16        // items of a kind before the live ones are looked at again
)

func (o *Options) setDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.AckTimeout, 45*time.Second)
	set(&o.BusyPause, 30*time.Second)
	set(&o.StatusEvery, 5*time.Minute)
	set(&o.StatusCheck, 5*time.Second)
	set(&o.MinPause, time.Second)
	set(&o.MaxPause, 30*time.Second)
}

// refused is the gateway's no to this node.
type refused struct{ code, text string }

func (r refused) Error() string { return fmt.Sprintf("gateway refused: %s: %s", r.code, r.text) }

// Run connects and sends until ctx ends.
func Run(ctx context.Context, opt Options) error {
	opt.setDefaults()
	u, err := url.Parse(opt.URL)
	if err != nil || u.Scheme != "ws" || u.Host == "" {
		return fmt.Errorf("stream address: expected ws://host:port/path, got %q", opt.URL)
	}
	client := &http.Client{Transport: &http.Transport{ // no proxy: the gateway is on the overlay
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		ResponseHeaderTimeout: dialTimeout,
		DisableKeepAlives:     true,
	}}
	pause, last := time.Duration(0), ""
	for {
		s := &session{Options: opt, host: u.Host, sent: make(map[sentKey]sentItem), settled: make(map[sentKey]bool), schemas: make(map[wire.SchemaID]bool), lanes: [spool.Event + 1]lane{spool.Batch: {window: minWindow}, spool.Event: {window: minWindow}}, acked: make(chan struct{}, 1)}
		err := s.run(ctx, client)
		if ctx.Err() != nil {
			return nil
		}
		if s.welcomed {
			last = ""
		}
		state := health.Degraded // what is read is kept, and sent later
		if errors.As(err, new(refused)) {
			state = health.Failed
		}
		opt.Health(state, err.Error())
		if text := err.Error(); text != last {
			opt.Log.Warn("no stream to the gateway", "err", err)
			last = text
		}
		if s.progress {
			pause = 0
		}
		pause = min(max(2*pause, opt.MinPause), opt.MaxPause)
		select {
		case <-ctx.Done():
			return nil
		case <-opt.Retry:
		case <-time.After(pause/2 + rand.N(pause/2+1)): // jitter: many nodes lose the gateway at the same instant
		}
	}
}

// greet runs the handshake on a new connection.
func (s *session) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	m, err := s.read(ctx)
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	c, ok := m.(wire.Challenge)
	if !ok {
		return unexpected(m, "a challenge")
	}
	key := s.Key.Public()
	hello := wire.Hello{Key: key[:], Boot: s.Spool.Boot(), Life: s.Life, Version: s.Version, Interval: uint64(min(s.Interval/time.Second, wire.MaxInterval))}
	if s.Commands != nil {
		hello.Session = command.Nonce()
	}
	hello.Signature = s.Key.Sign(wire.StreamContext, hello.SignedBytes(c.Nonce, s.host))
	if err := s.write(ctx, hello); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if m, err = s.read(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	w, ok := m.(wire.Welcome)
	if !ok {
		return unexpected(m, "a welcome")
	}
	switch renamed, err := s.Spool.Settle(w.Boot); {
	case err != nil:
		return fmt.Errorf("number of this start: %w", err)
	case renamed:
		return fmt.Errorf("the gateway has readings of start %d of this node, and this one was counted as %d: the stream begins anew as %d", w.Boot, hello.Boot, s.Spool.Boot())
	}
	for _, id := range w.Schemas {
		s.schemas[id] = true
	}
	if s.Commands != nil {
		s.line = s.Commands.Open(hello.Session, s.write)
	}
	s.welcomed = true
	return nil
}

func unexpected(m wire.Message, expected string) error {
	if r, ok := m.(wire.Refuse); ok {
		return refused{r.Code, r.Text}
	}
	return fmt.Errorf("handshake: expected %s, got %T", expected, m)
}

func (s *session) read(ctx context.Context) (wire.Message, error) {
	kind, b, err := s.conn.Read(ctx)
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageBinary {
		return nil, fmt.Errorf("expected a binary message, got text")
	}
	return wire.Unmarshal(b)
}

func (s *session) write(ctx context.Context, m wire.Message) error {
	b, err := wire.Marshal(m)
	if err != nil {
		return err
	}
	return s.writeRaw(ctx, b)
}

func (s *session) writeRaw(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return s.conn.Write(ctx, websocket.MessageBinary, b)
}
