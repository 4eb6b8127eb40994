package dns

import (
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"halo.internal/model/paths"
)

// maxChain is how many aliases lead to a name.
const maxChain = 16

// sift takes from a server's message what belongs to the answer, and how long
// that may be kept; all its records get that as their time to live.
func (s *Server) sift(m *dns.Msg, q question) (result, time.Duration) {
	r := result{rcode: m.Rcode}
	name, found, blocked := q.name, false, false
	seen := []string{}
	for len(seen) < maxChain && !slices.Contains(seen, name) {
		seen = append(seen, name)
		next := ""
		for _, rr := range m.Answer {
			switch {
			case rr.Header().Class != dns.ClassINET:
			case alias(rr, name, q):
				r.answer = append(r.answer, rr)
			case dns.CanonicalName(rr.Header().Name) != name:
			case rr.Header().Rrtype == q.qtype:
				found = true
				if leadsInside(rr, s.out.forbidden) {
					blocked = true
					continue
				}
				r.answer = append(r.answer, rr)
			case rr.Header().Rrtype == dns.TypeRRSIG && q.do && signs(rr, q.qtype, dns.TypeCNAME):
				r.answer = append(r.answer, rr)
			case rr.Header().Rrtype == dns.TypeCNAME && next == "":
				next = dns.CanonicalName(rr.(*dns.CNAME).Target)
				r.answer = append(r.answer, rr)
			}
		}
		if found || next == "" {
			break
		}
		name = next
		if s.local(name) { // what is there, upstream does not know
			break
		}
	}
	for _, rr := range m.Ns {
		if rr.Header().Class == dns.ClassINET && (supports(rr, name, found) || q.do && proves(rr)) {
			r.ns = append(r.ns, rr)
		}
	}
	ttl := r.limit(found)
	if blocked {
		r.extended = []failure{{dns.ExtendedErrorCodeBlocked, "an address of this network or host, about which the name server has no say, was left out"}}
		ttl = 0 // nobody but who asks is to wait until the server says better
	}
	return r, ttl
}

// local tells whether the name is one that is never asked upstream.
func (s *Server) local(name string) bool {
	return s.zones.Load().apex(name) != "" || emptyZone(name) != ""
}

// alias tells whether rr renames a domain that name is in (RFC 6672), or signs
// that.
func alias(rr dns.RR, name string, q question) bool {
	owner := dns.CanonicalName(rr.Header().Name)
	if owner == name || !dns.IsSubDomain(owner, name) {
		return false
	}
	return rr.Header().Rrtype == dns.TypeDNAME || rr.Header().Rrtype == dns.TypeRRSIG && q.do && signs(rr, dns.TypeDNAME)
}

func signs(rr dns.RR, types ...uint16) bool {
	sig, ok := rr.(*dns.RRSIG)
	return ok && slices.Contains(types, sig.TypeCovered)
}

// supports tells whether rr says how long there is nothing under name.
func supports(rr dns.RR, name string, found bool) bool {
	return !found && rr.Header().Rrtype == dns.TypeSOA && dns.IsSubDomain(dns.CanonicalName(rr.Header().Name), name)
}

// proves tells whether rr is there for clients that validate.
func proves(rr dns.RR) bool {
	switch rr.Header().Rrtype {
	case dns.TypeNSEC, dns.TypeNSEC3, dns.TypeRRSIG:
		return true
	}
	return false
}

// limit gives all records the same time to live and returns it. What says that
// there is nothing, but not for how long, is not kept (RFC 2308, 5).
func (r result) limit(found bool) time.Duration {
	ttl := maxTTL
	if !found {
		ttl = 0
		for _, rr := range r.ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(maxNegative, seconds(soa.Minttl))
			}
		}
	}
	for _, list := range [][]dns.RR{r.answer, r.ns} {
		for _, rr := range list {
			ttl = min(ttl, seconds(rr.Header().Ttl))
		}
	}
	for _, list := range [][]dns.RR{r.answer, r.ns} {
		for _, rr := range list {
			rr.Header().Ttl = uint32(ttl / time.Second)
		}
	}
	return ttl
}

// seconds reads a time to live; one with the highest bit is zero (RFC 2181, 8).
func seconds(ttl uint32) time.Duration {
	if ttl >= 1<<31 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// forbidden returns which addresses upstream has no say about.
func forbidden(ula netip.Prefix) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		a = a.Unmap()
		for _, p := range []netip.Prefix{paths.UnderlayNet, paths.OverlayNet, paths.ClientsNet, ula} {
			if p.Contains(a) {
				return true
			}
		}
		return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.Is4() && a.As4()[0] == 0
	}
}

// leadsInside tells whether rr has a forbidden address, also as a hint
// (RFC 9460, 7.3).
func leadsInside(rr dns.RR, forbidden func(netip.Addr) bool) bool {
	bad := func(ip []byte) bool {
		a, _ := netip.AddrFromSlice(ip)
		return forbidden(a)
	}
	var hints []dns.SVCBKeyValue
	switch rr := rr.(type) {
	case *dns.A:
		return bad(rr.A)
	case *dns.AAAA:
		return bad(rr.AAAA)
	case *dns.SVCB:
		hints = rr.Value
	case *dns.HTTPS:
		hints = rr.Value
	}
	for _, h := range hints {
		switch h := h.(type) {
		case *dns.SVCBIPv4Hint:
			for _, ip := range h.Hint {
				if bad(ip) {
					return true
				}
			}
		case *dns.SVCBIPv6Hint:
			for _, ip := range h.Hint {
				if bad(ip) {
					return true
				}
			}
		}
	}
	return false
}
