package mesh

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/batman"
	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

// maxEntries bounds a table of the kernel's that is answered: strangers on the mesh
// can fill it.
const maxEntries = 4096

// Interfaces are the device's network interfaces with what their drivers count.
func (m *core) Interfaces() ([]model.InterfaceDetail, error) {
	if err := m.answers(); err != nil {
		return nil, err
	}
	var ports []model.Port
	if m.under != nil {
		ports = m.under.Ports()
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	return details(interfaces(ports), links, "/sys/class/net"), nil
}

// details adds what the links and the files of sysfs say.
func details(list []model.Interface, links []netlink.Link, sysfs string) []model.InterfaceDetail {
	names, byName := map[int]string{}, map[string]*netlink.LinkAttrs{}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index], byName[a.Name] = a.Name, a
	}
	out := []model.InterfaceDetail{}
	for _, i := range list {
		a := byName[i.Name]
		if a == nil {
			continue // it went away in between
		}
		d := model.InterfaceCounters{Index: a.Index, MTU: a.MTU, Master: names[a.MasterIndex], Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0}
		if s := a.Statistics; s != nil {
			d.RxPackets, d.TxPackets, d.RxErrors, d.TxErrors, d.RxDropped, d.TxDropped = s.RxPackets, s.TxPackets, s.RxErrors, s.TxErrors, s.RxDropped, s.TxDropped
		}
		d.CarrierChanges = uint32(max(0, readNumber(sysfs, i.Name, "carrier_changes")))
		if i.Kind == "ethernet" && d.Carrier { // others' drivers make something up
			d.SpeedMbps = max(0, readNumber(sysfs, i.Name, "speed"))
			if duplex := readWord(sysfs, i.Name, "duplex"); duplex == "full" || duplex == "half" {
				d.Duplex = duplex
			}
		}
		out = append(out, model.InterfaceDetail{Interface: i, Detail: &d})
	}
	return out
}

func readWord(sysfs, iface, file string) string {
	b, err := os.ReadFile(filepath.Join(sysfs, iface, file))
	if err != nil {
		return "" // a driver that does not know
	}
	return strings.TrimSpace(string(b))
}

func readNumber(sysfs, iface, file string) int {
	n, err := strconv.Atoi(readWord(sysfs, iface, file))
	if err != nil {
		return -1
	}
	return n
}

var neighbourStates = map[int]string{
	netlink.NUD_REACHABLE: "reachable", netlink.NUD_STALE: "stale", netlink.NUD_DELAY: "delay", netlink.NUD_PROBE: "probe",
	netlink.NUD_INCOMPLETE: "incomplete", netlink.NUD_FAILED: "failed", netlink.NUD_PERMANENT: "permanent", netlink.NUD_NOARP: "noarp",
}

// NeighbourTable is whose hardware addresses the kernel knows.
func (m *core) NeighbourTable() ([]model.NeighbourEntry, error) {
	if err := m.answers(); err != nil {
		return nil, err
	}
	list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("neighbours: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("neighbours: %w", err)
	}
	return entries(list, links), nil
}

// entries leaves out what is nobody: multicast and the loopback.
func entries(list []netlink.Neigh, links []netlink.Link) []model.NeighbourEntry {
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	out := []model.NeighbourEntry{}
	for _, n := range list {
		ip, ok := netip.AddrFromSlice(n.IP)
		if ip = ip.Unmap(); !ok || ip.IsMulticast() || ip == netip.MustParseAddr("255.255.255.255") || n.Family == unix.AF_BRIDGE {
			continue
		}
		state, known := neighbourStates[n.State]
		iface := names[n.LinkIndex]
		if !known || iface == "" || iface == "lo" || len(out) == maxEntries {
			continue
		}
		e := model.NeighbourEntry{Address: ip, Iface: iface, State: state, Router: n.Flags&netlink.NTF_ROUTER != 0}
		if len(n.HardwareAddr) == 6 && !bytes.Equal(n.HardwareAddr, make([]byte, 6)) {
			e.MAC = n.HardwareAddr.String()
		}
		out = append(out, e)
	}
	order.By(out, func(a, b model.NeighbourEntry) int {
		return cmp.Or(cmp.Compare(a.Iface, b.Iface), a.Address.Compare(b.Address))
	})
	return out
}

// clientsSeen is where clients show.
type clientsSeen struct {
	leases     map[string][]model.Lease // by interface
	neighbours []model.NeighbourEntry
	local      []batman.Client // of bridged ports of this device
	global     []batman.Client // of others'; nil: others tell of theirs themselves
	members    map[dot11.MAC]bool
	nodes      map[string]string // of originators
	underlay   string            // interface
}

// clients makes one of all that is seen of each hardware address.
func (s clientsSeen) clients() []model.Client {
	seen := map[string]*model.Client{}
	get := func(mac, iface string, guest bool) *model.Client {
		if hw, err := dot11.ParseMAC(mac); err != nil || s.members[hw] {
			return nil
		}
		c := seen[mac]
		if c == nil && len(seen) < model.MaxClients {
			c = &model.Client{MAC: mac, Iface: iface, Guest: guest}
			seen[mac] = c
		}
		return c
	}
	has := func(c *model.Client, a netip.Addr) {
		if !slices.Contains(c.Addresses, a) && len(c.Addresses) < maxAddresses {
			c.Addresses = append(c.Addresses, a)
		}
	}
	for _, iface := range slices.Sorted(maps.Keys(s.leases)) {
		for _, l := range s.leases[iface] {
			c := get(l.MAC, iface, iface != paths.ClientBridge)
			if c == nil {
				continue
			}
			has(c, l.Address)
			c.Hostname, c.Name, c.Reserved, c.Present = l.Hostname, l.Name, l.Reserved, c.Present || l.Heard
		}
	}
	for _, n := range s.neighbours {
		if n.MAC == "" || n.State == "failed" || n.State == "incomplete" || n.State == "permanent" || n.State == "noarp" {
			continue
		}
		// On the mesh this device knows those that it speaks with; that they are guests
		// of some port, the translation tables tell.
		if n.Iface != paths.ClientBridge && seen[n.MAC] == nil {
			continue
		}
		if c := get(n.MAC, n.Iface, false); c != nil {
			has(c, n.Address)
			c.Present = true
		}
	}
	own := func(b batman.Client) string { return b.Originator.String() }
	for _, list := range [][]batman.Client{s.local, s.global} {
		for _, b := range list {
			if len(b.MAC) != 6 || b.MAC[0]&1 != 0 {
				continue
			}
			c := get(b.MAC.String(), s.underlay, true)
			if c == nil {
				continue
			}
			c.Guest, c.Present = true, true
			if len(b.Originator) == 6 && (b.Best || c.Behind == "") {
				c.Behind = own(b)
				c.Node = s.nodes[c.Behind]
			}
		}
	}
	out := []model.Client{}
	for _, mac := range slices.Sorted(maps.Keys(seen)) {
		c := seen[mac]
		order.By(c.Addresses, netip.Addr.Compare)
		out = append(out, *c)
	}
	return out
}

const maxAddresses = 16 // of a client, which chooses them as it likes

// clients tells who is behind the device; members are all that are known, and others
// says that guests behind them are to be told of, too.
func (m *core) clients(members []identity.PublicKey, others bool) ([]model.Client, error) {
	if err := m.answers(); err != nil {
		return nil, err
	}
	leases, err := m.Leases()
	if err != nil {
		return nil, err
	}
	s := clientsSeen{leases: leases, members: map[dot11.MAC]bool{}, underlay: underlayIface(m.bundle)}
	for _, key := range append(slices.Clone(members), m.net, m.id.Key.Public()) {
		for turn := range uint8(batman.Turns) {
			mac := batman.MAC(key, turn)
			s.members[dot11.MAC(mac)], s.members[dot11.MAC(batman.Aside(mac))] = true, true
		}
	}
	if s.neighbours, err = m.NeighbourTable(); err != nil {
		return nil, err
	}
	t, err := m.under.Tables(model.BatmanLocal, model.BatmanGlobal)
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	for _, l := range links { // the device's own are behind it as well
		if hw := l.Attrs().HardwareAddr; len(hw) == 6 {
			s.members[dot11.MAC(hw)] = true
		}
	}
	s.local, s.nodes = t.Local, nodesBehind(t.Global, members)
	if others {
		s.global = t.Global
	}
	return s.clients(), nil
}

// Clients of a gateway: its own, and guests of the mesh behind whatever member.
func (g *gateway) Clients() ([]model.Client, error) { return g.clients(g.roll(), true) }

// Clients of a node are its own.
func (n *node) Clients() ([]model.Client, error) { return n.clients(n.roll(), false) }

// Batman returns one of batman-adv's tables.
func (g *gateway) Batman(table string) (model.BatmanTables, error) { return g.batman(table, g.roll()) }

// Batman returns one of batman-adv's tables.
func (n *node) Batman(table string) (model.BatmanTables, error) { return n.batman(table, n.roll()) }

func (m *core) batman(table string, members []identity.PublicKey) (model.BatmanTables, error) {
	out := model.BatmanTables{Node: m.id.Key.ID()}
	known := []string{model.BatmanConfigTable, model.BatmanInterfaces, model.BatmanOriginators, model.BatmanNeighbours, model.BatmanLocal, model.BatmanGlobal, model.BatmanGateways}
	if !slices.Contains(known, table) {
		return out, fmt.Errorf("%w: table: expected one of %s, got %.40q", api.ErrNone, strings.Join(known, ", "), table)
	}
	if err := m.answers(); err != nil {
		return out, err
	}
	if table == model.BatmanNeighbours {
		var err error
		out.Neighbours, err = m.under.Neighbours()
		return out, err
	}
	t, err := m.under.Tables(table, model.BatmanGlobal) // which tells whose originators are
	if err != nil {
		return out, err
	}
	all := append(slices.Clone(members), m.net, m.id.Key.Public())
	t.into(&out, table, nodesBehind(t.Global, all), ofMembers(all))
	return out, nil
}

// ofMembers are the canonical IDs of those whose mesh interfaces have an address.
func ofMembers(members []identity.PublicKey) map[string]string {
	of := map[string]string{}
	for _, key := range members {
		for turn := range uint8(batman.Turns) {
			of[batman.MAC(key, turn).String()] = key.ID()
		}
	}
	return of
}

// Tables are those of batman-adv that were asked for.
type Tables struct {
	Name        string // of the mesh interface; empty: there is none
	Info        batman.Info
	Ports       []model.BatmanInterface
	Originators []batman.Originator
	Local       []batman.Client
	Global      []batman.Client
	Gateways    []batman.Gateway
}

// into writes one of the tables as it is answered.
func (t Tables) into(out *model.BatmanTables, table string, nodes, members map[string]string) {
	clients := func(list []batman.Client) []model.BatmanClient {
		rows := []model.BatmanClient{}
		for _, c := range list {
			r := model.BatmanClient{MAC: c.MAC.String(), Best: c.Best}
			if r.Member = members[r.MAC]; len(c.Originator) > 0 {
				r.Originator = c.Originator.String()
				r.Node = nodes[r.Originator]
			}
			rows = append(rows, r)
		}
		order.By(rows, func(a, b model.BatmanClient) int {
			return cmp.Or(cmp.Compare(a.MAC, b.MAC), cmp.Compare(a.Originator, b.Originator))
		})
		return rows
	}
	switch table {
	case model.BatmanConfigTable:
		if t.Name == "" {
			return
		}
		out.Config = &model.BatmanConfig{
			Iface: t.Name, MAC: t.Info.MAC.String(), Version: t.Info.Version, Routing: t.Info.Algorithm, OGMIntervalMS: t.Info.OGMInterval.Milliseconds(),
			HopPenalty: t.Info.HopPenalty, GatewayMode: t.Info.GatewayMode.String(), BridgeLoopAvoidance: t.Info.BLA, DistributedARP: t.Info.DAT, MulticastFlood: t.Info.ForceFlood,
		}
	case model.BatmanInterfaces:
		out.Interfaces = t.Ports
	case model.BatmanOriginators:
		out.Originators = []model.BatmanOriginator{}
		for _, o := range t.Originators {
			mac, hop := o.MAC.String(), o.NextHop.String()
			out.Originators = append(out.Originators, model.BatmanOriginator{
				MAC: mac, Node: nodes[mac], NextHop: hop, NextHopNode: nodes[hop], Iface: o.Iface, Best: o.Best, LastSeenMS: o.LastSeen.Milliseconds(), TQ: o.TQ, Throughput: o.Throughput,
			})
		}
		order.By(out.Originators, func(a, b model.BatmanOriginator) int {
			first := func(o model.BatmanOriginator) int {
				if o.Best {
					return 0
				}
				return 1
			}
			return cmp.Or(cmp.Compare(a.MAC, b.MAC), cmp.Compare(first(a), first(b)), cmp.Compare(a.NextHop, b.NextHop), cmp.Compare(a.Iface, b.Iface))
		})
	case model.BatmanLocal:
		out.Local = clients(t.Local)
	case model.BatmanGlobal:
		out.Global = clients(t.Global)
	case model.BatmanGateways:
		out.Gateways = []model.BatmanGateway{}
		for _, g := range t.Gateways {
			mac := g.MAC.String()
			out.Gateways = append(out.Gateways, model.BatmanGateway{
				MAC: mac, Node: nodes[mac], NextHop: g.NextHop.String(), Iface: g.Iface, Best: g.Best, TQ: g.TQ, Throughput: g.Throughput, DownMbps: g.DownMbit, UpMbps: g.UpMbit,
			})
		}
	}
}

// Tables asks batman-adv.
func (u *batUnderlay) Tables(tables ...string) (t Tables, err error) {
	bat, _ := u.open()
	if bat == nil {
		return t, nil
	}
	t.Name = paths.BatIface
	for _, name := range tables {
		switch name {
		case model.BatmanConfigTable:
			t.Info, err = bat.Info()
		case model.BatmanInterfaces:
			t.Ports, err = batmanPorts(bat)
		case model.BatmanOriginators:
			t.Originators, err = bat.Originators()
		case model.BatmanLocal:
			t.Local, err = bat.OwnClients()
		case model.BatmanGlobal:
			t.Global, err = bat.Clients()
		case model.BatmanGateways:
			t.Gateways, err = bat.Gateways()
		}
		if err != nil {
			return t, err
		}
	}
	return t, nil
}

// batmanPorts are the interfaces that carry the mesh, by name.
func batmanPorts(bat *batman.Mesh) ([]model.BatmanInterface, error) {
	ports, err := bat.Ports()
	if err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	list := []model.BatmanInterface{}
	for _, l := range links {
		if p, ok := ports[l.Attrs().Index]; ok {
			list = append(list, model.BatmanInterface{
				Iface: l.Attrs().Name, MAC: l.Attrs().HardwareAddr.String(), HopPenalty: p.HopPenalty, ELPIntervalMS: p.ELPInterval.Milliseconds(), ThroughputMbps: p.Throughput,
			})
		}
	}
	order.By(list, func(a, b model.BatmanInterface) int { return cmp.Compare(a.Iface, b.Iface) })
	return list, nil
}
