package dhcp

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// server is a DHCP server at the other end of the port "up0", in a namespace of
// its own. It gives what the test puts into gives.
type server struct {
	mu     sync.Mutex
	gives  gift
	silent bool
	nak    bool
	heard  chan *dhcpv4.DHCPv4
}

type gift struct {
	address, router, dns string
	duration             time.Duration
}

func newServer(t *testing.T, g gift) *server {
	t.Helper()
	s := &server{gives: g, heard: make(chan *dhcpv4.DHCPv4, 99)}
	_, far := nstest.Cable(t, "up0", "far0")
	nstest.Away(t, far, func(l netlink.Link) error {
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.1/24"))}); err != nil {
			return err
		}
		srv, err := server4.NewServer("far0", &net.UDPAddr{Port: dhcpv4.ServerPort}, s.answer)
		if err != nil {
			return err
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = srv.Serve() // ends with an error when it is closed
		}()
		t.Cleanup(func() {
			_ = srv.Close()
			<-ended
		})
		return nil
	})
	return s
}

func (s *server) set(f func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *server) answer(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
	s.heard <- m
	s.mu.Lock()
	defer s.mu.Unlock()
	kinds := map[dhcpv4.MessageType]dhcpv4.MessageType{
		dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer,
		dhcpv4.MessageTypeRequest:  dhcpv4.MessageTypeAck,
	}
	kind, ok := kinds[m.MessageType()]
	if !ok || s.silent {
		return
	}
	if s.nak && kind == dhcpv4.MessageTypeAck {
		kind = dhcpv4.MessageTypeNak
	}
	p := netip.MustParsePrefix(s.gives.address)
	reply, err := dhcpv4.NewReplyFromRequest(m,
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithServerIP(net.IPv4(192, 0, 2, 1)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1))),
		dhcpv4.WithYourIP(p.Addr().AsSlice()),
		dhcpv4.WithNetmask(net.CIDRMask(p.Bits(), 32)),
		dhcpv4.WithLeaseTime(uint32(s.gives.duration.Seconds())),
		dhcpv4.WithGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 0, 2}), // tests do not wait longer
	)
	if err != nil {
		panic(err)
	}
	if s.gives.router != "" {
		reply.UpdateOption(dhcpv4.OptRouter(net.ParseIP(s.gives.router)))
	}
	if s.gives.dns != "" {
		reply.UpdateOption(dhcpv4.OptDNS(net.ParseIP(s.gives.dns)))
	}
	_, _ = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}) // lost, as on a cable
}

// await returns the next message of that type.
func (s *server) await(t *testing.T, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case m := <-s.heard:
			if m.MessageType() == kind {
				return m
			}
		case <-limit:
			t.Fatalf("the server heard no %s", kind)
		}
	}
}

type uplink struct {
	*Client
	t      *testing.T
	events chan model.Event
	resolv string
	cancel context.CancelFunc
	ended  chan error
}

func newUplink(t *testing.T, static map[string]Static) *uplink {
	t.Helper()
	u := &uplink{t: t, events: make(chan model.Event, 99), resolv: filepath.Join(t.TempDir(), "resolv.conf"), ended: make(chan error, 1)}
	c, err := New(Config{Hostname: "halo-1", Static: static, Resolv: u.resolv, Notify: func(e model.Event) { u.events <- e }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	u.Client = c
	return u
}

func (u *uplink) run() {
	ctx, cancel := context.WithCancel(u.t.Context())
	u.cancel = cancel
	go func() { u.ended <- u.Run(ctx, "up0") }()
}

func (u *uplink) await(kind string) model.Event {
	u.t.Helper()
	select {
	case e := <-u.events:
		if e.Kind != kind {
			u.t.Fatalf("expected the event %s, got %s: %s", kind, e.Kind, e.Message)
		}
		return e
	case err := <-u.ended:
		u.t.Fatalf("expected the event %s, but Run ended: %v", kind, err)
	case <-time.After(patience):
		u.t.Fatalf("expected the event %s, nothing came", kind)
	}
	return model.Event{}
}

func (u *uplink) end() error {
	u.t.Helper()
	select {
	case err := <-u.ended:
		return err
	case <-time.After(patience):
		u.t.Fatal("Run did not end")
		return nil
	}
}

// configured describes the port: its addresses, and its routes as "destination
// via router metric above the least".
func configured(t *testing.T) (addrs, routes []string) {
	t.Helper()
	l := nstest.Link(t, "up0")
	al, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range al {
		addrs = append(addrs, a.IPNet.String())
	}
	rl, err := netlink.RouteList(l, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rl {
		text := r.Dst.String()
		if r.Gw != nil {
			text += " via " + r.Gw.String()
		}
		if r.Priority < Metric {
			t.Errorf("route %s: expected a metric of %d or more, got %d", text, Metric, r.Priority)
		}
		routes = append(routes, text)
	}
	slices.Sort(routes)
	return addrs, routes
}

func wantConfigured(t *testing.T, addrs, routes []string) {
	t.Helper()
	a, r := configured(t)
	if !slices.Equal(a, addrs) || !slices.Equal(r, routes) {
		t.Errorf("expected addresses %q and routes %q, got %q and %q", addrs, routes, a, r)
	}
}

func (u *uplink) wantResolv(want string) {
	u.t.Helper()
	b, err := os.ReadFile(u.resolv)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		u.t.Fatal(err)
	}
	if string(b) != want {
		u.t.Errorf("resolver's file: expected %q, got %q", want, b)
	}
}

func TestLease(t *testing.T) {
	s := newServer(t, gift{"192.0.2.50/24", "192.0.2.1", "192.0.2.2", time.Hour})
	u := newUplink(t, nil)
	// What an earlier run left behind.
	old := &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("198.51.100.9/24"))}
	if err := netlink.AddrAdd(nstest.Link(t, "up0"), old); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := u.Discover(ctx, "up0"); err != nil {
		t.Fatal(err)
	}
	if m := s.await(t, dhcpv4.MessageTypeDiscover); m.HostName() != "halo-1" {
		t.Errorf("host name: expected halo-1, got %q", m.HostName())
	}
	u.run()
	if e := u.await(EventUp); e.Fields["address"] != "192.0.2.50/24" || e.Fields["router"] != "192.0.2.1" || e.Fields["iface"] != "up0" {
		t.Errorf("expected the settings in the event, got %+v", e.Fields)
	}
	wantConfigured(t, []string{"192.0.2.50/24"}, []string{"0.0.0.0/0 via 192.0.2.1", "192.0.2.0/24"})
	u.wantResolv("nameserver 192.0.2.2\n")
	u.cancel()
	if err := u.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if m := s.await(t, dhcpv4.MessageTypeRelease); !m.ClientIPAddr.Equal(net.IPv4(192, 0, 2, 50)) {
		t.Errorf("expected 192.0.2.50 given back, got %s", m.ClientIPAddr)
	}
	wantConfigured(t, nil, nil)
	u.wantResolv("")
}

func TestRenewal(t *testing.T) {
	s := newServer(t, gift{"192.0.2.50/24", "192.0.2.1", "192.0.2.2", time.Hour})
	u := newUplink(t, nil)
	u.run()
	u.await(EventUp)
	s.await(t, dhcpv4.MessageTypeRequest)
	renewal := s.await(t, dhcpv4.MessageTypeRequest)
	if !renewal.ClientIPAddr.Equal(net.IPv4(192, 0, 2, 50)) {
		t.Errorf("expected 192.0.2.50 renewed, got %s", renewal.ClientIPAddr)
	}
	s.set(func(s *server) { s.gives = gift{"192.0.2.60/25", "", "", time.Hour} })
	u.await(EventChanged)
	wantConfigured(t, []string{"192.0.2.60/25"}, []string{"192.0.2.0/25"})
	u.wantResolv("")
	u.cancel()
	if err := u.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	wantConfigured(t, nil, nil)
}

func TestLeaseEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		fail func(*server)
	}{
		{"the server is silent", func(s *server) { s.silent = true }},
		{"the server refuses", func(s *server) { s.nak = true }},
		{"the server gives what is HALO's", func(s *server) { s.gives.address = "10.42.0.1/16" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newServer(t, gift{"192.0.2.50/24", "192.0.2.1", "", 4 * time.Second})
			u := newUplink(t, nil)
			u.run()
			u.await(EventUp)
			s.set(test.fail)
			if e := u.await(EventDown); e.Severity != model.Warning {
				t.Errorf("expected a warning, got %s", e.Severity)
			}
			if err := u.end(); !errors.Is(err, ErrExpired) {
				t.Errorf("expected %v, got %v", ErrExpired, err)
			}
			wantConfigured(t, nil, nil)
		})
	}
}

func TestDiscoverWaitsForAnAcceptableOffer(t *testing.T) {
	s := newServer(t, gift{"10.42.7.7/24", "10.42.7.1", "", time.Hour})
	u := newUplink(t, nil)
	found := make(chan error, 1)
	go func() { found <- u.Discover(t.Context(), "up0") }()
	s.await(t, dhcpv4.MessageTypeDiscover)
	s.await(t, dhcpv4.MessageTypeDiscover) // it asks again, so it did not take the first
	s.set(func(s *server) { s.gives = gift{"192.0.2.50/24", "", "", time.Hour} })
	select {
	case err := <-found:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("no offer was found")
	}
}

func TestStatic(t *testing.T) {
	nstest.Cable(t, "up0", "far0")
	u := newUplink(t, map[string]Static{"up0": {
		Address: netip.MustParsePrefix("192.0.2.7/32"), Router: netip.MustParseAddr("198.51.100.1"),
		DNS: []netip.Addr{netip.MustParseAddr("198.51.100.2")},
	}})
	if err := u.Discover(t.Context(), "up0"); err != nil {
		t.Errorf("a port with fixed settings: expected no search, got %v", err)
	}
	u.run()
	u.await(EventUp)
	wantConfigured(t, []string{"192.0.2.7/32"}, []string{"0.0.0.0/0 via 198.51.100.1", "192.0.2.7/32"})
	u.wantResolv("nameserver 198.51.100.2\n")
	u.cancel()
	if err := u.end(); err != nil {
		t.Errorf("Run: %v", err)
	}
	wantConfigured(t, nil, nil)
	_, err := New(Config{Static: map[string]Static{"eth0": {Address: netip.MustParsePrefix("10.41.0.9/24")}}})
	if err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("settings in HALO's network: expected an error that names the port, got %v", err)
	}
}

func TestPortGoesAway(t *testing.T) {
	newServer(t, gift{"192.0.2.50/24", "192.0.2.1", "", time.Hour})
	u := newUplink(t, nil)
	u.run()
	u.await(EventUp)
	if err := netlink.LinkDel(nstest.Link(t, "up0")); err != nil {
		t.Fatal(err)
	}
	u.cancel()
	if err := u.end(); err != nil {
		t.Errorf("Run on a port that was pulled: %v", err)
	}
}
