package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"halo.internal/model/paths"
)

// Host is a name below .halo and its addresses.
type Host struct {
	// Name is relative to .halo, in letters, digits and hyphens: "node1",
	// "gateway", "phone.node1", "brain-sensor-n01".
	Name string
	// Addresses are A and AAAA records; of two hosts with one address, the first
	// in the table is what the address's reverse name points to.
	Addresses []netip.Addr
}

// Domain is HALO's own, which is nobody's in the world's DNS.
const Domain = "halo."

// Times to live, in seconds. Nodes join, and phones come, at any time: that
// there is no such name is soon to be asked again.
const (
	localTTL    = 60
	negativeTTL = 15
	specialTTL  = 3600 // of names that there never are
)

const (
	maxHosts     = 8192
	maxAddresses = 16
)

// zones are what the server is the authority for. They do not change.
type zones struct {
	names  map[string]*records // canonical names, in .halo those between them and the zone as well
	apexes []string
	serial uint32
}

type records struct {
	a, aaaa []netip.Addr
	ptr     string
}

func newZones(hosts []Host, ula netip.Prefix, serial uint32) (*zones, error) {
	z := &zones{names: make(map[string]*records), serial: serial, apexes: []string{Domain}}
	for _, p := range []netip.Prefix{paths.UnderlayNet, paths.OverlayNet, paths.ClientsNet, ula} {
		if p.IsValid() {
			z.apexes = append(z.apexes, reverseZone(p))
		}
	}
	for _, apex := range z.apexes {
		z.names[apex] = &records{}
	}
	var errs error
	if len(hosts) > maxHosts {
		errs = fmt.Errorf("names: expected %d hosts at most, got %d: the others are left out", maxHosts, len(hosts))
		hosts = hosts[:maxHosts]
	}
	for _, h := range hosts {
		if err := z.add(h); err != nil {
			errs = errors.Join(errs, err)
		}
	}
	return z, errs
}

func (z *zones) add(h Host) error {
	name := dns.CanonicalName(h.Name + "." + Domain)
	if !hostname(name) {
		return fmt.Errorf("name %.80q: expected labels of letters, digits and hyphens, 63 at most each and 253 in all", h.Name)
	}
	r := z.at(name)
	for _, addr := range h.Addresses {
		list := &r.aaaa
		addr = addr.Unmap().WithZone("")
		if addr.Is4() {
			list = &r.a
		}
		if !addr.IsValid() || len(*list) >= maxAddresses {
			return fmt.Errorf("name %q: expected %d addresses of a kind at most, got %v", h.Name, maxAddresses, h.Addresses)
		}
		if contains(*list, addr) {
			continue
		}
		*list = append(*list, addr)
		reverse, err := dns.ReverseAddr(addr.String())
		if err != nil {
			return fmt.Errorf("name %q: %w", h.Name, err)
		}
		if z.apex(reverse) != "" && z.names[reverse] == nil {
			z.names[reverse] = &records{ptr: name}
		}
	}
	return nil
}

func contains(list []netip.Addr, a netip.Addr) bool {
	for _, l := range list {
		if l == a {
			return true
		}
	}
	return false
}

// at returns the records of a name in .halo, and sees to it that all between it
// and the zone exist (RFC 8020).
func (z *zones) at(name string) *records {
	for parent := name; parent != Domain; parent = parentOf(parent) {
		if z.names[parent] == nil {
			z.names[parent] = &records{}
		}
	}
	return z.names[name]
}

// apex returns the zone that a canonical name is in, or "".
func (z *zones) apex(name string) string {
	for _, apex := range z.apexes {
		if dns.IsSubDomain(apex, name) {
			return apex
		}
	}
	return ""
}

// answer fills in what the zones say on q, if it is theirs.
func (z *zones) answer(m *dns.Msg, q dns.Question) bool {
	name := dns.CanonicalName(q.Name)
	apex := z.apex(name)
	if apex == "" {
		return false
	}
	m.Authoritative = true
	r, ok := z.names[name]
	switch {
	case ok:
	case partOfReverse(name):
		r = &records{}
	default:
		m.Rcode = dns.RcodeNameError
		m.Ns = append(m.Ns, z.soa(apex, negativeTTL))
		return true
	}
	header := func(kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: localTTL}
	}
	switch q.Qtype {
	case dns.TypeA:
		for _, a := range r.a {
			m.Answer = append(m.Answer, &dns.A{Hdr: header(dns.TypeA), A: a.AsSlice()})
		}
	case dns.TypeAAAA:
		for _, a := range r.aaaa {
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header(dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	case dns.TypePTR:
		if r.ptr != "" {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: header(dns.TypePTR), Ptr: r.ptr})
		}
	case dns.TypeSOA:
		if name == apex {
			m.Answer = append(m.Answer, z.soa(q.Name, localTTL))
		}
	case dns.TypeNS:
		if name == apex {
			m.Answer = append(m.Answer, &dns.NS{Hdr: header(dns.TypeNS), Ns: nameServer})
		}
	case dns.TypeANY:
		m.Answer = append(m.Answer, minimalANY(q.Name))
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, z.soa(apex, negativeTTL))
	}
	return true
}

const nameServer = "gateway." + Domain

func (z *zones) soa(apex string, ttl uint32) *dns.SOA { return soa(apex, nameServer, z.serial, ttl) }

// soa makes a zone's record; a name that does not exist stays so for ttl
// (RFC 2308, 4).
func soa(apex, server string, serial, ttl uint32) *dns.SOA {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  server, Mbox: "nobody.invalid.", Serial: serial, Refresh: 3600, Retry: 1200, Expire: 604800, Minttl: ttl,
	}
}

// minimalANY is the one record that is answered to ANY (RFC 8482, 4.2).
func minimalANY(name string) dns.RR {
	return &dns.HINFO{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: specialTTL}, Cpu: "RFC8482"}
}

// reverseZone returns the zone of a prefix whose length is whole labels.
func reverseZone(p netip.Prefix) string {
	reverse, err := dns.ReverseAddr(p.Masked().Addr().String())
	if err != nil {
		panic("dns: reverse zone of " + p.String() + ": " + err.Error()) // an address that was parsed
	}
	bits := 8
	if p.Addr().Is6() {
		bits = 4
	}
	labels := dns.SplitDomainName(reverse)
	return dns.Fqdn(strings.Join(labels[(p.Addr().BitLen()-p.Bits())/bits:], "."))
}

// partOfReverse tells whether a name stands for more than one address. There may
// be names below it, so that it is not said that there are none.
func partOfReverse(name string) bool {
	labels := dns.CountLabel(name)
	switch {
	case dns.IsSubDomain("in-addr.arpa.", name):
		return labels < 4+2
	case dns.IsSubDomain("ip6.arpa.", name):
		return labels < 32+2
	}
	return false
}

// parentOf returns the name without its first label, "" of a top-level domain.
func parentOf(name string) string {
	i, end := dns.NextLabel(name, 0)
	if end {
		return ""
	}
	return name[i:]
}

const (
	maxLabel = 63
	maxName  = 254 // with the dot at the end
)

// hostname tells whether a name, in small letters and with a dot at the end, is
// one of hosts (RFC 1123, 2.1).
func hostname(name string) bool {
	if len(name) > maxName || !strings.HasSuffix(name, ".") {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// Label makes a label of what a device calls itself, e.g. to its DHCP server:
// "Ann's Phone.local" becomes "anns-phone". It is empty when nothing is left.
func Label(name string) string {
	name, _, _ = strings.Cut(name, ".")
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case b.Len() == maxLabel:
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b.WriteRune(c)
		case c == '\'' || c == '’' || b.Len() == 0 || strings.HasSuffix(b.String(), "-"):
		default:
			b.WriteByte('-')
		}
	}
	return strings.TrimRight(b.String(), "-")
}
