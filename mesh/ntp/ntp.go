// Package ntp tells clients the time: a server of NTP version 4 (RFC 5905) that
// answers from the machine's clock and says with each answer how good that is.
// A clock that is a guess says that it is not synchronised and gives no time.
//
// It answers requests of clients (mode 3) and nothing else: no peers, no
// broadcasts, and none of the control and private modes, whose answers are
// longer than the questions. An answer has 48 octets, as the shortest request
// has; extension fields and MACs are not looked at. Whoever asks too often is
// told so (RATE), and then gets nothing.
package ntp

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"halo.internal/mesh/listen"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Reading is what the clock says.
type Reading struct {
	Now     time.Time
	Quality model.ClockQuality
	// Gateway is the quality of the gateway's clock, where Quality is
	// ClockGateway; empty when it is not known, which is taken for a clock on a
	// battery.
	Gateway model.ClockQuality
	// Set is when the clock was last compared with what it follows, or a person; zero when it
	// is not known.
	Set time.Time
}

// Config of a server.
type Config struct {
	Clock func() Reading // called from many goroutines; must not block
	Log   *slog.Logger
}

// Counts of a server since its start.
type Counts struct {
	Answered       uint64 `json:"answered"`
	Unsynchronised uint64 `json:"unsynchronised" doc:"told that the clock is a guess"`
	Limited        uint64 `json:"limited" doc:"asked too often"`
	Ignored        uint64 `json:"ignored" doc:"no requests of clients"`
}

// Server tells the time. Its methods may be called from any goroutine.
type Server struct {
	c     Config
	limit *limit

	mu     sync.Mutex // guards counts
	counts Counts
}

// New returns a server.
func New(c Config) *Server { return &Server{c: c, limit: newLimit(time.Now)} }

// Counts returns the counts so far.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Serve answers at one address until ctx ends. It may be called for several.
func (s *Server) Serve(ctx context.Context, at listen.At) {
	at.Keep(ctx, s.c.Log.With("service", "ntp"), func(ctx context.Context) error { return s.serve(ctx, at) })
}

func (s *Server) serve(ctx context.Context, at listen.At) error {
	c, err := at.UDP(ctx, paths.NTPPort)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	b := make([]byte, maxRequest+1) // one more, so that a longer message is seen as such
	for {
		n, from, err := c.ReadFrom(b)
		received := s.c.Clock()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // of one datagram
			continue
		}
		answer := s.answer(b[:n], from.(*net.UDPAddr), received)
		if answer == nil {
			continue
		}
		_, _ = c.WriteTo(answer, from) // who has gone needs no answer
	}
}

// maxDelay is the longest that an answer takes. A clock that was set meanwhile
// would make one of two times.
const maxDelay = time.Second

// answer returns what to send, or nil.
func (s *Server) answer(b []byte, from *net.UDPAddr, received Reading) []byte {
	q, ok := parse(b)
	if !ok {
		s.count(func(c *Counts) { c.Ignored++ })
		return nil
	}
	switch s.limit.ask(listen.Client(from.AddrPort().Addr())) {
	case silent:
		s.count(func(c *Counts) { c.Limited++ })
		return nil
	case slower:
		s.count(func(c *Counts) { c.Limited++ })
		return q.kiss("RATE", ratePoll)
	}
	r := s.c.Clock()
	h, ok := quality(r)
	if !ok {
		s.count(func(c *Counts) { c.Unsynchronised++ })
		return q.kiss("INIT", q.poll)
	}
	if d := r.Now.Round(0).Sub(received.Now.Round(0)); d < 0 || d > maxDelay {
		return nil // the next question gets a better answer
	}
	s.count(func(c *Counts) { c.Answered++ })
	return q.answer(h, received.Now, r.Now)
}

func (s *Server) count(f func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.counts)
}

// Of a message (RFC 5905, 7.3), in octets.
const (
	size       = 48
	maxRequest = 1024
)

const (
	modeClient = 3
	modeServer = 4
	oldest     = 2 // version whose clients say that they are such
	newest     = 4
	unknown    = 3   // leap indicator: not synchronised
	ratePoll   = 6   // of who asks too often: 64 s
	precision  = -10 // about a millisecond: how late this process may read the clock
)

// request is what counts of a client's message.
type request struct {
	version byte
	poll    byte
	sent    [8]byte // its transmit timestamp, which need not be a time
}

func parse(b []byte) (request, bool) {
	if len(b) < size || len(b) > maxRequest {
		return request{}, false
	}
	q := request{version: b[0] >> 3 & 7, poll: b[2], sent: [8]byte(b[40:48])}
	return q, b[0]&7 == modeClient && q.version >= oldest && q.version <= newest
}

// header is what an answer says of the clock.
type header struct {
	stratum    byte
	dispersion time.Duration
	reference  [4]byte
	set        time.Time
}

const (
	// wander is how far a board's crystal may run apart from the time, per second.
	wander = 50e-6
	// A clock on a battery may stand minutes off, and nobody knows. It is all that
	// such a network has to agree on: clients would refuse an honest bound (chrony
	// beyond 3 s, ntpd beyond 1.5 s), and its stratum warns of it.
	ofGPS     = 100 * time.Millisecond
	ofRTC     = 500 * time.Millisecond
	ofGateway = 300 * time.Millisecond // what mesh/clock does not correct, and its way over the mesh
	ofLogin   = time.Second            // a phone's clock, and the way of its word

	stratumGPS = 1
	stratumRTC = 10 // any clock that is better known comes first
)

// quality returns what to say of a reading; false when it is a guess.
func quality(r Reading) (header, bool) {
	var h header
	switch r.Quality {
	case model.ClockGPS:
		h = header{stratumGPS, ofGPS, [4]byte{'G', 'P', 'S'}, r.Set}
	case model.ClockRTC:
		return header{stratumRTC, ofRTC, [4]byte{127, 127, 1, 1}, r.Now}, true // itself, as others write it
	case model.ClockLogin:
		h = header{stratumRTC + 1, ofLogin, [4]byte{127, 127, 1, 1}, r.Set}
	case model.ClockGateway:
		h = header{stratumRTC + 1, ofRTC + ofGateway, paths.OverlayGateway.As4(), r.Set}
		switch r.Gateway {
		case model.ClockGPS:
			h.stratum, h.dispersion = stratumGPS+1, ofGPS+ofGateway
		case model.ClockLogin:
			h.stratum, h.dispersion = stratumRTC+2, ofLogin+ofGateway
		}
	default:
		return header{}, false
	}
	if h.set.IsZero() || h.set.After(r.Now) {
		h.set = r.Now
	}
	h.dispersion += time.Duration(wander * float64(r.Now.Round(0).Sub(h.set.Round(0))))
	return h, true
}

func (q request) answer(h header, received, now time.Time) []byte {
	b := make([]byte, size)
	b[0] = q.version<<3 | modeServer
	b[1] = h.stratum
	b[2] = q.poll
	p := int8(precision)
	b[3] = byte(p)
	binary.BigEndian.PutUint32(b[8:], short(h.dispersion)) // what is over the mesh is in it: root delay stays zero
	copy(b[12:], h.reference[:])
	putTime(b[16:], h.set)
	copy(b[24:], q.sent[:])
	putTime(b[32:], received)
	putTime(b[40:], now)
	return b
}

// kiss returns a kiss-o'-death message (RFC 5905, 7.4). Its timestamps are the
// client's own: one that does not look at the rest finds its clock right.
func (q request) kiss(code string, poll byte) []byte {
	b := make([]byte, size)
	b[0] = unknown<<6 | q.version<<3 | modeServer
	b[2] = poll
	copy(b[12:], code)
	for _, at := range []int{16, 24, 32, 40} {
		copy(b[at:], q.sent[:])
	}
	return b
}

// short writes a duration in NTP's short format, in 2^-16 s; what does not fit
// is the most that does.
func short(d time.Duration) uint32 {
	return uint32(min(max(d.Seconds(), 0)*(1<<16), math.MaxUint32))
}

// epoch is that of the era of 1900 in Unix seconds.
const epoch = -2208988800

// putTime writes NTP's timestamp, which begins anew in 2036: who reads it knows
// about which time it is.
func putTime(b []byte, t time.Time) {
	binary.BigEndian.PutUint32(b, uint32(t.Unix()-epoch))
	binary.BigEndian.PutUint32(b[4:], uint32(uint64(t.Nanosecond())<<32/1e9))
}
