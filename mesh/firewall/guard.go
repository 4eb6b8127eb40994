package firewall

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"halo.internal/model"
	"halo.internal/model/paths"
)

// Sets of guarded ports in the bridge's table.
const (
	clientPorts = "ports"
	guestPorts  = "guests"
	owners      = "owners"
)

// guards compile to one table of family bridge, not one of netdev per port: ports come
// and go, and are names in a set; frames that only pass between ports meet it too,
// which those of the table inet do not, since bridge netfilter is not loaded.
func (c Config) guards() table {
	t := &table{bridge: true}
	base := t.chain("clients", hookBridge)
	if len(c.Guard.Ports) > 0 {
		t.ifaces = append(t.ifaces, ifaceSet{clientPorts, c.Guard.Ports})
		base.jump(match{in: clientPorts}, "client")
		ch := t.chain("client", hookNone)
		c.Guard.serving(t, ch, model.ZoneClients, "client ports")
		c.Guard.theft(t, ch, model.ZoneClients, "client ports")
	}
	if len(c.Guests.Ports) > 0 {
		t.ifaces = append(t.ifaces, ifaceSet{guestPorts, c.Guests.Ports})
		base.jump(match{in: guestPorts}, "guest")
		ch := t.chain("guest", hookNone)
		// Members beyond the mesh would become neighbours, and the mesh run through itself.
		ch.add(match{etherType: paths.EtherTypeProof}, drop, t.refuse("proof", model.ZoneMesh, "members' proofs on bridged ports"))
		ch.add(match{etherType: paths.EtherTypeBatman}, drop, t.refuse("proof", model.ZoneMesh, ""))
		c.Guests.serving(t, ch, model.ZoneMesh, "bridged ports")
		if len(c.Guests.Stations) > 0 {
			t.stations = append(t.stations, stationSet{owners, c.Guests.Stations})
			ch.add(match{station: owners}, leave, "")
		}
		c.Guests.theft(t, ch, model.ZoneMesh, "bridged ports")
	}
	return *t
}

// serving drops what nobody behind the ports may be to others or to the device.
func (g Guard) serving(t *table, ch *chain, z model.Zone, where string) {
	deny := denier(t, ch, z, where)
	// One tag is taken off before; with two, what is inside is hidden from the
	// lines below and not from every client.
	deny("tagged", "VLAN tags on ", match{etherType: unix.ETH_P_8021Q}, match{etherType: unix.ETH_P_8021AD})
	deny("dhcp-server", "DHCP servers on ",
		match{family: 4, proto: unix.IPPROTO_UDP, dport: model.SinglePort(portDHCP + 1)},
		match{family: 6, proto: unix.IPPROTO_UDP, dport: model.SinglePort(546)})
	deny("router", "router advertisements and redirects on ",
		match{}.icmp6(ra, 0), match{}.icmp6(redirect, 0),
		match{family: 4, proto: unix.IPPROTO_ICMP, icmp: 5},
		// An advertisement comes from a link-local address (RFC 4861, section 6.1.2);
		// in fragments it could not be told (RFC 6980, RFC 7113).
		match{fragment: true}.fromNet(linkLocal))
}

// theft drops what speaks under addresses that nobody behind the ports has.
func (g Guard) theft(t *table, ch *chain, z model.Zone, where string) {
	deny := denier(t, ch, z, where)
	const reason, words = "address-theft", "a device's own address, claimed on "
	for _, a := range g.Own {
		single := netip.PrefixFrom(a, a.BitLen())
		if a.Is4() {
			deny(reason, words, match{etherType: unix.ETH_P_ARP, sender: a}, match{}.fromNet(single))
			continue
		}
		probe := match{target: a}.icmp6(ns, 0).fromNet(unspecified6)
		advert := match{target: a}.icmp6(na, 0)
		deny(reason, words, advert, probe, match{}.fromNet(single))
	}
}

func denier(t *table, ch *chain, z model.Zone, where string) func(reason, words string, list ...match) {
	return func(reason, words string, list ...match) {
		name := t.refuse(reason, z, words+where)
		for _, m := range list {
			ch.add(m, drop, name)
		}
	}
}
