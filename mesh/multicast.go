package mesh

import (
	"net/netip"
	"time"

	"halo.internal/mesh/overlay"
	"halo.internal/mesh/relay"
	"halo.internal/model/paths"
)

// newRelay carries multicast between the clients of this device and those of others.
func (m *core) newRelay(s side) *relay.Relay {
	return relay.New(relay.Config{Groups: m.groups(), Kbit: m.bundle.Multicast.Rate(), Log: m.Log, Handshakes: func() map[string]time.Time {
		return handshakes(s.overlay())
	}})
}

// groups are those that are carried.
func (m *core) groups() []netip.AddrPort {
	list, err := m.bundle.Multicast.List()
	if err != nil {
		panic("mesh: bundle was not checked: " + err.Error()) // Parse does
	}
	return list
}

// handshakes returns when WireGuard has last heard its peers, by canonical ID.
func handshakes(wg *overlay.Device) map[string]time.Time {
	if wg == nil {
		return nil
	}
	peers, err := wg.Status()
	if err != nil {
		return nil
	}
	out := map[string]time.Time{}
	for _, p := range peers {
		if p.LastHandshake != nil {
			out[p.Node] = *p.LastHandshake
		}
	}
	return out
}

func (g *gateway) overlay() *overlay.Device {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wg
}

func (n *node) overlay() *overlay.Device {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wg
}

// relays is between whom a gateway carries multicast.
func (g *gateway) relays() relay.Wanted {
	w := relay.Wanted{Overlay: paths.OverlayGateway, Clients: paths.ClientsGateway}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.known.Peers {
		w.Members = append(w.Members, relay.Member{Node: p.Node, Overlay: p.OverlayV4, Clients: p.Clients})
	}
	return w
}

// relays is between whom a node does: the gateway, and those that it speaks to
// without a turn through it.
func (n *node) relays() relay.Wanted {
	var w relay.Wanted
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.member == nil {
		return w
	}
	w.Overlay, w.Clients = n.member.OverlayV4, n.member.Clients
	w.Members = []relay.Member{{Node: n.net.ID(), Overlay: paths.OverlayGateway, Clients: paths.ClientsGateway}}
	for _, p := range n.members() {
		if p.Key == n.id.Key.Public() {
			w.Clients = p.Clients // it may have got one since it joined
			continue
		}
		w.Members = append(w.Members, relay.Member{Node: p.Key.ID(), Overlay: p.Overlay, Clients: p.Clients})
	}
	return w
}
