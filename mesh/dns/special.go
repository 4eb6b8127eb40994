package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// empty are zones that are nobody's to ask upstream about: what is not in our
// own zones does not exist there.
var empty = func() map[string]bool {
	m := map[string]bool{}
	for _, zone := range []string{
		"local.",         // RFC 6762, 22.1: multicast only
		"localhost.",     // RFC 6761, 6.3
		"invalid.",       // RFC 6761, 6.4
		"test.",          // RFC 6761, 6.2
		"onion.",         // RFC 7686
		"alt.",           // RFC 9476
		"home.arpa.",     // RFC 8375
		"resolver.arpa.", // RFC 9462, 6.4: would name the resolver of somebody else
		"service.arpa.",  // RFC 9665
	} {
		m[zone] = true
	}
	for _, prefix := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.2.0/24", "192.168.0.0/16", // RFC 6303, 4.1 and 4.2
		"198.51.100.0/24", "203.0.113.0/24", "255.255.255.255/32",
		"::/128", "::1/128", "fd00::/8", "fe80::/12", "fe90::/12", "fea0::/12", "feb0::/12", "2001:db8::/32", // RFC 6303, 4.3 to 4.6
	} {
		m[reverseZone(netip.MustParsePrefix(prefix))] = true
	}
	for i := 16; i <= 31; i++ {
		m[reverseZone(netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i)}), 16))] = true
	}
	for i := 64; i <= 127; i++ { // RFC 7793
		m[reverseZone(netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i)}), 16))] = true
	}
	return m
}()

// emptyZone returns the empty zone that a canonical name is in, or "".
func emptyZone(name string) string {
	for parent := name; parent != ""; parent = parentOf(parent) {
		if empty[parent] {
			return parent
		}
	}
	return ""
}

// HaloLocal is the name by which a phone finds the node that it is connected
// to. It is multicast DNS's (mesh/mdns).
const HaloLocal = "halo.local."

// special answers what is never asked upstream, if q is that. here is the
// address that was asked.
//
// halo.local is answered although .local is multicast DNS's: phones that know
// none (Android before 12) ask their name server for it, and the answer is the
// same.
func special(m *dns.Msg, q dns.Question, here netip.Addr) bool {
	name := dns.CanonicalName(q.Name)
	zone := emptyZone(name)
	if zone == "" {
		switch {
		case q.Qtype == dns.TypeDS || q.Qtype == dns.TypeDNSKEY:
			return false // of top-level domains and the root, for clients that validate
		case dns.CountLabel(name) > 1:
			return false
		}
		zone = "."
	}
	m.Authoritative = true
	host := name == HaloLocal || zone == "localhost."
	if name == "localhost." || strings.HasSuffix(name, ".localhost.") {
		loopback := netip.IPv6Unspecified().Next()
		if q.Qtype == dns.TypeA {
			loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		here = loopback
	}
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: localTTL}
	switch {
	case host && q.Qtype == dns.TypeA && here.Is4():
		m.Answer = append(m.Answer, &dns.A{Hdr: header, A: here.AsSlice()})
		return true
	case host && q.Qtype == dns.TypeAAAA && here.Is6():
		m.Answer = append(m.Answer, &dns.AAAA{Hdr: header, AAAA: here.AsSlice()})
		return true
	case !host && name != zone:
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = append(m.Ns, soa(zone, zone, 1, specialTTL)) // RFC 6303, 3
	return true
}
