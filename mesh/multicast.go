package mesh

import (
	"net/netip"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/relay"
	"halo.internal/model/dot11"
	"halo.internal/model/paths"
)

// setRelay says between whom multicast is carried. Members that there is no way to are
// left alone: each try to reach one is a broadcast for its address, which all carry.
func (m *core) setRelay(w relay.Wanted, keys []identity.PublicKey) {
	there := m.under.Present()
	for i, key := range keys {
		away := there != nil
		for turn := range uint8(batman.Turns) {
			away = away && !there[dot11.MAC(batman.MAC(key, turn))]
		}
		w.Members[i].Away = away
	}
	m.relay.Set(w)
}

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
	peers, err := wg.Handshakes()
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

// relays is between whom a gateway carries multicast, and the members' keys.
func (g *gateway) relays() (w relay.Wanted, keys []identity.PublicKey) {
	w = relay.Wanted{Overlay: paths.OverlayGateway, Clients: paths.ClientsGateway}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.known.Peers {
		if key, err := identity.ParsePublicKey(p.IdentityKey); err == nil { // setPeers has checked it
			w.Members = append(w.Members, relay.Member{Node: p.Node, Overlay: p.OverlayV4, Clients: p.Clients})
			keys = append(keys, key)
		}
	}
	return w, keys
}

// relays is between whom a node does: the gateway, and those that it speaks to
// without a turn through it.
func (n *node) relays() (w relay.Wanted, keys []identity.PublicKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.member == nil {
		return w, nil
	}
	w.Overlay, w.Clients = n.member.OverlayV4, n.member.Clients
	w.Members = []relay.Member{{Node: n.net.ID(), Overlay: paths.OverlayGateway, Clients: paths.ClientsGateway}}
	keys = append(keys, n.net)
	for _, p := range n.members() {
		if p.Key == n.id.Key.Public() {
			w.Clients = p.Clients // it may have got one since it joined
			continue
		}
		w.Members = append(w.Members, relay.Member{Node: p.Key.ID(), Overlay: p.Overlay, Clients: p.Clients})
		keys = append(keys, p.Key)
	}
	return w, keys
}
