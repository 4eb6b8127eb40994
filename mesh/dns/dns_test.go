package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"halo.internal/mesh/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

var (
	ula  = netip.MustParsePrefix("fd12:3456:789a::/48")
	here = netip.MustParseAddr("10.43.5.1")
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

var hosts = []Host{
	{"gateway", addrs("10.42.0.1", "fd12:3456:789a:2::1")},
	{"hill", addrs("10.42.0.1", "fd12:3456:789a:2::1")},
	{"Mast", addrs("10.42.0.7", "fd12:3456:789a:2::7")},
	{"phone.mast", addrs("10.43.7.20")},
	{"brain-sensor-2", addrs("10.42.0.7")},
	{"printer.yard", addrs("10.43.9.20")},
}

// world stands for upstream.
type world struct {
	mu      sync.Mutex
	servers []netip.AddrPort
	why     error
	answer  func(server netip.AddrPort, network string, m *dns.Msg) (*dns.Msg, error)
	asked   []string
}

func (w *world) set(f func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w)
}

func (w *world) ask(_ context.Context, network string, server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	w.mu.Lock()
	w.asked = append(w.asked, strings.ToLower(m.Question[0].Name)+" "+network)
	answer := w.answer
	w.mu.Unlock()
	return answer(server, network, m)
}

// questions returns and forgets what was asked.
func (w *world) questions() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.asked
	w.asked = nil
	return list
}

var upstream = netip.MustParseAddrPort("192.0.2.53:53")

// says answers with what is there under the question's name, each a line of
// a zone file; a line that begins with "ns " is for the authority section.
func says(rcode int, lines ...string) func(netip.AddrPort, string, *dns.Msg) (*dns.Msg, error) {
	return func(_ netip.AddrPort, _ string, m *dns.Msg) (*dns.Msg, error) {
		r := new(dns.Msg).SetReply(m)
		r.Rcode, r.RecursionAvailable = rcode, true
		for _, l := range lines {
			l, ns := strings.CutPrefix(l, "ns ")
			rr, err := dns.NewRR(l)
			if err != nil {
				panic(err)
			}
			if ns {
				r.Ns = append(r.Ns, rr)
			} else {
				r.Answer = append(r.Answer, rr)
			}
		}
		return r, nil
	}
}

func newServer(t testing.TB) (*Server, *world) {
	w := &world{servers: []netip.AddrPort{upstream}, answer: says(dns.RcodeServerFailure)}
	s := New(Config{ULA: ula, Log: slog.New(slog.DiscardHandler), Upstream: func() ([]netip.AddrPort, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.servers, w.why
	}})
	s.out.ask = w.ask
	if err := s.Set(hosts); err != nil {
		t.Fatal(err)
	}
	return s, w
}

// asked asks "name type", and describes the answer: the code, AA, the records
// with their times to live, and extended errors.
func asked(s *Server, q string, change ...func(*dns.Msg)) string {
	name, kind, _ := strings.Cut(q, " ")
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.StringToType[kind])
	m.SetEdns0(4096, false)
	for _, f := range change {
		f(m)
	}
	return describe(s.answer(context.Background(), m, here))
}

func describe(r *dns.Msg) string {
	out := []string{dns.RcodeToString[r.Rcode]}
	if r.Authoritative {
		out = append(out, "aa")
	}
	for _, rr := range r.Answer {
		out = append(out, strings.Join(strings.Fields(rr.String()), " "))
	}
	for _, rr := range r.Ns {
		out = append(out, fmt.Sprintf("ns %s %d %s", rr.Header().Name, rr.Header().Ttl, dns.TypeToString[rr.Header().Rrtype]))
	}
	if opt := r.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				out = append(out, fmt.Sprintf("ede %d %s", e.InfoCode, e.ExtraText))
			}
		}
	}
	return strings.Join(out, "; ")
}

func TestLocal(t *testing.T) {
	s, w := newServer(t)
	for q, want := range map[string]string{
		"mast.halo A":                 "NOERROR; aa; mast.halo. 60 IN A 10.42.0.7",
		"MAST.Halo AAAA":              "NOERROR; aa; MAST.Halo. 60 IN AAAA fd12:3456:789a:2::7",
		"gateway.halo A":              "NOERROR; aa; gateway.halo. 60 IN A 10.42.0.1",
		"phone.mast.halo A":           "NOERROR; aa; phone.mast.halo. 60 IN A 10.43.7.20",
		"phone.mast.halo AAAA":        "NOERROR; aa; ns halo. 15 SOA",
		"brain-sensor-2.halo A":       "NOERROR; aa; brain-sensor-2.halo. 60 IN A 10.42.0.7",
		"mast.halo MX":                "NOERROR; aa; ns halo. 15 SOA",
		"mast.halo ANY":               `NOERROR; aa; mast.halo. 3600 IN HINFO "RFC8482" ""`,
		"yard.halo A":                 "NOERROR; aa; ns halo. 15 SOA", // something is below it
		"nobody.halo A":               "NXDOMAIN; aa; ns halo. 15 SOA",
		"nobody.halo ANY":             "NXDOMAIN; aa; ns halo. 15 SOA",
		"a.b.nobody.halo AAAA":        "NXDOMAIN; aa; ns halo. 15 SOA",
		"halo A":                      "NOERROR; aa; ns halo. 15 SOA",
		"halo NS":                     "NOERROR; aa; halo. 60 IN NS gateway.halo.",
		"halo SOA":                    "NOERROR; aa; halo. 60 IN SOA gateway.halo. nobody.invalid. 2 3600 1200 604800 60",
		"halo AXFR":                   "REFUSED",
		"1.0.42.10.in-addr.arpa PTR":  "NOERROR; aa; 1.0.42.10.in-addr.arpa. 60 IN PTR gateway.halo.",
		"20.7.43.10.in-addr.arpa PTR": "NOERROR; aa; 20.7.43.10.in-addr.arpa. 60 IN PTR phone.mast.halo.",
		"21.7.43.10.in-addr.arpa PTR": "NXDOMAIN; aa; ns 43.10.in-addr.arpa. 15 SOA",
		"7.43.10.in-addr.arpa PTR":    "NOERROR; aa; ns 43.10.in-addr.arpa. 15 SOA",
		"9.9.41.10.in-addr.arpa PTR":  "NXDOMAIN; aa; ns 41.10.in-addr.arpa. 15 SOA",
		"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa PTR": "NOERROR; aa; 7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa. 60 IN PTR mast.halo.",
		"8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa PTR": "NXDOMAIN; aa; ns a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa. 15 SOA",

		"halo.local A":                 "NOERROR; aa; halo.local. 60 IN A 10.43.5.1",
		"halo.local AAAA":              "NOERROR; aa; ns local. 3600 SOA",
		"laptop.local A":               "NXDOMAIN; aa; ns local. 3600 SOA",
		"localhost A":                  "NOERROR; aa; localhost. 60 IN A 127.0.0.1",
		"a.localhost AAAA":             "NOERROR; aa; a.localhost. 60 IN AAAA ::1",
		"printer A":                    "NXDOMAIN; aa; ns . 3600 SOA",
		`printer\.x A`:                 "NXDOMAIN; aa; ns . 3600 SOA",
		"printer SRV":                  "NXDOMAIN; aa; ns . 3600 SOA",
		". NS":                         "NOERROR; aa; ns . 3600 SOA",
		"router.home.arpa A":           "NXDOMAIN; aa; ns home.arpa. 3600 SOA",
		"_dns.resolver.arpa SVCB":      "NXDOMAIN; aa; ns resolver.arpa. 3600 SOA",
		"resolver.arpa SOA":            "NOERROR; aa; ns resolver.arpa. 3600 SOA",
		"x.onion A":                    "NXDOMAIN; aa; ns onion. 3600 SOA",
		"1.1.168.192.in-addr.arpa PTR": "NXDOMAIN; aa; ns 168.192.in-addr.arpa. 3600 SOA",
		"1.1.20.172.in-addr.arpa PTR":  "NXDOMAIN; aa; ns 20.172.in-addr.arpa. 3600 SOA",
		"1.1.64.100.in-addr.arpa PTR":  "NXDOMAIN; aa; ns 64.100.in-addr.arpa. 3600 SOA",
		"1.2.3.10.in-addr.arpa PTR":    "NXDOMAIN; aa; ns 10.in-addr.arpa. 3600 SOA",
		"b.b.d.f.ip6.arpa PTR":         "NXDOMAIN; aa; ns d.f.ip6.arpa. 3600 SOA",
		"1.0.8.e.f.ip6.arpa PTR":       "NXDOMAIN; aa; ns 8.e.f.ip6.arpa. 3600 SOA",
	} {
		if got := asked(s, q); got != want {
			t.Errorf("%s:\nexpected %s\ngot      %s", q, want, got)
		}
	}
	if qs := w.questions(); qs != nil {
		t.Errorf("expected that nothing goes upstream, got %q", qs)
	}
}

func TestRefused(t *testing.T) {
	s, w := newServer(t)
	for _, test := range []struct {
		name, want string
		change     func(*dns.Msg)
	}{
		{"another class", "REFUSED", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }},
		{"any class", "REFUSED", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }},
		{"not recursive", "REFUSED", func(m *dns.Msg) { m.RecursionDesired = false }},
		{"transfer", "REFUSED", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeIXFR }},
		{"EDNS 1", "BADSIG" /* BADVERS has the same number */, func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }},
		{"two OPT", "FORMERR", func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }},
		{"any type", `NOERROR; www.example.com. 3600 IN HINFO "RFC8482" ""`, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY }},
	} {
		if got := asked(s, "www.example.com A", test.change); got != test.want {
			t.Errorf("%s: expected %s, got %s", test.name, test.want, got)
		}
	}
	if qs := w.questions(); qs != nil {
		t.Errorf("expected that nothing goes upstream, got %q", qs)
	}
	// What clients that validate need is let through.
	w.answer = says(dns.RcodeSuccess, "com. 86400 IN DS 19718 13 2 8ACBB0CD28F41250A80A491389424D341522D946B0DA0C0291F2D3D771D7805A")
	if got := asked(s, "com DS"); !strings.HasPrefix(got, "NOERROR; com. 86400 IN DS 19718") {
		t.Errorf("DS of a top-level domain: got %s", got)
	}
}

func TestSet(t *testing.T) {
	s, _ := newServer(t)
	many := make([]netip.Addr, maxAddresses+1)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{10, 42, 1, byte(i)})
	}
	err := s.Set([]Host{
		{"ok", addrs("10.42.3.3")}, {"", addrs("10.42.3.4")}, {"a..b", nil}, {"-a", nil}, {"ümlaut", nil}, {"a b", nil}, {`a\.b`, nil},
		{strings.Repeat("a", 64), nil}, {strings.Repeat("abcdefgh.", 40) + "x", nil}, {"zero", []netip.Addr{{}}}, {"many", many},
		{"ok", addrs("10.42.3.5", "10.42.3.3")},
	})
	if err == nil || strings.Count(err.Error(), "\n") != 9 {
		t.Errorf("expected 10 errors, got %v", err)
	}
	for q, want := range map[string]string{
		"ok.halo A":   "NOERROR; aa; ok.halo. 60 IN A 10.42.3.3; ok.halo. 60 IN A 10.42.3.5",
		"mast.halo A": "NXDOMAIN; aa; ns halo. 15 SOA",
	} {
		if got := asked(s, q); got != want {
			t.Errorf("%s: expected %s, got %s", q, want, got)
		}
	}
}

func TestForward(t *testing.T) {
	s, w := newServer(t)
	soa := "ns example.com. 3600 IN SOA ns.example.com. host.example.com. 1 2 3 4 300"
	for _, test := range []struct {
		name, q string
		rcode   int
		lines   []string
		want    string
	}{
		{"address", "a.example.com A", 0, []string{"a.example.com. 99 IN A 198.51.100.1"}, "NOERROR; a.example.com. 99 IN A 198.51.100.1"},
		{"alias", "b.example.com A", 0, []string{"b.example.com. 99 IN CNAME c.example.com.", "c.example.com. 50 IN A 198.51.100.1"},
			"NOERROR; b.example.com. 50 IN CNAME c.example.com.; c.example.com. 50 IN A 198.51.100.1"},
		{"alias in disorder", "c.example.com A", 0, []string{"d.example.com. 50 IN A 198.51.100.1", "c.example.com. 50 IN CNAME d.example.com."},
			"NOERROR; c.example.com. 50 IN CNAME d.example.com.; d.example.com. 50 IN A 198.51.100.1"},
		{"more than asked", "d.example.com A", 0, []string{"d.example.com. 99 IN A 198.51.100.1", "bank.example. 99 IN A 198.51.100.66", "d.example.com. 99 IN MX 1 d.example.com.", "ns bank.example. 9 IN NS evil.example."},
			"NOERROR; d.example.com. 99 IN A 198.51.100.1"},
		{"loop", "e.example.com A", 0, []string{"e.example.com. 99 IN CNAME e.example.com."}, "NOERROR; e.example.com. 0 IN CNAME e.example.com."},
		{"no such name", "f.example.com A", dns.RcodeNameError, []string{soa}, "NXDOMAIN; ns example.com. 300 SOA"},
		{"no such data", "g.example.com A", 0, []string{soa}, "NOERROR; ns example.com. 300 SOA"},
		{"foreign SOA", "h.example.com A", dns.RcodeNameError, []string{"ns example.org. 3600 IN SOA ns.example.com. host.example.com. 1 2 3 4 300"}, "NXDOMAIN"},
		{"into .halo", "i.example.com A", 0, []string{"i.example.com. 99 IN CNAME mast.halo.", "mast.halo. 99 IN A 198.51.100.66"}, "NOERROR; i.example.com. 0 IN CNAME mast.halo."},
		{"rebinding", "j.example.com A", 0, []string{"j.example.com. 99 IN A 10.42.0.1", "j.example.com. 99 IN A 198.51.100.1"},
			"NOERROR; j.example.com. 99 IN A 198.51.100.1; ede 15 an address of this network or host, about which the name server has no say, was left out"},
		{"rebinding by a hint", "k.example.com HTTPS", 0, []string{"k.example.com. 99 IN HTTPS 1 . ipv6hint=fd12:3456:789a:2::1"},
			"NOERROR; ede 15 an address of this network or host, about which the name server has no say, was left out"},
		{"private of the site", "l.example.com A", 0, []string{"l.example.com. 99 IN A 192.168.1.9"}, "NOERROR; l.example.com. 99 IN A 192.168.1.9"},
		{"long", "m.example.com A", 0, []string{"m.example.com. 999999 IN A 198.51.100.1"}, "NOERROR; m.example.com. 86400 IN A 198.51.100.1"},
		{"renamed domain", "x.n.example.com A", 0, []string{"n.example.com. 60 IN DNAME o.example.com.", "x.n.example.com. 60 IN CNAME x.o.example.com.", "x.o.example.com. 60 IN A 198.51.100.1"},
			"NOERROR; n.example.com. 60 IN DNAME o.example.com.; x.n.example.com. 60 IN CNAME x.o.example.com.; x.o.example.com. 60 IN A 198.51.100.1"},
	} {
		w.set(func(w *world) { w.answer = says(test.rcode, test.lines...) })
		if got := asked(s, test.q); got != test.want {
			t.Errorf("%s:\nexpected %s\ngot      %s", test.name, test.want, got)
		}
	}
	// From the cache, in the case in which it was asked.
	w.questions()
	w.set(func(w *world) { w.answer = says(dns.RcodeServerFailure) })
	if got := asked(s, "A.Example.COM A"); !strings.HasPrefix(got, "NOERROR; A.Example.COM. 9") {
		t.Errorf("cached: got %s", got)
	}
	if got := asked(s, "f.example.com A"); got != "NXDOMAIN; ns example.com. 299 SOA" && got != "NXDOMAIN; ns example.com. 300 SOA" {
		t.Errorf("cached: got %s", got)
	}
	if qs := w.questions(); qs != nil {
		t.Errorf("expected answers from the cache, got questions %q", qs)
	}
}

// TestClientsOption holds that nothing of a client's message goes upstream but
// the question and the bits that matter for its answer.
func TestClientsOption(t *testing.T) {
	s, w := newServer(t)
	var sent *dns.Msg
	w.answer = func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
		sent = m.Copy()
		r, err := says(0, "www.example.com. 9 IN A 198.51.100.1", "www.example.com. 9 IN RRSIG A 13 3 9 20300101000000 20200101000000 1 example.com. AAAA")(a, n, m)
		r.AuthenticatedData = true
		return r, err
	}
	got := asked(s, "www.example.com A", func(m *dns.Msg) {
		m.IsEdns0().SetDo()
		m.CheckingDisabled = true
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 32, Address: []byte{10, 43, 5, 9}})
	})
	if !strings.Contains(got, "RRSIG") {
		t.Errorf("expected a signature for who asks for it, got %s", got)
	}
	if opt := sent.IsEdns0(); len(opt.Option) != 0 || !opt.Do() || opt.UDPSize() != maxUDP || !sent.CheckingDisabled {
		t.Errorf("sent upstream: %s", sent)
	}
	if got := asked(s, "www.example.com A"); strings.Contains(got, "RRSIG") {
		t.Errorf("expected no signature for who did not ask, got %s", got)
	}
}

func TestNoWayOut(t *testing.T) {
	s, w := newServer(t)
	w.set(func(w *world) {
		w.servers, w.why = nil, errors.New("no uplink\nhas a name server "+strings.Repeat("…", 99))
	})
	got := asked(s, "www.example.com A")
	if !strings.HasPrefix(got, "SERVFAIL; ede 23 no way out: no uplinkhas a name server …") || len(got) > 150 {
		t.Errorf("got %s", got)
	}
	if got := asked(s, "www.example.com A", func(m *dns.Msg) { m.Extra = nil }); got != "SERVFAIL" {
		t.Errorf("without EDNS: got %s", got)
	}
	w.set(func(w *world) { w.servers, w.why = []netip.AddrPort{upstream}, nil })
	if got := asked(s, "www.example.com A"); got != "SERVFAIL; ede 0 name server 192.0.2.53 answered SERVFAIL" {
		t.Errorf("got %s", got)
	}
	// It is not asked again at once.
	if qs := w.questions(); len(qs) != 2 {
		t.Errorf("expected two attempts, got %q", qs)
	}
	if got := asked(s, "www.example.com A"); got != "SERVFAIL; ede 0 name server 192.0.2.53 answered SERVFAIL" || w.questions() != nil {
		t.Errorf("got %s", got)
	}
	// Others may know.
	w.set(func(w *world) {
		w.servers = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.54:53")}
		w.answer = says(0, "www.example.com. 9 IN A 198.51.100.1")
	})
	if got := asked(s, "www.example.com A"); got != "NOERROR; www.example.com. 9 IN A 198.51.100.1" {
		t.Errorf("got %s", got)
	}
	// What a gateway says of its uplink, a node's clients are told.
	w.set(func(w *world) {
		w.answer = func(_ netip.AddrPort, _ string, m *dns.Msg) (*dns.Msg, error) {
			r := new(dns.Msg).SetRcode(m, dns.RcodeServerFailure)
			r.SetEdns0(maxUDP, false)
			r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: 23, ExtraText: "no way out: no uplink has a name server"}}
			return r, nil
		}
	})
	if got := asked(s, "x.example.com A"); got != "SERVFAIL; ede 23 no way out: no uplink has a name server" {
		t.Errorf("got %s", got)
	}
}

func TestStale(t *testing.T) {
	s, w := newServer(t)
	now := time.Now()
	s.now = func() time.Time { return now }
	soa := "ns example.com. 3600 IN SOA ns.example.com. host.example.com. 1 2 3 4 300"
	w.answer = says(0, "www.example.com. 99 IN A 198.51.100.1")
	asked(s, "www.example.com A")
	w.set(func(w *world) { w.answer = says(dns.RcodeNameError, soa) })
	asked(s, "no.example.com A")

	now = now.Add(10 * time.Minute)
	w.set(func(w *world) { w.servers, w.why = nil, errors.New("no uplink") })
	for q, want := range map[string]string{
		"www.example.com A": "NOERROR; www.example.com. 30 IN A 198.51.100.1; ede 3 ; ede 23 no way out: no uplink",
		"no.example.com A":  "NXDOMAIN; ns example.com. 30 SOA; ede 19 ; ede 23 no way out: no uplink",
	} {
		if got := asked(s, q); got != want {
			t.Errorf("%s:\nexpected %s\ngot      %s", q, want, got)
		}
	}
	// Upstream is back, but slow.
	release := make(chan struct{})
	w.set(func(w *world) {
		w.servers = []netip.AddrPort{upstream}
		w.answer = func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			<-release
			return says(0, "www.example.com. 99 IN A 198.51.100.2")(a, n, m)
		}
	})
	if got, want := asked(s, "www.example.com A"), "NOERROR; www.example.com. 30 IN A 198.51.100.1; ede 3 ; ede 22 the name servers take their time"; got != want {
		t.Errorf("slow upstream:\nexpected %s\ngot      %s", want, got)
	}
	close(release)
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if got := asked(s, "www.example.com A"); got == "NOERROR; www.example.com. 99 IN A 198.51.100.2" {
			break
		} else if time.Since(began) > patience {
			t.Fatalf("expected the new answer, got %s", got)
		}
	}
	// Too old.
	now = now.Add(maxStale + time.Hour)
	w.set(func(w *world) { w.servers, w.why = nil, errors.New("no uplink") })
	if got := asked(s, "www.example.com A"); got != "SERVFAIL; ede 23 no way out: no uplink" {
		t.Errorf("too old: got %s", got)
	}
	if c := s.Counts(); c.Stale < 3 || c.Failed != 1 || c.Forwarded != 3 {
		t.Errorf("counts: %+v", c)
	}
}

// TestOtherUpstream holds that what one network's servers said is not told as
// fresh in another.
func TestOtherUpstream(t *testing.T) {
	s, w := newServer(t)
	w.answer = says(0, "www.example.com. 99 IN A 198.51.100.1")
	asked(s, "www.example.com A")
	w.set(func(w *world) { w.servers, w.why = nil, errors.New("no uplink") })
	asked(s, "www.example.com A")
	w.set(func(w *world) {
		w.servers = []netip.AddrPort{upstream}
		w.answer = says(0, "www.example.com. 99 IN A 198.51.100.2")
	})
	if got := asked(s, "www.example.com A"); !strings.Contains(got, "198.51.100.1") || !strings.HasPrefix(got, "NOERROR") || strings.Contains(got, "ede") {
		t.Errorf("the same network again: expected the cached answer, got %s", got)
	}
	w.set(func(w *world) { w.servers = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.1:53")} })
	if got := asked(s, "www.example.com A"); !strings.Contains(got, "198.51.100.2") {
		t.Errorf("another network: got %s", got)
	}
}

func TestAttempts(t *testing.T) {
	good := says(0, "www.example.com. 9 IN A 198.51.100.1")
	two := []netip.AddrPort{upstream, netip.MustParseAddrPort("192.0.2.54:53")}
	const want = "NOERROR; www.example.com. 9 IN A 198.51.100.1"
	for _, test := range []struct {
		name   string
		answer func(server netip.AddrPort, network string, m *dns.Msg) (*dns.Msg, error)
		asked  []string
	}{
		{"truncated", func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			if n == "tcp" {
				return good(a, n, m)
			}
			r := new(dns.Msg).SetReply(m)
			r.Truncated = true
			return r, nil
		}, []string{"udp", "tcp"}},
		{"case forgotten", func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			r, err := good(a, n, m)
			name := []byte(r.Question[0].Name)
			name[0] ^= 'a' ^ 'A'
			r.Question[0].Name = string(name)
			return r, err
		}, []string{"udp", "tcp"}},
		{"old server", func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			if m.IsEdns0() != nil {
				return new(dns.Msg).SetRcode(m, dns.RcodeFormatError), nil
			}
			return good(a, n, m)
		}, []string{"udp", "udp"}},
		{"other question", func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			r, err := good(a, n, m)
			if a == two[0] {
				r.Question[0].Qtype = dns.TypeMX
			}
			return r, err
		}, []string{"udp", "udp"}},
		{"refusing server", func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			if a == two[0] {
				return new(dns.Msg).SetRcode(m, dns.RcodeRefused), nil
			}
			return good(a, n, m)
		}, []string{"udp", "udp"}},
		{"lame server", func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			if a == two[0] {
				return new(dns.Msg).SetReply(m), nil
			}
			return good(a, n, m)
		}, []string{"udp", "udp"}},
		{"unreachable server", func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
			if a == two[0] {
				return nil, errors.New("connection refused")
			}
			return good(a, n, m)
		}, []string{"udp", "udp"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, w := newServer(t)
			w.servers, w.answer = two, test.answer
			got := asked(s, "www.example.com A")
			if got != want {
				t.Errorf("expected %s, got %s", want, got)
			}
			var asked []string
			for _, q := range w.questions() {
				asked = append(asked, strings.TrimPrefix(q, "www.example.com. "))
			}
			if !slices.Equal(asked, test.asked) {
				t.Errorf("expected %q, got %q", test.asked, asked)
			}
		})
	}
}

// TestOneFlight holds that many who ask the same make one question, under other
// IDs than an attacker who asks may hope for.
func TestOneFlight(t *testing.T) {
	s, w := newServer(t)
	release := make(chan struct{})
	w.answer = func(a netip.AddrPort, n string, m *dns.Msg) (*dns.Msg, error) {
		<-release
		return says(0, "www.example.com. 9 IN A 198.51.100.1")(a, n, m)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			// Its time may have begun to run out.
			if got := asked(s, "www.example.com A"); !strings.HasPrefix(got, "NOERROR; www.example.com. ") || !strings.HasSuffix(got, " IN A 198.51.100.1") {
				t.Errorf("got %s", got)
			}
		})
	}
	for len(w.questions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	all.Wait()
	if c := s.Counts(); c.Forwarded != 1 {
		t.Errorf("expected one question upstream, got %d", c.Forwarded)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(100 << 10)
	for i := range 10_000 {
		c.change(question{name: fmt.Sprint(i, ".example.com.")}, func(e *entry) { e.wire = make([]byte, i%300) })
		if n := c.octets(); n > 100<<10 {
			t.Fatalf("expected 100 KiB at most, got %d octets", n)
		}
	}
	if c.get(question{name: "9999.example.com."}).wire == nil || c.get(question{name: "1.example.com."}).wire != nil {
		t.Error("expected the latest kept and the first gone")
	}
	c.change(question{name: "big."}, func(e *entry) { e.wire = make([]byte, 50<<10) })
	if c.get(question{name: "big."}).wire != nil || c.get(question{name: "9999.example.com."}).wire == nil {
		t.Error("expected that one big answer takes no others' place")
	}
	for _, k := range c.kept {
		c.change(k.Value.(*kept).q, func(e *entry) { e.wire = nil })
	}
	sum := 0
	for _, k := range c.kept {
		sum += k.Value.(*kept).octets()
	}
	if sum != c.octets() || len(c.kept) != c.order.Len() {
		t.Errorf("counted %d octets, there are %d", c.octets(), sum)
	}
}

func TestParseResolv(t *testing.T) {
	for text, want := range map[string]string{
		"": "[]",
		"nameserver 192.0.2.1\nnameserver\t192.0.2.2 # two\n#nameserver 9.9.9.9\n nameserver 2001:db8::1":          "[192.0.2.1:53 192.0.2.2:53 [2001:db8::1]:53]",
		"nameserver fe80::1%up0\nnameserver ::ffff:192.0.2.3\r\n":                                                  "[[fe80::1%up0]:53 192.0.2.3:53]",
		"nameserver 127.0.0.1\nnameserver ::1\nnameserver 0.0.0.0\nnameserver 224.0.0.1\nnameserver x\nnameserver": "[]",
		strings.Repeat("nameserver 192.0.2.1\n", 9):                                                                "[192.0.2.1:53 192.0.2.1:53 192.0.2.1:53 192.0.2.1:53]",
		"search example.com\noptions edns0\n":                                                                      "[]",
	} {
		if got := fmt.Sprint(parseResolv(text)); got != want {
			t.Errorf("%q: expected %s, got %s", text, want, got)
		}
	}
}

func TestLabel(t *testing.T) {
	for name, want := range map[string]string{
		"Ann's Phone": "anns-phone", "Ann’s iPhone.local": "anns-iphone", "ESP_12AB": "esp-12ab", "--x--": "x", "…": "", "": "",
		"日本 pi": "pi", strings.Repeat("ab ", 40): strings.Repeat("ab-", 21)[:63-1],
	} {
		got := Label(name)
		if got != want {
			t.Errorf("%q: expected %q, got %q", name, want, got)
		}
	}
}

func TestBounds(t *testing.T) {
	s, _ := newServer(t)
	greedy := netip.MustParseAddr("10.43.5.66")
	for i := range maxOfClient + 10 {
		if got := s.take(greedy); got != (i < maxOfClient) {
			t.Fatalf("question %d of one client: taken %t", i, got)
		}
	}
	other := netip.MustParseAddr("10.43.6.0")
	taken := maxOfClient
	for range maxQuestions {
		other = other.Next()
		if s.take(other) {
			taken++
		}
	}
	if taken != maxQuestions {
		t.Errorf("expected %d questions at a time, got %d", maxQuestions, taken)
	}
	s.give(greedy)
	if !s.take(other) || s.take(greedy) {
		t.Error("expected room for one")
	}
	if c := s.Counts(); c.Dropped != 10+maxOfClient+1 {
		t.Errorf("counts: %+v", c)
	}
	// Flights, which may outlive who asked.
	for i := range maxFlights + 1 {
		if got := s.out.start(); got != (i < maxFlights) {
			t.Fatalf("flight %d: started %t", i, got)
		}
	}
	if got := asked(s, "www.example.com A"); got != "SERVFAIL; ede 22 too many questions wait for an answer" {
		t.Errorf("got %s", got)
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	up := ResolvConf(path)
	if list, err := up(); !errors.Is(err, ErrNoUplink) || list != nil {
		t.Errorf("without a file: got %v, %v", list, err)
	}
	if err := Stub(path); err != nil {
		t.Fatal(err)
	}
	if list, err := up(); !errors.Is(err, ErrNoUplink) {
		t.Errorf("expected the stub's file to name no upstream, got %v, %v", list, err)
	}
	if err := os.WriteFile(path, []byte("nameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := up(); err != nil || !slices.Equal(list, []netip.AddrPort{upstream}) {
		t.Errorf("got %v, %v", list, err)
	}
}
