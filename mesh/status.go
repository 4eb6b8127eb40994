package mesh

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/drivers/halow"
	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// Events returns what happened after (boot, seq).
func (m *core) Events(boot, seq uint64) []model.Event { return m.events.After(boot, seq) }

// interfacesAge is how old interfaces are at most in a brief status.
const interfacesAge = 10 * time.Second

// seen is what was seen of the device's interfaces last.
type seen struct {
	at         time.Time // zero: never
	interfaces []model.Interface
}

// shared returns what both sides have in common.
func (m *core) shared(wg *overlay.Device, brief bool) model.MeshStatus {
	now, quality := m.clock.Now()
	s := model.MeshStatus{
		Node: m.id.Key.ID(), Name: m.name(), Role: m.Role, PublicKey: m.id.Key.Public().Base64(),
		Network: m.bundle.Network, NetworkKey: m.net.Base64(), Mesh: m.bundle.Mesh.SSID, Country: m.bundle.Country,
		BootCounter: m.id.BootCounter, Time: now.UTC(), Clock: quality, Volatile: m.permFailing() != nil,
		Underlay: identity.Underlay(m.net, m.id.Key.Public()).String(),
		Ports:    m.under.Ports(), Radios: []model.Radio{}, Neighbours: []model.Neighbour{}, Overlay: []model.OverlayPeer{},
	}
	if brief {
		if now := time.Now(); m.seen.at.IsZero() || now.Sub(m.seen.at) >= interfacesAge {
			m.seen = seen{now, interfaces(s.Ports)}
		}
		s.Interfaces = m.seen.interfaces
	} else {
		m.askKernel(&s, wg)
	}
	s.NextHop, s.Around = m.under.NextHop(), m.around.Load()
	if m.relay != nil {
		r := m.relay.Status()
		s.Relay = &r
	}
	return s
}

// askKernel fills in what the kernel's tables say, which grow with the network. One that
// cannot be read is an empty one: what is wrong with it is the health graph's to say.
func (m *core) askKernel(s *model.MeshStatus, wg *overlay.Device) {
	s.Interfaces, s.Radios = interfaces(s.Ports), m.under.Radios()
	if list, err := m.under.Neighbours(); err == nil {
		s.Neighbours = list
	}
	s.Originators, _ = m.under.Originators()
	if wg != nil {
		if peers, err := wg.Status(); err == nil {
			s.Overlay = peers
		}
	}
}

// interfaces lists the device's network interfaces with what they are for.
func interfaces(ports []model.Port) []model.Interface {
	roles := map[string]string{}
	for _, p := range ports {
		roles[p.Iface] = p.Role
	}
	out := []model.Interface{}
	links, err := netlink.LinkList()
	if err != nil {
		return out
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL) // of all at once
	if err != nil {
		addrs = nil // nothing is known of them at this moment
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Name == "lo" {
			continue
		}
		i := model.Interface{Name: a.Name, Kind: kindOf(l), MAC: a.HardwareAddr.String(), Up: a.OperState != netlink.OperDown && a.Flags&1 != 0, PortRole: roles[a.Name]}
		if a.Statistics != nil {
			i.RxBytes, i.TxBytes = a.Statistics.RxBytes, a.Statistics.TxBytes
		}
		for _, addr := range addrs {
			if ip, ok := netip.AddrFromSlice(addr.IP); ok && addr.LinkIndex == a.Index {
				bits, _ := addr.Mask.Size()
				i.Addresses = append(i.Addresses, netip.PrefixFrom(ip.Unmap(), bits))
			}
		}
		out = append(out, i)
	}
	return out
}

func kindOf(l netlink.Link) string {
	switch name := l.Attrs().Name; {
	case name == paths.BatIface || l.Type() == "batadv":
		return "mesh"
	case name == paths.OverlayIface || l.Type() == "wireguard":
		return "overlay"
	case l.Type() == "bridge":
		return "bridge"
	case l.Type() == "macsec":
		return "macsec"
	case l.Attrs().EncapType == "ether" && l.Type() == "device":
		return hardwareKind("/sys", name)
	}
	return "other"
}

// hardwareKind is the kind of an interface with a device of its own, below sys: of a radio
// too, whose module alone tells HaLow from Wi-Fi.
func hardwareKind(sys, name string) string {
	radio := filepath.Join(sys, "class/net", name, "phy80211")
	if _, err := os.Stat(radio); err != nil {
		return "ethernet"
	}
	if to, err := os.Readlink(filepath.Join(radio, "device/driver/module")); err == nil && filepath.Base(to) == halow.Module {
		return "halow"
	}
	return "wifi"
}

func (g *gateway) status(brief bool) model.MeshStatus {
	g.mu.Lock()
	wg, announce, out, named := g.wg, g.known.Announce, g.leftOut(), g.neurons != nil
	g.mu.Unlock()
	s := g.shared(wg, brief)
	s.Gateway, s.Joined, s.Join = s.Node, true, model.JoinJoined
	s.OverlayV4, s.OverlayV6 = paths.OverlayGateway.String(), identity.Overlay(g.net, g.net).String()
	s.Announcing, s.Ignored = announce, g.voice.Counters.Snapshot()
	s.HeardEpoch, s.Twin, s.LeftOut, s.Named = g.voice.HeardEpoch(), g.twinStatus(), out, named
	if announce != nil {
		s.Epoch = announce.Epoch
	}
	s.Firewall = g.firewallInForce(false)
	return s
}

func (n *node) status(brief bool) model.MeshStatus {
	n.mu.Lock()
	wg, member, heard, at := n.wg, n.member, n.heard, n.heardAt
	join, detail := n.state, n.detail
	n.mu.Unlock()
	s := n.shared(wg, brief)
	s.Join, s.JoinDetail, s.Ignored = join, detail, n.search.Counters.Snapshot()
	s.Epoch = max(n.standing().Epoch, n.search.Floor)
	if heard != nil {
		s.Gateway = n.net.ID()
	}
	if !at.IsZero() { // which it is after a change of the mesh profile, too
		at = at.UTC()
		s.GatewayHeard = &at
	}
	if member != nil {
		s.Joined, s.Name = true, member.Name
		s.OverlayV4, s.OverlayV6 = member.OverlayV4.String(), member.OverlayV6.String()
	}
	return s
}

// A node is not its network's gateway: what gateway-api would hand over has no
// place here.

// PutPeers refuses.
func (n *node) PutPeers([]model.AdmittedPeer) error { return api.ErrRole }

// PutAnnounce refuses.
func (n *node) PutAnnounce(model.Announce) error { return api.ErrRole }

// PutOperators refuses.
func (n *node) PutOperators(model.Operators) error { return api.ErrRole }

// PutNames refuses: a node asks its gateway for these names.
func (n *node) PutNames([]model.BrainName) error { return api.ErrRole }

// PutRevoked refuses.
func (n *node) PutRevoked([]string) error { return api.ErrRole }

// PutProfile refuses.
func (n *node) PutProfile(model.ProfileChange) error { return api.ErrRole }

// OfferTime refuses: a node has its time from its gateway.
func (n *node) OfferTime(model.TimeOffer) error { return api.ErrRole }

// MeshSecret refuses.
func (n *node) MeshSecret() (bundle.Mesh, error) { return bundle.Mesh{}, api.ErrRole }

// Backup refuses: of a node nothing has to be kept.
func (n *node) Backup() (model.MeshBackup, error) { return model.MeshBackup{}, api.ErrRole }

// Restore refuses.
func (n *node) Restore(model.MeshRestore) error { return api.ErrRole }

// ShowClaimCode refuses.
func (n *node) ShowClaimCode(string) error { return api.ErrRole }

// EraseClaimCode refuses.
func (n *node) EraseClaimCode() error { return api.ErrRole }

// unprovisioned answers for a device that has no network.
type unprovisioned struct{ *core }

// Status tells who the device is.
func (u unprovisioned) Status(context.Context, bool) (model.MeshStatus, error) {
	now, quality := u.clock.Now()
	return model.MeshStatus{
		Node: u.id.Key.ID(), Name: u.name(), Role: u.Role, PublicKey: u.id.Key.Public().Base64(), BootCounter: u.id.BootCounter,
		Time: now.UTC(), Clock: quality, Volatile: u.permFailing() != nil, Join: model.JoinNoBundle,
		Ports: []model.Port{}, Radios: []model.Radio{}, Neighbours: []model.Neighbour{}, Overlay: []model.OverlayPeer{}, Interfaces: interfaces(nil),
	}, nil
}

func (u unprovisioned) Membership() (model.Membership, error) {
	return model.Membership{}, fmt.Errorf("%w: this device has no network", api.ErrNone)
}
func (u unprovisioned) PutPeers([]model.AdmittedPeer) error  { return u.refuse() }
func (u unprovisioned) PutAnnounce(model.Announce) error     { return u.refuse() }
func (u unprovisioned) PutOperators(model.Operators) error   { return u.refuse() }
func (u unprovisioned) PutNames([]model.BrainName) error     { return u.refuse() }
func (u unprovisioned) CheckCode(model.CodeTry) error        { return u.refuse() }
func (u unprovisioned) ShowClaimCode(string) error           { return u.refuse() }
func (u unprovisioned) EraseClaimCode() error                { return u.refuse() }
func (u unprovisioned) OfferTime(model.TimeOffer) error      { return u.refuse() }
func (u unprovisioned) RotateKey() error                     { return u.refuse() }
func (u unprovisioned) PutRevoked([]string) error            { return u.refuse() }
func (u unprovisioned) PutProfile(model.ProfileChange) error { return u.refuse() }
func (u unprovisioned) Profile() (model.MeshProfile, error)  { return model.MeshProfile{}, u.refuse() }
func (u unprovisioned) Backup() (model.MeshBackup, error)    { return model.MeshBackup{}, u.refuse() }
func (u unprovisioned) Restore(model.MeshRestore) error      { return u.refuse() }
func (u unprovisioned) MeshSecret() (bundle.Mesh, error)     { return bundle.Mesh{}, u.refuse() }
func (u unprovisioned) Scan(context.Context, model.ScanRequest) (model.RadioScan, error) {
	return model.RadioScan{}, u.refuse()
}
func (u unprovisioned) Channels() ([]model.RadioChannels, error) { return nil, u.refuse() }
func (u unprovisioned) Legal() ([]model.Legality, error)         { return nil, u.refuse() }
func (u unprovisioned) Capture(context.Context, model.CaptureRequest, io.Writer) error {
	return u.refuse()
}
func (u unprovisioned) Topology() (model.MeshTopology, error) {
	return model.MeshTopology{}, u.refuse()
}
func (u unprovisioned) Leases() (map[string][]model.Lease, error)  { return nil, u.refuse() }
func (u unprovisioned) Reservations() ([]model.Reservation, error) { return nil, u.refuse() }
func (u unprovisioned) PutReservation(model.Reservation) error     { return u.refuse() }
func (u unprovisioned) DeleteReservation(string) error             { return u.refuse() }
func (u unprovisioned) Firewall() (model.FirewallStatus, error) {
	return model.FirewallStatus{}, u.refuse()
}
func (u unprovisioned) Clients() ([]model.Client, error) { return nil, u.refuse() }
func (u unprovisioned) Batman(string) (model.BatmanTables, error) {
	return model.BatmanTables{}, u.refuse()
}
func (u unprovisioned) PutVisitors([]model.Visitor) error           { return u.refuse() }
func (u unprovisioned) PutFirewallPolicy(model.FirewallOrder) error { return u.refuse() }
func (u unprovisioned) FirewallPolicy() (model.FirewallInForce, error) {
	return model.FirewallInForce{}, u.refuse()
}
func (u unprovisioned) PreviewFirewall(model.FirewallQuestion) (model.FirewallPreview, error) {
	return model.FirewallPreview{}, u.refuse()
}
func (u unprovisioned) DNS() (model.DNSStatus, error)       { return model.DNSStatus{}, u.refuse() }
func (u unprovisioned) Doctor() (model.DoctorReport, error) { return model.DoctorReport{}, u.refuse() }
func (u unprovisioned) Examine(context.Context) (model.DoctorReport, error) {
	return model.DoctorReport{}, u.refuse()
}
func (u unprovisioned) refuse() error {
	return fmt.Errorf("%w: this device has no network", api.ErrNone)
}
