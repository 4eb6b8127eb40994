package firewall

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"halo.internal/model/paths"
)

// TestGuests sends over a bridge what guests of the mesh may say, and what not.
func TestGuests(t *testing.T) {
	w := newWorld(t)
	c := worldConfig()
	c.Guests = Guard{Ports: []string{"cl0", "cl1"}, Own: []netip.Addr{netip.MustParseAddr("10.41.0.1")}, Stations: []net.HardwareAddr{{2, 1, 0, 0, 0, 1}}}
	link := netip.MustParseAddr("fd00:aa:bb:1::7")
	c.Guests.Own = append(c.Guests.Own, link) // the device's
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
	about := func(kind byte, from, target string, mark []byte) []byte {
		a := netip.MustParseAddr(target).As16()
		return icmp(from, "ff02::1", kind, 255, append(append(make([]byte, 4), a[:]...), mark...))
	}
	const ip4, ip6, arpKind = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP
	for i, test := range []struct {
		name    string
		kind    uint16
		frame   func(m []byte) []byte
		counter string // empty: it passes
	}{
		{"UDP", ip4, func(m []byte) []byte { return udp("10.41.2.3", "10.41.7.9", 5, 9999, m) }, ""},
		{"UDP of a network of their own", ip4, func(m []byte) []byte { return udp("192.168.1.3", "192.168.1.9", 5, 9999, m) }, ""},
		{"question of a DHCP client", ip4, func(m []byte) []byte { return udp("0.0.0.0", "255.255.255.255", 68, 67, m) }, ""},
		{"a claim of batman-adv's loop avoidance", arpKind, func(m []byte) []byte { return arp("0.0.0.0", "0.0.0.0", 2, m) }, ""},
		{"a member whose way is this network", ip6, func(m []byte) []byte { return udp("fd00:aa:bb:1::9", "ff02::1", 5, 9999, m) }, ""},
		{"whoever asks for the device", ip6, func(m []byte) []byte { return about(ns, "fe80::10", "fd00:aa:bb:1::7", m) }, ""},
		{"advertisement, link-local", ip6, func(m []byte) []byte { return about(na, "fe80::10", "fe80::10", m) }, ""},
		{"DHCP server", ip4, func(m []byte) []byte { return udp("10.41.0.66", "255.255.255.255", 67, 68, m) }, "dhcp-server/mesh"},
		{"router advertisement", ip6, func(m []byte) []byte { return icmp("fe80::10", "ff02::1", ra, 255, append(make([]byte, 12), m...)) }, "router/mesh"},
		{"ARP as the gateway", arpKind, func(m []byte) []byte { return arp("10.41.0.1", "10.41.7.9", 2, m) }, "address-theft/mesh"},
		{"IPv4 as the gateway", ip4, func(m []byte) []byte { return udp("10.41.0.1", "10.41.7.9", 5, 9999, m) }, "address-theft/mesh"},
		{"advertisement as the device", ip6, func(m []byte) []byte { return about(na, "fe80::10", "fd00:aa:bb:1::7", m) }, "address-theft/mesh"},
		{"probe for the device's address", ip6, func(m []byte) []byte { return about(ns, "::", "fd00:aa:bb:1::7", m) }, "address-theft/mesh"},
		{"IPv6 as the device", ip6, func(m []byte) []byte { return udp("fd00:aa:bb:1::7", "ff02::1", 5, 9999, m) }, "address-theft/mesh"},
		{"a member's proof", paths.EtherTypeProof, func(m []byte) []byte { return append(make([]byte, 46), m...) }, "proof/mesh"},
		{"a frame of the mesh itself", paths.EtherTypeBatman, func(m []byte) []byte { return append(make([]byte, 46), m...) }, "proof/mesh"},
	} {
		t.Run(test.name, func(t *testing.T) {
			mark := binary.BigEndian.AppendUint32([]byte("guest"), uint32(i))
			var before uint64
			if test.counter != "" {
				before = w.count(t, test.counter)
			}
			w.client.frameTo(all, test.kind, test.frame(mark))
			if test.counter != "" {
				eventually(t, test.counter+" to count it", func() bool { return w.count(t, test.counter) == before+1 })
			}
			behind := binary.BigEndian.AppendUint32([]byte("behind"), uint32(i))
			w.client.frameTo(all, ip4, udp("10.41.2.3", "10.41.7.9", 5, 9998, behind))
			eventually(t, "the next frame", func() bool { return w.client2.frame(behind) != nil })
			if passed := w.client2.frame(mark) != nil; passed != (test.counter == "") {
				t.Errorf("it reached the other guest: %v", passed)
			}
		})
	}
	t.Run("the gateway's own words, handed on by another device", func(t *testing.T) {
		c.Guests.Stations = append(c.Guests.Stations, w.client.iface.HardwareAddr)
		if err := w.Apply(c); err != nil {
			t.Fatal(err)
		}
		w.client.frameTo(all, arpKind, arp("10.41.0.1", "10.41.7.9", 1, []byte("gateway")))
		eventually(t, "it passes", func() bool { return w.client2.frame([]byte("gateway")) != nil })
	})
}
