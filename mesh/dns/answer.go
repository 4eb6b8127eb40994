package dns

import (
	"context"
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"halo.internal/mesh/listen"
)

// handle answers one question, unless its client or all of them have too many
// already: then it is lost, as on any wire.
func (s *Server) handle(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) {
	client := listen.Client(addrOf(w.RemoteAddr()))
	if !s.take(client) {
		return
	}
	defer s.give(client)
	m := s.answer(ctx, r, addrOf(w.LocalAddr()))
	size := dns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size = dns.MinMsgSize
		if opt := r.IsEdns0(); opt != nil {
			size = max(size, min(int(opt.UDPSize()), maxUDP))
		}
	}
	m.Compress = true
	m.Truncate(size)
	_ = w.WriteMsg(m) // who has gone needs no answer
}

func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// answer makes the answer to a message with one question, which came to the
// address here.
func (s *Server) answer(ctx context.Context, r *dns.Msg, here netip.Addr) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r)
	m.RecursionAvailable = true
	opt, proper := optOf(r)
	if opt != nil {
		m.SetEdns0(maxUDP, opt.Do())
	}
	q := r.Question[0]
	switch {
	case !proper:
		m.Rcode = dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		m.Rcode = dns.RcodeBadVers
	case q.Qclass != dns.ClassINET || meta(q.Qtype):
		m.Rcode = dns.RcodeRefused
	case s.elsewhere(q):
		s.askGateway(ctx, m, r)
	case s.zones.Load().answer(m, q), special(m, q, here):
		s.count(func(c *Counts) { c.Local++ })
	case !r.RecursionDesired: // what others asked is not theirs to see
		m.Rcode = dns.RcodeRefused
	case q.Qtype == dns.TypeANY:
		m.Answer = append(m.Answer, minimalANY(q.Name))
	default:
		s.resolve(ctx, &s.out, question{dns.CanonicalName(q.Name), q.Qtype, opt != nil && opt.Do(), r.CheckingDisabled}).fill(m)
	}
	return m
}

// optOf returns the OPT record of a message, of which there may be one, at the
// root.
func optOf(r *dns.Msg) (opt *dns.OPT, proper bool) {
	proper = true
	for _, rr := range r.Extra {
		if o, ok := rr.(*dns.OPT); ok {
			proper = proper && opt == nil && o.Hdr.Name == "."
			opt = o
		}
	}
	return opt, proper
}

// meta tells of types that are no data of a name (RFC 6895, 3.1), save ANY.
func meta(t uint16) bool {
	return t == dns.TypeNone || t == dns.TypeOPT || t >= 128 && t < dns.TypeANY
}

// failure says why there is no answer, to people (RFC 8914).
type failure struct {
	code uint16
	text string
}

const maxText = 120 // octets of a failure's

// result is an answer from upstream or the cache.
type result struct {
	rcode      int
	answer, ns []dns.RR
	extended   []failure
}

// fill puts the result into the answer m, under the name as it was asked.
func (r result) fill(m *dns.Msg) {
	m.Rcode, m.Answer, m.Ns = r.rcode, r.answer, r.ns
	asked := m.Question[0].Name
	for _, rr := range m.Answer {
		if dns.CanonicalName(rr.Header().Name) == dns.CanonicalName(asked) {
			rr.Header().Name = asked
		}
	}
	opt := m.IsEdns0()
	if opt == nil {
		return
	}
	for _, e := range r.extended {
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: e.code, ExtraText: e.text})
	}
}
