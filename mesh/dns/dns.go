// Package dns answers names: a server on every node for its clients and its own
// processes, and on the gateway for the nodes. It is the authority for .halo
// and for the reverse zones of HALO's networks, from a table that it is given,
// but for the names of neurons, which only the gateway has: others ask it and keep
// what it says. It says itself that there are no names where none can be (special names such
// as .local, single labels, private reverse zones); everything else it asks of
// upstream servers and keeps in a bounded cache, which still answers while
// there is no way out (RFC 8767).
//
// The codec and the server's loop are those of github.com/miekg/dns.
//
// # What nobody can do to it
//
// Sources that a listener does not allow get nothing (mesh/listen). Answers over
// UDP are no longer than the asker says that it takes, 1232 octets at most, and
// ANY gets one small record (RFC 8482). What one client may have asked at a time
// is bounded, and so is the whole. Upstream is not trusted either: of its
// answers only the records that belong to the question are kept, and no
// address of HALO's own networks, of the loopback or of a link (rebinding).
// Other private addresses are let through, since the network that the uplink is
// in may well have names for its own hosts. Answers are not validated (DNSSEC):
// a client that does gets the records that it needs, and the AD bit is never
// passed on. The gateway is asked over the overlay, and for names of neurons alone:
// of its answers only addresses of the network are kept.
package dns

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"halo.internal/mesh/listen"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Config of a server.
type Config struct {
	ULA      netip.Prefix // the network's /48
	Upstream Upstream
	Gateway  netip.AddrPort // whom to ask for the names of neurons; the zero value: the table has them
	Cache    int            // octets; 0: DefaultCache
	Log      *slog.Logger
}

// DefaultCache is some thousands of names.
const DefaultCache = 2 << 20

// Upstream returns the servers to ask, the preferred ones first, and why there
// are none: clients are told so (RFC 8914). It is called for each question that
// the cache does not answer, and must not block.
type Upstream func() ([]netip.AddrPort, error)

// Bounds.
const (
	maxUDP       = 1232 // octets, beyond which messages may be fragmented
	maxQuestions = 512  // being answered at a time
	maxOfClient  = 64   // of them of one client; a node asks the gateway for all its clients
	maxConns     = 64
	maxConnsOf   = 8   // of one client
	maxOnConn    = 128 // questions on one connection
	idleConn     = 10 * time.Second
	readConn     = 5 * time.Second // for the first question of a connection
)

// Server answers names. Its methods may be called from any goroutine.
type Server struct {
	c     Config
	zones atomic.Pointer[zones]
	cache *cache
	out   forwarder // to the world
	home  forwarder // to the gateway
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	busy    int
	clients map[netip.Addr]int
	serial  uint32
	counts  Counts
}

// Counts of a server since its start.
type Counts = model.DNSCounts

// New returns a server with an empty table.
func New(c Config) *Server {
	if c.Cache == 0 {
		c.Cache = DefaultCache
	}
	s := &Server{c: c, cache: newCache(c.Cache), now: time.Now, clients: make(map[netip.Addr]int)}
	s.out.ask, s.out.servers, s.out.sift, s.out.forbidden = ask, c.Upstream, s.sift, forbidden(c.ULA)
	s.home.ask, s.home.servers, s.home.sift = ask, c.gateway, s.siftHome
	_ = s.Set(nil)
	return s
}

// Set puts hosts in place of all that were there. Those that can have no name
// are left out, and the error says which.
func (s *Server) Set(hosts []Host) error {
	s.mu.Lock()
	defer s.mu.Unlock() // the table set last is the one that stays
	s.serial++
	z, err := newZones(hosts, s.c.ULA, s.serial)
	s.zones.Store(z)
	return err
}

// Counts returns the counts so far.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Octets = s.cache.octets()
	return c
}

func (s *Server) count(f func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.counts)
}

// Serve answers at one address, UDP and TCP, until ctx ends. It may be called
// for several.
func (s *Server) Serve(ctx context.Context, at listen.At) {
	at.Keep(ctx, s.c.Log.With("service", "dns"), func(ctx context.Context) error { return s.serve(ctx, at) })
}

func (s *Server) serve(ctx context.Context, at listen.At) error {
	udp, err := at.UDP(ctx, paths.DNSPort)
	if err != nil {
		return err
	}
	tcp, err := at.TCP(ctx, paths.DNSPort, listen.Bounds{Most: maxConns, Client: maxConnsOf, Write: idleConn})
	if err != nil {
		return errors.Join(err, udp.Close())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { s.handle(ctx, w, r) })
	var running sync.WaitGroup
	for _, d := range []*dns.Server{
		{PacketConn: udp, UDPSize: maxUDP, Handler: handler},
		{Listener: tcp, Handler: handler, ReadTimeout: readConn, IdleTimeout: func() time.Duration { return idleConn }, MaxTCPQueries: maxOnConn},
	} {
		d.MsgAcceptFunc = accept
		started := make(chan struct{})
		start := sync.OnceFunc(func() { close(started) })
		d.NotifyStartedFunc = start
		running.Go(func() {
			cancel(d.ActivateAndServe())
			start() // it may have failed before
		})
		running.Go(func() {
			<-ctx.Done()
			<-started // a server that has not started can't be shut down
			_ = d.Shutdown()
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// accept takes questions only, one in a message; the library answers others
// with an error of twelve octets, and responses not at all.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response, opcode = 1 << 15, 15 << 11
	switch {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case h.Bits&opcode != dns.OpcodeQuery:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount != 0 || h.Nscount != 0 || h.Arcount > 2: // OPT, TSIG
		return dns.MsgReject
	}
	return dns.MsgAccept
}

func (s *Server) take(client netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Questions++
	if s.busy >= maxQuestions || s.clients[client] >= maxOfClient {
		s.counts.Dropped++
		return false
	}
	s.busy++
	s.clients[client]++
	return true
}

func (s *Server) give(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if s.clients[client]--; s.clients[client] == 0 {
		delete(s.clients, client)
	}
}
