package mdns

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// flush is the highest bit of a class: of a record, that it is all there is of
// its kind (RFC 6762, 10.2); of a question, that the answer is for the asker
// alone (5.4).
const flush = 1 << 15

func response(records []dns.RR) *dns.Msg {
	return &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true, Answer: records}
}

// probe asks who has the name, and says what it is to be.
func (r *responder) probe(c *claim) *dns.Msg {
	m := &dns.Msg{Compress: true, Question: []dns.Question{{Name: c.name(), Qtype: dns.TypeANY, Qclass: dns.ClassINET | flush}}}
	m.Ns = r.addresses(c, ttl)
	for _, rr := range m.Ns {
		rr.Header().Class &^= flush
	}
	return m
}

func (r *responder) addresses(c *claim, ttl uint32) []dns.RR {
	list := make([]netip.Addr, len(r.own))
	for i, p := range r.own {
		list[i] = p.Addr()
	}
	return addressRecords(c.name(), list, ttl)
}

func addressRecords(name string, list []netip.Addr, ttl uint32) []dns.RR {
	var out []dns.RR
	for _, a := range list {
		h := dns.RR_Header{Name: name, Class: dns.ClassINET | flush, Ttl: ttl}
		if a.Is4() {
			h.Rrtype = dns.TypeA
			out = append(out, &dns.A{Hdr: h, A: a.AsSlice()})
		} else {
			h.Rrtype = dns.TypeAAAA
			out = append(out, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	return out
}

// negative says which types there are, and so that there are no others (6.1).
func negative(name string, records []dns.RR) *dns.NSEC {
	n := &dns.NSEC{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNSEC, Class: dns.ClassINET | flush, Ttl: ttl}, NextDomain: name}
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, rr := range records {
			if rr.Header().Rrtype == kind {
				n.TypeBitMap = append(n.TypeBitMap, kind)
				break
			}
		}
	}
	return n
}

// address returns that of an address record of the name.
func address(rr dns.RR, name string) (netip.Addr, bool) {
	h := rr.Header()
	if h.Class&^flush != dns.ClassINET || dns.CanonicalName(h.Name) != dns.CanonicalName(name) {
		return netip.Addr{}, false
	}
	var ip []byte
	switch rr := rr.(type) {
	case *dns.A:
		ip = rr.A.To4()
	case *dns.AAAA:
		ip = rr.AAAA
	}
	return netip.AddrFromSlice(ip)
}

// known tells whether an asker has the record, for at least half of its time
// (7.1).
func known(answers []dns.RR, rr dns.RR) bool {
	want, _ := address(rr, rr.Header().Name)
	for _, k := range answers {
		if a, ok := address(k, rr.Header().Name); ok && a == want && k.Header().Ttl >= ttl/2 {
			return true
		}
	}
	return false
}

func knownNegative(answers []dns.RR, name string) bool {
	for _, k := range answers {
		if h := k.Header(); h.Rrtype == dns.TypeNSEC && dns.CanonicalName(h.Name) == dns.CanonicalName(name) && h.Ttl >= ttl/2 {
			return true
		}
	}
	return false
}

// sortKey is what orders records where two hosts probe at a time: class, type
// and data, as octets (8.2).
func sortKey(rr dns.RR) []byte {
	h := rr.Header()
	key := binary.BigEndian.AppendUint16(nil, h.Class&^flush)
	key = binary.BigEndian.AppendUint16(key, h.Rrtype)
	b := make([]byte, dns.Len(rr))
	n, err := dns.PackRR(rr, b, 0, nil, false)
	if err != nil {
		return key
	}
	_, at, err := dns.UnpackDomainName(b[:n], 0)
	if err != nil || at+10 > n {
		return key
	}
	return append(key, b[at+10:n]...) // type, class, TTL and length are ten octets
}
