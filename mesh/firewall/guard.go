package firewall

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"halo.internal/model"
)

// clientPorts is the set of guarded ports in the bridge's table.
const clientPorts = "ports"

// compile drops what no client of a bridge may say to others or to the device. It
// is a table of family bridge, not one of netdev per port: ports come and go, and
// are names in a set; frames that only pass between ports meet it too, which
// those of the table inet do not, since bridge netfilter is not loaded.
func (g Guard) compile() table {
	t := &table{bridge: true, ifaces: []ifaceSet{{clientPorts, g.Ports}}}
	base := t.chain("clients", hookBridge)
	base.jump(match{in: clientPorts}, "client")
	ch := t.chain("client", hookNone)
	deny := func(reason, words string, list ...match) {
		name := t.refuse(reason, model.ZoneClients, words)
		for _, m := range list {
			ch.add(m, drop, name)
		}
	}
	// One tag is taken off before; with two, what is inside is hidden from the
	// lines below and not from every client.
	deny("tagged", "VLAN tags on client ports", match{etherType: unix.ETH_P_8021Q}, match{etherType: unix.ETH_P_8021AD})
	deny("dhcp-server", "DHCP servers on client ports",
		match{family: 4, proto: unix.IPPROTO_UDP, dport: model.SinglePort(portDHCP + 1)},
		match{family: 6, proto: unix.IPPROTO_UDP, dport: model.SinglePort(546)})
	deny("router", "router advertisements and redirects on client ports",
		match{}.icmp6(ra, 0), match{}.icmp6(redirect, 0),
		match{family: 4, proto: unix.IPPROTO_ICMP, icmp: 5},
		// An advertisement comes from a link-local address (RFC 4861, section 6.1.2);
		// in fragments it could not be told (RFC 6980, RFC 7113).
		match{fragment: true}.fromNet(linkLocal))
	for _, a := range g.Own {
		const reason, words = "address-theft", "the device's own address, claimed on client ports"
		single := netip.PrefixFrom(a, a.BitLen())
		if a.Is4() {
			deny(reason, words, match{etherType: unix.ETH_P_ARP, sender: a}, match{}.fromNet(single))
			continue
		}
		probe := match{target: a}.icmp6(ns, 0).fromNet(unspecified6)
		advert := match{target: a}.icmp6(na, 0)
		deny(reason, words, advert, probe, match{}.fromNet(single))
	}
	return *t
}
