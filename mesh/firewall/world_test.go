package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// host is a machine at the far end of a cable, in a namespace of its own.
type host struct {
	t      *testing.T
	iface  net.Interface
	router net.HardwareAddr // of the router's end
	raw    *packet.Conn     // sends and hears everything
	do     chan func()

	mu    sync.Mutex
	heard [][]byte // frames, as they come in
}

// run calls f in the host's namespace: sockets that it opens stay there.
func (h *host) run(f func() error) {
	h.t.Helper()
	done := make(chan error)
	h.do <- func() { done <- f() }
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
}

func sysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
}

// quiet stops a namespace's kernel from saying anything by itself that rules
// would count.
func quiet() error {
	for _, name := range []string{"ipv6/conf/default/accept_ra", "ipv6/conf/default/router_solicitations", "ipv6/conf/default/accept_dad", "ipv6/conf/default/autoconf"} {
		if err := sysctl(name, "0"); err != nil {
			return err
		}
	}
	for _, name := range []string{"mldv1", "mldv2"} { // reports of groups are repeated at random within this, in ms
		if err := sysctl("ipv6/conf/default/"+name+"_unsolicited_report_interval", "86400000"); err != nil {
			return err
		}
	}
	return nil
}

// plug connects a new host to the test's namespace by a cable, whose near end
// gets that name.
func plug(t *testing.T, near string, gateway []string, addresses ...string) *host {
	t.Helper()
	link, far := nstest.Cable(t, near, "far-"+near)
	h := &host{t: t, router: link.Attrs().HardwareAddr, do: make(chan func())}
	ready := make(chan error)
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	go func() {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		ns, err := h.settle(home, far, gateway, addresses)
		ready <- err
		if err != nil {
			return
		}
		defer ns.Close()
		for f := range h.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.raw.Close(); close(h.do) })
	go h.listen()
	return h
}

func (h *host) settle(home netns.NsHandle, far netlink.Link, gateway, addresses []string) (netns.NsHandle, error) {
	ns, err := netns.New()
	if err != nil {
		return ns, err
	}
	if err := quiet(); err != nil {
		return ns, err
	}
	back, err := netlink.NewHandleAt(home, unix.NETLINK_ROUTE)
	if err != nil {
		return ns, err
	}
	defer back.Close()
	if err := back.LinkSetNsFd(far, int(ns)); err != nil {
		return ns, err
	}
	link, err := netlink.LinkByName(far.Attrs().Name)
	if err != nil {
		return ns, err
	}
	h.iface = net.Interface{Index: link.Attrs().Index, Name: link.Attrs().Name, HardwareAddr: link.Attrs().HardwareAddr, MTU: link.Attrs().MTU}
	if err := address(link, addresses); err != nil {
		return ns, err
	}
	for _, g := range gateway {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(g)}); err != nil {
			return ns, fmt.Errorf("route by %s: %w", g, err)
		}
	}
	h.raw, err = packet.Listen(&h.iface, packet.Raw, unix.ETH_P_ALL, nil)
	return ns, err
}

func address(link netlink.Link, addresses []string) error {
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range addresses {
		n, err := netlink.ParseIPNet(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: n, Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return nil
}

func (h *host) listen() {
	buf := make([]byte, 70000)
	for {
		n, from, err := h.raw.ReadFrom(buf)
		if err != nil {
			return
		}
		if a, ok := from.(*packet.Addr); ok && a.HardwareAddr.String() == h.iface.HardwareAddr.String() {
			continue
		}
		h.mu.Lock()
		h.heard = append(h.heard, slices.Clone(buf[:n]))
		h.mu.Unlock()
	}
}

// frame is the first frame heard that holds mark; nil if none.
func (h *host) frame(mark []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.heard {
		if len(f) > 14 && string(f[6:12]) != string(h.iface.HardwareAddr) && contains(f[14:], mark) {
			return f
		}
	}
	return nil
}

func contains(b, mark []byte) bool {
	for i := 0; i+len(mark) <= len(b); i++ {
		if string(b[i:i+len(mark)]) == string(mark) {
			return true
		}
	}
	return false
}

// send sends an IP packet to the router, or to whom the destination means.
func (h *host) send(ip []byte) {
	h.t.Helper()
	kind := uint16(unix.ETH_P_IP)
	if ip[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	h.frameTo(h.router, kind, ip)
}

func (h *host) frameTo(to net.HardwareAddr, kind uint16, payload []byte) {
	h.t.Helper()
	b := slices.Concat(to, h.iface.HardwareAddr, binary.BigEndian.AppendUint16(nil, kind), payload)
	if _, err := h.raw.WriteTo(b, &packet.Addr{HardwareAddr: to}); err != nil {
		h.t.Fatal(err)
	}
}

// world is a router with a host in each zone.
type world struct {
	Firewall
	uplink, mesh, client, client2, overlay *host
	bridge                                 netlink.Link
	marks                                  uint32
	elsewhere                              bool // its ways are not those that row.probe knows
}

func newWorld(t *testing.T) *world {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(quiet())
	must(sysctl("ipv4/ip_forward", "1"))
	must(sysctl("ipv6/conf/all/forwarding", "1"))
	// Where bridge netfilter is part of the kernel, off, as where it is not loaded.
	for _, family := range []string{"ip", "ip6", "arp"} {
		if err := sysctl("bridge/bridge-nf-call-"+family+"tables", "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	// An earlier test's packets must not have begun what this one's do.
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, everything{}); err != nil {
			t.Fatal(err)
		}
	}
	w := &world{}
	t.Cleanup(func() {
		if err := w.Remove(); err != nil {
			t.Error(err)
		}
	})
	w.uplink = plug(t, "eth0", nil, "198.51.100.2/24", "2001:db8:1::2/64")
	w.mesh = plug(t, "bat0", []string{"10.41.0.1", "fd00:aa:bb:1::1"}, "10.41.0.5/16", "fd00:aa:bb:1::5/64")
	w.client = plug(t, "cl0", []string{"10.43.0.1", "fd00:aa:bb:100::1"}, "10.43.0.10/24", "fd00:aa:bb:100::10/64")
	w.client2 = plug(t, "cl1", []string{"10.43.0.1", "fd00:aa:bb:100::1"}, "10.43.0.11/24", "fd00:aa:bb:100::11/64")
	w.overlay = plug(t, "wg0", []string{"10.42.0.1", "fd00:aa:bb:2::1"}, "10.42.0.9/16", "fd00:aa:bb:2::9/64")
	w.bridge = nstest.Hub(t, "br0", nstest.Link(t, "cl0"), nstest.Link(t, "cl1"))
	for _, c := range []*host{w.client, w.client2} {
		c.router = nstest.Link(t, "br0").Attrs().HardwareAddr
	}
	must(address(nstest.Link(t, "eth0"), []string{"198.51.100.1/24", "2001:db8:1::1/64"}))
	must(address(nstest.Link(t, "bat0"), []string{"10.41.0.1/16", "fd00:aa:bb:1::1/64"}))
	must(address(w.bridge, []string{"10.43.0.1/24", "fd00:aa:bb:100::1/64"}))
	must(address(nstest.Link(t, "wg0"), []string{"10.42.0.1/16", "fd00:aa:bb:2::1/64"}))
	// WireGuard asks for no neighbours, and this zone has no rules for them.
	for _, a := range []string{"fd00:aa:bb:2::9", "fd00:aa:bb:2::10"} {
		must(netlink.NeighSet(&netlink.Neigh{
			LinkIndex: nstest.Link(t, "wg0").Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(a), HardwareAddr: w.overlay.iface.HardwareAddr,
		}))
	}
	w.overlay.run(func() error {
		return netlink.NeighSet(&netlink.Neigh{
			LinkIndex: w.overlay.iface.Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP("fd00:aa:bb:2::1"), HardwareAddr: w.overlay.router,
		})
	})
	for to, by := range map[string]string{"0.0.0.0/0": "198.51.100.2", "::/0": "2001:db8:1::2", "10.43.0.0/16": "10.42.0.9"} {
		_, dst, err := net.ParseCIDR(to)
		must(err)
		must(netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(by)}))
	}
	return w
}

func (w *world) host(z model.Zone) *host {
	return map[model.Zone]*host{model.ZoneUplink: w.uplink, model.ZoneMesh: w.mesh, model.ZoneClients: w.client, model.ZoneOverlay: w.overlay}[z]
}

// count is what a counter says.
func (w *world) count(t *testing.T, name string) uint64 {
	t.Helper()
	s, err := w.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range s.Zones {
		s.Rules = append(s.Rules, z.Drops...)
	}
	for _, c := range s.Rules {
		if c.Name == name {
			return c.Packets
		}
	}
	t.Fatalf("no counter %s", name)
	return 0
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("expected %s", what)
		}
	}
}

// Packets.

func ipPacket(from, to netip.Addr, proto, hops byte, l4 []byte) []byte {
	if from.Is4() {
		b := make([]byte, 20, 20+len(l4))
		b[0], b[8], b[9] = 0x45, hops, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(l4)))
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^sum(0, b))
		return append(b, l4...)
	}
	b := make([]byte, 40, 40+len(l4))
	b[0], b[6], b[7] = 0x60, proto, hops
	binary.BigEndian.PutUint16(b[4:], uint16(len(l4)))
	copy(b[8:], from.AsSlice())
	copy(b[24:], to.AsSlice())
	return append(b, l4...)
}

// sum is the Internet checksum, not inverted.
func sum(start uint32, b []byte) uint16 {
	s := start
	for i := 0; i < len(b); i += 2 {
		if i+1 < len(b) {
			s += uint32(b[i])<<8 | uint32(b[i+1])
		} else {
			s += uint32(b[i]) << 8
		}
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// checked writes the checksum of l4 at that offset.
func checked(from, to netip.Addr, proto byte, l4 []byte, offset int) []byte {
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, 0, byte(len(l4) >> 8), byte(len(l4)), 0, 0, 0, proto})
	if proto == unix.IPPROTO_ICMP {
		pseudo = nil
	}
	binary.BigEndian.PutUint16(l4[offset:], ^sum(uint32(sum(0, pseudo)), l4))
	return l4
}

func udp(from, to string, sport, dport uint16, mark []byte) []byte {
	f, t := netip.MustParseAddr(from), netip.MustParseAddr(to)
	l4 := make([]byte, 8, 8+len(mark))
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	binary.BigEndian.PutUint16(l4[4:], uint16(8+len(mark)))
	return ipPacket(f, t, unix.IPPROTO_UDP, 64, checked(f, t, unix.IPPROTO_UDP, append(l4, mark...), 6))
}

const (
	flagSYN = 2
	flagACK = 16
)

// tcp has its mark, four octets, for sequence number.
func tcp(from, to string, sport, dport uint16, flags byte, mark []byte) []byte {
	f, t := netip.MustParseAddr(from), netip.MustParseAddr(to)
	l4 := make([]byte, 24)
	binary.BigEndian.PutUint16(l4, sport)
	binary.BigEndian.PutUint16(l4[2:], dport)
	copy(l4[4:8], mark)
	l4[12], l4[13] = 6<<4, flags
	l4[14] = 0xff
	copy(l4[20:], []byte{2, 4, 0x05, 0xb4}) // MSS 1460
	return ipPacket(f, t, unix.IPPROTO_TCP, 64, checked(f, t, unix.IPPROTO_TCP, l4, 16))
}

// icmp is ICMP or ICMPv6; body is all behind the checksum.
func icmp(from, to string, kind, hops byte, body []byte) []byte {
	f, t := netip.MustParseAddr(from), netip.MustParseAddr(to)
	proto := byte(unix.IPPROTO_ICMPV6)
	if f.Is4() {
		proto = unix.IPPROTO_ICMP
	}
	return ipPacket(f, t, proto, hops, checked(f, t, proto, append([]byte{kind, 0, 0, 0}, body...), 2))
}

func mustLink(t *testing.T, name string) netlink.Link { return nstest.Link(t, name) }

// unplug pulls an interface of the router's.
func unplug(t *testing.T, name string) {
	t.Helper()
	if err := netlink.LinkDel(nstest.Link(t, name)); err != nil {
		t.Fatal(err)
	}
}

// dialFails connects from the device itself.
func dialFails(t *testing.T, from, to string) {
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	if c, err := d.Dial("tcp", to); err == nil {
		_ = c.Close()
		t.Errorf("expected no connection from %s to %s", from, to)
	}
}

// defaultRoutes of the router by another way than the uplink.
func defaultRoutes(t *testing.T, by ...string) {
	t.Helper()
	for _, g := range by {
		dst := &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		if netip.MustParseAddr(g).Is4() {
			dst = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		}
		if err := netlink.RouteReplace(&netlink.Route{Dst: dst, Gw: net.ParseIP(g)}); err != nil {
			t.Fatal(err)
		}
	}
}

// everything is a filter of connections.
type everything struct{}

func (everything) MatchConntrackFlow(*netlink.ConntrackFlow) bool { return true }
