package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	maxServers  = 4                       // that are asked
	maxAttempts = 4                       // at one question
	stagger     = 1200 * time.Millisecond // between them: a path over the mesh may be slow, and lossy
)

// refusedError is a server's answer that is none.
type refusedError struct {
	server netip.AddrPort
	rcode  int
	why    *failure // as it said itself
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("name server %s answered %s", e.server.Addr(), dns.RcodeToString[e.rcode])
}

// exchange asks one server after the other, without giving up on those before,
// until one has answered or ctx ends.
func (f *forwarder) exchange(ctx context.Context, servers []netip.AddrPort, q question) (*dns.Msg, error) {
	servers = f.order(servers)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		server netip.AddrPort
		m      *dns.Msg
		err    error
	}
	outcomes := make(chan outcome, maxAttempts)
	attempts := max(2, min(2*len(servers), maxAttempts))
	next := time.NewTimer(0)
	defer next.Stop()
	last := fmt.Errorf("no name server answered: %v", servers)
	for begun, ended := 0, 0; ; {
		select {
		case <-ctx.Done():
			return nil, last
		case <-next.C:
			server := servers[begun%len(servers)]
			begun++
			go func() {
				m, err := f.attempt(ctx, server, q)
				outcomes <- outcome{server, m, err}
			}()
			if begun < attempts {
				next.Reset(stagger)
			}
		case o := <-outcomes:
			if ended++; o.err == nil {
				f.answered(o.server)
				return o.m, nil
			}
			if _, refused := errors.AsType[*refusedError](o.err); refused || ctx.Err() == nil {
				last = o.err
			}
			if begun < attempts {
				next.Reset(0)
			} else if ended == begun {
				return nil, last
			}
		}
	}
}

// order puts the server that answered last in front.
func (f *forwarder) order(servers []netip.AddrPort) []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]netip.AddrPort, 0, len(servers))
	for _, s := range servers {
		if s == f.best {
			list = append([]netip.AddrPort{s}, list...)
		} else {
			list = append(list, s)
		}
	}
	return list[:min(len(list), maxServers)]
}

func (f *forwarder) answered(s netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.best = s
}

// attempt asks one server: over UDP, and over TCP when the answer does not fit
// or may not be the server's.
func (f *forwarder) attempt(ctx context.Context, server netip.AddrPort, q question) (*dns.Msg, error) {
	m := query(q)
	r, err := f.ask(ctx, "udp", server, m)
	if err != nil {
		return nil, fmt.Errorf("name server %s: %w", server.Addr(), err)
	}
	err = matches(r, m)
	if err == nil && r.Rcode == dns.RcodeFormatError && r.IsEdns0() == nil { // RFC 6891, 7: older than EDNS
		m.Extra = nil
		m.Id = dns.Id()
		if r, err = f.ask(ctx, "udp", server, m); err != nil {
			return nil, fmt.Errorf("name server %s: %w", server.Addr(), err)
		}
		err = matches(r, m)
	}
	if errors.Is(err, errCase) || err == nil && r.Truncated {
		if r, err = f.ask(ctx, "tcp", server, m); err != nil {
			return nil, fmt.Errorf("name server %s over TCP: %w", server.Addr(), err)
		}
		if err = matches(r, m); errors.Is(err, errCase) {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("name server %s: %w", server.Addr(), err)
	}
	lame := len(r.Answer) == 0 && !r.RecursionAvailable && !r.Authoritative
	if lame || r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return nil, &refusedError{server, r.Rcode, explained(r)}
	}
	return r, nil
}

// query asks with an ID and a case (0x20) that who does not see it has to guess.
func query(q question) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(mixCase(q.name), q.qtype)
	m.CheckingDisabled = q.cd
	m.SetEdns0(maxUDP, q.do)
	return m
}

func mixCase(name string) string {
	b := []byte(name)
	for i, c := range b {
		if 'a' <= c && c <= 'z' && rand.N(2) == 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

var (
	errCase  = errors.New("the answer does not have the question's case: it is forged, or from a server that forgets it")
	errOther = errors.New("the answer is to another question")
)

// matches tells whether r is the answer to m.
func matches(r, m *dns.Msg) error {
	if !r.Response || r.Opcode != m.Opcode || r.Id != m.Id || len(r.Question) != 1 {
		return errOther
	}
	got, want := r.Question[0], m.Question[0]
	switch {
	case got.Qtype != want.Qtype || got.Qclass != want.Qclass || !strings.EqualFold(got.Name, want.Name):
		return errOther
	case got.Name != want.Name:
		return errCase
	}
	return nil
}

// explained returns what the server says of its failure.
func explained(r *dns.Msg) *failure {
	opt := r.IsEdns0()
	if opt == nil {
		return nil
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			return &failure{e.InfoCode, text(e.ExtraText)}
		}
	}
	return nil
}

// ask is one exchange with a socket of its own, whose port the kernel draws.
func ask(ctx context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	c := dns.Client{Net: network, UDPSize: maxUDP, Timeout: flightTime}
	conn, err := c.DialContext(ctx, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	r, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	return r, err
}
