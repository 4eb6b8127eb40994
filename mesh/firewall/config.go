package firewall

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Config is all that the rules depend on.
type Config struct {
	Gateway     bool                    // uplinks may be forwarded to and are masqueraded
	Upstream6   bool                    // uplinks take router advertisements and DHCPv6
	Interfaces  map[model.Zone][]string // by name; they need not exist
	Networks    Networks
	Services    []model.Service
	Forwardings []model.Forwarding // none, and no port forward or rule that allows: nothing is forwarded at all
	Rules       []model.FirewallRule
	Ports       []model.PortForward // gateway only
	Guard       Guard               // of clients
	Guests      Guard               // of ports that are bridged into the mesh
}

// Networks says which addresses belong where. Underlay and Overlay count before
// Clients, which may contain them.
type Networks struct {
	Underlay []netip.Prefix // in the zone mesh
	Overlay  []netip.Prefix // in the zone overlay
	Clients  []netip.Prefix // of all nodes: behind the overlay, or in the zone clients
	Own      []netip.Prefix // those of Clients that this device serves; empty for a family: any of it
}

// Guard protects who is on a bridge from those behind some of its ports.
type Guard struct {
	Ports []string     // of the bridge
	Own   []netip.Addr // addresses that nobody there has, such as the device's own on the bridge, link-local ones too
	// Stations are hardware addresses of guests that have them all the same: the
	// gateway's, which another device with a port on the same network hands on.
	Stations []net.HardwareAddr
}

// Bounds of what the device configures by itself.
const (
	maxInterfaces = 64 // in a zone, and ports that are guarded
	maxNetworks   = 8  // of a kind
	maxOwn        = 16 // addresses on the bridge
	maxStations   = 64
)

// HALONetworks are those of a network: the IPv4 ones that all networks have, and
// its ULA /48 with the subnets of underlay and overlay; own are the clients'
// networks of this device.
func HALONetworks(network identity.PublicKey, own ...netip.Prefix) Networks {
	subnet := func(a netip.Addr, bits int) netip.Prefix { return netip.PrefixFrom(a, bits).Masked() }
	underlay, overlay := identity.Underlay(network, network), identity.Overlay(network, network)
	return Networks{
		Underlay: []netip.Prefix{paths.UnderlayNet, subnet(underlay, 64)},
		Overlay:  []netip.Prefix{paths.OverlayNet, subnet(overlay, 64)},
		Clients:  []netip.Prefix{paths.ClientsNet, subnet(overlay, 48)},
		Own:      own,
	}
}

// all are the network's addresses of any kind.
func (n Networks) all() []netip.Prefix {
	list := slices.Concat(n.Underlay, n.Overlay, n.Clients)
	return slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool {
		return slices.ContainsFunc(list, func(o netip.Prefix) bool { return o != p && o.Bits() < p.Bits() && o.Contains(p.Addr()) })
	})
}

// Well-known ports (IANA) that have no name in paths.
const (
	portDHCP  = 67
	portHTTPS = 443
)

// Services are those that a device offers without anybody's configuration; door
// is halo-mesh's on the overlay, 0 while it has none. A service is opened to the
// uplink by adding one with that zone.
func Services(gateway bool, door uint16) []model.Service {
	s := func(name, proto string, port uint16, zones ...model.Zone) model.Service {
		return model.Service{Name: name, Proto: proto, Ports: []model.PortRange{model.SinglePort(port)}, Zones: zones}
	}
	list := []model.Service{
		s("wireguard", "udp", paths.WireGuardPort, model.ZoneMesh),
		s("announce", "udp", paths.AnnouncePort, model.ZoneMesh),
		s("doctor", "udp", paths.DoctorPort, model.ZoneMesh, model.ZoneOverlay),
		s("dhcp", "udp", portDHCP, model.ZoneClients),
		s("dns", "udp", paths.DNSPort, model.ZoneClients),
		s("dns", "tcp", paths.DNSPort, model.ZoneClients),
		s("mdns", "udp", paths.MDNSPort, model.ZoneClients),
		s("ntp", "udp", paths.NTPPort, model.ZoneClients),
		s("field", "tcp", paths.FieldPort, model.ZoneClients),
		s("field-tls", "tcp", portHTTPS, model.ZoneClients),
		s("gpsd", "tcp", paths.GPSDPort, model.ZoneClients), // halo-agent listens where a receiver is to be shared
		s("relay", "udp", paths.RelayPort, model.ZoneOverlay),
		s("speed-test", "tcp", paths.SpeedPort, model.ZoneOverlay), // halo-agent listens while it is told to
		s("cameras", "tcp", paths.CameraPort, model.ZoneOverlay),   // halo-agent answers the gateway alone
	}
	// What the overlay carries is tracked inside of it, and WireGuard bounds who it
	// answers: looking for a connection for each of its packets costs a third of what
	// the processor carries.
	list[0].Untracked = true
	if door != 0 {
		list = append(list, s("door", "tcp", door, model.ZoneOverlay, model.ZoneClients))
	}
	if gateway {
		for i := range list {
			switch list[i].Name {
			case "dns":
				list[i].Zones = append(list[i].Zones, model.ZoneOverlay)
			case "ntp":
				list[i].Zones = append(list[i].Zones, model.ZoneOverlay, model.ZoneMesh)
			case "dhcp":
				list[i].Zones = append(list[i].Zones, model.ZoneMesh)
			}
		}
		api := s("api", "tcp", paths.APIPort, model.ZoneOverlay, model.ZoneClients)
		api.To = []netip.Prefix{paths.OverlayNet}
		list = append(list, api, s("portal", "tcp", paths.APITLSPort, model.ZoneMesh, model.ZoneOverlay, model.ZoneClients), s("members", "tcp", paths.PeerListPort, model.ZoneOverlay))
	}
	return list
}

// Multicast are the groups of clients that the device listens to.
func Multicast(groups []netip.AddrPort) (list []model.Service) {
	for _, g := range groups {
		name := strings.ReplaceAll(strings.ReplaceAll(g.String(), ".", "-"), ":", "-")
		list = append(list, model.Service{
			Name: "mc-" + name, Proto: "udp", Ports: []model.PortRange{model.SinglePort(g.Port())},
			Zones: []model.Zone{model.ZoneClients}, To: []netip.Prefix{netip.PrefixFrom(g.Addr(), 32)},
		})
	}
	return list
}

// Forwardings are those that a device needs that has clients, or a gateway: a
// node's clients go by the overlay whatever they want, its gateway's own clients
// straight to the uplink.
func Forwardings(gateway bool) []model.Forwarding {
	list := []model.Forwarding{
		{From: model.ZoneClients, To: model.ZoneOverlay},
		{From: model.ZoneOverlay, To: model.ZoneClients},
	}
	if gateway {
		list = append(list,
			model.Forwarding{From: model.ZoneClients, To: model.ZoneUplink},
			model.Forwarding{From: model.ZoneOverlay, To: model.ZoneUplink})
	}
	return list
}

// Validate says what is wrong with c; nothing of it is applied then.
func (c Config) Validate() error {
	if err := c.validate(); err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	return nil
}

func (c Config) validate() error {
	zoneOf := map[string]model.Zone{}
	for z, list := range c.Interfaces {
		if !slices.Contains(model.Zones, z) {
			return fmt.Errorf("interfaces: expected uplink, mesh, clients or overlay, got zone %.40q", z)
		}
		if err := validInterfaces(string(z), list); err != nil {
			return err
		}
		for _, name := range list {
			if other, ok := zoneOf[name]; ok {
				a, b := min(z, other), max(z, other)
				return fmt.Errorf("interface %s: expected it in one zone, got %s and %s", name, a, b)
			}
			zoneOf[name] = z
		}
	}
	if err := cmp.Or(c.Networks.validate(), c.Guard.validate(), c.Guests.validate(), c.validGuards()); err != nil {
		return err
	}
	if err := validList("services", c.Services, model.MaxServices, func(s model.Service) string { return s.Name + "/" + s.Proto }); err != nil {
		return err
	}
	if err := validList("rules", c.Rules, model.MaxFirewallRules, func(r model.FirewallRule) string { return r.Name }); err != nil {
		return err
	}
	if err := validList("port forwards", c.Ports, model.MaxPortForwards, func(f model.PortForward) string { return f.Name }); err != nil {
		return err
	}
	if err := validList("forwardings", c.Forwardings, len(model.Zones)*len(model.Zones), func(f model.Forwarding) string {
		return fmt.Sprintf("%s to %s", f.From, f.To)
	}); err != nil {
		return err
	}
	return cmp.Or(c.validUplink(), c.validLines())
}

// validUplink holds what crosses an uplink to gateways.
func (c Config) validUplink() error {
	for _, f := range c.Forwardings {
		if !c.Gateway && (f.From == model.ZoneUplink || f.To == model.ZoneUplink) {
			return fmt.Errorf("forwarding %s to %s: only a gateway forwards to or from an uplink", f.From, f.To)
		}
	}
	for _, r := range c.Rules {
		if !c.Gateway && r.Action == model.Allow && r.To != model.ZoneLocal && (r.From == model.ZoneUplink || r.To == model.ZoneUplink) {
			return fmt.Errorf("rule %s: only a gateway forwards to or from an uplink", r.Name)
		}
	}
	for i, f := range c.Ports {
		if !c.Gateway {
			return fmt.Errorf("port forward %s: only a gateway has them", f.Name)
		}
		inside := func(p netip.Prefix) bool { return p.Contains(f.To) }
		if slices.ContainsFunc(c.Networks.Underlay, inside) || !slices.ContainsFunc(slices.Concat(c.Networks.Overlay, c.Networks.Clients), inside) {
			return fmt.Errorf("port forward %s: expected an address of a client or of the overlay, got %s", f.Name, f.To)
		}
		for _, o := range c.Ports[:i] {
			if o.Proto == f.Proto && o.To.Is4() == f.To.Is4() && o.Port.Overlaps(f.Port) {
				return fmt.Errorf("port forward %s: expected %s ports of its own, got %s, which %s has", f.Name, f.Proto, f.Port, o.Name)
			}
		}
		for _, s := range c.Services {
			if s.Proto == f.Proto && slices.Contains(s.Zones, model.ZoneUplink) && slices.ContainsFunc(s.Ports, f.Port.Overlaps) {
				return fmt.Errorf("port forward %s: %s port %s is open to the uplink for the service %s", f.Name, f.Proto, f.Port, s.Name)
			}
		}
	}
	return nil
}

// validLines bounds what a packet may have to walk through.
func (c Config) validLines() error {
	n := 0
	for _, r := range c.Rules {
		n += max(1, len(r.Sources)) * max(1, len(r.Ports))
	}
	for _, f := range c.Ports {
		n += max(1, len(f.Sources))
	}
	if n > model.MaxRuleLines {
		return fmt.Errorf("rules and port forwards: expected at most %d combinations of sources and ports, got %d", model.MaxRuleLines, n)
	}
	return nil
}

func validList[T interface{ Validate() error }](what string, list []T, most int, name func(T) string) error {
	if len(list) > most {
		return fmt.Errorf("%s: expected at most %d, got %d", what, most, len(list))
	}
	seen := map[string]bool{}
	for _, v := range list {
		if err := v.Validate(); err != nil {
			return err
		}
		if seen[name(v)] {
			return fmt.Errorf("%s: expected each once, got %s twice", what, name(v))
		}
		seen[name(v)] = true
	}
	return nil
}

func (n Networks) validate() error {
	for what, list := range map[string][]netip.Prefix{"underlay": n.Underlay, "overlay": n.Overlay, "clients": n.Clients, "own": n.Own} {
		if len(list) > maxNetworks {
			return fmt.Errorf("networks: %s: expected at most %d, got %d", what, maxNetworks, len(list))
		}
		for _, p := range list {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 {
				return fmt.Errorf("networks: %s: expected a prefix such as 10.43.1.0/24, without bits behind its length; got %s", what, p)
			}
		}
	}
	for _, own := range n.Own {
		if !slices.ContainsFunc(n.Clients, func(p netip.Prefix) bool { return p.Bits() <= own.Bits() && p.Contains(own.Addr()) }) {
			return fmt.Errorf("networks: own: expected parts of the clients' networks %s, got %s", n.Clients, own)
		}
	}
	return nil
}

func (g Guard) validate() error {
	if err := validInterfaces("guarded ports", g.Ports); err != nil {
		return err
	}
	if len(g.Own) > maxOwn {
		return fmt.Errorf("guard: expected at most %d addresses, got %d", maxOwn, len(g.Own))
	}
	for _, a := range g.Own {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() {
			return fmt.Errorf("guard: expected an address of the bridge without a zone, got %q", a)
		}
	}
	if len(g.Stations) > maxStations {
		return fmt.Errorf("guard: expected at most %d hardware addresses, got %d", maxStations, len(g.Stations))
	}
	seen := map[string]bool{}
	for _, a := range g.Stations {
		if len(a) != 6 || seen[string(a)] {
			return fmt.Errorf("guard: expected hardware addresses of 6 octets, each once; got %s", a)
		}
		seen[string(a)] = true
	}
	return nil
}

// validGuards holds that a port leads to one kind of hosts.
func (c Config) validGuards() error {
	for _, p := range c.Guests.Ports {
		if slices.Contains(c.Guard.Ports, p) {
			return fmt.Errorf("guard: port %s: expected clients or guests behind it, got both", p)
		}
	}
	return nil
}

func validInterfaces(what string, list []string) error {
	if len(list) > maxInterfaces {
		return fmt.Errorf("%s: expected at most %d interfaces, got %d", what, maxInterfaces, len(list))
	}
	seen := map[string]bool{}
	for _, name := range list {
		bad := strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == ':' || r == '"' || r == '*' })
		if bad || name == "" || len(name) > 15 || name == "lo" {
			return fmt.Errorf("%s: expected the name of an interface that leads out, up to 15 characters; got %.40q", what, name)
		}
		if seen[name] {
			return fmt.Errorf("%s: expected each interface once, got %s twice", what, name)
		}
		seen[name] = true
	}
	return nil
}
