package dns

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

var gateway = netip.MustParseAddrPort("10.42.0.1:53")

// newNodeServer returns a node's server, its gateway and what is upstream besides.
func newNodeServer(t testing.TB) (s *Server, home, out *world) {
	home, out = &world{answer: says(dns.RcodeServerFailure)}, &world{answer: says(dns.RcodeServerFailure)}
	s = New(Config{ULA: ula, Gateway: gateway, Log: slog.New(slog.DiscardHandler), Upstream: func() ([]netip.AddrPort, error) {
		return []netip.AddrPort{gateway, upstream}, nil
	}})
	s.home.ask, s.out.ask = home.ask, out.ask
	if err := s.Set(hosts); err != nil {
		t.Fatal(err)
	}
	return s, home, out
}

const (
	noSuch = "ns halo. 15 IN SOA gateway.halo. nobody.invalid. 2 3600 1200 604800 15"
	a1     = "brain-sensor-n01.halo. 60 IN A 10.42.0.7"
	a2     = "brain-sensor-n01.halo. 60 IN A 10.42.0.8"
	aaaa   = "brain-sensor-n01.halo. 60 IN AAAA fd12:3456:789a:2::7"
)

// TestNeurons: a node asks the gateway, and nobody else, for names of neurons alone,
// and believes addresses of the network alone.
func TestNeurons(t *testing.T) {
	for _, tc := range []struct {
		name, q string
		rcode   int
		lines   []string
		want    string
		asked   bool
	}{
		{"one", "brain-sensor-n01.halo A", 0, []string{a1}, "NOERROR; " + a1, true},
		{"several", "brain-sensor-n01.halo A", 0, []string{a1, a2}, "NOERROR; " + a1 + "; " + a2, true},
		{"IPv6", "brain-sensor-n01.halo AAAA", 0, []string{aaaa}, "NOERROR; " + aaaa, true},
		{"in the case of who asks", "Brain-Sensor-N01.HALO A", 0, []string{a1}, "NOERROR; Brain-Sensor-N01.HALO. 60 IN A 10.42.0.7", true},
		{"nobody has it", "brain-send-n01.halo A", dns.RcodeNameError, []string{noSuch}, "NXDOMAIN; ns halo. 15 SOA", true},
		{"no such type", "brain-sensor-n01.halo MX", 0, []string{noSuch}, "NOERROR; ns halo. 15 SOA", true},
		{"an address of nobody here", "brain-sensor-n01.halo A", 0, []string{"brain-sensor-n01.halo. 60 IN A 198.51.100.1", a2}, "NOERROR; " + a2, true},
		{"of a client", "brain-sensor-n01.halo A", 0, []string{"brain-sensor-n01.halo. 60 IN A 10.43.7.20"}, "NOERROR", true},
		{"another name", "brain-sensor-n01.halo A", 0, []string{"mast.halo. 60 IN A 10.42.0.9", "brain-sensor-n01.halo. 60 IN CNAME mast.halo."}, "NOERROR", true},
		{"another's authority", "brain-send-n01.halo A", dns.RcodeNameError, []string{"ns . 86400 IN SOA a. b. 1 2 3 4 86400"}, "NXDOMAIN", true},
		{"everything", "brain-sensor-n01.halo ANY", 0, nil, `NOERROR; brain-sensor-n01.halo. 3600 IN HINFO "RFC8482" ""`, false},
		{"the gateway does not know", "brain-sensor-n01.halo A", dns.RcodeServerFailure, nil, "SERVFAIL; ede 0 name server 10.42.0.1 answered SERVFAIL", true},

		{"a device", "mast.halo A", 0, nil, "NOERROR; aa; mast.halo. 60 IN A 10.42.0.7", false},
		{"no component", "brain-camera-n01.halo A", 0, nil, "NXDOMAIN; aa; ns halo. 15 SOA", false},
		{"below one", "x.brain-sensor-n01.halo A", 0, nil, "NXDOMAIN; aa; ns halo. 15 SOA", false},
		{"too long a name", "brain-thought-" + strings.Repeat("x", 49) + "y.halo A", 0, nil, "NXDOMAIN; aa; ns halo. 15 SOA", false},
		{"not below .halo", "brain-sensor-n01.local A", 0, nil, "NXDOMAIN; aa; ns local. 3600 SOA", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, home, out := newNodeServer(t)
			home.answer = says(tc.rcode, tc.lines...)
			if got := asked(s, tc.q); got != tc.want {
				t.Errorf("expected %s\ngot      %s", tc.want, got)
			}
			if qs := home.questions(); (len(qs) > 0) != tc.asked {
				t.Errorf("the gateway was asked %q", qs)
			}
			if qs := out.questions(); qs != nil {
				t.Errorf("asked of the world: %q", qs)
			}
		})
	}
	s, home, _ := newNodeServer(t)
	if got := asked(s, "brain-sensor-n01.halo A", func(m *dns.Msg) { m.RecursionDesired = false }); got != "REFUSED" || home.questions() != nil {
		t.Errorf("not recursive: got %s", got)
	}
}

// TestTheGatewaysOwnTable answers for all names there are: nobody else is asked.
func TestTheGatewaysOwnTable(t *testing.T) {
	s, w := newServer(t)
	for q, want := range map[string]string{
		"brain-sensor-2.halo A":   "NOERROR; aa; brain-sensor-2.halo. 60 IN A 10.42.0.7",
		"brain-sensor-n01.halo A": "NXDOMAIN; aa; ns halo. 15 SOA",
	} {
		if got := asked(s, q); got != want {
			t.Errorf("%s: expected %s, got %s", q, want, got)
		}
	}
	if qs := w.questions(); qs != nil {
		t.Errorf("asked upstream: %q", qs)
	}
}

// TestNeuronsAreRemembered for a minute, and while the gateway is away until it says
// otherwise; what the world says meanwhile changes nothing in that.
func TestNeuronsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, home, out := newNodeServer(t)
		home.answer, out.answer = says(0, a1), says(0, "www.example.com. 300 IN A 198.51.100.1")
		const q = "brain-sensor-n01.halo A"
		for _, step := range []struct {
			wait time.Duration
			rr   string // of the gateway; empty: it does not answer
			want string
			asks bool
		}{
			{0, a1, "NOERROR; " + a1, true},
			{0, a2, "NOERROR; " + a1, false},
			{61 * time.Second, a2, "NOERROR; " + a2, true},
			{61 * time.Second, "", "NOERROR; brain-sensor-n01.halo. 30 IN A 10.42.0.8; ede 3 ; ede 0 name server 10.42.0.1 answered SERVFAIL", true},
			{time.Hour, "", "NOERROR; brain-sensor-n01.halo. 30 IN A 10.42.0.8; ede 3 ; ede 0 name server 10.42.0.1 answered SERVFAIL", true},
			{10 * time.Second, a1, "NOERROR; " + a1, true},
		} {
			time.Sleep(step.wait)
			answer := says(dns.RcodeServerFailure)
			if step.rr != "" {
				answer = says(0, step.rr)
			}
			home.set(func(w *world) { w.answer = answer })
			if got := asked(s, "www.example.com A"); !strings.HasPrefix(got, "NOERROR; www.example.com.") {
				t.Errorf("the world: %s", got)
			}
			if got := asked(s, q); got != step.want {
				t.Errorf("expected %s\ngot      %s", step.want, got)
			}
			if qs := home.questions(); (len(qs) > 0) != step.asks {
				t.Errorf("the gateway was asked %q", qs)
			}
		}
		if qs := out.questions(); len(qs) > 3 { // once, and again when it is too old
			t.Errorf("the world was asked %d times", len(qs))
		}
	})
}

// FuzzHome holds that whatever comes in the gateway's place, what is told on is about
// the question, and leads nowhere but to nodes.
func FuzzHome(f *testing.F) {
	q := new(dns.Msg).SetQuestion("brain-sensor-n01.halo.", dns.TypeA)
	for _, lines := range [][]string{{a1, a2}, {aaaa}, {noSuch}, {"brain-sensor-n01.halo. 60 IN A 198.51.100.1"}, {"brain-sensor-n01.halo. 60 IN CNAME mast.halo.", "mast.halo. 60 IN A 10.42.0.9"}} {
		m, _ := says(0, lines...)(gateway, "udp", q)
		f.Add(pack(f, m))
	}
	s, _, _ := newNodeServer(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m dns.Msg
		if m.Unpack(b) != nil {
			return
		}
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX} {
			r, ttl := s.siftHome(&m, question{name: "brain-sensor-n01.halo.", qtype: kind})
			if ttl < 0 || ttl > maxTTL || len(r.answer) > maxAddresses || len(r.ns) > 1 {
				t.Fatalf("%d records, %d of the authority, for %s", len(r.answer), len(r.ns), ttl)
			}
			for _, rr := range r.answer {
				if dns.CanonicalName(rr.Header().Name) != "brain-sensor-n01.halo." || rr.Header().Rrtype != kind || !s.ofNode(rr) {
					t.Fatalf("told on: %s", rr)
				}
			}
		}
	})
}
