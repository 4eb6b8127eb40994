package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"halo.internal/model"
)

// Addresses of the world.
const (
	up4, up6     = "198.51.100.2", "2001:db8:1::2"
	me4, me6     = "10.41.0.5", "fd00:aa:bb:1::5"
	cl4, cl6     = "10.43.0.10", "fd00:aa:bb:100::10"
	ov4, ov6     = "10.42.0.9", "fd00:aa:bb:2::9"
	rUp4, rUp6   = "198.51.100.1", "2001:db8:1::1"
	rMe4, rMe6   = "10.41.0.1", "fd00:aa:bb:1::1"
	rCl4, rCl6   = "10.43.0.1", "fd00:aa:bb:100::1"
	rOv4, rOv6   = "10.42.0.1", "fd00:aa:bb:2::1"
	far4, far6   = "192.0.2.77", "2001:db8:77::7" // somewhere in the Internet
	anyLinkLocal = "fe80::77"
)

func worldConfig() Config {
	c := gatewayConfig()
	c.Rules = []model.FirewallRule{
		{Name: "no-mail", Action: model.Deny, From: model.ZoneClients, To: model.ZoneUplink, Proto: "tcp", Ports: ports("25", "465-587")},
		{Name: "camera", Action: model.Allow, From: model.ZoneMesh, To: model.ZoneClients, Proto: "udp", Ports: ports("5000-5010"), Sources: prefixes(me4+"/32", me6+"/128")},
		{Name: "office", Action: model.Allow, From: model.ZoneUplink, To: model.ZoneLocal, Proto: "tcp", Ports: ports("2222"), Sources: prefixes("192.0.2.0/24")},
	}
	c.Ports[1].Sources = prefixes("192.0.2.0/24")
	return c
}

// row is one packet, and what becomes of it.
type row struct {
	name    string
	from    model.Zone
	packet  func(mark []byte) []byte
	counter string     // that counts it
	at      model.Zone // where it arrives; empty: at the device itself, or nowhere
	source  string     // at its arrival, if it is another
	to      string
}

func udpRow(name string, z model.Zone, from, to string, port uint16, counter string, at model.Zone) row {
	return row{name: name + ", UDP", from: z, counter: counter, at: at, packet: func(m []byte) []byte {
		return udp(from, to, 40000+binary.BigEndian.Uint16(m)%20000, port, m)
	}}
}

func tcpRow(name string, z model.Zone, from, to string, port uint16, counter string, at model.Zone) row {
	return row{name: name + ", TCP", from: z, counter: counter, at: at, packet: func(m []byte) []byte {
		return tcp(from, to, 40000+binary.BigEndian.Uint16(m)%20000, port, flagSYN, m)
	}}
}

// pingRow is an echo request: its mark is identifier and sequence number.
func pingRow(name string, z model.Zone, from, to string, counter string, at model.Zone) row {
	return row{name: name + ", ping", from: z, counter: counter, at: at, packet: func(m []byte) []byte {
		kind := byte(echo6)
		if netip.MustParseAddr(from).Is4() {
			kind = echo4
		}
		return icmp(from, to, kind, 64, m)
	}}
}

func (r row) as(source, to string) row {
	r.source, r.to = source, to
	return r
}

// each makes rows of all kinds of traffic, of both families.
func each(name string, z model.Zone, from4, to4, from6, to6 string, counter string, at model.Zone) []row {
	var list []row
	for _, pair := range [][2]string{{from4, to4}, {from6, to6}} {
		n := fmt.Sprintf("%s, %s to %s", name, pair[0], pair[1])
		list = append(list,
			udpRow(n, z, pair[0], pair[1], 9999, counter, at),
			tcpRow(n, z, pair[0], pair[1], 9999, counter, at))
		if !strings.HasPrefix(counter, "denied/") {
			list = append(list, pingRow(n, z, pair[0], pair[1], counter, at))
		}
	}
	return list
}

func nd(kind, hops byte, from, to string, body int) func([]byte) []byte {
	return func(m []byte) []byte { return icmp(from, to, kind, hops, append(make([]byte, body), m...)) }
}

const (
	up, me, cl, ov = model.ZoneUplink, model.ZoneMesh, model.ZoneClients, model.ZoneOverlay
	nowhere        = model.Zone("")
)

func (w *world) check(t *testing.T, rows []row) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			w.marks += 0x10101
			mark := binary.BigEndian.AppendUint32(nil, 0xc0de0000+w.marks)
			before := w.count(t, r.counter)
			packet := r.packet(mark)
			w.host(r.from).send(packet)
			eventually(t, r.counter+" to count it", func() bool { return w.count(t, r.counter) > before })
			if n := w.count(t, r.counter); n != before+1 {
				t.Errorf("%s: expected one packet, got %d", r.counter, n-before)
			}
			w.judged(t, r, packet)
			for _, z := range model.Zones {
				h := w.host(z)
				if z == r.at {
					eventually(t, "it to arrive in the zone "+string(z), func() bool { return h.frame(mark) != nil })
					r.addresses(t, h.frame(mark)[14:])
				} else if z != r.from && h.frame(mark) != nil {
					t.Errorf("it arrived in the zone %s", z)
				}
			}
		})
	}
}

func (r row) addresses(t *testing.T, ip []byte) {
	t.Helper()
	from, to := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	if ip[0]>>4 == 6 {
		from, to = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	}
	if r.source != "" && r.source != from.String() {
		t.Errorf("source: expected %s, got %s", r.source, from)
	}
	if r.to != "" && r.to != to.String() {
		t.Errorf("destination: expected %s, got %s", r.to, to)
	}
}

func TestTrafficOfAGateway(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	rows := slices.Concat(
		// From uplinks nothing but what was opened.
		each("uplink to the device", up, up4, rUp4, up6, rUp6, "denied/uplink", nowhere),
		each("uplink to an inner address of the device", up, up4, rOv4, up6, rOv6, "denied/uplink", nowhere),
		each("uplink to clients", up, up4, cl4, up6, cl6, "denied-forward/uplink", nowhere),
		each("uplink to the overlay", up, up4, ov4, up6, ov6, "denied-forward/uplink", nowhere),
		each("uplink to the mesh", up, up4, me4, up6, me6, "denied-forward/uplink", nowhere),
		[]row{
			udpRow("uplink, WireGuard", up, up4, rUp4, 51820, "denied/uplink", nowhere),
			udpRow("uplink, DNS", up, up4, rUp4, 53, "denied/uplink", nowhere),
			udpRow("uplink, DHCP server", up, up4, rUp4, 67, "denied/uplink", nowhere),
			tcpRow("uplink, API without TLS", up, up4, rUp4, 8080, "denied/uplink", nowhere),
			tcpRow("uplink, opened service", up, up4, rUp4, 8443, "service/uplink/api-tls/tcp", nowhere),
			tcpRow("uplink, opened service, IPv6", up, up6, rUp6, 8443, "service/uplink/api-tls/tcp", nowhere),
			tcpRow("uplink, rule for a source", up, far4, rUp4, 2222, "rule/office", nowhere),
			tcpRow("uplink, rule for another source", up, up4, rUp4, 2222, "denied/uplink", nowhere),
			pingRow("uplink", up, up4, rUp4, "echo/uplink", nowhere),
			pingRow("uplink, IPv6", up, up6, rUp6, "echo/uplink", nowhere),
			{name: "uplink, answer of a DHCP server", from: up, counter: "dhcp-client/uplink", packet: func(m []byte) []byte { return udp("198.51.100.2", "198.51.100.1", 67, 68, m) }},
			{name: "uplink, DHCPv6", from: up, counter: "dhcp-client/uplink", packet: func(m []byte) []byte { return udp(anyLinkLocal, rUp6, 547, 546, m) }},
			{name: "uplink, DHCPv6 from afar", from: up, counter: "denied/uplink", packet: func(m []byte) []byte { return udp(far6, rUp6, 547, 546, m) }},
			{name: "uplink, router advertisement", from: up, counter: "ra/uplink", packet: nd(ra, 255, anyLinkLocal, "ff02::1", 12)},
			{name: "uplink, router advertisement from afar", from: up, counter: "denied/uplink", packet: nd(ra, 254, anyLinkLocal, "ff02::1", 12)},
			{name: "uplink, redirect", from: up, counter: "invalid/uplink", packet: nd(redirect, 255, anyLinkLocal, "ff02::1", 36)},
			{name: "uplink, neighbour solicitation", from: up, counter: "nd/uplink", packet: nd(ns, 255, up6, rUp6, 20)},
			{name: "uplink, neighbour solicitation from afar", from: up, counter: "denied/uplink", packet: nd(ns, 64, far6, rUp6, 20)},
			{name: "uplink, MLD query", from: up, counter: "nd/uplink", packet: nd(mldQuery, 1, anyLinkLocal, "ff02::1", 20)},
			{name: "uplink, answer to nothing", from: up, counter: "invalid/uplink", packet: func(m []byte) []byte { return tcp(up4, rUp4, 443, 50001, flagSYN|flagACK, m) }},
			{name: "uplink, answer to no client", from: up, counter: "invalid/uplink", packet: func(m []byte) []byte { return tcp(up4, cl4, 443, 50002, flagSYN|flagACK, m) }},
			{name: "uplink, error of no connection", from: up, counter: "invalid/uplink", packet: func(m []byte) []byte {
				return icmp(up4, rUp4, 3, 64, append(make([]byte, 4), udp(rUp4, up4, 50003, 53, m)...))
			}},
		},
		// Port forwards.
		[]row{
			tcpRow("forwarded port", up, far4, rUp4, 8081, "port/web", cl).as(far4, cl4),
			tcpRow("forwarded port, IPv6", up, far6, rUp6, 8081, "port/web6", cl).as(far6, cl6),
			udpRow("forwarded range, a source", up, far4, rUp4, 6009, "port/voice", ov).as(far4, ov4),
			udpRow("forwarded range, another source", up, up4, rUp4, 6009, "denied/uplink", nowhere),
			udpRow("beside the range", up, far4, rUp4, 6010, "denied/uplink", nowhere),
			tcpRow("where a forward leads, straight", up, far4, cl4, 80, "denied-forward/uplink", nowhere),
			tcpRow("a forwarded port, from the mesh", me, me4, rMe4, 8081, "denied/mesh", nowhere),
		},
		// From the mesh to its own services; and it is no way to anywhere.
		each("mesh to the device", me, me4, rMe4, me6, rMe6, "denied/mesh", nowhere),
		each("mesh to clients", me, me4, cl4, me6, cl6, "denied-forward/mesh", nowhere),
		each("mesh to the overlay", me, me4, ov4, me6, ov6, "denied-forward/mesh", nowhere),
		each("mesh to the Internet", me, me4, far4, me6, far6, "denied-forward/mesh", nowhere),
		[]row{
			udpRow("mesh, WireGuard", me, me6, rMe6, 51820, "service/mesh/wireguard/udp", nowhere),
			udpRow("mesh, announcement", me, me6, "ff02::1", 4254, "service/mesh/announce/udp", nowhere),
			tcpRow("mesh, join", me, me6, rMe6, 8443, "service/mesh/portal/tcp", nowhere),
			udpRow("mesh, NTP", me, me4, rMe4, 123, "service/mesh/ntp/udp", nowhere),
			{name: "mesh, DHCP", from: me, counter: "service/mesh/dhcp/udp", packet: func(m []byte) []byte { return udp("0.0.0.0", "255.255.255.255", 68, 67, m) }},
			udpRow("mesh, DNS", me, me4, rMe4, 53, "denied/mesh", nowhere),
			tcpRow("mesh, API", me, me4, rOv4, 8080, "denied/mesh", nowhere),
			{name: "mesh, router advertisement", from: me, counter: "denied/mesh", packet: nd(ra, 255, anyLinkLocal, "ff02::1", 12)},
			{name: "mesh, router solicitation", from: me, counter: "denied/mesh", packet: nd(rs, 255, anyLinkLocal, "ff02::2", 4)},
			{name: "mesh, neighbour solicitation", from: me, counter: "nd/mesh", packet: nd(ns, 255, me6, rMe6, 20)},
			pingRow("mesh", me, me4, rMe4, "echo/mesh", nowhere),
			pingRow("mesh, IPv6", me, me6, rMe6, "echo/mesh", nowhere),
			udpRow("mesh to clients by a rule", me, me4, cl4, 5010, "rule/camera", cl),
			udpRow("mesh to clients by a rule, IPv6", me, me6, cl6, 5000, "rule/camera", cl),
			udpRow("mesh to clients beside the rule", me, me4, cl4, 5011, "denied-forward/mesh", nowhere),
			udpRow("mesh to clients, another source", me, "10.41.0.6", cl4, 5005, "denied-forward/mesh", nowhere),
		},
		// From clients.
		each("clients to the overlay", cl, cl4, ov4, cl6, ov6, "forward/clients/overlay", ov),
		each("clients to the Internet", cl, cl4, far4, cl6, far6, "forward/clients/uplink", up),
		each("clients to the mesh", cl, cl4, me4, cl6, me6, "denied-forward/clients", nowhere),
		each("clients to the device", cl, cl4, rCl4, cl6, rCl6, "denied/clients", nowhere),
		[]row{
			udpRow("clients to the Internet, translated", cl, cl4, far4, 9998, "masquerade", up).as(rUp4, far4),
			tcpRow("clients to the Internet, translated, IPv6", cl, cl6, far6, 9998, "masquerade", up).as(rUp6, far6),
			tcpRow("clients, mail by a rule", cl, cl4, far4, 25, "rule/no-mail", nowhere),
			tcpRow("clients, mail by a rule, a range, IPv6", cl, cl6, far6, 500, "rule/no-mail", nowhere),
			{name: "clients, DHCP", from: cl, counter: "service/clients/dhcp/udp", packet: func(m []byte) []byte { return udp("0.0.0.0", "255.255.255.255", 68, 67, m) }},
			udpRow("clients, DNS", cl, cl4, rCl4, 53, "service/clients/dns/udp", nowhere),
			tcpRow("clients, DNS", cl, cl6, rCl6, 53, "service/clients/dns/tcp", nowhere),
			udpRow("clients, mDNS", cl, cl4, "224.0.0.1", 5353, "service/clients/mdns/udp", nowhere),
			udpRow("clients, mDNS, IPv6", cl, cl6, "ff02::1", 5353, "service/clients/mdns/udp", nowhere),
			udpRow("clients, NTP", cl, cl4, rCl4, 123, "service/clients/ntp/udp", nowhere),
			tcpRow("clients, Field", cl, cl4, rCl4, 80, "service/clients/field/tcp", nowhere),
			tcpRow("clients, Field with TLS", cl, cl6, rCl6, 443, "service/clients/field-tls/tcp", nowhere),
			tcpRow("clients, GPS", cl, cl6, rCl6, 2947, "service/clients/gpsd/tcp", nowhere),
			tcpRow("clients, API at the overlay's address", cl, cl4, rOv4, 8080, "service/clients/api/tcp", nowhere),
			tcpRow("clients, door", cl, cl4, rCl4, 4255, "service/clients/door/tcp", nowhere),
			tcpRow("clients, door at the overlay's address", cl, cl4, rOv4, 4255, "service/clients/door/tcp", nowhere),
			tcpRow("clients, API at another address", cl, cl4, rCl4, 8080, "denied/clients", nowhere),
			{name: "clients, router solicitation", from: cl, counter: "nd/clients", packet: nd(rs, 255, anyLinkLocal, "ff02::2", 4)},
			{name: "clients, router advertisement", from: cl, counter: "denied/clients", packet: nd(ra, 255, anyLinkLocal, "ff02::1", 12)},
			pingRow("clients", cl, cl4, rCl4, "echo/clients", nowhere),
			pingRow("clients, IPv6", cl, cl6, rCl6, "echo/clients", nowhere),
		},
		// From the overlay.
		each("overlay to clients", ov, ov4, cl4, ov6, cl6, "forward/overlay/clients", cl),
		each("overlay to the Internet", ov, ov4, far4, ov6, far6, "forward/overlay/uplink", up),
		each("another node's clients to the Internet", ov, "10.43.9.9", far4, "fd00:aa:bb:900::9", far6, "forward/overlay/uplink", up),
		each("overlay to the mesh", ov, ov4, me4, ov6, me6, "denied-forward/overlay", nowhere),
		each("overlay to the overlay", ov, ov4, "10.42.0.10", ov6, "fd00:aa:bb:2::10", "denied-forward/overlay", nowhere),
		each("overlay to the device", ov, ov4, rOv4, ov6, rOv6, "denied/overlay", nowhere),
		[]row{
			tcpRow("overlay to the Internet, translated", ov, "10.43.9.9", far4, 9998, "masquerade", up).as(rUp4, far4),
			tcpRow("overlay, API", ov, ov4, rOv4, 8080, "service/overlay/api/tcp", nowhere),
			udpRow("overlay, DNS", ov, ov4, rOv4, 53, "service/overlay/dns/udp", nowhere),
			udpRow("overlay, NTP", ov, ov6, rOv6, 123, "service/overlay/ntp/udp", nowhere),
			tcpRow("overlay, door", ov, ov6, rOv6, 4255, "service/overlay/door/tcp", nowhere),
			pingRow("overlay", ov, ov4, rOv4, "echo/overlay", nowhere),
			pingRow("overlay, IPv6", ov, ov6, rOv6, "echo/overlay", nowhere),
		},
		// Addresses where they do not belong, whatever they ask for.
		forged(up, rUp4, "10.41.0.7", "10.42.0.7", "10.43.0.7", "10.43.9.9", rUp4),
		forged(up, rUp6, "fd00:aa:bb:1::7", "fd00:aa:bb:2::7", "fd00:aa:bb:100::7", rUp6),
		forged(me, rMe4, "10.42.0.7", "10.43.0.7", far4, "0.0.0.0"),
		forged(me, rMe6, "fd00:aa:bb:2::7", "fd00:aa:bb:100::7", far6),
		forged(cl, rCl4, "10.41.0.7", "10.42.0.7", "10.43.9.9", far4, "0.0.0.0"),
		forged(cl, rCl6, "fd00:aa:bb:1::7", "fd00:aa:bb:2::7", "fd00:aa:bb:900::7", far6),
		forged(ov, rOv4, "10.41.0.7", "10.43.0.7", far4),
		forged(ov, rOv6, "fd00:aa:bb:1::7", "fd00:aa:bb:100::7", far6, anyLinkLocal),
	)
	w.check(t, rows)
}

// forged are packets to services that are open in most zones.
func forged(z model.Zone, to string, sources ...string) (rows []row) {
	for _, s := range sources {
		rows = append(rows,
			tcpRow(fmt.Sprintf("%s as %s", z, s), z, s, to, 8443, "spoofed/"+string(z), nowhere),
			udpRow(fmt.Sprintf("%s as %s", z, s), z, s, to, 53, "spoofed/"+string(z), nowhere))
	}
	return rows
}

// A node forwards between its clients and the overlay, and nothing by an uplink;
// without forwardings nothing at all.
func TestTrafficOfANode(t *testing.T) {
	w := newWorld(t)
	c := worldConfig()
	c.Gateway, c.Upstream6, c.Ports, c.Rules, c.Services, c.Forwardings = false, false, nil, nil, Services(false, 0), Forwardings(false)
	if err := w.Apply(c); err != nil {
		t.Fatal(err)
	}
	defaultRoutes(t, ov4, ov6)
	w.check(t, slices.Concat(
		each("clients to the overlay", cl, cl4, ov4, cl6, ov6, "forward/clients/overlay", ov),
		each("the Internet's answers by the overlay", ov, far4, cl4, far6, cl6, "forward/overlay/clients", cl),
		each("clients to an uplink", cl, cl4, up4, cl6, up6, "denied-forward/clients", nowhere),
		each("overlay to an uplink", ov, ov4, up4, ov6, up6, "denied-forward/overlay", nowhere),
		each("uplink to clients", up, up4, cl4, up6, cl6, "denied-forward/uplink", nowhere),
		[]row{
			tcpRow("mesh, join", me, me6, rMe6, 8443, "denied/mesh", nowhere),
			udpRow("mesh, DHCP server", me, me4, rMe4, 67, "denied/mesh", nowhere),
			tcpRow("clients, API", cl, cl4, rOv4, 8080, "denied/clients", nowhere),
			tcpRow("uplink, API", up, up4, rUp4, 8443, "denied/uplink", nowhere),
			{name: "uplink, router advertisement", from: up, counter: "denied/uplink", packet: nd(ra, 255, anyLinkLocal, "ff02::1", 12)},
		},
		forged(ov, rOv4, "10.41.0.7", "10.43.0.7"),
	))
	c.Forwardings = nil
	if err := w.Apply(c); err != nil {
		t.Fatal(err)
	}
	w.check(t, slices.Concat(
		each("without forwardings, clients", cl, cl4, ov4, cl6, ov6, "denied-forward/clients", nowhere),
		each("without forwardings, overlay", ov, ov4, cl4, ov6, cl6, "denied-forward/overlay", nowhere),
	))
}

// Interfaces that no zone has, and zones that get theirs later.
func TestInterfacesThatAppearLater(t *testing.T) {
	w := newWorld(t)
	c := worldConfig()
	c.Interfaces = map[model.Zone][]string{up: {"eth0", "usb0"}, me: {"bat0"}, ov: {"wg0"}}
	if err := w.Apply(c); err != nil {
		t.Fatal(err)
	}
	w.check(t, []row{
		udpRow("an interface in no zone, to the device", cl, cl4, rCl4, 53, "denied/unzoned", nowhere),
		udpRow("an interface in no zone, through it", cl, cl4, ov4, 9999, "denied-forward/unzoned", nowhere),
		udpRow("to an interface in no zone", ov, ov4, cl4, 9999, "denied-forward/overlay", nowhere),
	})
	c.Interfaces[cl] = []string{"br0"}
	if err := w.Apply(c); err != nil {
		t.Fatal(err)
	}
	w.check(t, []row{
		udpRow("now it has one, to the device", cl, cl4, rCl4, 53, "service/clients/dns/udp", nowhere),
		udpRow("now it has one, through it", cl, cl4, ov4, 9999, "forward/clients/overlay", ov),
	})
	// An uplink that is plugged in with rules that know its name.
	w.elsewhere = true
	usb := plug(t, "usb0", nil, "203.0.113.2/24")
	w.uplink = usb
	if err := address(mustLink(t, "usb0"), []string{"203.0.113.1/24"}); err != nil {
		t.Fatal(err)
	}
	w.check(t, []row{
		tcpRow("a new uplink", up, "203.0.113.2", "203.0.113.1", 22, "denied/uplink", nowhere),
		tcpRow("a new uplink, forged", up, "10.42.0.7", "203.0.113.1", 22, "spoofed/uplink", nowhere),
		tcpRow("a new uplink that is no way back", up, far4, "203.0.113.1", 22, "spoofed/uplink", nowhere),
		tcpRow("to a new uplink", cl, cl4, "203.0.113.2", 9999, "forward/clients/uplink", up).as("203.0.113.1", "203.0.113.2"),
	})
}

// While the overlay is down, what is for it must not go by the default route.
func TestNothingLeaksByTheUplink(t *testing.T) {
	w := newWorld(t)
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	unplug(t, "wg0")
	w.elsewhere = true
	w.check(t, []row{
		udpRow("clients to the overlay", cl, cl4, ov4, 9999, "leak", nowhere),
		tcpRow("clients to the overlay, IPv6", cl, cl6, ov6, 9999, "leak", nowhere),
		tcpRow("clients to another node's", cl, cl4, "10.43.9.9", 9999, "leak", nowhere),
	})
	before := w.count(t, "leak")
	dialFails(t, rUp4, "10.42.0.9:9999")
	if n := w.count(t, "leak"); n == before {
		t.Error("the device itself: expected leak to count it")
	}
}

// Sources in untrusted zones have bounds, each its own.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	defer func(k meterKind) { connections = k }(connections)
	connections.connections = 100
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	flood := func(name string, z model.Zone, n int, counter string, burst int, packet func(i int) []byte, pass ...string) {
		t.Run(name, func(t *testing.T) {
			passes := func() (sum uint64) {
				for _, name := range pass {
					sum += w.count(t, name)
				}
				return sum
			}
			before, dropped := passes(), w.count(t, counter)
			// A busy host sends more slowly than the bounds are, or more than it has room for
			// on the way at once: so in parts, and until it was a flood.
			sent := 0
			for sent < n || sent < 20*n && w.count(t, counter) == dropped {
				for range min(n, 250) {
					w.host(z).send(packet(sent))
					sent++
				}
				eventually(t, "all to be counted", func() bool {
					return passes()-before+w.count(t, counter)-dropped >= uint64(sent)
				})
			}
			if passed := int(passes() - before); passed < burst || w.count(t, counter) == dropped {
				t.Errorf("expected %d to pass and some not to, %d of %d did", burst, passed, sent)
			}
		})
	}
	for _, f := range []struct {
		z        model.Zone
		from, to string
	}{{up, up4, rUp4}, {up, up6, rUp6}, {me, me4, rMe4}, {cl, cl4, rCl4}, {cl, cl6, rCl6}} {
		kind := byte(echo4)
		if !netip.MustParseAddr(f.from).Is4() {
			kind = echo6
		}
		// One identifier: one connection.
		flood(f.from+" pings", f.z, 60, "flood/"+string(f.z), int(echoRate.burst), func(i int) []byte {
			return icmp(f.from, f.to, kind, 64, []byte{1, 1, 0, byte(i)})
		}, "echo/"+string(f.z), "established/input")
	}
	w.check(t, []row{
		pingRow("another source", up, far4, rUp4, "echo/uplink", nowhere),
		pingRow("another source of a near /64", cl, "fd00:aa:bb:100::11", rCl6, "echo/clients", nowhere),
	})
	flood("open connections", cl, 150, "flood/clients", 100, func(i int) []byte {
		return udp("10.43.0.14", ov4, uint16(20000+i), 9999, []byte("mark"))
	}, "forward/clients/overlay")
	connections.connections = 100000
	if err := w.Apply(worldConfig()); err != nil {
		t.Fatal(err)
	}
	flood("new connections", cl, 2000, "flood/clients", int(newRate.burst)-20, func(i int) []byte {
		return udp("10.43.0.12", ov4, uint16(20000+i), 9999, []byte("mark"))
	}, "forward/clients/overlay")
	w.check(t, []row{udpRow("another source", cl, "10.43.0.13", ov4, 9999, "forward/clients/overlay", ov)})
}
