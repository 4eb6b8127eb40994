package dns

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"halo.internal/model"
	"halo.internal/model/paths"
)

// Which devices a component of a neuron is assigned to, only the gateway knows; the
// list of members, by which a node knows all others, does not carry it over the air.

// gateway is the upstream for names of neurons.
func (c Config) gateway() ([]netip.AddrPort, error) { return []netip.AddrPort{c.Gateway}, nil }

// elsewhere tells whether q is about a neuron's component that the gateway knows and
// this server does not.
func (s *Server) elsewhere(q dns.Question) bool {
	if !s.c.Gateway.IsValid() {
		return false
	}
	label, ok := strings.CutSuffix(dns.CanonicalName(q.Name), "."+Domain)
	if !ok {
		return false
	}
	_, _, err := model.ParseComponentName(label)
	return err == nil
}

// askGateway fills in what the gateway says on the question of r, or said last.
func (s *Server) askGateway(ctx context.Context, m, r *dns.Msg) {
	switch q := r.Question[0]; {
	case !r.RecursionDesired: // what others asked is not theirs to see
		m.Rcode = dns.RcodeRefused
	case q.Qtype == dns.TypeANY:
		m.Answer = append(m.Answer, minimalANY(q.Name))
	default:
		s.resolve(ctx, &s.home, question{name: dns.CanonicalName(q.Name), qtype: q.Qtype}).fill(m)
	}
}

// siftHome takes from the gateway's message the addresses of the name that was asked
// for, as far as they are of nodes of this network.
func (s *Server) siftHome(m *dns.Msg, q question) (result, time.Duration) {
	r := result{rcode: m.Rcode}
	for _, rr := range m.Answer {
		if h := rr.Header(); h.Class == dns.ClassINET && h.Rrtype == q.qtype && dns.CanonicalName(h.Name) == q.name && s.ofNode(rr) && len(r.answer) < maxAddresses {
			r.answer = append(r.answer, rr)
		}
	}
	if len(r.answer) == 0 {
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok && soa.Hdr.Class == dns.ClassINET && dns.CanonicalName(soa.Hdr.Name) == Domain {
				r.ns = []dns.RR{soa}
				break
			}
		}
	}
	return r, r.limit(len(r.answer) > 0)
}

// ofNode tells whether rr is the address of a node.
func (s *Server) ofNode(rr dns.RR) bool {
	var ip []byte
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A
	case *dns.AAAA:
		ip = rr.AAAA
	}
	a, _ := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return paths.OverlayNet.Contains(a) || s.c.ULA.IsValid() && s.c.ULA.Contains(a)
}
