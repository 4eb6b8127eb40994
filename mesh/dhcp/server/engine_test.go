package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

func config() Config {
	return Config{
		Iface: "br0", Address: netip.MustParsePrefix("10.43.7.1/24"),
		First: netip.MustParseAddr("10.43.7.10"), Last: netip.MustParseAddr("10.43.7.19"), Lease: time.Hour,
		Options: Options{Router: netip.MustParseAddr("10.43.7.1"), DNS: []netip.Addr{netip.MustParseAddr("10.43.7.1")}, Domain: "halo", MTU: 1400},
		Log:     slog.New(slog.DiscardHandler),
		timing:  usual,
	}
}

// bench is an engine whose clock the test has.
type bench struct {
	*testing.T
	e       *engine
	now     time.Time
	events  []model.Event
	taken   map[netip.Addr]mac // hosts that answer ARP
	probes  int
	dirty   bool
	changed bool
}

func newBench(t *testing.T, c Config) *bench {
	t.Helper()
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, e: newEngine(c), now: time.Now(), taken: map[netip.Addr]mac{}}
}

// settle lets time go on until nothing is probed, and returns what was sent.
func (b *bench) settle() []*dhcpv4.DHCPv4 {
	b.Helper()
	var list []*dhcpv4.DHCPv4
	for range 100 {
		out := b.e.take()
		b.events = append(b.events, out.events...)
		b.dirty, b.changed = b.dirty || out.dirty, b.changed || out.changed
		for _, r := range out.replies {
			m, err := dhcpv4.FromBytes(r.data)
			if err != nil {
				b.Fatal(err)
			}
			list = append(list, m)
		}
		for _, a := range out.probes {
			b.probes++
			if who, ok := b.taken[a]; ok {
				b.e.hear(b.now, heard{who, a})
			}
		}
		probing := false
		for _, o := range b.e.offers {
			probing = probing || o.probing()
		}
		if !probing && len(b.e.out.replies) == 0 {
			return list
		}
		b.now = b.e.next()
		b.e.advance(b.now)
	}
	b.Fatal("the engine does not come to rest")
	return nil
}

func hw(n int) net.HardwareAddr {
	return net.HardwareAddr{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}
}

func (b *bench) say(n int, kind dhcpv4.MessageType, with ...dhcpv4.Modifier) string {
	b.Helper()
	return b.sayFrom(n, n, kind, with...)
}

// sayFrom lets the host of number from speak for n; the answer is "KIND
// address", or nothing.
func (b *bench) sayFrom(from, n int, kind dhcpv4.MessageType, with ...dhcpv4.Modifier) string {
	b.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw(n)), dhcpv4.WithMessageType(kind)}, with...)...)
	if err != nil {
		b.Fatal(err)
	}
	source := netip.IPv4Unspecified()
	if a := addr(m.ClientIPAddr); a.IsValid() {
		source = a
	}
	b.e.handle(b.now, message{from: mac(hw(from)), source: source, data: m.ToBytes()})
	var text []string
	for _, r := range b.settle() {
		text = append(text, strings.TrimSpace(r.MessageType().String()+" "+addr(r.YourIPAddr).String()))
	}
	return strings.ReplaceAll(strings.Join(text, ", "), " invalid IP", "")
}

func wish(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(a)))
}
func has(a string) dhcpv4.Modifier  { return dhcpv4.WithClientIP(net.ParseIP(a)) }
func name(n string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptHostName(n)) }
func server(a string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(a)))
}
func id(s string) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, []byte(s))
}

const (
	discover = dhcpv4.MessageTypeDiscover
	request  = dhcpv4.MessageTypeRequest
	self     = "10.43.7.1"
)

// lease takes a client through the whole exchange.
func (b *bench) lease(n int, with ...dhcpv4.Modifier) string {
	b.Helper()
	kind, a, _ := strings.Cut(b.say(n, discover, with...), " ")
	if kind != "OFFER" {
		b.Fatalf("host %d: expected an offer, got %q", n, kind)
	}
	if got := b.say(n, request, append(with, wish(a), server(self))...); got != "ACK "+a {
		b.Fatalf("host %d: expected %s acknowledged, got %q", n, a, got)
	}
	return a
}

func (b *bench) want(got, want string) {
	b.Helper()
	if got != want {
		b.Errorf("expected %q, got %q", want, got)
	}
}

func (b *bench) wantEvents(kinds ...string) {
	b.Helper()
	var got []string
	for _, e := range b.events {
		got = append(got, e.Kind)
	}
	if fmt.Sprint(got) != fmt.Sprint(kinds) {
		b.Errorf("expected events %v, got %v", kinds, got)
	}
	b.events = nil
}

func TestLeaseIsKept(t *testing.T) {
	b := newBench(t, config())
	a := b.lease(1)
	b.want(fmt.Sprint(b.probes), "3")
	b.want(b.lease(1), a) // begins anew: no probe, the host may have it already
	b.want(b.say(1, request, has(a)), "ACK "+a)
	b.want(b.say(1, request, wish(a)), "ACK "+a)
	b.want(fmt.Sprint(b.probes), "3")
	b.want(b.say(1, dhcpv4.MessageTypeRelease, has(a), server(self)), "")
	b.now = b.now.Add(48 * time.Hour)
	b.want(b.lease(2)[:8], "10.43.7.")
	b.want(b.lease(1), a)
	b.wantEvents()
}

func TestAClientThatComesWithAnotherMAC(t *testing.T) {
	c := config()
	c.SameClient = func(m net.HardwareAddr) net.HardwareAddr {
		m = slices.Clone(m)
		m[3] = 0 // hosts 65536 apart are one
		return m
	}
	const again = 1 + 1<<16
	c.Reservations = []Reservation{{MAC: hw(5 + 1<<16), Address: netip.MustParseAddr("10.43.7.15")}}
	b := newBench(t, c)
	a := b.lease(1, name("mast"))
	probes := b.probes
	b.want(b.lease(again, name("mast")), a)
	b.want(fmt.Sprint(b.probes), fmt.Sprint(probes)) // it is the holder's
	l := b.e.byAddr[netip.MustParseAddr(a)]
	b.want(fmt.Sprint(l.mac, len(b.e.byAddr)), hw(again).String()+" 1")
	b.want(b.lease(5), "10.43.7.15")
	b.taken[netip.MustParseAddr("10.43.7.16")] = mac(hw(again + 1))
	b.want(b.say(2, request, wish("10.43.7.16")), "ACK 10.43.7.16") // its own
	b.want(b.sayFrom(1, again, dhcpv4.MessageTypeRelease, has(a), server(self)), "")
	b.wantEvents()

	// The file has the address that it came with, and one of its leases is enough.
	s := Server{e: newEngine(c)}
	list := []record{{netip.MustParseAddr(a), hw(again).String(), "", "mast", "mast", 3600, false}, {netip.MustParseAddr("10.43.7.12"), hw(1).String(), "", "mast", "", 3600, true}}
	s.e.restore(b.now, list)
	got, _ := decode(s.snapshot())
	b.want(fmt.Sprint(got), fmt.Sprint(list[:1]))
}

func TestRequestsThatAreRefusedOrNotForUs(t *testing.T) {
	b := newBench(t, config())
	a := b.lease(1)
	b.want(b.say(2, request, wish("192.168.1.5")), "NAK")
	b.want(b.say(2, request, has("192.168.1.5")), "NAK")
	b.want(b.say(2, request, wish(a)), "NAK")                               // another's
	b.want(b.say(2, request, wish("10.43.7.200")), "NAK")                   // outside of the pool
	b.want(b.say(2, request, wish(self)), "NAK")                            // the server's own
	b.want(b.say(2, request, wish("10.43.7.11"), server("10.43.7.9")), "")  // of another server
	b.want(b.say(2, request, wish("10.43.7.11"), server(self)), "NAK")      // never offered
	b.want(b.sayFrom(2, 1, dhcpv4.MessageTypeRelease, has(a)), "")          // forged
	b.want(b.sayFrom(2, 1, dhcpv4.MessageTypeDecline, wish(a)), "")         // forged
	b.want(b.say(1, discover, dhcpv4.WithGatewayIP(net.ParseIP(self))), "") // relayed
	b.want(b.say(1, request, has(a)), "ACK "+a)
	b.want(b.say(3, request), "")
	b.want(b.say(3, dhcpv4.MessageTypeInform, has("10.43.7.200")), "ACK")
	b.want(b.say(3, dhcpv4.MessageTypeInform, has("192.0.2.1")), "")
}

func TestLostLeaseIsTakenUpAgain(t *testing.T) {
	b := newBench(t, config())
	b.want(b.say(1, request, wish("10.43.7.15")), "ACK 10.43.7.15") // after a restart of the host
	b.want(b.say(2, request, has("10.43.7.16")), "ACK 10.43.7.16")  // renewal
	b.want(fmt.Sprint(b.probes), "6")
	b.taken[netip.MustParseAddr("10.43.7.17")] = mac(hw(3)) // its own: no conflict
	b.want(b.say(3, request, has("10.43.7.17")), "ACK 10.43.7.17")
	b.taken[netip.MustParseAddr("10.43.7.18")] = mac(hw(99))
	b.want(b.say(4, request, has("10.43.7.18")), "NAK")
	b.wantEvents(EventConflict)
}

func TestConflict(t *testing.T) {
	c := config()
	c.First, c.Last = netip.MustParseAddr("10.43.7.10"), netip.MustParseAddr("10.43.7.11")
	b := newBench(t, c)
	b.taken[c.First] = mac(hw(99))
	b.want(b.say(1, discover, wish("10.43.7.10")), "OFFER 10.43.7.11")
	if e := b.events[0]; e.Fields["holder"] != "02:00:00:00:00:63" || e.Fields["address"] != "10.43.7.10" || e.Fields["iface"] != "br0" {
		t.Errorf("expected who has which address, got %v", e.Fields)
	}
	b.wantEvents(EventConflict)
	b.want(b.say(1, request, wish("10.43.7.11"), server(self)), "ACK 10.43.7.11")
	b.want(b.say(2, discover), "")
	b.wantEvents(EventExhausted)
	delete(b.taken, c.First)
	b.now = b.now.Add(c.timing.quarantine + time.Second)
	b.want(b.say(2, discover), "OFFER 10.43.7.10")
}

func TestDecline(t *testing.T) {
	b := newBench(t, config())
	a := b.lease(1)
	b.want(b.say(1, dhcpv4.MessageTypeDecline, wish(a), server(self)), "")
	b.wantEvents(EventConflict)
	if again := b.lease(1); again == a {
		t.Errorf("%s was declined and is given again", a)
	}
	// Who declines all it gets does not use up the pool.
	for range 50 {
		_, a, _ := strings.Cut(b.say(5, discover), " ")
		b.say(5, dhcpv4.MessageTypeDecline, wish(a), server(self))
		b.now = b.now.Add(5 * time.Second)
	}
	b.lease(6)
	if n := len(b.e.aside); n > b.e.poolSize/4 {
		t.Errorf("%d of %d addresses are set aside", n, b.e.poolSize)
	}
}

func TestExhaustion(t *testing.T) {
	c := config()
	b := newBench(t, c)
	var addrs []string
	for i := range 10 {
		addrs = append(addrs, b.lease(i))
		b.now = b.now.Add(time.Second)
	}
	for range 5 {
		b.want(b.say(50, discover), "")
		b.now = b.now.Add(20 * time.Second)
	}
	b.wantEvents(EventExhausted)
	// Those that came while few were left had to come back soon; all others stay.
	for i, a := range addrs {
		granted := b.e.byAddr[netip.MustParseAddr(a)].granted
		if want := map[bool]time.Duration{true: c.Lease / 8, false: c.Lease}[i >= 8]; granted != want {
			t.Errorf("lease %d: expected %s, got %s", i, want, granted)
		}
	}
	b.want(b.say(9, request, has(addrs[9])), "ACK "+addrs[9])
	b.want(b.e.byAddr[netip.MustParseAddr(addrs[9])].granted.String(), c.Lease.String())
	// What ended first is given first.
	b.now = b.now.Add(30 * time.Minute)
	b.want(b.say(50, discover), "OFFER "+addrs[8])
	b.want(b.say(50, request, wish(addrs[8]), server(self)), "ACK "+addrs[8])
	b.say(3, dhcpv4.MessageTypeRelease, has(addrs[3]), server(self))
	b.now = b.now.Add(time.Second)
	b.say(2, dhcpv4.MessageTypeRelease, has(addrs[2]), server(self))
	b.want(b.lease(51), addrs[3])
	b.want(b.lease(52), addrs[2])
	b.now = b.now.Add(time.Hour)
	b.wantEvents()
}

// TestMoreThanIsKept has forged clients take all leases that are kept of a network with
// many more addresses.
func TestMoreThanIsKept(t *testing.T) {
	c := config()
	c.Address, c.Options = netip.MustParsePrefix("10.41.0.1/16"), Options{}
	c.First, c.Last, c.Lease = netip.MustParseAddr("10.41.1.0"), netip.MustParseAddr("10.41.254.255"), LongestLease
	b := newBench(t, c)
	const gateway = "10.41.0.1"
	take := func(n int) string {
		_, a, _ := strings.Cut(b.say(n, discover), " ")
		if a == "" {
			return ""
		}
		b.want(b.say(n, request, wish(a), server(gateway)), "ACK "+a)
		return a
	}
	known := take(0)
	for n := 1; n < maxLeases; n++ {
		take(n) // which takes longer than the next one has to wait for
	}
	if n := len(b.e.byAddr); n != maxLeases {
		t.Errorf("expected %d leases, got %d", maxLeases, n)
	}
	b.wantEvents()
	b.want(take(3*maxLeases), "")
	b.wantEvents(EventExhausted)
	b.want(b.say(0, request, has(known)), "ACK "+known)
	b.say(0, dhcpv4.MessageTypeRelease, has(known), server(gateway))
	b.now = b.now.Add(time.Second)
	b.want(take(3*maxLeases), known)
	b.now = b.now.Add(time.Second)
	b.want(take(4*maxLeases), "")
}

func TestReservations(t *testing.T) {
	c := config()
	c.Reservations = []Reservation{
		{MAC: hw(1), Address: netip.MustParseAddr("10.43.7.200"), Name: "camera"},
		{ClientID: []byte("\x00tak"), Address: netip.MustParseAddr("10.43.7.12")},
	}
	b := newBench(t, c)
	b.want(b.lease(1, name("x")), "10.43.7.200")
	b.want(b.lease(2, id("\x00tak")), "10.43.7.12")
	b.want(b.e.byAddr[netip.MustParseAddr("10.43.7.200")].name, "camera")
	b.want(b.say(3, request, wish("10.43.7.12")), "NAK")
	b.want(b.lease(4, name("camera"))[:8], "10.43.7.") // may not be called so
	for _, l := range b.e.byAddr {
		if l.client.mac == mac(hw(4)) {
			b.want(l.name, "camera-2")
		}
	}
	for i := 10; i < 18; i++ {
		if a := b.lease(i); a == "10.43.7.12" {
			t.Error("a reserved address was given to another")
		}
	}
	// A client that has another address moves to the one that is now its own.
	b = newBench(t, config())
	a := b.lease(1)
	c.Reservations[0].Address = netip.MustParseAddr("10.43.7.201")
	e := newEngine(c)
	e.restore(b.now, []record{{Address: netip.MustParseAddr(a), MAC: hw(1).String(), Seconds: 3600}})
	b.e = e
	b.want(b.say(1, request, has(a)), "NAK")
	b.want(b.lease(1), "10.43.7.201")
}

// TestReservationsOfARunningServer hold from the next message on.
func TestReservationsOfARunningServer(t *testing.T) {
	b := newBench(t, config())
	s := &Server{c: b.e.c, e: b.e, changed: make(chan struct{})}
	first, second := b.lease(1), b.lease(2)
	err := s.Reserve([]Reservation{{MAC: hw(1), Address: netip.MustParseAddr(second)}})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), hw(2).String()) {
		t.Errorf("an address that another has: %v", err)
	}
	if err := s.Reserve([]Reservation{{MAC: hw(1), Address: b.e.c.Address.Addr()}}); err == nil || errors.Is(err, ErrInUse) {
		t.Errorf("the server's own: %v", err)
	}
	b.want(b.say(1, request, has(first)), "ACK "+first) // nothing has changed
	if err := s.Reserve([]Reservation{{MAC: hw(1), Address: netip.MustParseAddr("10.43.7.200"), Name: "camera"}, {MAC: hw(2), Address: netip.MustParseAddr(second)}}); err != nil {
		t.Fatal(err)
	}
	b.want(b.say(1, request, has(first)), "NAK")
	b.want(b.lease(1), "10.43.7.200")
	b.want(b.say(2, request, has(second)), "ACK "+second)
	if l := s.Leases(); len(l) != 2 || !l[0].Reserved || !l[1].Reserved || l[1].Name != "camera" {
		t.Errorf("leases: got %+v", l)
	}
	// Without it, the address is nobody's own, and not of the pool.
	if err := s.Reserve(nil); err != nil {
		t.Fatal(err)
	}
	b.want(b.say(1, request, has("10.43.7.200")), "NAK")
	if a := b.lease(1); a == "10.43.7.200" {
		t.Errorf("an address outside of the pool was given: %s", a)
	}
	// What is being offered is as good as given.
	offered := strings.TrimPrefix(b.say(3, dhcpv4.MessageTypeDiscover), "OFFER ")
	if err := s.Reserve([]Reservation{{MAC: hw(4), Address: netip.MustParseAddr(offered)}}); !errors.Is(err, ErrInUse) {
		t.Errorf("an address on offer: %v", err)
	}
	b.now = b.now.Add(2 * time.Hour)
	b.e.advance(b.now)
	if _, _, ok := b.e.holder(b.now, Reservation{MAC: hw(4), Address: netip.MustParseAddr(second)}); ok {
		t.Error("a lease that has ended keeps an address from being reserved")
	}
}

func TestNames(t *testing.T) {
	c := config()
	c.NameTaken = func(n string) bool { return n == "node1" }
	b := newBench(t, c)
	for i, test := range []struct{ said, want string }{
		{"Phone", "phone"}, {"phone", "phone-2"}, {"phone.lan", "phone-3"}, {"node1", "node1-2"}, {"", ""}, {"42", ""}, {"J\x00o's TV", "j-o-s-tv"},
	} {
		l := b.e.byAddr[netip.MustParseAddr(b.lease(i, name(test.said)))]
		b.want(l.name, test.want)
	}
	// It keeps its name when the first is gone, and loses it when it is gone.
	b.want(b.e.byClient[client{mac: mac(hw(1))}].name, "phone-2")
	first := b.e.byClient[client{mac: mac(hw(0))}].addr.String()
	b.say(0, dhcpv4.MessageTypeRelease, has(first), server(self))
	b.lease(1, name("phone"))
	b.want(b.e.byClient[client{mac: mac(hw(1))}].name, "phone-2")
	b.lease(8, name("phone"))
	b.want(b.e.byClient[client{mac: mac(hw(8))}].name, "phone")
	b.lease(0, name("phone"))
	b.want(b.e.byClient[client{mac: mac(hw(0))}].name, "phone-4")
}

func TestFlood(t *testing.T) {
	c := config()
	c.Address = netip.MustParsePrefix("10.41.0.1/16")
	c.Options = Options{}
	c.First, c.Last = netip.MustParseAddr("10.41.1.0"), netip.MustParseAddr("10.41.1.200")
	b := newBench(t, c)
	var real []string
	for i := range 20 {
		_, a, _ := strings.Cut(b.say(i, discover), " ")
		b.want(b.say(i, request, wish(a), server("10.41.0.1")), "ACK "+a)
		real = append(real, a)
		b.now = b.now.Add(time.Second)
	}
	// Forged clients take whatever they get, ten thousand in 100 s; new real ones
	// ask again as clients do. Chance decides who is heard: one in a hundred of them
	// never is in that time.
	start, probes := b.now, b.probes
	forged, newcomers := 0, map[string]bool{}
	for i := range 10000 {
		b.now = start.Add(time.Duration(i) * 10 * time.Millisecond)
		b.e.advance(b.now)
		m, _ := dhcpv4.New(dhcpv4.WithHwAddr(hw(1000+i)), dhcpv4.WithMessageType(discover))
		b.e.handle(b.now, message{from: mac(hw(1000 + i)), data: m.ToBytes()})
		if i == 2000 || i == 2400 || i == 3200 || i == 4800 {
			for n := range 5 {
				m, _ = dhcpv4.New(dhcpv4.WithHwAddr(hw(500+n)), dhcpv4.WithMessageType(discover))
				b.e.handle(b.now, message{from: mac(hw(500 + n)), data: m.ToBytes()})
			}
		}
		out := b.e.take()
		b.probes += len(out.probes)
		for _, r := range out.replies {
			offer, err := dhcpv4.FromBytes(r.data)
			if err != nil || offer.MessageType() != dhcpv4.MessageTypeOffer {
				continue
			}
			for n := range 5 {
				if r.to == mac(hw(500+n)) {
					newcomers[addr(offer.YourIPAddr).String()] = true
				}
			}
			forged++
			take, _ := dhcpv4.NewRequestFromOffer(offer)
			b.e.handle(b.now, message{from: r.to, data: take.ToBytes()})
		}
	}
	if forged > 700 || b.probes-probes > 2100 {
		t.Errorf("expected some five new clients a second, got %d and %d probes in 100 s", forged, b.probes-probes)
	}
	if len(newcomers) < 2 {
		t.Errorf("of five new clients among forged ones %d got an offer", len(newcomers))
	}
	if n := len(b.e.byAddr) + len(b.e.offers); n > maxLeases+maxOffers {
		t.Errorf("%d leases and offers are kept", n)
	}
	for i, a := range real {
		b.want(b.say(i, request, has(a)), "ACK "+a)
	}
	b.events = nil
}

func TestRapidCommit(t *testing.T) {
	rapid := dhcpv4.WithGeneric(dhcpv4.OptionRapidCommit, nil)
	c := config()
	b := newBench(t, c)
	b.want(b.say(1, discover, rapid)[:5], "OFFER")
	c.RapidCommit = true
	b = newBench(t, c)
	b.want(b.say(1, discover, rapid)[:3], "ACK")
	b.want(b.say(2, discover)[:5], "OFFER")
}

func TestOneMACHasFewLeases(t *testing.T) {
	b := newBench(t, config())
	for i := range 30 {
		b.lease(1, id(fmt.Sprint("twin", i)))
		b.now = b.now.Add(time.Second)
	}
	b.want(fmt.Sprint(len(b.e.byAddr)), fmt.Sprint(maxPerMAC))
	// Another MAC with the same identifier is another client.
	a := b.lease(1, id("x"))
	if other := b.lease(2, id("x")); other == a {
		t.Errorf("two hosts have %s", a)
	}
	b.want(b.say(2, dhcpv4.MessageTypeRelease, has(a), id("x")), "")
	b.want(b.say(1, request, has(a), id("x")), "ACK "+a)
}

func TestOptions(t *testing.T) {
	c := config()
	c.Options.NTP = []netip.Addr{netip.MustParseAddr("10.43.7.1")}
	b := newBench(t, c)
	relay := dhcpv4.WithGeneric(dhcpv4.OptionRelayAgentInformation, []byte{1, 1, 7})
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(hw(1)), dhcpv4.WithMessageType(discover), id("me"), relay)
	if err != nil {
		t.Fatal(err)
	}
	b.e.handle(b.now, message{from: mac(hw(1)), data: m.ToBytes()})
	r := b.settle()[0]
	got := fmt.Sprintln(r.IPAddressLeaseTime(0), r.IPAddressRenewalTime(0), r.IPAddressRebindingTime(0), r.SubnetMask(), r.Router(), r.DNS(), r.NTPServers(),
		r.DomainName(), r.Options.Get(dhcpv4.OptionInterfaceMTU), string(r.Options.Get(dhcpv4.OptionClientIdentifier)), r.ServerIdentifier(), r.RelayAgentInfo() == nil)
	b.want(strings.TrimSpace(got), "1h0m0s 30m0s 52m30s ffffff00 [10.43.7.1] [10.43.7.1] [10.43.7.1] halo [5 120] me 10.43.7.1 true")
	c.Options = Options{}
	b = newBench(t, c)
	b.e.handle(b.now, message{from: mac(hw(1)), data: m.ToBytes()})
	r = b.settle()[0]
	for _, o := range []dhcpv4.OptionCode{dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers} {
		if r.Options.Has(o) {
			t.Errorf("option %s: expected none", o)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"address: expected IPv4":           func(c *Config) { c.Address = netip.MustParsePrefix("fd00::1/64") },
		"address: expected a host's":       func(c *Config) { c.Address = netip.MustParsePrefix("10.43.7.0/24") },
		"pool: expected two":               func(c *Config) { c.Last = netip.MustParseAddr("10.43.7.255") },
		"the lower first":                  func(c *Config) { c.First, c.Last = c.Last, c.First },
		"pool: expected more":              func(c *Config) { c.First, c.Last = c.Address.Addr(), c.Address.Addr() },
		"lease: expected 2m0s to 168h0m0s": func(c *Config) { c.Lease = time.Second },
		"router: expected a host":          func(c *Config) { c.Options.Router = netip.MustParseAddr("192.0.2.1") },
		"servers: expected IPv4":           func(c *Config) { c.Options.DNS = []netip.Addr{netip.MustParseAddr("fd00::1")} },
		"domain: expected":                 func(c *Config) { c.Options.Domain = "-halo" },
		"MTU: expected 576":                func(c *Config) { c.Options.MTU = 100 },
		"expected a MAC of 6 octets":       func(c *Config) { c.Reservations = []Reservation{{Address: c.First}} },
		"expected another host's address":  func(c *Config) { c.Reservations = []Reservation{{MAC: hw(1), Address: c.Address.Addr()}} },
		"expected a name":                  func(c *Config) { c.Reservations = []Reservation{{MAC: hw(1), Address: c.First, Name: "A B"}} },
		"is there twice": func(c *Config) {
			c.Reservations = []Reservation{{MAC: hw(1), Address: c.First}, {MAC: hw(2), Address: c.First}}
		},
	} {
		c := config()
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("expected an error with %q, got %v", name, err)
		}
	}
}

// FuzzHandle holds that nothing that comes in gives two hosts one address, or
// one that is not to be given, and that what is kept stays bounded.
func FuzzHandle(f *testing.F) {
	seed := func(kind dhcpv4.MessageType, with ...dhcpv4.Modifier) []byte {
		m, err := dhcpv4.New(append(with, dhcpv4.WithHwAddr(hw(1)), dhcpv4.WithMessageType(kind))...)
		if err != nil {
			f.Fatal(err)
		}
		return m.ToBytes()
	}
	f.Add(seed(discover, name("x")), seed(request, wish("10.43.7.11")))
	f.Add(seed(discover, id("y")), seed(dhcpv4.MessageTypeDecline, wish("10.43.7.11")))
	f.Add(seed(request, has("10.43.7.12")), seed(dhcpv4.MessageTypeRelease, has("10.43.7.12")))
	f.Add(seed(request, has("10.43.7.10")), seed(dhcpv4.MessageTypeInform, has("10.43.7.77")))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		b := newBench(t, config())
		other := b.lease(7)
		for _, data := range [][]byte{first, second, first} {
			in := message{source: netip.MustParseAddr("10.43.7.77"), data: data}
			if len(data) > 34 {
				in.from = mac(data[28:34])
			}
			if in.from == mac(hw(7)) {
				return
			}
			b.e.handle(b.now, in)
			b.settle()
		}
		if l := b.e.byAddr[netip.MustParseAddr(other)]; l == nil || l.client.mac != mac(hw(7)) || l.ended {
			t.Errorf("the lease of another was changed: %+v", l)
		}
		for a, l := range b.e.byAddr {
			if !b.e.inPool(a) || b.e.byClient[l.client] != l || l.name != hostname(l.name) {
				t.Errorf("%s: given as %+v", a, l)
			}
		}
	})
}
