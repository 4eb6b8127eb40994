package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	staleAfter = 1800 * time.Millisecond // that a client waits for upstream when there is a stale answer (RFC 8767, 5)
	flightTime = 6 * time.Second         // for all attempts at one question; a client asks again after 5 s
	maxFlights = 256                     // questions asked upstream at a time
)

// resolve answers from the cache, from those servers or, when that fails, from what
// the cache still has.
func (s *Server) resolve(ctx context.Context, f *forwarder, q question) result {
	servers, missing := f.known()
	generation := f.generation(servers)
	now, e := s.now(), s.cache.get(q)
	if e.fresh(now, generation) {
		if r, ok := e.result(now); ok {
			s.count(func(c *Counts) { c.Cached++ })
			return r
		}
	}
	var fail failure
	switch {
	case len(servers) == 0:
		fail = failure{dns.ExtendedErrorCodeNetworkError, text("no way out: ", missing.Error())}
	case e.failing(now, generation):
		fail = e.failure
	default:
		r, err := s.fly(ctx, f, q, servers, generation, e.usable(now))
		if err == nil {
			return r
		}
		fail = explain(err)
	}
	if e.usable(now) {
		if r, ok := e.result(now); ok {
			s.count(func(c *Counts) { c.Stale++ })
			stale := failure{code: dns.ExtendedErrorCodeStaleAnswer}
			if r.rcode == dns.RcodeNameError {
				stale.code = dns.ExtendedErrorCodeStaleNXDOMAINAnswer
			}
			r.extended = []failure{stale, fail}
			return r
		}
	}
	s.count(func(c *Counts) { c.Failed++ })
	return result{rcode: dns.RcodeServerFailure, extended: []failure{fail}}
}

var errNoServers = errors.New("no name server is known")

func (f *forwarder) known() ([]netip.AddrPort, error) {
	if f.servers == nil {
		return nil, errNoServers
	}
	servers, err := f.servers()
	if len(servers) == 0 && err == nil {
		err = errNoServers
	}
	return servers, err
}

var (
	errBusy = errors.New("too many questions wait for an answer")
	errSlow = errors.New("the name servers take their time")
)

// fly asks the servers; all who ask the same wait for one flight. It goes on when
// nobody waits any more, for the next who asks. impatient is who has a stale
// answer.
func (s *Server) fly(ctx context.Context, f *forwarder, q question, servers []netip.AddrPort, generation uint64, impatient bool) (result, error) {
	landed := f.flights.DoChan(fmt.Sprint(q, generation), func() (any, error) {
		// Another flight may have landed since the cache was looked at.
		if now, e := s.now(), s.cache.get(q); e.fresh(now, generation) {
			if r, ok := e.result(now); ok {
				return r, nil
			}
		}
		if !f.start() {
			return nil, errBusy
		}
		defer f.end()
		flight, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTime)
		defer cancel()
		s.count(func(c *Counts) { c.Forwarded++ })
		return s.keep(flight, f, q, servers, generation)
	})
	var enough <-chan time.Time
	if impatient {
		t := time.NewTimer(staleAfter)
		defer t.Stop()
		enough = t.C
	}
	select {
	case l := <-landed:
		if l.Err != nil {
			return result{}, l.Err
		}
		return l.Val.(result).clone(), nil
	case <-enough:
		return result{}, errSlow
	case <-ctx.Done():
		return result{}, ctx.Err()
	}
}

func (r result) clone() result {
	for _, list := range []*[]dns.RR{&r.answer, &r.ns} {
		*list = slices.Clone(*list)
		for i, rr := range *list {
			(*list)[i] = dns.Copy(rr)
		}
	}
	return r
}

// keep asks the servers and keeps what they say, or that they say nothing.
func (s *Server) keep(ctx context.Context, f *forwarder, q question, servers []netip.AddrPort, generation uint64) (result, error) {
	m, err := f.exchange(ctx, servers, q)
	if err != nil {
		s.cache.change(q, func(e *entry) {
			e.failed, e.failure, e.failedGeneration = s.now(), explain(err), generation
		})
		return result{}, err
	}
	r, ttl := f.sift(m, q)
	if ttl < time.Second {
		return r, nil
	}
	wire, err := (&dns.Msg{MsgHdr: dns.MsgHdr{Rcode: r.rcode}, Compress: true, Answer: r.answer, Ns: r.ns}).Pack()
	if err != nil {
		return r, nil // it can still be told to who asked
	}
	s.cache.change(q, func(e *entry) {
		*e = entry{wire: wire, stored: s.now(), ttl: ttl, generation: generation}
	})
	return r, nil
}

// explain says to people why upstream gave no answer.
func explain(err error) failure {
	if refused, ok := errors.AsType[*refusedError](err); ok {
		if refused.why != nil { // it knows better, as a gateway does of its uplink
			return *refused.why
		}
		return failure{dns.ExtendedErrorCodeOther, text(err.Error())}
	}
	return failure{dns.ExtendedErrorCodeNoReachableAuthority, text(err.Error())}
}

// text bounds what is told, to printable characters.
func text(parts ...string) string {
	t := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return -1
		}
		return c
	}, strings.Join(parts, ""))
	for len(t) > maxText {
		t = strings.ToValidUTF8(t[:maxText], "")
	}
	return t
}

// forwarder asks other servers.
type forwarder struct {
	ask       func(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error)
	servers   Upstream
	sift      func(*dns.Msg, question) (result, time.Duration) // what belongs to the answer, and how long it holds
	forbidden func(netip.Addr) bool                            // addresses that upstream has no say about
	flights   singleflight.Group

	mu      sync.Mutex // guards what follows
	flying  int
	best    netip.AddrPort   // answered last
	last    []netip.AddrPort // servers
	changes uint64
}

func (f *forwarder) start() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flying >= maxFlights {
		return false
	}
	f.flying++
	return true
}

func (f *forwarder) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flying--
}

// generation counts how often the servers have become others. Another network's
// may tell otherwise, so that answers of before are only good for when it says
// nothing; servers that went and came back are the same.
func (f *forwarder) generation(servers []netip.AddrPort) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(servers) > 0 && !slices.Equal(f.last, servers) {
		f.last = slices.Clone(servers)
		f.changes++
	}
	return f.changes
}
