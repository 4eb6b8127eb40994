package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"halo.internal/model"
)

// Bounds per source, in zones that are not trusted. A page with all that it
// loads opens some hundred connections at once.
var (
	echoRate    = meterKind{rate: 10, burst: 20}
	newRate     = meterKind{rate: 50, burst: 200, over: true}
	connections = meterKind{connections: 1024}
)

// Sizes and lifetimes of the sets behind them. A source is forgotten when its
// bucket has long been full again. When a set is full, echo of further sources is
// dropped, and their connections are no longer bounded: a flood from forged
// addresses must not keep others out.
const (
	meterSize    = 4096
	meterSeconds = 30
)

const (
	established = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	invalid     = expr.CtStateBitINVALID
	fresh       = expr.CtStateBitNEW
)

// ICMPv6 types (RFC 4443, 4861, 2710, 3810).
const (
	echo6    = 128
	mldQuery = 130
	mldV1    = 131
	mldDone  = 132
	rs       = 133
	ra       = 134
	ns       = 135
	na       = 136
	redirect = 137
	mldV2    = 143
	echo4    = 8
)

var (
	linkLocal    = netip.MustParsePrefix("fe80::/10")
	unspecified6 = netip.MustParsePrefix("::/128")
	unspecified4 = netip.MustParsePrefix("0.0.0.0/32")
)

// untrusted zones have bounds per source.
func untrusted(z model.Zone) bool { return z != model.ZoneOverlay }

// compile makes rules of c. It depends on nothing else.
func compile(c Config) (ruleset, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &table{}
	for _, z := range model.Zones {
		t.ifaces = append(t.ifaces, ifaceSet{string(z), slices.Sorted(slices.Values(c.Interfaces[z]))})
	}
	for _, m := range []struct {
		name string
		kind meterKind
	}{{"echo", echoRate}, {"new", newRate}, {"open", connections}} {
		t.meters = append(t.meters, meterSet{m.name + "4", false, m.kind}, meterSet{m.name + "6", true, m.kind})
	}
	c.sources(t)
	c.input(t)
	leaks := c.leaks(t)
	c.forward(t, leaks)
	leaks(t.chain("output", hookOutput)) // what the device itself says
	c.nat(t)
	rules := ruleset{*t}
	if len(c.Guard.Ports)+len(c.Guests.Ports) > 0 {
		rules = append(rules, c.guards())
	}
	return rules, nil
}

// chain adds a chain, in the order in which packets come through.
func (t *table) chain(name string, h hook) *chain {
	ch := &chain{name: name, hook: h}
	t.chains = append(t.chains, ch)
	return ch
}

// count names a counter, once.
func (t *table) count(name, words string) string {
	return t.add(counter{name: name, words: words})
}

// refuse names a counter of what is dropped of a zone.
func (t *table) refuse(reason string, z model.Zone, words string) string {
	return t.add(counter{name: reason + "/" + cmp.Or(string(z), "unzoned"), words: words, zone: z, drop: true})
}

func (t *table) add(c counter) string {
	if !slices.ContainsFunc(t.counters, func(o counter) bool { return o.name == c.name }) {
		t.counters = append(t.counters, c)
	}
	return c.name
}

func (ch *chain) add(m match, v verdict, counter string) {
	ch.lines = append(ch.lines, line{match: m, verdict: v, counter: counter})
}

func (ch *chain) jump(m match, to string) {
	ch.lines = append(ch.lines, line{match: m, verdict: jump, jump: to})
}

// from and to match a prefix.
func (m match) fromNet(p netip.Prefix) match {
	m.from, m.family = p, family(p.Addr())
	return m
}

func (m match) toNet(p netip.Prefix) match {
	m.to, m.family = p, family(p.Addr())
	return m
}

func (m match) icmp6(kind, hops uint8) match {
	m.family, m.proto, m.icmp, m.hops = 6, unix.IPPROTO_ICMPV6, kind, hops
	return m
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

// sources holds addresses to where they belong, before connections are tracked,
// so that what is forged leaves nothing behind.
func (c Config) sources(t *table) {
	base := t.chain("source", hookSource)
	// Soon, since what the overlay carries comes this way, packet by packet: those of
	// the right addresses, of which the service itself tells who they are from.
	c.untracked(func(z model.Zone, _ model.Service, m match) {
		if m.in = string(z); z == model.ZoneMesh {
			for _, p := range c.Networks.Underlay {
				if p.Addr().Is6() {
					base.add(m.fromNet(p), notrack, "")
				}
			}
		}
	})
	for _, z := range model.Zones {
		ch := t.chain("source_"+string(z), hookNone)
		forged := t.refuse("spoofed", z, "addresses that do not belong there")
		deny := func(m match) { ch.add(m, drop, forged) }
		pass := func(m match) { ch.add(m, leave, "") }
		dropNets := func(lists ...[]netip.Prefix) {
			for _, p := range slices.Concat(lists...) {
				deny(match{}.fromNet(p))
			}
		}
		passNets := func(lists ...[]netip.Prefix) {
			for _, p := range slices.Concat(lists...) {
				pass(match{}.fromNet(p))
			}
		}
		dhcpClient := match{proto: unix.IPPROTO_UDP, dport: model.SinglePort(portDHCP)}.fromNet(unspecified4)
		switch z {
		case model.ZoneUplink:
			dropNets(c.Networks.all())
			// There is no route to a DHCP server before its answer.
			pass(match{family: 4, proto: unix.IPPROTO_UDP, sport: portDHCP, dport: model.SinglePort(portDHCP + 1)})
			pass(match{}.icmp6(ns, 255).fromNet(unspecified6)) // duplicate address detection, RFC 4862
			deny(match{noWayBack: true})
		case model.ZoneMesh:
			passNets(c.Networks.Underlay, []netip.Prefix{linkLocal, unspecified6})
			pass(dhcpClient)
			deny(match{})
		case model.ZoneClients:
			dropNets(c.Networks.Underlay, c.Networks.Overlay)
			passNets(c.ownClients(), []netip.Prefix{linkLocal, unspecified6})
			pass(dhcpClient)
			deny(match{})
		case model.ZoneOverlay:
			dropNets(c.Networks.Underlay, c.Networks.Own)
			if c.Gateway {
				// To a node the Internet's answers come by the overlay; to a gateway, nothing
				// but the network's own.
				passNets(c.Networks.Overlay, c.Networks.Clients)
				deny(match{})
			}
		}
		base.jump(match{in: string(z)}, ch.name)
	}
	var out *chain
	c.untracked(func(z model.Zone, s model.Service, m match) {
		m.in = string(z)
		base.add(m, notrack, "")
		if out == nil {
			out = t.chain("untracked", hookUntracked)
		}
		out.add(match{out: string(z), proto: m.proto, sport: m.dport.First}, notrack, "")
	})
}

// untracked calls f for each zone and port of services without connections, with
// what matches packets to them.
func (c Config) untracked(f func(z model.Zone, s model.Service, m match)) {
	for _, s := range c.Services {
		for _, z := range s.Zones {
			for _, p := range s.Ports {
				if s.Untracked {
					f(z, s, match{proto: protocol(s.Proto), dport: p})
				}
			}
		}
	}
}

// ownClients are the sources that clients may have.
func (c Config) ownClients() (list []netip.Prefix) {
	for _, four := range []bool{true, false} {
		other := func(p netip.Prefix) bool { return p.Addr().Is4() != four }
		own := slices.DeleteFunc(slices.Clone(c.Networks.Own), other)
		if len(own) == 0 {
			own = slices.DeleteFunc(slices.Clone(c.Networks.Clients), other)
		}
		list = append(list, own...)
	}
	return list
}

// input is what the device itself takes.
func (c Config) input(t *table) {
	base := t.chain("input", hookInput)
	// First, since there are many of them; but people's rules go before.
	c.untracked(func(z model.Zone, s model.Service, m match) {
		ruled := slices.ContainsFunc(c.Rules, func(r model.FirewallRule) bool { return r.From == z && r.To == model.ZoneLocal })
		if m.in = string(z); !ruled && len(s.To) == 0 {
			base.add(m, accept, t.service(z, s))
		}
	})
	base.add(match{loopback: true}, accept, "")
	for _, m := range pings {
		base.jump(m, "echo")
	}
	base.add(match{state: established}, accept, t.count("established/input", "answers to the device, and errors of its connections"))
	boundEchoes(t)
	for _, z := range model.Zones {
		ch := t.chain("input_"+string(z), hookNone)
		base.jump(match{in: string(z)}, ch.name)
		c.inputZone(t, ch, z)
	}
	base.add(match{}, drop, t.refuse("denied", "", "to the device, from interfaces in no zone"))
}

func (c Config) inputZone(t *table, ch *chain, z model.Zone) {
	ch.add(match{state: invalid}, drop, t.refuse("invalid", z, "of no connection, or that fit none"))
	c.control(t, ch, z)
	if untrusted(z) {
		bound(t, ch, match{}, z)
	}
	for _, r := range c.Rules {
		if r.From == z && r.To == model.ZoneLocal {
			person(t, ch, match{}, r)
		}
	}
	for _, m := range pings {
		ch.add(m, accept, t.count("echo/"+string(z), fmt.Sprintf("%s to the device: ping", z)))
	}
	for _, s := range c.Services {
		if !slices.Contains(s.Zones, z) {
			continue
		}
		name := t.service(z, s)
		for _, p := range s.Ports {
			m := match{proto: protocol(s.Proto), dport: p}
			for _, to := range orAny(s.To) {
				if to.IsValid() {
					m = m.toNet(to)
				}
				ch.add(m, accept, name)
			}
		}
	}
	ch.add(match{}, refusal(z), t.refuse("denied", z, "to the device, and not allowed"))
}

// service names the counter of a service.
func (t *table) service(z model.Zone, s model.Service) string {
	return t.count(fmt.Sprintf("service/%s/%s/%s", z, s.Name, s.Proto), fmt.Sprintf("%s to the device: %s (%s port %s)%s",
		z, s.Name, s.Proto, join(s.Ports), phrase(" at ", s.To)))
}

// control lets through what a link needs: neighbour discovery and multicast
// listeners (RFC 4890, section 4.4.1; both untracked), and on uplinks what
// gives them an address. Errors (sections 4.3.1 and 4.4.1) come as related to a
// connection; those that are not are nobody's, and no router is listened to that
// nobody chose. Redirects are dropped everywhere.
func (c Config) control(t *table, ch *chain, z model.Zone) {
	if z == model.ZoneOverlay {
		return // WireGuard knows its peers' addresses
	}
	nd := t.count("nd/"+string(z), fmt.Sprintf("%s: neighbours and multicast groups (ICMPv6, IGMP)", z))
	for _, kind := range []uint8{ns, na} {
		ch.add(match{}.icmp6(kind, 255), accept, nd)
	}
	for _, kind := range []uint8{mldQuery, mldV1, mldDone, mldV2} {
		ch.add(match{}.icmp6(kind, 1), accept, nd)
	}
	switch z {
	case model.ZoneUplink:
		words := "uplink: answers of DHCP servers"
		name := t.count("dhcp-client/uplink", words)
		ch.add(match{family: 4, proto: unix.IPPROTO_UDP, sport: portDHCP, dport: model.SinglePort(portDHCP + 1)}, accept, name)
		if c.Upstream6 {
			ch.add(match{}.icmp6(ra, 255).fromNet(linkLocal), accept, t.count("ra/uplink", "uplink: router advertisements"))
			ch.add(match{proto: unix.IPPROTO_UDP, sport: 547, dport: model.SinglePort(546)}.fromNet(linkLocal), accept, name)
		}
		return
	case model.ZoneClients:
		ch.add(match{}.icmp6(rs, 255), accept, nd)
	}
	ch.add(match{family: 4, proto: unix.IPPROTO_IGMP}, accept, nd)
}

// pings are echo requests.
var pings = []match{
	{family: 4, proto: unix.IPPROTO_ICMP, icmp: echo4},
	{family: 6, proto: unix.IPPROTO_ICMPV6, icmp: echo6},
}

// boundEchoes drops echo requests of sources with too many. It comes before
// established connections: those of one identifier are one.
func boundEchoes(t *table) {
	ch := t.chain("echo", hookNone)
	for _, z := range model.Zones {
		if !untrusted(z) {
			continue
		}
		for _, m := range pings {
			m.in, m.meter = string(z), meterOf("echo", m.family, z, echoRate)
			ch.add(m, leave, "")
		}
		ch.add(match{in: string(z)}, drop, t.flood(z))
	}
}

func (t *table) flood(z model.Zone) string {
	return t.refuse("flood", z, fmt.Sprintf("of sources with more than %d pings or %d new connections a second, or %d open ones", echoRate.rate, newRate.rate, connections.connections))
}

// bound drops new connections of a source that has too many.
func bound(t *table, ch *chain, m match, z model.Zone) {
	m.state = fresh
	for _, k := range []struct {
		set string
		meterKind
	}{{"new", newRate}, {"open", connections}} {
		for _, m.family = range []int{4, 6} {
			m.meter = meterOf(k.set, m.family, z, k.meterKind)
			ch.add(m, drop, t.flood(z))
		}
	}
}

// meterOf keeps sources apart by address, on uplinks by /64: whoever is far away
// has at least one of those, while all that are near share one.
func meterOf(set string, family int, z model.Zone, k meterKind) *meter {
	return &meter{set: fmt.Sprintf("%s%d", set, family), six: family == 6, net: family == 6 && z == model.ZoneUplink, meterKind: k}
}

// person adds one of people's rules to m.
func person(t *table, ch *chain, m match, r model.FirewallRule) {
	v := accept
	if r.Action == model.Deny {
		v = refusal(r.From)
	}
	kind := cmp.Or(r.Proto, "anything")
	if len(r.Ports) > 0 {
		kind += " port " + join(r.Ports)
	}
	name := t.count("rule/"+r.Name, fmt.Sprintf("%s: %s %s from %s%s to %s", r.Name, r.Action, kind, r.From, phrase(" ", r.Sources), r.To))
	protos := []match{m}
	switch r.Proto {
	case "tcp", "udp":
		protos[0].proto = protocol(r.Proto)
	case "icmp":
		protos = append(protos, m)
		protos[0].proto, protos[0].family = unix.IPPROTO_ICMP, 4
		protos[1].proto, protos[1].family = unix.IPPROTO_ICMPV6, 6
	}
	for _, m := range protos {
		for _, from := range orAny(r.Sources) {
			if from.IsValid() {
				if r.Proto == "icmp" && m.family != family(from.Addr()) {
					continue
				}
				m = m.fromNet(from)
			}
			for _, p := range orAny(r.Ports) {
				m.dport = p
				ch.add(m, v, name)
			}
		}
	}
}

// forward is what goes through the device.
func (c Config) forward(t *table, leaks func(*chain)) {
	ch := t.chain("forward", hookForward)
	leaks(ch)
	opens := len(c.Forwardings) > 0 || len(c.Ports) > 0 || slices.ContainsFunc(c.Rules, func(r model.FirewallRule) bool {
		return r.Action == model.Allow && r.To != model.ZoneLocal
	})
	if opens {
		ch.add(match{state: established}, accept, t.count("established/forward", "connections through the device, and their errors"))
		for _, z := range model.Zones {
			ch.add(match{in: string(z), state: invalid}, drop, t.refuse("invalid", z, ""))
		}
		for _, z := range model.Zones {
			if untrusted(z) {
				bound(t, ch, match{in: string(z)}, z)
			}
		}
	}
	for _, r := range c.Rules {
		if r.To != model.ZoneLocal {
			person(t, ch, match{in: string(r.From), out: string(r.To)}, r)
		}
	}
	for _, f := range c.Ports {
		port := f.Port
		if f.ToPort != 0 {
			port = model.SinglePort(f.ToPort)
		}
		m := match{in: string(model.ZoneUplink), forwarded: true, proto: protocol(f.Proto), dport: port}
		ch.add(m.toNet(netip.PrefixFrom(f.To, f.To.BitLen())), accept, t.count("port/"+f.Name, forwardWords(f)))
	}
	for _, f := range c.Forwardings {
		ch.add(match{in: string(f.From), out: string(f.To)}, accept, t.count(fmt.Sprintf("forward/%s/%s", f.From, f.To), fmt.Sprintf("%s to %s", f.From, f.To)))
	}
	for _, z := range model.Zones {
		ch.add(match{in: string(z)}, refusal(z), t.refuse("denied-forward", z, "through the device, and not allowed"))
	}
	ch.add(match{}, drop, t.refuse("denied-forward", "", "through the device, from interfaces in no zone"))
}

func forwardWords(f model.PortForward) string {
	to := f.To.String()
	if f.ToPort != 0 {
		to = netip.AddrPortFrom(f.To, f.ToPort).String()
	}
	return fmt.Sprintf("%s: forward %s port %s from uplink%s to %s", f.Name, f.Proto, f.Port, phrase(" ", f.Sources), to)
}

// leaks keeps what is for the network's own addresses off uplinks: while the
// overlay is down, the default route would take it there, in the clear. It returns
// what adds the check to a chain.
func (c Config) leaks(t *table) (check func(*chain)) {
	leaving := t.chain("leaving", hookNone)
	for _, p := range c.Networks.all() {
		leaving.add(match{}.toNet(p), reject, t.count("leak", "anything for HALO's own networks by an uplink: refused"))
	}
	return func(ch *chain) { ch.jump(match{out: string(model.ZoneUplink)}, leaving.name) }
}

// nat translates and clamps.
func (c Config) nat(t *table) {
	ch := t.chain("clamp", hookClamp)
	for _, z := range []model.Zone{model.ZoneUplink, model.ZoneOverlay} {
		ch.add(match{in: string(z), syn: true}, clamp, "")
		ch.add(match{out: string(z), syn: true}, clamp, "")
	}
	// No chain without a rule: each packet pays for it.
	if len(c.Ports) > 0 {
		ch = t.chain("dstnat", hookDNAT)
	}
	for _, f := range c.Ports {
		m := match{in: string(model.ZoneUplink), local: true, family: family(f.To), proto: protocol(f.Proto), dport: f.Port}
		for _, from := range orAny(f.Sources) {
			if from.IsValid() {
				m = m.fromNet(from)
			}
			ch.lines = append(ch.lines, line{match: m, verdict: dnat, to: netip.AddrPortFrom(f.To, f.ToPort)})
		}
	}
	if c.Gateway {
		ch = t.chain("srcnat", hookSNAT)
		// IPv6 too: a ULA means nothing upstream, and a network in the field seldom
		// gets a prefix to hand on, nor the same one twice.
		for _, p := range c.Networks.all() {
			ch.add(match{out: string(model.ZoneUplink)}.fromNet(p), masquerade, t.count("masquerade", "connections to uplinks under the gateway's own address"))
		}
	}
}

func protocol(name string) uint8 {
	if name == "tcp" {
		return unix.IPPROTO_TCP
	}
	return unix.IPPROTO_UDP
}

// orAny is a list, or one zero value that matches anything.
func orAny[T any](list []T) []T {
	if len(list) == 0 {
		return make([]T, 1)
	}
	return list
}

func join[T fmt.Stringer](values []T) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = v.String()
	}
	return strings.Join(text, ", ")
}

func phrase[T fmt.Stringer](before string, values []T) string {
	if len(values) == 0 {
		return ""
	}
	return before + join(values)
}
