package firewall

import (
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"halo.internal/model"
)

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   string // part of the error; empty: none
	}{
		{"as it is", func(*Config) {}, ""},
		{"zone of an interface", func(c *Config) { c.Interfaces["dmz"] = []string{"eth9"} }, `got zone "dmz"`},
		{"interface in two zones", func(c *Config) { c.Interfaces[me] = []string{"eth0"} }, "interface eth0: expected it in one zone, got mesh and uplink"},
		{"interface's name", func(c *Config) { c.Interfaces[me] = []string{"sixteen-letters!"} }, "up to 15 characters"},
		{"loopback", func(c *Config) { c.Interfaces[me] = []string{"lo"} }, "an interface that leads out"},
		{"interface twice", func(c *Config) { c.Interfaces[me] = []string{"bat0", "bat0"} }, "got bat0 twice"},
		{"forwarding by a node", func(c *Config) { c.Gateway, c.Ports, c.Rules = false, nil, nil }, "only a gateway forwards"},
		{"rule by a node", func(c *Config) {
			c.Gateway, c.Ports, c.Forwardings = false, nil, nil
			c.Rules = []model.FirewallRule{{Name: "x", Action: model.Allow, From: cl, To: up}}
		}, "rule x: only a gateway forwards"},
		{"port forward by a node", func(c *Config) { c.Gateway, c.Forwardings, c.Rules = false, nil, nil }, "port forward web: only a gateway"},
		{"rule's name", func(c *Config) { c.Rules[0].Name = "No Mail" }, `got "No Mail"`},
		{"rule's action", func(c *Config) { c.Rules[0].Action = "accept" }, `rule no-mail: action: expected allow or deny, got "accept"`},
		{"rule from the device", func(c *Config) { c.Rules[0].From = model.ZoneLocal }, `from: expected uplink, mesh, clients or overlay, got "local"`},
		{"rule to nowhere", func(c *Config) { c.Rules[0].To = "" }, "or local"},
		{"rule's ports", func(c *Config) { c.Rules[3].Ports = ports("80") }, "expected them with proto tcp or udp only"},
		{"rule's port 0", func(c *Config) { c.Rules[0].Ports[0].First = 0 }, "expected ports of 1 to 65535"},
		{"rule's source", func(c *Config) { c.Rules[2].Sources[0] = netip.MustParsePrefix("192.0.2.1/24") }, "without bits behind its length; got 192.0.2.1/24"},
		{"rule twice", func(c *Config) { c.Rules[1].Name = "no-mail" }, "got no-mail twice"},
		{"too many rules", func(c *Config) { c.Rules = make([]model.FirewallRule, 129) }, "expected at most 128, got 129"},
		{"too many lines", func(c *Config) {
			for i := range c.Rules {
				c.Rules[i].Proto = "tcp"
			}
			for range 100 {
				r := c.Rules[0]
				r.Name = "x" + strings.Repeat("x", len(c.Rules)%20) + string(rune('a'+len(c.Rules)%26))
				r.Ports = slices.Repeat(ports("80"), 16)
				c.Rules = append(c.Rules, r)
			}
		}, "at most 1024 combinations"},
		{"forward to the Internet", func(c *Config) { c.Ports[0].To = netip.MustParseAddr("192.0.2.1") }, "expected an address of a client or of the overlay, got 192.0.2.1"},
		{"forward to the mesh", func(c *Config) { c.Ports[0].To = netip.MustParseAddr("10.41.0.9") }, "expected an address of a client"},
		{"forward of another's port", func(c *Config) { c.Ports[1].Proto, c.Ports[1].Port = "tcp", model.PortRange{First: 8000, Last: 8100} }, "got 8000-8100, which web has"},
		{"forward of a service's port", func(c *Config) { c.Ports[0].Port = model.SinglePort(8443) }, "tcp port 8443 is open to the uplink for the service api-tls"},
		{"forward of a range to a port", func(c *Config) { c.Ports[1].ToPort = 5 }, "expected it with a single port only"},
		{"forward for the other family", func(c *Config) { c.Ports[0].Sources = prefixes("2001:db8::/32") }, "expected one of the same family"},
		{"own network of others", func(c *Config) { c.Networks.Own = prefixes("10.44.0.0/24") }, "expected parts of the clients' networks"},
		{"a station twice", func(c *Config) { c.Guests.Stations = []net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 1}} }, "each once"},
		{"a long hardware address", func(c *Config) { c.Guests.Stations = []net.HardwareAddr{make([]byte, 8)} }, "6 octets"},
		{"clients and guests", func(c *Config) { c.Guard.Ports, c.Guests.Ports = []string{"eth1"}, []string{"eth1"} }, "clients or guests"},
		{"untracked range", func(c *Config) {
			c.Services = append(c.Services, model.Service{Name: "voice", Proto: "udp", Ports: ports("5000-5010"), Zones: []model.Zone{up}, Untracked: true})
		}, "single ports"},
		{"guarded address", func(c *Config) { c.Guard.Own = []netip.Addr{netip.MustParseAddr("fe80::1%br0")} }, "without a zone"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := gatewayConfig()
			test.change(&c)
			_, err := compile(c)
			switch {
			case test.want == "" && err != nil:
				t.Fatal(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("expected an error with %q, got %v", test.want, err)
			}
		})
	}
}

// The most that may be configured fits into a transaction.
func TestTheMostThatIsAllowed(t *testing.T) {
	c := gatewayConfig()
	c.Rules = nil
	for i := range model.MaxFirewallRules {
		r := model.FirewallRule{Name: "r" + string(rune('a'+i/26)) + string(rune('a'+i%26)), Action: model.Allow, From: cl, To: up, Proto: "tcp", Ports: ports("1", "2")}
		for n := range 3 {
			r.Sources = append(r.Sources, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 43, byte(i), byte(n)}), 32))
		}
		c.Rules = append(c.Rules, r)
	}
	var f Firewall
	for range 2 {
		if err := f.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(nft(t, "list chain inet halo forward"), "comment \"r"); n != 768 {
		t.Errorf("expected 768 lines, got %d", n)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
}

// probe is a packet as the lines see it; of a new connection.
type probe struct {
	in, out string
	match   // from, to, proto, sport, dport.First, icmp, hops
}

// passes walks a chain as the kernel would, with every meter below its bound.
func (t table) passes(name string, p probe) (verdict, bool) {
	i := slices.IndexFunc(t.chains, func(ch *chain) bool { return ch.name == name })
	for _, l := range t.chains[i].lines {
		if !l.matches(t, p) {
			continue
		}
		switch l.verdict {
		case jump:
			if v, decided := t.passes(l.jump, p); decided {
				return v, true
			}
		case leave:
			return 0, false
		default:
			return l.verdict, true
		}
	}
	return 0, false
}

func (m match) matches(t table, p probe) bool {
	in := func(set, name string) bool {
		i := slices.IndexFunc(t.ifaces, func(s ifaceSet) bool { return s.name == set })
		return slices.Contains(t.ifaces[i].names, name)
	}
	four := p.from.Addr().Is4()
	switch {
	case m.loopback, m.forwarded, m.noWayBack,
		m.in != "" && !in(m.in, p.in), m.out != "" && !in(m.out, p.out),
		m.state != 0 && m.state&fresh == 0,
		m.family == 4 && !four, m.family == 6 && four,
		m.from.IsValid() && !m.from.Contains(p.from.Addr()), m.to.IsValid() && !m.to.Contains(p.to.Addr()),
		m.proto != 0 && m.proto != p.proto, m.sport != 0 && m.sport != p.sport,
		m.dport != (model.PortRange{}) && !m.dport.Contains(p.dport.First),
		m.icmp != 0 && m.icmp != p.icmp, m.hops != 0 && m.hops != p.hops,
		m.meter != nil && (m.meter.over || m.meter.connections != 0):
		return false
	}
	return true
}

// opened tells, by the configuration alone, whether a packet from an uplink may
// come in, or through.
func opened(c Config, p probe, to model.Zone) bool {
	for _, r := range c.Rules {
		named := map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}
		if r.From != up || r.To != to || r.Proto == "icmp" && p.icmp == 0 || r.Proto != "" && r.Proto != "icmp" && named[r.Proto] != p.proto ||
			len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(x model.PortRange) bool { return x.Contains(p.dport.First) }) ||
			len(r.Sources) > 0 && !slices.ContainsFunc(r.Sources, func(x netip.Prefix) bool { return x.Contains(p.from.Addr()) }) {
			continue
		}
		return r.Action == model.Allow
	}
	if to != model.ZoneLocal {
		return slices.Contains(c.Forwardings, model.Forwarding{From: up, To: to})
	}
	return slices.ContainsFunc(c.Services, func(s model.Service) bool {
		return protocol(s.Proto) == p.proto && slices.Contains(s.Zones, up) && slices.ContainsFunc(s.Ports, func(x model.PortRange) bool { return x.Contains(p.dport.First) }) &&
			(len(s.To) == 0 || slices.ContainsFunc(s.To, func(x netip.Prefix) bool { return x.Contains(p.to.Addr()) }))
	})
}

func FuzzCompile(f *testing.F) {
	denied := gatewayConfig()
	denied.Rules = []model.FirewallRule{
		{Name: "not-the-api", Action: model.Deny, From: up, To: model.ZoneLocal, Proto: "tcp", Ports: ports("8443")},
		{Name: "all-others", Action: model.Allow, From: up, To: model.ZoneLocal, Proto: "tcp"},
	}
	for _, c := range []Config{{}, nodeConfig(), gatewayConfig(), worldConfig(), denied} {
		b, err := json.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(8443), byte(unix.IPPROTO_TCP), uint32(0xc0000201))
	}
	f.Fuzz(func(t *testing.T, b []byte, port uint16, proto byte, source uint32) {
		var c Config
		if json.Unmarshal(b, &c) == nil {
			deniesByDefault(t, c, port, proto, source)
		}
		deniesByDefault(t, thrown(b), port, proto, source)
	})
}

// thrown is a gateway's configuration as dice make it.
func thrown(dice []byte) Config {
	next := func(n int) int {
		if len(dice) == 0 {
			return 0
		}
		v := int(dice[0]) % n
		dice = dice[1:]
		return v
	}
	zones := append(slices.Clone(model.Zones), model.ZoneLocal)
	nets := prefixes("192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0", "198.51.100.1/32", "10.42.0.0/16")
	some := func(n int) (list []model.PortRange) {
		for range n {
			first := uint16(1 + next(256)*next(256))
			list = append(list, model.PortRange{First: first, Last: first + uint16(next(3))})
		}
		return list
	}
	name := func(i int) string { return "x" + string(rune('a'+i)) }
	c := gatewayConfig()
	c.Rules, c.Ports, c.Services, c.Forwardings = nil, nil, nil, nil
	for i := range next(6) {
		r := model.FirewallRule{Name: name(i), Action: []string{model.Allow, model.Deny}[next(2)], From: zones[next(4)], To: zones[next(5)], Proto: []string{"", "tcp", "udp", "icmp"}[next(4)]}
		if r.Proto == "tcp" || r.Proto == "udp" {
			r.Ports = some(next(4))
		}
		for range next(3) {
			r.Sources = append(r.Sources, nets[next(len(nets))])
		}
		c.Rules = append(c.Rules, r)
	}
	for i := range next(5) {
		s := model.Service{Name: name(i), Proto: []string{"tcp", "udp"}[next(2)], Ports: some(1 + next(3)), Zones: zones[next(4):4]}
		if next(3) == 0 {
			s.To = nets[next(len(nets)):]
		}
		c.Services = append(c.Services, s)
	}
	for range next(4) {
		c.Forwardings = append(c.Forwardings, model.Forwarding{From: zones[next(4)], To: zones[next(4)]})
	}
	return c
}

// deniesByDefault holds what a configuration compiles to against what it opens.
func deniesByDefault(t *testing.T, c Config, port uint16, proto byte, source uint32) {
	t.Helper()
	rules, err := compile(c)
	if err != nil {
		return
	}
	for _, x := range rules {
		names := map[string]uint32{}
		for _, ch := range x.chains {
			for _, l := range ch.lines {
				l.lower(x.bridge, names)
				if l.counter != "" && !slices.ContainsFunc(x.counters, func(n counter) bool { return n.name == l.counter }) {
					t.Fatalf("counter %s is in no list", l.counter)
				}
			}
		}
	}
	inet := rules[0]
	// The configuration's own ports and sources are where mistakes would be.
	list, sources := []uint16{port, 22, 53, 67, 8080, 51820}, []netip.Addr{netip.AddrFrom4([4]byte{byte(source >> 24), byte(source >> 16), byte(source >> 8), byte(source)}), netip.MustParseAddr("2001:db8::1")}
	for _, r := range c.Rules {
		for _, p := range r.Ports {
			list = append(list, p.First, p.Last, p.Last+1)
		}
		for _, s := range r.Sources {
			sources = append(sources, s.Addr())
		}
	}
	for _, s := range c.Services {
		list = append(list, s.Ports[0].First)
	}
	for _, iface := range c.Interfaces[up] {
		for _, from := range sources {
			for _, dport := range list {
				for _, pr := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, proto} {
					if pr == unix.IPPROTO_ICMP || pr == unix.IPPROTO_ICMPV6 {
						continue
					}
					p := probe{in: iface}
					p.from, p.to = netip.PrefixFrom(from, from.BitLen()), netip.PrefixFrom(netip.MustParseAddr("198.51.100.1"), 32)
					if from.Is6() {
						p.to = netip.PrefixFrom(netip.MustParseAddr("2001:db8:1::1"), 128)
					}
					p.proto, p.sport, p.dport = pr, 40000, model.SinglePort(dport)
					if v, ok := inet.passes("input", p); ok && v == accept && !opened(c, p, model.ZoneLocal) {
						t.Fatalf("from %s to the device, nobody opened it: %+v", iface, p)
					} else if !ok {
						t.Fatalf("nothing decided on %+v", p)
					}
					for _, z := range model.Zones {
						for _, out := range c.Interfaces[z] {
							p.out = out
							if v, ok := inet.passes("forward", p); ok && v == accept && !opened(c, p, z) {
								t.Fatalf("from %s to %s, nobody opened it: %+v", iface, out, p)
							}
						}
					}
				}
			}
		}
	}
}

func TestPortRange(t *testing.T) {
	for _, s := range []string{"1", "65535", "5000-5010"} {
		var p model.PortRange
		if err := p.UnmarshalText([]byte(s)); err != nil || p.String() != s {
			t.Errorf("%s: got %s, %v", s, p, err)
		}
	}
	for _, s := range []string{"", "0", "65536", "10-9", "a", "1-", "-1", "1-2-3"} {
		var p model.PortRange
		if err := p.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q: expected an error, got %s", s, p)
		}
	}
}
