package mdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// link is a link of responders and of hosts that only listen, with a clock of
// its own.
type link struct {
	t     *testing.T
	now   time.Time
	nodes []*station
	heard []string // what went over it
}

type station struct {
	*responder
	addr   netip.AddrPort
	events []string
}

func newLink(t *testing.T) *link {
	return &link{t: t, now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
}

func (l *link) join(node, addr string, others ...string) *station {
	s := &station{addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 5353)}
	s.responder = newResponder(node, func(name, by, instead string) {
		s.events = append(s.events, strings.TrimSpace(name+" "+by+" "+instead))
	}, func(d time.Duration) time.Duration { return d / 2 })
	l.nodes = append(l.nodes, s)
	s.address(l, append([]string{addr + "/24"}, others...)...)
	return s
}

func (s *station) address(l *link, list ...string) {
	var own []netip.Prefix
	for _, a := range list {
		own = append(own, netip.MustParsePrefix(a))
	}
	l.carry(s, s.addressed(l.now, own))
}

// carry hands to all others what one has sent.
func (l *link) carry(from *station, list []message) {
	for _, m := range list {
		b, err := m.Pack()
		if err != nil {
			l.t.Fatal(err)
		}
		to := "all"
		if m.to.IsValid() {
			to = m.to.String()
		}
		l.heard = append(l.heard, from.addr.Addr().String()+" to "+to+": "+describe(m.Msg))
		for _, other := range l.nodes {
			if other != from && (!m.to.IsValid() || m.to == other.addr) {
				l.carry(other, other.handle(l.now, b, from.addr))
			}
		}
	}
}

// pass lets time pass.
func (l *link) pass(d time.Duration) {
	end := l.now.Add(d)
	for {
		var first *station
		for _, s := range l.nodes {
			if at := s.due(); !at.IsZero() && !at.After(end) && (first == nil || at.Before(first.due())) {
				first = s
			}
		}
		if first == nil {
			l.now = end
			return
		}
		if at := first.due(); at.After(l.now) {
			l.now = at
		}
		l.carry(first, first.tick(l.now))
	}
}

func (l *link) leave(s *station) {
	l.carry(s, s.goodbye())
	l.nodes = slices.DeleteFunc(l.nodes, func(o *station) bool { return o == s })
}

// ask has a host ask, and returns what is sent for that.
func (l *link) ask(from, q string, change ...func(*dns.Msg)) []string {
	l.t.Helper()
	name, kind, _ := strings.Cut(q, " ")
	m := &dns.Msg{Question: []dns.Question{{Name: dns.Fqdn(name), Qtype: dns.StringToType[kind], Qclass: dns.ClassINET}}}
	m.Id = 77
	for _, f := range change {
		f(m)
	}
	l.heard = nil
	l.carry(&station{addr: netip.MustParseAddrPort(from)}, []message{{Msg: m}})
	return l.heard[1:]
}

func describe(m *dns.Msg) string {
	kind := "asks"
	if m.Response {
		kind = "says"
	}
	var out []string
	for _, q := range m.Question {
		out = append(out, q.Name+" "+dns.TypeToString[q.Qtype])
	}
	for _, list := range []struct {
		name string
		rrs  []dns.RR
	}{{"", m.Answer}, {"proposes ", m.Ns}, {"also ", m.Extra}} {
		for _, rr := range list.rrs {
			f := ""
			if rr.Header().Class&flush != 0 {
				f = "!"
			}
			c := dns.Copy(rr)
			c.Header().Class = dns.ClassINET
			out = append(out, list.name+strings.Join(strings.Fields(strings.ReplaceAll(c.String(), "\tIN\t", " ")), " ")+f)
		}
	}
	if m.Id != 0 {
		out = append(out, fmt.Sprint("id ", m.Id))
	}
	return kind + " " + strings.Join(out, ", ")
}

func want(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\nexpected\n\t%s\ngot\n\t%s", what, strings.Join(want, "\n\t"), strings.Join(got, "\n\t"))
	}
}

func TestProbeAndAnnounce(t *testing.T) {
	l := newLink(t)
	a := l.join("Mast 7", "10.43.5.1", "fe80::5/64")
	l.pass(time.Minute)
	probe := "10.43.5.1 to all: asks halo.local. ANY, proposes halo.local. 120 A 10.43.5.1, proposes halo.local. 120 AAAA fe80::5"
	announce := "10.43.5.1 to all: says halo.local. 120 A 10.43.5.1!, halo.local. 120 AAAA fe80::5!"
	probe2, announce2 := strings.ReplaceAll(probe, "halo", "mast-7"), strings.ReplaceAll(announce, "halo", "mast-7")
	want(t, "start", l.heard, probe, probe2, probe, probe2, probe, probe2, announce, announce2, announce, announce2)

	l.heard = nil
	a.address(l, "10.43.5.2/24", "fe80::5/64")
	l.pass(time.Minute)
	announce = strings.ReplaceAll(announce, "A 10.43.5.1!", "A 10.43.5.2!")
	announce2 = strings.ReplaceAll(announce2, "A 10.43.5.1!", "A 10.43.5.2!")
	want(t, "another address", l.heard, "10.43.5.1 to all: says halo.local. 0 A 10.43.5.1!", announce, "10.43.5.1 to all: says mast-7.local. 0 A 10.43.5.1!", announce2, announce, announce2)

	l.heard = nil
	l.leave(a)
	want(t, "end", l.heard, "10.43.5.1 to all: says halo.local. 0 A 10.43.5.2!, halo.local. 0 AAAA fe80::5!", "10.43.5.1 to all: says mast-7.local. 0 A 10.43.5.2!, mast-7.local. 0 AAAA fe80::5!")

	l.heard = nil
	b := l.join("", "10.43.5.9")
	l.pass(time.Minute)
	b.address(l)
	l.pass(time.Minute)
	if at := b.due(); !at.IsZero() {
		t.Errorf("expected nothing to do without an address, got something at %s", at)
	}
	want(t, "without an address", l.ask("10.43.5.20:5353", "halo.local A"))
}

func TestQuestions(t *testing.T) {
	unicast := func(m *dns.Msg) { m.Question[0].Qclass |= flush }
	knows := func(records ...string) func(*dns.Msg) {
		return func(m *dns.Msg) {
			for _, r := range records {
				rr, err := dns.NewRR(r)
				if err != nil {
					panic(err)
				}
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	const (
		a    = "halo.local. 120 A 10.43.5.1!"
		aaaa = "halo.local. 120 AAAA fe80::5!"
		nsec = "halo.local. 120 NSEC halo.local. A AAAA!"
	)
	for _, test := range []struct {
		name, from, q string
		change        []func(*dns.Msg)
		want          string // after "10.43.5.1 to "
	}{
		{"multicast", "10.43.5.20:5353", "halo.local A", nil, "all: says " + a + ", also " + aaaa},
		{"case", "10.43.5.20:5353", "HALO.local AAAA", nil, "all: says " + aaaa + ", also " + a},
		{"IPv6", "[fe80::20]:5353", "halo.local AAAA", nil, "all: says " + aaaa + ", also " + a},
		{"any", "10.43.5.20:5353", "halo.local ANY", nil, "all: says " + a + ", " + aaaa},
		{"other type", "10.43.5.20:5353", "halo.local HTTPS", nil, "all: says " + nsec + ", also " + a + ", also " + aaaa},
		{"unicast, as others know", "10.43.5.20:5353", "halo.local A", []func(*dns.Msg){unicast}, "10.43.5.20:5353: says " + a + ", also " + aaaa},
		{"plain resolver", "10.43.5.20:40000", "halo.local A", nil, "10.43.5.20:40000: says halo.local. A, halo.local. 10 A 10.43.5.1, also halo.local. 10 AAAA fe80::5, id 77"},
		{"known", "10.43.5.20:5353", "halo.local A", []func(*dns.Msg){knows("halo.local. 60 IN A 10.43.5.1")}, ""},
		{"known, but old", "10.43.5.20:5353", "halo.local A", []func(*dns.Msg){knows("halo.local. 59 IN A 10.43.5.1")}, "all: says " + a + ", also " + aaaa},
		{"known in part", "10.43.5.20:5353", "halo.local ANY", []func(*dns.Msg){knows("halo.local. 120 IN A 10.43.5.1")}, "all: says " + aaaa},
		{"known not to be", "10.43.5.20:5353", "halo.local HTTPS", []func(*dns.Msg){knows("halo.local. 120 IN NSEC halo.local. A AAAA")}, ""},
		{"other name", "10.43.5.20:5353", "hallo.local A", nil, ""},
		{"other class", "10.43.5.20:5353", "halo.local A", []func(*dns.Msg){func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }}, ""},
		{"from elsewhere", "10.43.6.20:5353", "halo.local A", nil, ""},
		{"from elsewhere, plain", "192.0.2.1:53", "halo.local A", nil, ""},
		{"from ourselves", "10.43.5.1:5353", "halo.local A", nil, ""},
		{"other opcode", "10.43.5.20:5353", "halo.local A", []func(*dns.Msg){func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLink(t)
			l.join("", "10.43.5.1", "fe80::5/64")
			l.pass(10 * time.Second)
			var list []string
			if test.want != "" {
				list = append(list, "10.43.5.1 to "+test.want)
			}
			want(t, test.q, l.ask(test.from, test.q, test.change...), list...)
		})
	}
	l := newLink(t)
	l.join("", "10.43.5.1")
	l.pass(10 * time.Second)
	const only, no = "halo.local. 120 A 10.43.5.1!", "halo.local. 120 NSEC halo.local. A!"
	want(t, "no AAAA", l.ask("10.43.5.20:5353", "halo.local AAAA"), "10.43.5.1 to all: says "+no+", also "+only)
	want(t, "again at once", l.ask("10.43.5.20:5353", "halo.local A"))
	l.pass(time.Second)
	want(t, "again", l.ask("10.43.5.20:5353", "halo.local A"), "10.43.5.1 to all: says "+only+", also "+no)
	l.pass(time.Minute)
	want(t, "unicast, as others have forgotten", l.ask("10.43.5.20:5353", "halo.local A", unicast), "10.43.5.1 to all: says "+only+", also "+no)
	n := 0
	for range 1000 {
		n += len(l.ask("10.43.5.20:40000", "halo.local A"))
	}
	if n != unicastBurst {
		t.Errorf("expected %d answers to a flood, got %d", unicastBurst, n)
	}
}

func (s *station) names() (out []string) {
	for _, c := range s.claims {
		if c.state == held {
			out = append(out, c.name())
		}
	}
	return out
}

func TestConflicts(t *testing.T) {
	l := newLink(t)
	a := l.join("mast", "10.43.5.1")
	l.pass(10 * time.Second)
	b := l.join("mast", "10.43.5.2")
	l.pass(10 * time.Second)
	want(t, "who was first", a.names(), "halo.local.", "mast.local.")
	want(t, "who is second", b.names(), "mast-2.local.")
	want(t, "told", b.events, "halo.local. 10.43.5.1", "mast.local. 10.43.5.1 mast-2.local.")
	want(t, "told", a.events)
	if got := l.ask("10.43.5.20:5353", "halo.local A"); len(got) != 1 || !strings.Contains(got[0], "10.43.5.1") {
		t.Errorf("expected the first to answer, got %q", got)
	}
	// It says goodbye, and the other takes over.
	l.leave(a)
	l.pass(10 * time.Second)
	want(t, "after the goodbye", b.names(), "halo.local.", "mast-2.local.")
	// It is back; now it comes second. The other then goes without a word.
	a = l.join("mast", "10.43.5.1")
	l.pass(10 * time.Second)
	want(t, "who is second now", a.names(), "mast.local.")
	l.nodes = l.nodes[1:]
	l.pass(2 * time.Minute)
	want(t, "after the other is gone", a.names(), "halo.local.", "mast.local.")
}

// TestTogether holds that of two who start together, or whose links are joined,
// one has the name soon.
func TestTogether(t *testing.T) {
	l := newLink(t)
	a, b := l.join("", "10.43.5.1"), l.join("", "10.43.5.2")
	l.pass(10 * time.Second)
	want(t, "lower address", a.names())
	want(t, "higher address", b.names(), "halo.local.")

	one, two := newLink(t), newLink(t)
	a, b = one.join("", "10.43.5.1"), two.join("", "10.43.5.2")
	one.pass(10 * time.Second)
	two.pass(10 * time.Second)
	one.nodes = append(one.nodes, b)
	one.ask("10.43.5.20:5353", "halo.local A") // one answers, and the other sees it
	one.pass(10 * time.Second)
	if names := append(a.names(), b.names()...); len(names) != 1 {
		t.Errorf("expected one to have the name, got %q", names)
	}
}

// TestHostile holds that who takes every name, at once and for ever, makes
// neither a storm nor a flood of events.
func TestHostile(t *testing.T) {
	l := newLink(t)
	a := l.join("mast", "10.43.5.1")
	for range 3600 {
		l.pass(100 * time.Millisecond)
		for _, c := range a.claims {
			m := response(addressRecords(c.name(), []netip.Addr{netip.MustParseAddr("10.43.5.66")}, ttl))
			l.carry(&station{addr: netip.MustParseAddrPort("10.43.5.66:5353")}, []message{{Msg: m}})
		}
	}
	ours := 0
	for _, h := range l.heard {
		if strings.HasPrefix(h, "10.43.5.1 ") {
			ours++
		}
	}
	if ours > 2*360 { // six minutes
		t.Errorf("%d messages", ours)
	}
	if len(a.events) > 2 {
		t.Errorf("events: %q", a.events)
	}
	l.pass(3 * time.Minute)
	if names := a.names(); len(names) != 2 || names[0] != "halo.local." {
		t.Errorf("expected names when it is over, got %q", names)
	}
	// Somebody says goodbye in our name.
	l.heard = nil
	bye := response(addressRecords("halo.local.", []netip.Addr{netip.MustParseAddr("10.43.5.1")}, 0))
	for range 100 {
		l.carry(&station{addr: netip.MustParseAddrPort("10.43.5.66:5353")}, []message{{Msg: bye}})
	}
	l.pass(10 * time.Second)
	l.heard = slices.DeleteFunc(l.heard, func(h string) bool { return strings.HasPrefix(h, "10.43.5.66") })
	again := "10.43.5.1 to all: says halo.local. 120 A 10.43.5.1!"
	want(t, "goodbye in our name", l.heard, again, again)
}

// FuzzHandle holds that nothing that is heard makes the responder say more than
// a little, or anything that can't be sent.
func FuzzHandle(f *testing.F) {
	for _, m := range []*dns.Msg{
		{Question: []dns.Question{{Name: "halo.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET | flush}}},
		{Question: []dns.Question{{Name: "halo.local.", Qtype: dns.TypeANY, Qclass: dns.ClassINET}}, Ns: addressRecords("halo.local.", []netip.Addr{netip.MustParseAddr("10.43.5.66")}, 120)},
		response(addressRecords("halo.local.", []netip.Addr{netip.MustParseAddr("10.43.5.66")}, 120)),
		response(addressRecords("mast.local.", []netip.Addr{netip.MustParseAddr("10.43.5.1")}, 0)),
	} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(5353), uint16(0))
		f.Add(b, uint16(40000), uint16(9999))
	}
	f.Fuzz(func(t *testing.T, b []byte, port, ms uint16) {
		l := newLink(t)
		s := l.join("mast", "10.43.5.1", "fe80::5/64")
		l.pass(time.Duration(ms) * time.Millisecond)
		from := netip.AddrPortFrom(netip.MustParseAddr("10.43.5.66"), port)
		sent := s.handle(l.now, b, from)
		if len(sent) > 2 {
			t.Errorf("%d messages", len(sent))
		}
		for _, m := range sent {
			p, err := m.Pack()
			if err != nil {
				t.Error(err)
			}
			if len(p) > 512 {
				t.Errorf("%d octets", len(p))
			}
		}
		l.pass(10 * time.Minute)
		if len(s.names()) != 2 {
			t.Errorf("one message, and the names are %q", s.names())
		}
	})
}
