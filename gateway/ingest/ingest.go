// Package ingest receives what nodes send: one WebSocket per node, opened by a
// challenge that the node answers with its key, over which batches, events and
// heartbeats come. A batch is verified, deduplicated and committed, and only
// then acknowledged.
package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/coder/websocket"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/telemetry"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

const (
	maxStreams   = 512
	helloTimeout = 20 * time.Second
	lastWords    = 3 * time.Second // for the streams at the end
	reportEvery  = 10 * time.Minute
	maxReports   = 1024
)

// Commands is what nodes are asked to do. Its methods do not wait for nodes.
type Commands interface {
	// Attach begins a node's stream by the nonce of its hello, which may be nil, and when
	// its welcome was written. send does not wait.
	Attach(node string, nonce []byte, welcomed time.Time, send func(wire.Message)) (detach func())
	// Take handles a message about commands, or returns false.
	Take(ctx context.Context, node string, m wire.Message) bool
}

// Config is what New needs.
type Config struct {
	Registry  *registry.Registry
	Telemetry *telemetry.Store
	Events    *events.Log
	Clock     *clock.Clock
	Log       *slog.Logger
	Every     time.Duration // between commits of what is not urgent
	Commands  Commands      // nil: none

	Neighbours Neighbours // gets what nodes see around them; nil: nobody does
	Hardware   Hardware   // keeps what is on their buses; nil: nobody does
}

// Server is the HTTP handler of the stream. Run has to be running.
type Server struct {
	Config
	commit     *committer
	allowances allowances
	unproven   unproven
	overlay    netip.Prefix
	life       context.Context // of all streams
	end        context.CancelFunc
	open       sync.WaitGroup

	mu       sync.Mutex // guards what follows
	ended    bool       // no more are opened
	streams  map[string]*session
	reported map[string]time.Time
}

// New returns a server.
func New(c Config) *Server {
	life, end := context.WithCancel(context.Background())
	return &Server{
		Config: c,
		commit: newCommitter(c.Telemetry, c.Events, c.Clock.Now, c.Every, c.Log),

		overlay:  overlayOf(c.Registry.Network()),
		life:     life,
		end:      end,
		streams:  map[string]*session{},
		reported: map[string]time.Time{},
	}
}

// Run commits what comes until ctx ends; then it ends the streams and waits for
// them: they tell the registry of their end. An error means that telemetry.db is
// damaged and the process has to start again.
func (s *Server) Run(ctx context.Context) error {
	err := s.commit.run(ctx)
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.end()
	all := make(chan struct{})
	go func() {
		s.open.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-time.After(lastWords): // one is held up by the other side: the process is leaving
	}
	return err
}

// enter counts a stream, unless Run has ended.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.open.Add(1)
	}
	return !s.ended
}

// Disconnect ends a node's stream, as after it was revoked.
func (s *Server) Disconnect(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.streams[node]; c != nil {
		c.cancel()
	}
}

// ServeHTTP serves GET /v1/nodes/stream.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		apitype.WriteProblem(w, apitype.Refuse(http.StatusBadRequest, "", "the stream needs a TCP connection"))
		return
	}
	if !s.enter() {
		apitype.WriteProblem(w, apitype.Refuse(http.StatusServiceUnavailable, "", "the gateway is stopping").After(5*time.Second))
		return
	}
	defer s.open.Done()
	source := remote.Addr().Unmap().WithZone("")
	if !s.mayBeNode(source) {
		apitype.WriteProblem(w, apitype.Refuse(http.StatusForbidden, "", "the stream is for nodes, from their overlay addresses"))
		return
	}
	leave, ok := s.unproven.enter(source)
	if !ok {
		apitype.WriteProblem(w, apitype.Refuse(http.StatusServiceUnavailable, "", "too many connections that have not said who they are").After(10*time.Second))
		return
	}
	proven := sync.OnceFunc(leave)
	defer proven()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	conn.SetReadLimit(wire.MaxMessage)
	ctx, cancel := context.WithCancel(s.life) // a hijacked connection is not the HTTP server's any more
	defer cancel()
	c := &session{server: s, conn: conn, ctx: ctx, cancel: cancel, remote: source, out: newAnswers()}
	m, key, boot, err := s.greet(c, r.Host)
	if err != nil {
		s.Log.Debug("stream refused", "peer", remote.String(), "err", err)
		proven()                                                   // it has had its time; to close may take some more
		_ = conn.Close(websocket.StatusPolicyViolation, "refused") // the reason went before
		return
	}
	proven()
	if !s.add(m.ID, c) {
		_ = c.write(ctx, wire.Refuse{Code: wire.RefuseBusy, Text: "too many streams"}) // it is closed in any case
		_ = conn.Close(websocket.StatusTryAgainLater, "too many streams")
		return
	}
	defer s.remove(m.ID, c)
	// Once more: a node revoked since it was greeted had no stream yet that could be ended.
	if now, err := s.Registry.Member(ctx, key); err != nil || now.Revoked || now.Quarantined {
		_ = conn.CloseNow() // it hears the reason when it comes again
		return
	}
	defer s.Registry.Online(m.ID, boot)()
	c.gateway = m.Gateway
	if s.Commands != nil {
		defer s.Commands.Attach(m.ID, c.nonce, c.welcomed, c.send)()
	}
	if err := c.serve(); err != nil && ctx.Err() == nil {
		s.Log.Debug("stream ended", "node", m.ID, "err", err)
	}
	_ = conn.Close(websocket.StatusGoingAway, "") // it may be gone already
}

// greet runs the handshake and returns who the node is. On failure it has told
// the node why.
func (s *Server) greet(c *session, host string) (m registry.Member, key identity.PublicKey, boot uint64, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, helloTimeout)
	defer cancel()
	nonce := make([]byte, wire.NonceSize)
	rand.Read(nonce)
	if err := c.write(ctx, wire.Challenge{Nonce: nonce}); err != nil {
		return m, key, 0, err
	}
	first, err := c.read(ctx)
	if err != nil {
		return m, key, 0, err
	}
	h, ok := first.(wire.Hello)
	if !ok {
		return m, key, 0, c.reject(ctx, wire.RefuseUnauthorized, fmt.Sprintf("expected a hello first, got %T", first))
	}
	key = identity.PublicKey(h.Key)
	if !key.Verify(wire.StreamContext, h.SignedBytes(nonce, host), h.Signature) {
		s.report("stream.signature", key.ID(), "somebody without its key claimed to be this node", c.remote)
		return m, key, 0, c.reject(ctx, wire.RefuseUnauthorized, "the signature does not fit the key, the nonce and the host "+host)
	}
	m, err = s.Registry.Member(ctx, key)
	switch {
	case errors.Is(err, registry.ErrUnknown):
		return m, key, 0, c.reject(ctx, wire.RefuseUnknown, "join first")
	case err != nil:
		return m, key, 0, errors.Join(err, c.reject(ctx, wire.RefuseBusy, "the registry is unavailable"))
	case m.Revoked:
		s.report("stream.revoked", m.ID, "a revoked node tried to connect", c.remote)
		return m, key, 0, c.reject(ctx, wire.RefuseRevoked, "this node was revoked")
	case m.Quarantined:
		s.report("stream.quarantined", m.ID, "a quarantined node tried to connect", c.remote)
		return m, key, 0, c.reject(ctx, wire.RefuseQuarantined, "this node is quarantined: its key was on two devices at once")
	case !fits(m, c.remote):
		s.report("stream.source", m.ID, "the node connected from an address that is not its own", c.remote)
		return m, key, 0, c.reject(ctx, wire.RefuseUnauthorized, fmt.Sprintf("expected overlay address %s or %s, got %s", m.V4, m.V6, c.remote))
	}
	if c.node = m.ID; !c.allow(&nodeStreams) {
		return m, key, 0, c.reject(ctx, wire.RefuseBusy, nodeStreams.String())
	}
	// Somebody's turn may be another's: only who has shown the key counts.
	cloned, err := s.Registry.Lives(ctx, m.ID, h.Life, h.Boot, c.remote)
	switch {
	case err != nil:
		return m, key, 0, errors.Join(err, c.reject(ctx, wire.RefuseBusy, "the registry is unavailable"))
	case cloned:
		s.Disconnect(m.ID) // the other one
		return m, key, 0, c.reject(ctx, wire.RefuseQuarantined, "this node's key is on two devices at once: both are quarantined")
	}
	last, err := s.lastBoot(ctx, m.ID)
	if err != nil {
		return m, key, 0, errors.Join(err, c.reject(ctx, wire.RefuseBusy, "the events are unavailable"))
	}
	c.boot, c.every = h.Boot, time.Duration(h.Interval)*time.Second
	c.quiet, c.nonce, c.welcomed = quietAfter(h.Interval), h.Session, time.Now()
	return m, key, h.Boot, c.write(ctx, wire.Welcome{Time: s.Clock.Now().UnixMilli(), Clock: s.Clock.Quality(), Schemas: s.Telemetry.Schemas(m.ID), Boot: last})
}

// lastBoot returns the highest boot counter under which something of a node is stored. Of
// a node that counts a start twice, what is new would be taken for what is there.
func (s *Server) lastBoot(ctx context.Context, node string) (uint64, error) {
	last, err := s.Events.LastBoot(ctx, node)
	return max(last, s.Telemetry.LastBoot(node)), err
}

// quietAfter is how long a node that sends every interval seconds may be
// silent: one sending may be late or lost.
func quietAfter(interval uint64) time.Duration {
	every := time.Duration(interval) * time.Second
	if every == 0 {
		every = usualInterval
	}
	return 2*every + quietMargin
}

// fits tells whether a node may come from that address: its own in the
// overlay, which WireGuard vouches for; the gateway's own agent also from the
// loopback.
func fits(m registry.Member, remote netip.Addr) bool {
	return remote == m.V4 || remote == m.V6 || m.Gateway && remote.IsLoopback()
}

// report makes an event of a refusal, once in a while for each node and kind.
func (s *Server) report(kind, node, message string, remote netip.Addr) {
	s.mu.Lock()
	now, what := time.Now(), kind+node
	_, again := s.reported[what]
	if again && now.Sub(s.reported[what]) < reportEvery {
		s.mu.Unlock()
		return
	}
	if len(s.reported) >= maxReports {
		clear(s.reported)
	}
	s.reported[what] = now
	s.mu.Unlock()
	s.Events.Add(kind, model.Warning, node, message, map[string]string{"remote": remote.String()})
}

// add makes c the node's stream and ends the one before: the node has
// reconnected and the old connection has not noticed yet.
func (s *Server) add(node string, c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.streams[node]; old != nil {
		old.cancel()
	} else if len(s.streams) >= maxStreams {
		return false
	}
	s.streams[node] = c
	return true
}

func (s *Server) remove(node string, c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[node] == c {
		delete(s.streams, node)
	}
}
