package mesh

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/dns"
	"halo.internal/mesh/lan"
	"halo.internal/mesh/ntp"
	"halo.internal/mesh/port"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// gatewayName is what the gateway is called in .halo whatever else it is called.
const gatewayName = "gateway"

func (m *core) newLAN() *lan.LAN {
	return lan.New(lan.Config{
		Role: m.Role, Network: m.net, Node: m.id.Key.Public(), Root: m.Root, Open: m.bundle.Firewall.Uplink,
		Groups: m.groups(), Underlay: underlayIface(m.bundle), Guests: guestPorts(m.bundle),
		Clock: m.reading, Door: paths.DoorPort, Notify: m.events.Record, Log: m.Log,
	})
}

// reading is the clock as clients are told it.
func (m *core) reading() ntp.Reading {
	now, quality := m.clock.Now()
	gateway, set := m.clock.Compared()
	return ntp.Reading{Now: now, Quality: quality, Gateway: gateway, Set: set}
}

// followServices keeps what is done for clients as the network and the ports say.
func (m *core) followServices(ctx context.Context, s side) error {
	t := time.NewTicker(retryUnderlay) // a port's settings have no event of their own
	defer t.Stop()
	for {
		w := s.serves()
		m.place(&w, m.under.Ports())
		m.lan.Set(w)
		m.setRelay(s.relays())
		select {
		case <-ctx.Done():
			return nil
		case <-m.serveNow:
		case <-t.C:
		}
	}
}

// place says where clients and uplinks are. Only a gateway's ports may turn out to lead
// upstream after all.
func (m *core) place(w *lan.Wanted, ports []model.Port) {
	for _, p := range ports {
		switch p.Role {
		case port.Client:
			w.Ports = append(w.Ports, p.Iface)
			if m.Role == model.RoleGateway && !p.Pinned {
				w.Trial = append(w.Trial, p.Iface)
			}
		case port.Uplink:
			w.Uplinks = append(w.Uplinks, p.Iface)
		}
	}
}

// serves is what a gateway's clients get.
func (g *gateway) serves() lan.Wanted {
	w := lan.Wanted{Name: g.name(), Clients: paths.ClientsGateway, Aside: g.voice.Twinned().Aside}
	w.Hosts = names(nil, g.name(), paths.OverlayGateway, identity.Overlay(g.net, g.net))
	w.Hosts = names(w.Hosts, gatewayName, paths.OverlayGateway, identity.Overlay(g.net, g.net))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.known.Peers {
		w.Hosts = names(w.Hosts, p.Name, p.OverlayV4, p.OverlayV6)
	}
	w.Hosts = append(w.Hosts, g.brain()...) // last: an address's own name is its device's
	return w
}

// serves is what a node's clients get. One that has not joined yet serves them
// too, so that people can see from a phone why.
func (n *node) serves() lan.Wanted {
	w := lan.Wanted{Name: n.name(), Clients: paths.ClientsAlone}
	w.Hosts = names(nil, gatewayName, paths.OverlayGateway, identity.Overlay(n.net, n.net))
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.member != nil {
		w.Name, w.Clients = n.member.Name, n.member.Clients
		w.Hosts = names(w.Hosts, n.member.Name, n.member.OverlayV4, n.member.OverlayV6)
	}
	for _, p := range n.list.Peers {
		if p.Key == n.id.Key.Public() {
			continue
		}
		w.Hosts = names(w.Hosts, p.Name, p.Overlay, identity.Overlay(n.net, p.Key))
	}
	return w
}

// names adds the name of a device, unless it is there: the first to have it keeps it.
// Names of neurons' components are no device's, whatever it calls itself.
func names(list []dns.Host, name string, addresses ...netip.Addr) []dns.Host {
	name = dns.Label(name)
	if _, _, err := model.ParseComponentName(name); err == nil {
		return list
	}
	if name == "" || slices.ContainsFunc(list, func(h dns.Host) bool { return h.Name == name }) {
		return list
	}
	return append(list, dns.Host{Name: name, Addresses: addresses})
}

// Leases are the addresses that the device has given, by interface.
func (m *core) Leases() (map[string][]model.Lease, error) {
	if m.lan == nil {
		return nil, fmt.Errorf("%w: this device gives no addresses", api.ErrNone)
	}
	return m.lan.Leases(), nil
}

// Firewall tells what the firewall does and has counted.
func (m *core) Firewall() (model.FirewallStatus, error) {
	if m.lan == nil {
		return model.FirewallStatus{}, fmt.Errorf("%w: this device has no firewall", api.ErrNone)
	}
	return m.lan.Firewall()
}

// DNS tells what the name server knows and has done.
func (m *core) DNS() (model.DNSStatus, error) {
	if m.lan == nil {
		return model.DNSStatus{}, fmt.Errorf("%w: this device answers no names", api.ErrNone)
	}
	return m.lan.DNS(), nil
}
