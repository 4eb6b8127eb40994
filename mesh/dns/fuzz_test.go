package dns

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzQuestion holds that whatever a client asks is answered by a message that
// fits, is about the question, and says nothing of what is forbidden.
func FuzzQuestion(f *testing.F) {
	for _, q := range []string{"mast.halo", "halo.local", "www.example.com", ".", `a\.b\000.halo`} {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(q), dns.TypeA)
		f.Add(pack(f, m))
		f.Add(pack(f, m.SetEdns0(512, true)))
	}
	s, w := newServer(f)
	w.answer = says(0, "www.example.com. 99 IN A 198.51.100.1")
	f.Fuzz(func(t *testing.T, b []byte) {
		q := new(dns.Msg)
		if err := q.Unpack(b); err != nil || len(q.Question) != 1 || q.Response || q.Opcode != dns.OpcodeQuery {
			return
		}
		r := s.answer(context.Background(), q, here)
		r.Compress = true
		r.Truncate(dns.MinMsgSize)
		p, err := r.Pack()
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		if len(p) > dns.MinMsgSize || r.Id != q.Id || !r.Response || r.Question[0] != q.Question[0] {
			t.Errorf("%s\nis answered by\n%s", q, r)
		}
		for _, asked := range w.questions() {
			if name, _, _ := strings.Cut(asked, " "); strings.HasSuffix("."+name, ".halo.") || strings.HasSuffix("."+name, ".local.") {
				t.Errorf("asked upstream: %s", asked)
			}
		}
	})
}

// FuzzAnswer holds that whatever a server says, what is told on is about the
// question, leads to nothing inside, and can be kept.
func FuzzAnswer(f *testing.F) {
	q := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	for _, lines := range [][]string{
		{"www.example.com. 99 IN A 198.51.100.1"},
		{"www.example.com. 99 IN CNAME a.example.com.", "a.example.com. 9 IN A 10.42.0.1", "ns example.com. 9 IN SOA a. b. 1 2 3 4 5"},
		{"example.com. 99 IN DNAME example.net.", "www.example.com. 0 IN CNAME www.example.net.", "www.example.net. 2147483648 IN A 1.2.3.4"},
		{"www.example.com. 99 IN CNAME mast.halo.", "mast.halo. 9 IN A 198.51.100.1"},
	} {
		m, _ := says(0, lines...)(upstream, "udp", q)
		f.Add(pack(f, m), uint16(dns.TypeA), true)
	}
	m, _ := says(0, "www.example.com. 9 IN HTTPS 1 . ipv4hint=10.42.0.1")(upstream, "udp", q)
	f.Add(pack(f, m), uint16(dns.TypeHTTPS), false)
	s, _ := newServer(f)
	f.Fuzz(func(t *testing.T, b []byte, qtype uint16, do bool) {
		m := new(dns.Msg)
		if err := m.Unpack(b); err != nil {
			return
		}
		_ = matches(m, q)
		_ = explained(m)
		r, ttl := s.sift(m, question{name: "www.example.com.", qtype: qtype, do: do})
		if ttl < 0 || ttl > maxTTL {
			t.Errorf("kept for %s", ttl)
		}
		for _, rr := range append(r.answer, r.ns...) {
			if h := rr.Header(); h.Ttl > uint32(maxTTL/time.Second) || h.Class != dns.ClassINET {
				t.Errorf("told on: %s", rr)
			}
			if leadsInside(rr, s.out.forbidden) && rr.Header().Rrtype == qtype {
				t.Errorf("leads inside: %s", rr)
			}
		}
		for _, rr := range r.answer {
			if strings.HasSuffix(dns.CanonicalName(rr.Header().Name), ".halo.") {
				t.Errorf("said of .halo: %s", rr)
			}
		}
	})
}

func FuzzParseResolv(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nnameserver fe80::1%up0\n# x\noptions edns0")
	f.Fuzz(func(t *testing.T, text string) {
		list := parseResolv(text)
		if len(list) > maxServers {
			t.Errorf("%d servers", len(list))
		}
		for _, a := range list {
			if !a.IsValid() || a.Addr().IsLoopback() || a.Port() != 53 {
				t.Errorf("server %s", a)
			}
		}
	})
}

// FuzzNames holds that a device's name makes a label that the table takes, or
// none.
func FuzzNames(f *testing.F) {
	f.Add("Ann's Phone")
	f.Add("-.-")
	f.Add("İ")
	f.Fuzz(func(t *testing.T, name string) {
		label := Label(name)
		if label != "" && !hostname(label+".mast.halo.") {
			t.Errorf("%q makes the label %q", name, label)
		}
		z, err := newZones([]Host{{Name: name, Addresses: []netip.Addr{here}}}, ula, 1)
		if err != nil {
			return
		}
		var m dns.Msg
		if _, ok := dns.IsDomainName(name + ".halo."); !ok || !z.answer(&m, dns.Question{Name: name + ".halo.", Qtype: dns.TypeA, Qclass: dns.ClassINET}) || len(m.Answer) != 1 {
			t.Errorf("%q is in the table and not found: %s", name, &m)
		}
	})
}
