package firewall

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// serve answers each connection to the host with the address that it comes from,
// and then with whatever it is sent.
func (h *host) serve(addr string) {
	h.t.Helper()
	h.run(func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		h.t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if _, err := fmt.Fprintln(c, c.RemoteAddr()); err == nil {
						_, _ = io.Copy(c, c)
					}
				}()
			}
		}()
		return nil
	})
}

// dial connects from the host and returns the address that the other side saw.
func (h *host) dial(addr string) (net.Conn, *bufio.Reader, netip.Addr) {
	h.t.Helper()
	var c net.Conn
	h.run(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).Dial("tcp", addr)
		return err
	})
	h.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		h.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		h.t.Fatal(err)
	}
	seen, err := netip.ParseAddrPort(line[:len(line)-1])
	if err != nil {
		h.t.Fatal(err)
	}
	return c, r, seen.Addr()
}

// Whole connections, whose answers come back through translation.
func TestConnections(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	w.uplink.serve("198.51.100.2:7000")
	w.uplink.serve("[2001:db8:1::2]:7000")
	w.overlay.serve("10.42.0.9:7000")
	w.overlay.serve("[fd00:aa:bb:2::9]:7000")
	w.client.serve("10.43.0.10:80")
	w.client.serve("[fd00:aa:bb:100::10]:80")
	for _, test := range []struct {
		name   string
		from   *host
		to     string
		source string
	}{
		{"client to the Internet", w.client, "198.51.100.2:7000", rUp4},
		{"client to the Internet, NAT66", w.client, "[2001:db8:1::2]:7000", rUp6},
		{"node to the Internet", w.overlay, "198.51.100.2:7000", rUp4},
		{"node to the Internet, NAT66", w.overlay, "[2001:db8:1::2]:7000", rUp6},
		{"client to the overlay", w.client, "10.42.0.9:7000", cl4},
		{"client to the overlay, IPv6", w.client, "[fd00:aa:bb:2::9]:7000", cl6},
		{"overlay to a client", w.overlay, "10.43.0.10:80", ov4},
		{"overlay to a client, IPv6", w.overlay, "[fd00:aa:bb:100::10]:80", ov6},
		{"the Internet to a forwarded port", w.uplink, "198.51.100.1:8081", up4},
		{"the Internet to a forwarded port, IPv6", w.uplink, "[2001:db8:1::1]:8081", up6},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, r, seen := test.from.dial(test.to)
			if seen.String() != test.source {
				t.Errorf("source: expected %s, got %s", test.source, seen)
			}
			if _, err := fmt.Fprintln(c, "hello"); err != nil {
				t.Fatal(err)
			}
			if s, err := r.ReadString('\n'); err != nil || s != "hello\n" {
				t.Errorf("expected the answer hello, got %q, %v", s, err)
			}
		})
	}
}

// A big packet's error comes back to who sent it, through translation: path MTU
// discovery works for what MSS clamping does not reach.
func TestErrorsComeBack(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	mark := []byte{0xe, 0xe, 1, 2}
	w.client.send(udp(cl4, far4, 41000, 53, mark))
	eventually(t, "it at the uplink", func() bool { return w.uplink.frame(mark) != nil })
	sent := w.uplink.frame(mark)[14:]
	// Fragmentation needed, next hop's MTU 1280 (RFC 1191), from a router beyond.
	w.uplink.send(icmp("192.0.2.1", rUp4, 3, 64, append([]byte{0, 0, 5, 0}, sent...)))
	eventually(t, "the error at the client", func() bool {
		f := w.client.frame([]byte{0, 0, 5, 0, 0x45})
		return f != nil && f[23] == unix.IPPROTO_ICMP
	})
	mark = []byte{0xe, 0xe, 3, 4}
	w.client.send(udp(cl6, far6, 41001, 53, mark))
	eventually(t, "it at the uplink, IPv6", func() bool { return w.uplink.frame(mark) != nil })
	sent = w.uplink.frame(mark)[14:]
	w.uplink.send(icmp("2001:db8:99::1", rUp6, 2, 64, append([]byte{0, 0, 5, 0}, sent...)))
	eventually(t, "the error at the client, IPv6", func() bool {
		f := w.client.frame([]byte{0, 0, 5, 0, 0x60})
		return f != nil && f[20] == unix.IPPROTO_ICMPV6
	})
}

// mss of the TCP packet that holds mark.
func mss(t *testing.T, h *host, mark []byte) uint16 {
	t.Helper()
	eventually(t, "the SYN to arrive", func() bool { return h.frame(mark) != nil })
	f := h.frame(mark)
	return binary.BigEndian.Uint16(f[len(f)-2:])
}

func TestSegmentsFitTheWay(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"eth0", "wg0"} {
		if err := netlink.LinkSetMTU(nstest.Link(t, n), 1300); err != nil {
			t.Fatal(err)
		}
	}
	for i, test := range []struct {
		name     string
		from, at *host
		src, dst string
		port     uint16
		want     uint16
	}{
		{"client to uplink", w.client, w.uplink, cl4, up4, 9999, 1260},
		{"client to uplink, IPv6", w.client, w.uplink, cl6, up6, 9999, 1240},
		{"client to overlay", w.client, w.overlay, cl4, ov4, 9999, 1260},
		{"client to overlay, IPv6", w.client, w.overlay, cl6, ov6, 9999, 1240},
		{"overlay to client", w.overlay, w.client, ov4, cl4, 9999, 1260},
		{"overlay to client, IPv6", w.overlay, w.client, ov6, cl6, 9999, 1240},
		{"uplink to client", w.uplink, w.client, up4, rUp4, 8081, 1260},
	} {
		t.Run(test.name, func(t *testing.T) {
			mark := []byte{0xd, 0xd, byte(i), 0xd} // its answer has the next number
			test.from.send(tcp(test.src, test.dst, uint16(42000+i), test.port, flagSYN, mark))
			if got := mss(t, test.at, mark); got != test.want {
				t.Errorf("expected MSS %d, got %d", test.want, got)
			}
		})
	}
}

// Rules are replaced under traffic: what may pass passes, each packet of it, and
// nothing else does. Counters go on.
func TestReplacementUnderTraffic(t *testing.T) {
	const times = 200
	w := newWorld(t)
	a, b := worldConfig(), worldConfig()
	b.Rules, b.Ports, b.Services = b.Rules[:1], b.Ports[:1], b.Services[:len(b.Services)-2]
	b.Interfaces[model.ZoneUplink] = []string{"eth0"}
	b.Interfaces[model.ZoneClients] = []string{"br0", "wlan9"}
	if err := w.Apply(a); err != nil {
		t.Fatal(err)
	}
	w.uplink.serve("198.51.100.2:7000")
	c, r, _ := w.client.dial("198.51.100.2:7000")
	var echo net.PacketConn
	w.overlay.run(func() (err error) {
		echo, err = net.ListenPacket("udp", "10.42.0.9:7001")
		return err
	})
	defer echo.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := echo.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteTo(buf[:n], from)
		}
	}()
	var ask net.Conn
	w.client.run(func() (err error) {
		ask, err = net.Dial("udp", "10.42.0.9:7001")
		return err
	})
	defer ask.Close()

	names := []string{"denied/uplink", "denied-forward/uplink", "spoofed/uplink", "denied-forward/mesh", "flood/uplink", "flood/mesh", "invalid/uplink", "invalid/mesh"}
	dropped := func() (n uint64) {
		for _, name := range names {
			n += w.count(t, name)
		}
		return n
	}
	before := dropped()
	var stop atomic.Bool
	var asked, forged atomic.Uint64
	var all sync.WaitGroup
	all.Go(func() { // UDP: never sent again, each is answered
		buf := make([]byte, 100)
		for n := uint64(0); !stop.Load(); n++ {
			q := binary.BigEndian.AppendUint64(nil, n)
			if _, err := ask.Write(q); err != nil {
				t.Errorf("UDP: %v", err)
				return
			}
			_ = ask.SetReadDeadline(time.Now().Add(patience))
			if k, err := ask.Read(buf); err != nil || string(buf[:k]) != string(q) {
				t.Errorf("UDP: question %d was not answered: %v", n, err)
				return
			}
			asked.Add(1)
		}
	})
	all.Go(func() { // TCP
		for n := 0; !stop.Load(); n++ {
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := fmt.Fprintln(c, n); err != nil {
				t.Errorf("TCP: %v", err)
				return
			}
			if s, err := r.ReadString('\n'); err != nil || s != fmt.Sprintln(n) {
				t.Errorf("TCP: expected %d, got %q, %v", n, s, err)
				return
			}
		}
	})
	bad := []byte("must-not-pass")
	attack := []struct {
		from *host
		ip   []byte
	}{
		{w.uplink, udp(up4, cl4, 5000, 9999, bad)},
		{w.uplink, udp(up4, ov4, 5000, 9999, bad)},
		{w.uplink, udp("10.42.0.7", cl4, 5000, 9999, bad)},
		{w.uplink, udp(up6, cl6, 5000, 9999, bad)},
		{w.uplink, udp(up4, rUp4, 5000, 9999, bad)},
		{w.mesh, udp(me4, cl4, 5000, 9999, bad)},
		{w.mesh, udp(me6, far6, 5000, 9999, bad)},
	}
	all.Go(func() {
		for n := 0; !stop.Load(); n++ {
			x := attack[n%len(attack)]
			x.from.send(x.ip)
			forged.Add(1)
		}
	})
	for i := range times {
		c, counted := a, asked.Load()
		if i%2 == 0 {
			c = b
		}
		if err := w.Apply(c); err != nil {
			t.Fatal(err)
		}
		// So that traffic meets each.
		eventually(t, "an answer", func() bool { return asked.Load() > counted || t.Failed() })
	}
	stop.Store(true)
	all.Wait()
	t.Logf("%d questions, %d packets that must not pass, %d replacements", asked.Load(), forged.Load(), times)
	eventually(t, fmt.Sprintf("%d packets to be dropped", forged.Load()), func() bool { return dropped()-before >= forged.Load() })
	if n := dropped() - before; n != forged.Load() {
		t.Errorf("expected %d packets to be dropped, got %d", forged.Load(), n)
	}
	for _, h := range []*host{w.client, w.client2, w.overlay} {
		if h.frame(bad) != nil {
			t.Errorf("a packet that must not pass came to %s", h.iface.Name)
		}
	}
	if w.uplink.frame(bad) != nil {
		t.Error("a packet that must not pass came to the uplink")
	}
}

// A new process finds its predecessor's rules, and takes them over.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	rows := []row{tcpRow("to a closed port", up, up4, rUp4, 22, "denied/uplink", nowhere)}
	w.check(t, rows)
	w.Firewall = Firewall{} // nothing but the kernel remembers
	w.uplink.send(udp(up4, rUp4, 1, 22, []byte("meanwhile")))
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	if n := w.count(t, "denied/uplink"); n != 2 {
		t.Errorf("denied/uplink: expected 2 packets, one of them while no process ran; got %d", n)
	}
	w.check(t, rows)
}

// Tables of others stay, and what others did to HALO's is put right.
func TestOthersTables(t *testing.T) {
	nft(t, "add table inet halo-wg0")
	nft(t, "add chain inet halo-wg0 input { type filter hook input priority 0; policy accept; }")
	nft(t, "add table ip halo")
	nft(t, "add table netdev halo")
	others := nft(t, "list ruleset")
	var f Firewall
	for _, step := range []string{
		"",
		"add rule inet halo input accept",
		"delete table inet halo",
		"flush table inet halo",
		"add set inet halo more { type ipv4_addr; }",
		"add chain inet halo mine { type filter hook input priority -5; policy drop; }",
		"add counter inet halo mine",
		// Another shape: the table is made anew.
		"delete table inet halo; add table inet halo; add chain inet halo input { type filter hook forward priority 7; policy accept; }; add set inet halo uplink { type ipv4_addr; }",
		"delete table bridge halo; add table bridge halo; add chain bridge halo clients { type filter hook input priority 7; }",
	} {
		if step != "" {
			nft(t, step)
		}
		c := gatewayConfig()
		c.Guard = nodeConfig().Guard
		if err := f.Apply(c); err != nil {
			t.Fatalf("after %q: %v", step, err)
		}
		var g Firewall
		got := elements.ReplaceAllStringFunc(nft(t, "-s", "list", "table", "inet", "halo")+nft(t, "-s", "list", "table", "bridge", "halo"), inOrder)
		if err := f.Remove(); err != nil {
			t.Fatal(err)
		}
		if err := g.Apply(c); err != nil {
			t.Fatal(err)
		}
		want := elements.ReplaceAllStringFunc(nft(t, "-s", "list", "table", "inet", "halo")+nft(t, "-s", "list", "table", "bridge", "halo"), inOrder)
		if len(got) != len(want) { // the order of what was added later may be another
			t.Errorf("after %q: expected what a fresh table has, got\n%s", step, got)
		}
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if rest := nft(t, "list ruleset"); rest != others {
		t.Errorf("others' tables: expected\n%s\ngot\n%s", others, rest)
	}
	nft(t, "flush ruleset")
}

func TestGuard(t *testing.T) {
	w := newWorld(t)
	c := worldConfig()
	link := netip.MustParseAddr("fe80::1")
	c.Guard = Guard{Ports: []string{"cl0", "cl1"}, Own: []netip.Addr{netip.MustParseAddr(rCl4), netip.MustParseAddr(rCl6), link}}
	if err := w.Apply(c); err != nil {
		t.Fatal(err)
	}
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	arp := func(sender, target string, op byte, mark []byte) []byte {
		s, d := netip.MustParseAddr(sender).As4(), netip.MustParseAddr(target).As4()
		b := append([]byte{0, 1, 8, 0, 6, 4, 0, op}, w.client.iface.HardwareAddr...)
		b = append(append(b, s[:]...), make([]byte, 6)...)
		return append(append(b, d[:]...), mark...)
	}
	target := func(kind byte, from, to, about string, mark []byte) []byte {
		a := netip.MustParseAddr(about).As16()
		return icmp(from, to, kind, 255, append(append(make([]byte, 4), a[:]...), mark...))
	}
	fragment := func(ip []byte) []byte { // a first fragment, more follow
		out := append([]byte{}, ip[:40]...)
		out = append(out, ip[6], 0, 0, 1, 9, 9, 9, 9)
		out[6] = unix.IPPROTO_FRAGMENT
		binary.BigEndian.PutUint16(out[4:], uint16(len(ip)-40+8))
		return append(out, ip[40:]...)
	}
	hidden := func(ip []byte) []byte { // behind a destination options header
		out := append([]byte{}, ip[:40]...)
		out = append(out, ip[6], 0, 1, 4, 0, 0, 0, 0)
		out[6] = unix.IPPROTO_DSTOPTS
		binary.BigEndian.PutUint16(out[4:], uint16(len(ip)-40+8))
		return append(out, ip[40:]...)
	}
	tagged := func(id uint16, kind uint16, payload []byte) []byte {
		return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, id), kind), payload...)
	}
	const ip4, ip6, arpKind = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP
	for i, test := range []struct {
		name    string
		kind    uint16
		frame   func(m []byte) []byte
		counter string // empty: it passes
	}{
		{"UDP between clients", ip4, func(m []byte) []byte { return udp(cl4, "10.43.0.11", 5, 9999, m) }, ""},
		{"UDP between clients, IPv6", ip6, func(m []byte) []byte { return udp(cl6, "fd00:aa:bb:100::11", 5, 9999, m) }, ""},
		{"question of a DHCP client", ip4, func(m []byte) []byte { return udp("0.0.0.0", "255.255.255.255", 68, 67, m) }, ""},
		{"question of a DHCPv6 client", ip6, func(m []byte) []byte { return udp("fe80::10", "ff02::1:2", 546, 547, m) }, ""},
		{"ARP", arpKind, func(m []byte) []byte { return arp(cl4, "10.43.0.11", 1, m) }, ""},
		{"ARP about the device", arpKind, func(m []byte) []byte { return arp(cl4, rCl4, 1, m) }, ""},
		{"neighbour solicitation about the device", ip6, func(m []byte) []byte { return target(ns, cl6, "ff02::1", rCl6, m) }, ""},
		{"neighbour advertisement", ip6, func(m []byte) []byte { return target(na, cl6, "ff02::1", cl6, m) }, ""},
		{"address probe", ip6, func(m []byte) []byte { return target(ns, "::", "ff02::1", cl6, m) }, ""},
		{"router solicitation", ip6, func(m []byte) []byte { return icmp("fe80::10", "ff02::2", rs, 255, append(make([]byte, 4), m...)) }, ""},
		{"a VLAN of the clients", unix.ETH_P_8021Q, func(m []byte) []byte { return tagged(5, ip4, udp(cl4, "10.43.0.11", 5, 9999, m)) }, ""},
		{"DHCP server", ip4, func(m []byte) []byte { return udp("10.43.0.66", "255.255.255.255", 67, 68, m) }, "dhcp-server/clients"},
		{"DHCP server by another port", ip4, func(m []byte) []byte { return udp("10.43.0.66", "10.43.0.11", 1067, 68, m) }, "dhcp-server/clients"},
		{"DHCP server in a priority tag", unix.ETH_P_8021Q, func(m []byte) []byte { return tagged(0, ip4, udp("10.43.0.66", "255.255.255.255", 67, 68, m)) }, "dhcp-server/clients"},
		{"DHCP server in two tags", unix.ETH_P_8021AD, func(m []byte) []byte {
			return tagged(0, unix.ETH_P_8021Q, tagged(0, ip4, udp("10.43.0.66", "255.255.255.255", 67, 68, m)))
		}, "tagged/clients"},
		{"DHCPv6 server", ip6, func(m []byte) []byte { return udp("fe80::10", "fe80::11", 547, 546, m) }, "dhcp-server/clients"},
		{"router advertisement", ip6, func(m []byte) []byte { return icmp("fe80::10", "ff02::1", ra, 255, append(make([]byte, 12), m...)) }, "router/clients"},
		{"router advertisement behind a header", ip6, func(m []byte) []byte {
			return hidden(icmp("fe80::10", "ff02::1", ra, 255, append(make([]byte, 12), m...)))
		}, "router/clients"},
		{"router advertisement in fragments", ip6, func(m []byte) []byte {
			return fragment(hidden(icmp("fe80::10", "ff02::1", ra, 255, append(make([]byte, 12), m...))))
		}, "router/clients"},
		{"redirect", ip6, func(m []byte) []byte {
			return icmp("fe80::10", "ff02::1", redirect, 255, append(make([]byte, 36), m...))
		}, "router/clients"},
		{"redirect, IPv4", ip4, func(m []byte) []byte { return icmp(cl4, "10.43.0.11", 5, 64, append(make([]byte, 4), m...)) }, "router/clients"},
		{"ARP as the device", arpKind, func(m []byte) []byte { return arp(rCl4, "10.43.0.11", 2, m) }, "address-theft/clients"},
		{"ARP announcement as the device", arpKind, func(m []byte) []byte { return arp(rCl4, rCl4, 1, m) }, "address-theft/clients"},
		{"IPv4 as the device", ip4, func(m []byte) []byte { return udp(rCl4, "10.43.0.11", 5, 9999, m) }, "address-theft/clients"},
		{"advertisement as the device", ip6, func(m []byte) []byte { return target(na, "fe80::10", "ff02::1", rCl6, m) }, "address-theft/clients"},
		{"advertisement as the device, link-local", ip6, func(m []byte) []byte { return target(na, cl6, "ff02::1", "fe80::1", m) }, "address-theft/clients"},
		{"probe for the device's address", ip6, func(m []byte) []byte { return target(ns, "::", "ff02::1", rCl6, m) }, "address-theft/clients"},
		{"solicitation as the device", ip6, func(m []byte) []byte { return target(ns, rCl6, "ff02::1", cl6, m) }, "address-theft/clients"},
	} {
		t.Run(test.name, func(t *testing.T) {
			mark := binary.BigEndian.AppendUint32([]byte("guard"), uint32(i))
			var before uint64
			if test.counter != "" {
				before = w.count(t, test.counter)
			}
			w.client.frameTo(all, test.kind, test.frame(mark))
			if test.counter != "" {
				eventually(t, test.counter+" to count it", func() bool { return w.count(t, test.counter) == before+1 })
			}
			// What passes comes behind, on the same way.
			behind := binary.BigEndian.AppendUint32([]byte("behind"), uint32(i))
			w.client.frameTo(all, ip4, udp(cl4, "10.43.0.11", 5, 9998, behind))
			eventually(t, "the next frame", func() bool { return w.client2.frame(behind) != nil })
			if passed := w.client2.frame(mark) != nil; passed != (test.counter == "") {
				t.Errorf("it reached the other client: %v", passed)
			}
		})
	}
	// A port that appears later is guarded by its name; without ports there is no table.
	c.Guard = Guard{}
	if err := w.Apply(c); err != nil {
		t.Fatal(err)
	}
	mark := []byte("unguarded")
	w.client.frameTo(all, ip4, udp("10.43.0.66", "255.255.255.255", 67, 68, mark))
	eventually(t, "it at the other client", func() bool { return w.client2.frame(mark) != nil })
}

// WireGuard's packets between members are of no connection: each would be looked up
// in vain. Those of others are.
func TestUntracked(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	w.mesh.send(udp(me6, rMe6, 51820, 51820, []byte{4, 0, 0, 0}))
	eventually(t, "it is counted", func() bool { return w.count(t, "service/mesh/wireguard/udp") == 1 })
	w.mesh.send(udp(me6, rMe6, 4254, 4254, []byte{4, 0, 0, 0}))
	eventually(t, "another service's is", func() bool { return w.count(t, "service/mesh/announce/udp") == 1 })
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET6)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[uint16]int{}
	for _, f := range flows {
		ports[f.Forward.DstPort]++
	}
	if ports[51820] != 0 || ports[4254] != 1 {
		t.Errorf("connections by port: expected one to 4254 alone, got %v", ports)
	}
}
