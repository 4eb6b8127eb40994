package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// network is a bridge br0 with a server, and hosts behind it.
type network struct {
	*testing.T
	*Server
	c      Config
	dir    string
	br     netlink.Link
	hosts  int
	events chan model.Event
	stop   func()
}

func newNetwork(t *testing.T, c Config) *network {
	t.Helper()
	n := &network{T: t, c: c, dir: t.TempDir(), events: make(chan model.Event, 99)}
	n.bridge()
	n.c.File = filepath.Join(n.dir, "leases")
	n.c.Notify = func(e model.Event) { n.events <- e }
	n.start()
	return n
}

func (n *network) bridge() {
	n.Helper()
	n.br = nstest.Hub(n, "br0")
	if err := netlink.AddrAdd(n.br, &netlink.Addr{IPNet: ipNet(n.c.Address)}); err != nil {
		n.Fatal(err)
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// start starts the server, as after a restart of the process.
func (n *network) start() {
	n.Helper()
	s, err := New(n.c)
	if err != nil {
		n.Fatal(err)
	}
	n.Server = s
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	n.stop = func() {
		n.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				n.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			n.Error("Run did not end")
		}
	}
	n.Cleanup(n.stop)
}

// host plugs in a further host and returns it with the name of its interface.
func (n *network) host() (*nstest.Host, string) {
	n.Helper()
	n.hosts++
	near, far := nstest.Cable(n, fmt.Sprintf("port%d", n.hosts), fmt.Sprintf("eth%d", n.hosts))
	if err := netlink.LinkSetMaster(near, n.br); err != nil {
		n.Fatal(err)
	}
	return nstest.NewHost(n, far), far.Attrs().Name
}

// static plugs in a host with a fixed address.
func (n *network) static(a string) {
	n.Helper()
	h, iface := n.host()
	if out, err := h.Run(n, "ip", "addr", "add", a, "dev", iface); err != nil {
		n.Fatalf("%v: %s", err, out)
	}
}

// script writes what a client calls when its lease is another; it sets the
// address and says so.
func (n *network) script(name, text string) string {
	n.Helper()
	path := filepath.Join(n.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		n.Fatal(err)
	}
	return path
}

// udhcpc starts BusyBox's client. It says "bound", "renew", "deconfig".
func (n *network) udhcpc(h *nstest.Host, iface string, args ...string) *nstest.Process {
	n.Helper()
	script := n.script("udhcpc", `
case "$1" in
deconfig) ip addr flush dev "$interface" ;;
bound|renew) ip addr replace "$ip/$mask" dev "$interface" ;;
esac
echo "halo $1 $ip $mask ${router:-none} ${dns:-none} ${domain:-none} ${lease:-none}"
`)
	return h.Start(n, "udhcpc", append([]string{"-f", "-i", iface, "-s", script, "-t", "20", "-T", "2", "-A", "1"}, args...)...)
}

// dhclient starts ISC's client, which renews after 4 s and rebinds after 8 s.
// It says "BOUND", "RENEW", "REBIND", "REBOOT", "EXPIRE".
func (n *network) dhclient(h *nstest.Host, iface string) *nstest.Process {
	n.Helper()
	script := n.script("dhclient", `
case "$reason" in
BOUND|RENEW|REBIND|REBOOT) ip addr replace "$new_ip_address/24" dev "$interface" ;;
EXPIRE|FAIL|RELEASE|STOP) ip addr flush dev "$interface" ;;
esac
echo "halo $reason $new_ip_address $new_routers $new_domain_name $new_domain_name_servers $new_interface_mtu $new_ntp_servers"
`)
	conf := filepath.Join(n.dir, "dhclient.conf")
	text := `supersede dhcp-renewal-time 4;
supersede dhcp-rebinding-time 8;
retry 2; initial-interval 1; backoff-cutoff 2; reboot 5; timeout 100;
send host-name "Laptop";
request subnet-mask, routers, domain-name, domain-name-servers, interface-mtu, ntp-servers;
`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		n.Fatal(err)
	}
	return h.Start(n, "dhclient", n.dhclientArgs(script, conf, "-d", iface)...)
}

func (n *network) dhclientArgs(script, conf string, more ...string) []string {
	return append([]string{"-4", "-v", "-lf", filepath.Join(n.dir, "dhclient.leases"), "-pf", filepath.Join(n.dir, "dhclient.pid"), "-sf", script, "-cf", conf}, more...)
}

func (n *network) await(kind string) model.Event {
	n.Helper()
	for limit := time.After(patience); ; {
		select {
		case e := <-n.events:
			if e.Kind == kind {
				return e
			}
		case <-limit:
			n.Fatalf("the event %s did not come", kind)
		}
	}
}

// until waits for leases of which f holds.
func (n *network) until(what string, f func([]Lease) bool) []Lease {
	n.Helper()
	for limit := time.After(patience); ; {
		list, changed := n.Watch()
		if f(list) {
			return list
		}
		select {
		case <-changed:
		case <-limit:
			n.Fatalf("%s: not so: %+v", what, list)
		}
	}
}

func first(line string) string { return strings.Fields(line + " ")[0] }

func TestDhclient(t *testing.T) {
	c := config()
	c.Options.NTP = []netip.Addr{netip.MustParseAddr("10.43.7.1")}
	n := newNetwork(t, c)
	h, iface := n.host()
	p := n.dhclient(h, iface)
	got := p.Await("halo BOUND", patience)
	a := first(got)
	if got != a+" 10.43.7.1 halo 10.43.7.1 1400 10.43.7.1" {
		t.Errorf("expected all options, got %q", got)
	}
	list := n.Leases()
	if len(list) != 1 || list[0].Address.String() != a || list[0].Name != "laptop" || !list[0].Heard {
		t.Errorf("expected the lease of %s, got %+v", a, list)
	}
	if again := first(p.Await("halo RENEW", patience)); again != a {
		t.Errorf("expected %s renewed, got %s", a, again)
	}

	// The server is gone until the client asks everybody.
	n.stop()
	p.Await("DHCPREQUEST for "+a+" on "+iface+" to 255.255.255.255", patience)
	n.start()
	if l := n.Leases(); len(l) != 1 || l[0].Address.String() != a || l[0].Heard {
		t.Errorf("expected the lease of %s kept, got %+v", a, l)
	}
	renewed := func() { // dhclient calls it REBIND or RENEW, however it comes about
		t.Helper()
		if got := strings.Fields(p.Await("halo RE", patience)); len(got) < 2 || got[1] != a {
			t.Errorf("expected %s again, got %q", a, got)
		}
	}
	renewed()

	// The server loses its file, of which the client knows nothing.
	n.stop()
	if err := os.Remove(n.c.File); err != nil {
		t.Fatal(err)
	}
	n.start()
	renewed()
	n.until("the client has its address", func(l []Lease) bool { return len(l) == 1 && l[0].Address.String() == a })

	if out, err := h.Run(t, "dhclient", n.dhclientArgs(filepath.Join(n.dir, "dhclient"), filepath.Join(n.dir, "dhclient.conf"), "-r", iface)...); err != nil {
		t.Errorf("release: %v: %s", err, out)
	}
	n.until("the lease is given back", func(l []Lease) bool { return len(l) == 0 })
	p = n.dhclient(h, iface)
	if again := first(p.Await("halo BOUND", patience)); again != a {
		t.Errorf("expected %s again, got %s", a, again)
	}
}

func TestUdhcpc(t *testing.T) {
	c := config()
	n := newNetwork(t, c)
	h, iface := n.host()
	p := n.udhcpc(h, iface)
	got := p.Await("halo bound", patience)
	a := first(got)
	if got != a+" 24 10.43.7.1 10.43.7.1 halo 3600" {
		t.Errorf("expected all options, got %q", got)
	}
	p.Signal(syscall.SIGUSR1)
	if again := first(p.Await("halo renew", patience)); again != a {
		t.Errorf("expected %s renewed, got %s", a, again)
	}
	p.Signal(syscall.SIGUSR2)
	p.Await("halo deconfig", patience)
	n.until("the lease is given back", func(l []Lease) bool { return len(l) == 0 })
	p.Signal(syscall.SIGUSR1)
	if again := first(p.Await("halo bound", patience)); again != a {
		t.Errorf("expected %s again, got %s", a, again)
	}

	// A client that comes with the address of another network is told to begin anew.
	h2, iface2 := n.host()
	p = n.udhcpc(h2, iface2, "-r", "192.168.1.77")
	if other := first(p.Await("halo bound", patience)); !strings.HasPrefix(other, "10.43.7.") || other == a {
		t.Errorf("expected another address of the pool, got %s", other)
	}
}

func TestReservationOfARealClient(t *testing.T) {
	n := &network{T: t, c: config(), dir: t.TempDir(), events: make(chan model.Event, 99)}
	n.bridge()
	h, iface := n.host()
	var hw []byte
	h.Do(t, func() error {
		l, err := netlink.LinkByName(iface)
		if err == nil {
			hw = l.Attrs().HardwareAddr
		}
		return err
	})
	n.c.Reservations = []Reservation{{MAC: hw, Address: netip.MustParseAddr("10.43.7.222"), Name: "camera"}}
	n.start()
	if a := first(n.udhcpc(h, iface, "-x", "hostname:whatever").Await("halo bound", patience)); a != "10.43.7.222" {
		t.Errorf("expected the reserved address, got %s", a)
	}
	if l := n.Leases(); len(l) != 1 || l[0].Name != "camera" || !l[0].Reserved || l[0].Hostname != "whatever" {
		t.Errorf("expected the reservation's name, got %+v", l)
	}
}

func TestStaticHostAndExhaustion(t *testing.T) {
	c := config()
	c.First, c.Last = netip.MustParseAddr("10.43.7.10"), netip.MustParseAddr("10.43.7.11")
	n := newNetwork(t, c)
	n.static("10.43.7.10/24")
	h, iface := n.host()
	p := n.udhcpc(h, iface, "-r", "10.43.7.10")
	if a := first(p.Await("halo bound", patience)); a != "10.43.7.11" {
		t.Errorf("expected the address that is free, got %s", a)
	}
	if e := n.await(EventConflict); e.Fields["address"] != "10.43.7.10" {
		t.Errorf("expected the conflict named, got %v", e.Fields)
	}
	h2, iface2 := n.host()
	n.udhcpc(h2, iface2)
	n.await(EventExhausted)
	p.Signal(syscall.SIGUSR2) // now there is one
	n.until("the second host has the address", func(l []Lease) bool {
		return len(l) == 1 && l[0].Address == c.Last && l[0].MAC != ""
	})
}

func TestDeclineOfARealClient(t *testing.T) {
	c := config()
	c.First, c.Last = netip.MustParseAddr("10.43.7.10"), netip.MustParseAddr("10.43.7.11")
	c.timing.probes = 0 // the server does not see the host that is there
	n := newNetwork(t, c)
	n.static("10.43.7.10/24")
	h, iface := n.host()
	p := n.udhcpc(h, iface, "-r", "10.43.7.10", "-a")
	if e := n.await(EventConflict); e.Fields["by"] != "client" || e.Fields["address"] != "10.43.7.10" {
		t.Errorf("expected what was declined, got %v", e.Fields)
	}
	if a := first(p.Await("halo bound", patience)); a != "10.43.7.11" {
		t.Errorf("expected the other address, got %s", a)
	}
}

func TestTwoHostsWithOneName(t *testing.T) {
	n := newNetwork(t, config())
	for range 2 {
		h, iface := n.host()
		n.udhcpc(h, iface, "-x", "hostname:phone").Await("halo bound", patience)
	}
	var names []string
	for _, l := range n.Leases() {
		names = append(names, l.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"phone", "phone-2"}) {
		t.Errorf("expected two names, got %q", names)
	}
}

func TestInterfaceIsMadeAnew(t *testing.T) {
	n := newNetwork(t, config())
	h, iface := n.host()
	p := n.udhcpc(h, iface)
	a := first(p.Await("halo bound", patience))
	if err := netlink.LinkDel(n.br); err != nil {
		t.Fatal(err)
	}
	n.bridge()
	if err := netlink.LinkSetMaster(nstest.Link(t, "port1"), n.br); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGUSR1)
	if again := first(p.Await("halo renew", patience)); again != a {
		t.Errorf("expected %s renewed, got %s", a, again)
	}
}

// TestProbeHoldsUpNobody asks for an address that has to be probed, and for one
// that has not, in that order.
func TestProbeHoldsUpNobody(t *testing.T) {
	b := newBench(t, config())
	a := b.lease(1)
	b.e.handle(b.now, incoming(t, 2, discover))
	b.e.handle(b.now, incoming(t, 1, request, has(a)))
	out := b.e.take()
	if len(out.replies) != 1 || out.replies[0].to != mac(hw(1)) || len(out.probes) != 1 {
		t.Errorf("expected the answer to the known host, and a probe, got %+v", out)
	}
	if got := b.settle(); len(got) != 1 || got[0].MessageType() != dhcpv4.MessageTypeOffer {
		t.Errorf("expected the offer afterwards, got %v", got)
	}
}

func incoming(t *testing.T, n int, kind dhcpv4.MessageType, with ...dhcpv4.Modifier) message {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(hw(n)), dhcpv4.WithMessageType(kind)}, with...)...)
	if err != nil {
		t.Fatal(err)
	}
	return message{from: mac(hw(n)), source: addr(m.ClientIPAddr), data: m.ToBytes()}
}

func TestParse(t *testing.T) {
	from, to := netip.MustParseAddr("10.43.7.1"), netip.MustParseAddr("10.43.7.12")
	d := datagram(from, to, []byte("odd"))
	if sum(0, d[:ipHeader]) != 0xffff {
		t.Error("the header's checksum is wrong")
	}
	m, ok := parseUDP(append(d, 0, 0)) // Ethernet pads
	if !ok || m.source != from || string(m.data) != "odd" {
		t.Errorf("got %+v, %t", m, ok)
	}
	for i := range d {
		if _, ok := parseUDP(d[:i]); ok {
			t.Errorf("%d octets: taken", i)
		}
	}
	if h, ok := parseARP(arpProbe(mac(hw(1)), to)); !ok || h.addr != to || h.mac != mac(hw(1)) {
		t.Errorf("a probe: got %+v, %t", h, ok)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(datagram(netip.MustParseAddr("10.43.7.1"), netip.MustParseAddr("10.43.7.2"), []byte("x")))
	f.Add(arpProbe(mac(hw(1)), netip.MustParseAddr("10.43.7.2")))
	f.Fuzz(func(_ *testing.T, b []byte) {
		parseUDP(b)
		parseARP(b)
	})
}
