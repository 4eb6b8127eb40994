package model

import (
	"cmp"
	"math"
	"slices"

	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

const (
	// Of a few frames no share says anything.
	leastFrames = 10
	// Of a node's sessions with others so many are told: who they are with says little,
	// and each takes 15 octets of a slow channel.
	mostDirect = 15
)

// ReportOf makes a device's report of what halo-mesh says, all but its number. before
// is what it said at the report before, from which follows what links have lost
// meanwhile; nil: not known. Neighbours over the air are named by their addresses
// alone, as no more is known of them than what they say themselves.
func ReportOf(s MeshStatus, before *MeshStatus) Report {
	r := Report{Node: s.Node, Boot: s.BootCounter, Interfaces: ReportInterfaces{}, NextHops: nextHops(s), Overlay: overlayPeers(s)}
	b := reportBuilder{report: &r, ports: map[string]string{}}
	for _, p := range s.Ports {
		if p.MACsec != nil && p.MACsec.Iface != "" {
			b.ports[p.MACsec.Iface] = p.Iface
		}
	}
	for _, i := range s.Interfaces {
		if i.Kind == "mesh" {
			b.add(i.Name, "").Addresses = b.addresses(i.MAC)
		}
	}
	for _, radio := range s.Radios {
		b.radio(radio)
	}
	for _, p := range s.Ports {
		b.port(p, s.Interfaces)
	}
	for _, p := range s.Peers() {
		// Routing remembers for minutes who was there: of a radio, links are its stations.
		if p.Radio != nil && p.Radio.Linked || p.Transport != "radio" && p.Routing != nil {
			b.link(p, before)
		}
	}
	r.Interfaces = slices.DeleteFunc(r.Interfaces, func(i ReportInterface) bool { return len(i.Addresses)+len(i.Links) == 0 })
	r.Sort()
	return r
}

type reportBuilder struct {
	report *Report
	ports  map[string]string // by their MACsec interfaces
	links  int
}

// add returns the interface of that name, made if need be; beyond the bound, one that
// belongs to nothing.
func (b *reportBuilder) add(name string, t Transport) *ReportInterface {
	list := &b.report.Interfaces
	at := slices.IndexFunc(*list, func(i ReportInterface) bool { return i.Name == name })
	if at < 0 {
		if len(*list) >= MaxReportInterfaces || !validIface(name) {
			return new(ReportInterface)
		}
		at = len(*list)
		*list = append(*list, ReportInterface{Name: name, Transport: t, Addresses: []dot11.MAC{}})
	}
	return &(*list)[at]
}

func (b *reportBuilder) addresses(texts ...string) []dot11.MAC {
	list := []dot11.MAC{}
	for _, s := range texts {
		if a, err := dot11.ParseMAC(s); err == nil && validAddress(a) && !slices.Contains(list, a) && len(list) < MaxReportAddresses {
			list = append(list, a)
		}
	}
	return list
}

func (b *reportBuilder) radio(r Radio) {
	if r.Iface == "" {
		return // it is not in the mesh
	}
	i := b.add(r.Iface, TransportWiFi)
	i.Addresses, i.FreqKHz, i.WidthKHz = b.addresses(r.MAC), 1000*r.FreqMHz, 1000*r.WidthMHz
	if r.HaLow != "" {
		i.Transport, i.FreqKHz, i.WidthKHz = TransportHaLow, r.HaLowKHz, r.HaLowWide
	}
}

func (b *reportBuilder) port(p Port, ifaces []Interface) {
	var own []string
	for _, i := range ifaces {
		if i.Name == p.Iface || b.ports[i.Name] == p.Iface {
			own = append(own, i.MAC)
		}
	}
	b.add(p.Iface, TransportEthernet).Addresses = b.addresses(own...)
}

func (b *reportBuilder) link(p MeshPeer, before *MeshStatus) {
	peer, err := dot11.ParseMAC(p.MAC)
	if err != nil || !validAddress(peer) || b.links >= MaxReportLinks {
		return
	}
	l := ReportLink{Peer: peer}
	if r := p.Radio; r != nil {
		l.SignalDBm, l.TxKbps, l.RxKbps, l.ExpectedKbps = whole(r.SignalDBm), kbps(r.TxMbps), kbps(r.RxMbps), kbps(r.Expected)
		l.InactiveMS = int(min(max(r.InactiveMS, 0), maxMillis))
		l.RetryPermille, l.FailPermille = lost(*r, p.Iface, before)
	}
	t := TransportEthernet
	if p.Transport == "radio" {
		t = TransportWiFi // radio has said already if it is HaLow
	}
	if n := p.Routing; n != nil {
		l.TQ, l.ExpectedKbps = int(n.TQ), cmp.Or(kbps(n.Throughput), l.ExpectedKbps)
		if t == TransportEthernet {
			l.InactiveMS = int(min(max(n.LastSeenMS, 0), maxMillis))
			if validNode(n.Node) {
				l.Node = n.Node
			}
		}
	}
	i := b.add(cmp.Or(b.ports[p.Iface], p.Iface), t)
	if i.Transport == "" || slices.ContainsFunc(i.Links, func(o ReportLink) bool { return o.key() == l.key() }) {
		return
	}
	i.Links = append(i.Links, l)
	b.links++
}

// lost tells which shares of what was sent to a peer since before were repetitions and
// frames that were given up, in permille.
func lost(p RadioPeer, iface string, before *MeshStatus) (retries, failures int) {
	if before == nil {
		return 0, 0
	}
	for _, r := range before.Radios {
		for _, was := range r.Peers {
			if r.Iface != iface || was.MAC != p.MAC || was.TxPackets > p.TxPackets || was.TxRetries > p.TxRetries || was.TxFailed > p.TxFailed {
				continue // or the link was made anew, and counts from the start
			}
			packets, again, failed := uint64(p.TxPackets-was.TxPackets), uint64(p.TxRetries-was.TxRetries), uint64(p.TxFailed-was.TxFailed)
			if packets < leastFrames {
				return 0, 0
			}
			return int(1000 * again / (packets + again)), int(min(1000*failed/packets, 1000))
		}
	}
	return 0, 0
}

// nextHops has the way to the gateway, if there is one.
func nextHops(s MeshStatus) ReportNextHops {
	list := ReportNextHops{}
	if s.NextHop == nil || s.NextHop.Node == s.Node {
		return list
	}
	h := *s.NextHop
	for _, p := range s.Ports {
		if p.MACsec != nil && p.MACsec.Iface == h.Iface {
			h.Iface = p.Iface
		}
	}
	h.Kbps = min(h.Kbps, maxKbps)
	if list = append(list, h); list.check() != nil {
		return ReportNextHops{} // of a halo-mesh of another release
	}
	return list
}

// overlayPeers has those with a session, and the gateway in any case: the gateway's
// report has all that it has room for, a node's the latest.
func overlayPeers(s MeshStatus) ReportOverlay {
	list := ReportOverlay{}
	for _, p := range s.Overlay {
		if !validNode(p.Node) || slices.ContainsFunc(list, func(o ReportOverlayPeer) bool { return o.Node == p.Node }) {
			continue
		}
		o := ReportOverlayPeer{Node: p.Node, HandshakeS: -1}
		if p.LastHandshake != nil {
			// A clock that was set back leaves handshakes in the future.
			o.HandshakeS = int(min(s.Time.Sub(*p.LastHandshake).Abs().Seconds(), maxSeconds))
			o.Direct = p.Endpoint != ""
		}
		if p.Node == s.Gateway || within(o.HandshakeS, 0, SessionOldS) {
			list = append(list, o)
		}
	}
	order.By(list, func(a, b ReportOverlayPeer) int {
		switch s.Gateway {
		case a.Node:
			return -1
		case b.Node:
			return 1
		}
		return cmp.Compare(a.HandshakeS, b.HandshakeS)
	})
	most := MaxReportOverlay
	if s.Role != RoleGateway {
		most = 1 + mostDirect
	}
	return list[:min(len(list), most)]
}

func whole(f float64) int { return int(math.Round(min(max(f, -200), 100))) }

func kbps(mbps float64) int {
	if !(mbps > 0) {
		return 0
	}
	return int(math.Round(min(1000*mbps, maxKbps)))
}
