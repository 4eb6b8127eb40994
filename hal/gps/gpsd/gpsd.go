// Package gpsd shares a GPS receiver with programs by gpsd's protocol: JSON objects on
// lines over TCP, as gpsd_json(5) has it, and NMEA as the receiver sends it. So Debian's
// gpspipe and cgps, navigation programs and chrony's clients need not know that gpsd is not
// there. It tells, and takes no commands to the receiver.
package gpsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"halo.internal/hal/gps"
)

// What the protocol calls its version: that of gpsd 3.22.
const (
	release    = "3.22"
	protoMajor = 3
	protoMinor = 14
)

// Bounds.
const (
	maxClients = 16
	maxSame    = 6   // of one address that is not this device's
	maxRequest = 512 // octets of a request; gpsd's own have at most 1536, with settings that are not taken here
	maxQueue   = 64  // messages that wait for a client to read them
	writeLimit = 5 * time.Second
	// idleLimit is how long a client that watches nothing may say nothing.
	idleLimit = 10 * time.Minute
)

// Static is where the device was put, by whoever put it there.
type Static struct{ Lat, Lon, Alt float64 } // degrees; metres above sea level, NaN where it is not known

// StaticPath is what the device of a static position is called.
const StaticPath = "static"

// Server tells its clients what a receiver says. It is a gps.Listener.
type Server struct {
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	clients map[*client]struct{}
	refused uint64
	dropped uint64
	device  *gps.Device
	since   time.Time
	tpv     []byte // the last of each, as sent
	sky     []byte
	gst     []byte
	static  *Static
}

var _ gps.Listener = (*Server)(nil)

// New returns a server without clients.
func New(log *slog.Logger) *Server {
	return &Server{log: log, clients: map[*client]struct{}{}}
}

// Stats count.
type Stats struct {
	Clients int
	Refused uint64 // connections beyond the bounds
	Dropped uint64 // clients that did not read
}

// Stats returns what was counted.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{len(s.clients), s.refused, s.dropped}
}

// Place tells where the device was put: what is told while no receiver is there. nil: nobody
// has said.
func (s *Server) Place(p *Static) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.static = p
	if s.device == nil {
		s.placed()
	}
}

// placed makes the static position the last one. mu is held.
func (s *Server) placed() {
	s.tpv, s.sky, s.gst = nil, nil, nil
	if s.static != nil {
		s.tpv = encode(placeTPV(*s.static))
		s.send(s.tpv, watchJSON)
	}
}

// Repeat tells the static position again, for programs that take silence for a loss.
func (s *Server) Repeat() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device == nil && s.tpv != nil {
		s.send(s.tpv, watchJSON)
	}
}

// Found tells of a receiver.
func (s *Server) Found(d gps.Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.device, s.since = &d, time.Now()
	s.tpv, s.sky, s.gst = nil, nil, nil
	s.send(encode(deviceOf(d, s.since)), watchJSON)
}

// Gone tells that it is gone.
func (s *Server) Gone(d gps.Device, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.device = nil
	s.send(encode(goneOf(d)), watchJSON)
	s.placed()
}

// Sentence passes on what the receiver says.
func (s *Server) Sentence(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		if c.watches(watchNMEA) {
			c.queue([]byte(line + "\r\n"))
		}
	}
}

// Fix tells of a cycle.
func (s *Server) Fix(f gps.Fix, sky gps.Sky, _ gps.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device == nil {
		return
	}
	path := s.device.Path
	s.sky = encode(skyOf(path, f, sky))
	s.tpv = encode(tpvOf(path, f))
	s.gst = nil
	if f.SigmaLat > 0 && f.Mode != gps.NoFix {
		s.gst = encode(gstOf(path, f))
		s.send(s.gst, watchJSON)
	}
	s.send(s.sky, watchJSON)
	s.send(s.tpv, watchJSON)
}

// Pulse tells of a pulse.
func (s *Server) Pulse(p gps.Pulse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.device != nil {
		s.send(encode(ppsOf(p)), watchPPS)
	}
}

// send queues a message for all that watch such ones. mu is held.
func (s *Server) send(b []byte, what watch) {
	for c := range s.clients {
		if c.watches(what) {
			c.queue(b)
		}
	}
}

// Serve answers whoever connects and is allowed to, until ctx ends or the listener fails.
func (s *Server) Serve(ctx context.Context, l net.Listener, allowed func(local, remote netip.AddrPort) bool) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // it ends Accept
	defer stop()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close() // nobody has spoken on it
			}
			return nil
		}
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				continue
			}
			return fmt.Errorf("accept clients of the receiver: %w", err)
		}
		remote := addrOf(conn.RemoteAddr())
		if !allowed(addrOf(conn.LocalAddr()), remote) {
			_ = conn.Close() // whom it is not meant for hears nothing
			continue
		}
		c, ok := s.admit(conn, remote.Addr())
		if !ok {
			_ = conn.Close()
			continue
		}
		clients.Go(func() {
			defer s.leave(c)
			c.run(ctx)
		})
	}
}

func addrOf(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// admit makes a client of a connection, if there is room.
func (s *Server) admit(conn net.Conn, from netip.Addr) (*client, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := 0
	for c := range s.clients {
		if c.from == from {
			same++
		}
	}
	if len(s.clients) >= maxClients || same >= maxSame && !from.IsLoopback() {
		s.refused++
		return nil, false
	}
	c := &client{server: s, conn: conn, from: from, out: make(chan []byte, maxQueue), slow: make(chan struct{})}
	s.clients[c] = struct{}{}
	c.queue(encode(versionOf()))
	return c, true
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
}
