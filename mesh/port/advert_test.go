package port

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/nstest"
)

// Somebody upstream calls himself a router: neither a route nor an address may
// come of it.
func TestRouterAdvertisementsChangeNothing(t *testing.T) {
	for _, role := range []string{Uplink, Client} {
		t.Run(role, func(t *testing.T) {
			nstest.Cable(t, "a0", "b0")
			u := newUpstream()
			a := start(t, 1, []string{"a0"}, gateway(u), pin("a0", role))
			a.await(EventRole, "role", role)
			// A port that does listen says when the advertisement has had its effect.
			lc, _ := nstest.Cable(t, "c0", "d0")
			sysctl(t, "c0", "accept_ra", "2")
			if err := netlink.LinkSetUp(lc); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a router found by who listens", func() bool {
				advertise(t, "b0")
				advertise(t, "d0")
				return len(learnt(t, "c0")) > 1 // a route and an address
			})
			if got := learnt(t, "a0"); len(got) != 0 {
				t.Errorf("the port learnt %q", got)
			}
		})
	}
}

func sysctl(t *testing.T, iface, key, value string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, key), []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

var advertised = netip.MustParsePrefix("2001:db8:7::/64")

// learnt returns default routes, and addresses of what was advertised.
func learnt(t *testing.T, iface string) (list []string) {
	t.Helper()
	link := nstest.Link(t, iface)
	routes, err := netlink.RouteList(link, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.Gw != nil {
			list = append(list, "via "+r.Gw.String())
		}
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, _ := netip.AddrFromSlice(a.IP); advertised.Contains(ip) {
			list = append(list, ip.String())
		}
	}
	return list
}

// advertise sends a router advertisement from a foreign address out of iface.
func advertise(t *testing.T, iface string) {
	t.Helper()
	from, to := netip.MustParseAddr("fe80::bad").As16(), netip.MustParseAddr("ff02::1").As16()
	prefix := advertised.Addr().As16()
	lifetime := []byte{0, 0, 7, 8}
	message := slices.Concat([]byte{134, 0, 0, 0, 64, 0, 7, 8}, make([]byte, 8), // a router for 1800 s
		[]byte{3, 4, 64, 0xc0}, lifetime, lifetime, make([]byte, 4), prefix[:]) // a prefix, on-link, to be used
	pseudo := slices.Concat(from[:], to[:], binary.BigEndian.AppendUint32(nil, uint32(len(message))), []byte{0, 0, 0, unix.IPPROTO_ICMPV6}, message)
	binary.BigEndian.PutUint16(message[2:], checksum(pseudo))
	header := slices.Concat([]byte{0x60, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(message))), []byte{unix.IPPROTO_ICMPV6, 255}, from[:], to[:])

	link := nstest.Link(t, iface).Attrs()
	c, err := packet.Listen(&net.Interface{Index: link.Index, Name: iface}, packet.Raw, 0x88cd, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	frame := slices.Concat(all, net.HardwareAddr{2, 0xba, 0xd, 0, 0, 1}, []byte{0x86, 0xdd}, header, message)
	if _, err := c.WriteTo(frame, &packet.Addr{HardwareAddr: all}); err != nil {
		t.Fatal(err)
	}
}

// checksum is that of the Internet (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
