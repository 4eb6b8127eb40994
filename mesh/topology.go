package mesh

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

// member is one whose key is known, with the name that people gave it.
type member struct {
	key  identity.PublicKey
	name string
}

// topology tells what routing knows, with the members that its addresses are said to
// be of.
func (m *core) topology(members []member) (model.MeshTopology, error) {
	keys := make([]identity.PublicKey, len(members))
	t := model.MeshTopology{Names: map[string]string{}}
	for i, o := range members {
		keys[i] = o.key
		if o.name != "" {
			t.Names[o.key.ID()] = o.name
		}
	}
	if err := m.answers(); err != nil {
		return t, err
	}
	w, err := m.under.Ways(keys)
	if err != nil {
		return t, err
	}
	neighbours, err := m.under.Neighbours()
	if err != nil {
		return t, err
	}
	t.Node, t.Gateway, t.Routing, t.Originators = m.id.Key.ID(), m.net.ID(), w.Algorithm, originators(w)
	t.Names[t.Node] = m.name()
	t.Neighbours = slices.DeleteFunc(model.MeshStatus{Radios: m.under.Radios(), Neighbours: neighbours}.Peers(), func(p model.MeshPeer) bool {
		return p.Routing == nil && (p.Radio == nil || !p.Radio.Linked)
	})
	for i := range t.Neighbours {
		p := &t.Neighbours[i]
		p.Node = cmp.Or(p.Node, w.Nodes[p.MAC])
	}
	return t, nil
}

// Topology of a gateway: it knows all members.
func (g *gateway) Topology() (model.MeshTopology, error) {
	var members []member
	g.mu.Lock()
	for _, p := range g.known.Peers {
		if key, err := identity.ParsePublicKey(p.IdentityKey); err == nil { // setPeers has checked it
			members = append(members, member{key, p.Name})
		}
	}
	g.mu.Unlock()
	return g.topology(members)
}

// Topology of a node: it knows those on the list that the gateway has signed last,
// also when that is past its time.
func (n *node) Topology() (model.MeshTopology, error) {
	members := []member{{key: n.net}}
	n.mu.Lock()
	for _, p := range n.list.Peers {
		members = append(members, member{p.Key, p.Name})
	}
	n.mu.Unlock()
	return n.topology(members)
}

// Ways is what routing knows of the mesh.
type Ways struct {
	Algorithm string // empty while there is no mesh interface
	Known     []batman.Originator
	Nodes     map[string]string // canonical IDs by the addresses of originators
}

// Ways asks batman-adv.
func (u *batUnderlay) Ways(members []identity.PublicKey) (w Ways, err error) {
	bat, _ := u.open()
	if bat == nil {
		return w, nil
	}
	info, err := bat.Info()
	if err != nil {
		return w, err
	}
	if w.Known, err = bat.Originators(); err != nil {
		return w, err
	}
	clients, err := bat.Clients()
	if err != nil {
		return w, err
	}
	w.Algorithm, w.Nodes = info.Algorithm, nodesBehind(clients, members)
	return w, nil
}

// nodesBehind tells whose each originator is: the member's whose bat0 has an address,
// which follows from its key, that is said to be behind it. One that is said to be
// two members' is nobody's: a node says so itself, and nothing proves it.
func nodesBehind(clients []batman.Client, members []identity.PublicKey) map[string]string {
	of := map[dot11.MAC]string{}
	for _, key := range members {
		for turn := range uint8(batman.Turns) {
			of[dot11.MAC(batman.MAC(key, turn))] = key.ID()
		}
	}
	nodes, twice := map[string]string{}, map[string]bool{}
	for _, c := range clients {
		if len(c.MAC) != len(dot11.MAC{}) || !c.Best {
			continue
		}
		id, at := of[dot11.MAC(c.MAC)], c.Originator.String()
		if id == "" {
			continue
		}
		twice[at] = twice[at] || nodes[at] != "" && nodes[at] != id
		nodes[at] = id
	}
	maps.DeleteFunc(nodes, func(at, _ string) bool { return twice[at] })
	return nodes
}

// originators makes one of all ways to each node: that in use, and how many there
// are besides. Dozens of ways to hundreds of nodes would not pass a slow link.
func originators(w Ways) []model.MeshOriginator {
	at := map[string]int{}
	out := []model.MeshOriginator{}
	for _, o := range w.Known {
		mac := o.MAC.String()
		i, known := at[mac]
		if !known {
			i = len(out)
			at[mac] = i
			out = append(out, model.MeshOriginator{MAC: mac, Node: w.Nodes[mac], LastSeenMS: o.LastSeen.Milliseconds()})
		}
		m := &out[i]
		if !o.Best {
			m.Others++
			if m.NextHop == "" {
				m.LastSeenMS = min(m.LastSeenMS, o.LastSeen.Milliseconds())
			}
			continue
		}
		m.NextHop, m.Iface = o.NextHop.String(), o.Iface
		m.NextHopNode = w.Nodes[m.NextHop]
		m.LastSeenMS, m.TQ, m.Throughput = o.LastSeen.Milliseconds(), o.TQ, o.Throughput
	}
	order.By(out, func(a, b model.MeshOriginator) int { return strings.Compare(a.MAC, b.MAC) })
	return out
}
