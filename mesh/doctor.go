package mesh

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/doctor"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// examineWait is how long somebody waits for an examination that he asked for. One
// of paths that are well takes a second, one that searches goes on behind.
const examineWait = 20 * time.Second

func (m *core) newDoctor(s side) *doctor.Doctor {
	return doctor.New(doctor.Config{
		Network: m.net, Node: m.id.Key.Public(), Iface: underlayIface(m.bundle), Around: s.around, Own: s.own, Underlay: m.under,
		Now: func() time.Time { now, _ := m.clock.Now(); return now }, Notify: m.events.Record, Log: m.Log,
	})
}

// Doctor tells what the path doctor knows.
func (m *core) Doctor() (model.DoctorReport, error) {
	if m.doctor == nil {
		return model.DoctorReport{}, fmt.Errorf("%w: this device has no network, and no paths", api.ErrNone)
	}
	return m.doctor.Report(), nil
}

// Examine has it look at all paths in use.
func (m *core) Examine(ctx context.Context) (model.DoctorReport, error) {
	if m.doctor == nil {
		return m.Doctor()
	}
	ctx, cancel := context.WithTimeout(ctx, examineWait)
	defer cancel()
	return m.doctor.Examine(ctx), nil
}

// own is what a node's path doctor takes for its own.
func (n *node) own() (doctor.Own, bool) {
	n.mu.Lock()
	wg, member := n.wg, n.member
	clients := paths.ClientsAlone
	if p, ok := n.list.Find(n.id.Key.Public()); ok && p.Clients.IsValid() {
		clients = p.Clients
	} else if member != nil && member.Clients.IsValid() {
		clients = member.Clients
	}
	n.mu.Unlock()
	if wg == nil || member == nil {
		return doctor.Own{}, false
	}
	return doctor.Own{V4: member.OverlayV4, Routes: n.overlayRoutes(), Clients: clients}, true
}

// around is what a node's path doctor looks at: the gateway, and the nodes that it
// speaks to directly.
func (n *node) around() (doctor.Own, []doctor.Peer, bool) {
	own, ok := n.own()
	n.mu.Lock()
	wg, member := n.wg, n.member
	names := map[string]string{}
	for _, p := range n.list.Peers {
		names[p.Key.ID()] = p.Name
	}
	n.mu.Unlock()
	if !ok || wg == nil || member == nil {
		return doctor.Own{}, nil, false
	}
	peers := doctorPeers(wg, append(n.directPeers(), n.gatewayPeer(*member)), names)
	gateway := &peers[len(peers)-1]
	gateway.Gateway, gateway.Overlay = true, identity.Overlay(n.net, n.net)
	gateway.Nets = append(slices.Clone(own.Routes), netip.PrefixFrom(paths.OverlayGateway, 32), netip.PrefixFrom(gateway.Overlay, 128))
	return own, peers, true
}

// own is what a gateway's path doctor takes for its own.
func (g *gateway) own() (doctor.Own, bool) {
	g.mu.Lock()
	wg := g.wg
	g.mu.Unlock()
	if wg == nil {
		return doctor.Own{}, false
	}
	return doctor.Own{V4: paths.OverlayGateway, Routes: g.overlayRoutes(), Clients: paths.ClientsGateway}, true
}

// around is what a gateway's path doctor looks at: all nodes.
func (g *gateway) around() (doctor.Own, []doctor.Peer, bool) {
	own, ok := g.own()
	g.mu.Lock()
	wg := g.wg
	peers := g.known.overlayPeers(g.net)
	names := map[string]string{}
	for _, p := range g.known.Peers {
		names[p.Node] = p.Name
	}
	g.mu.Unlock()
	if !ok || wg == nil {
		return doctor.Own{}, nil, false
	}
	return own, doctorPeers(wg, peers, names), true
}

// doctorPeers are peers of the overlay with what WireGuard says of them.
func doctorPeers(wg *overlay.Device, list []overlay.Peer, names map[string]string) []doctor.Peer {
	fresh := map[string]time.Time{}
	if status, err := wg.Handshakes(); err == nil { // without it, nobody seems to be in use
		for _, p := range status {
			if p.LastHandshake != nil {
				fresh[p.Node] = *p.LastHandshake
			}
		}
	}
	out := make([]doctor.Peer, 0, len(list))
	for _, p := range list {
		d := doctor.Peer{Node: p.Node, Name: names[p.Node], Underlay: p.Endpoint.Addr(), Nets: p.Allowed, Fresh: fresh[p.Node]}
		for _, a := range p.Allowed {
			if a.Bits() == 128 {
				d.Overlay = a.Addr()
			}
		}
		out = append(out, d)
	}
	return out
}

// Flooding tells whether batman-adv floods what goes to all.
func (u *batUnderlay) Flooding() (bool, error) {
	bat, _ := u.open()
	if bat == nil {
		return false, fmt.Errorf("the mesh interface: %w", fs.ErrNotExist)
	}
	i, err := bat.Info()
	return i.ForceFlood, err
}

// Flood has it do so.
func (u *batUnderlay) Flood() error {
	bat, _ := u.open()
	if bat == nil {
		return fmt.Errorf("the mesh interface: %w", fs.ErrNotExist)
	}
	return bat.Flood()
}

// Servers lists the members that offer a way out of the mesh.
func (u *batUnderlay) Servers() (list []doctor.Server, known bool, err error) {
	bat, _ := u.open()
	if bat == nil {
		return nil, false, nil
	}
	all, err := bat.Gateways()
	if err != nil {
		return nil, false, err
	}
	gateway := u.gatewayAddress()
	for _, g := range all {
		list = append(list, doctor.Server{MAC: g.MAC.String(), Chosen: g.Best, Ours: g.MAC.String() == gateway})
	}
	return list, gateway != "" || u.Key.Public() == u.Network, nil
}
