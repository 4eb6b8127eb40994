package model

import (
	"fmt"
	"strings"

	"halo.internal/model/dot11"
)

// Transport is what a link of the mesh goes over.
type Transport string

// Transports.
const (
	TransportHaLow    Transport = "halow"
	TransportWiFi     Transport = "wifi"
	TransportEthernet Transport = "ethernet"
)

// Bounds of a Report. What is beyond one of them is not believed.
const (
	MaxReportInterfaces = 16
	MaxReportAddresses  = 8   // of an interface
	MaxReportLinks      = 128 // of all interfaces: a radio has ten, a port 64 at most
	MaxReportNextHops   = 16
	MaxReportOverlay    = 256 // the gateway has sessions with all
	MaxReportEveryS     = 3600

	// A session is up while its last handshake is so many seconds ago: it is renewed every
	// 120 s where anything is sent, and over after 180. Then it is old, until SessionOldS.
	SessionUpS  = 240
	SessionOldS = 600

	// A peer that was not heard for so long has no live link.
	DeadLinkMS = 60_000

	maxIfaceName = 15          // IFNAMSIZ without its zero
	maxKHz       = 100_000_000 // no radio of ours is near 100 GHz
	maxKbps      = 400_000_000 // nor any port near 400 Gbit/s
	maxCounter   = 1<<53 - 1   // what JSON numbers hold
	maxMillis    = 1 << 31     // 25 days
	maxSeconds   = 1 << 30     // 34 years
)

// Report is what one device says of itself and of those around it: the hardware
// addresses that it has, the links that it sees, its own end of each, and by whom it
// reaches the gateway. Nothing of it is proven but who sent it.
//
// As CBOR it is a map of small keys in which the lists are packed (reportpacked.go);
// on the stream it is a wire.NeighboursMessage. One with a Base has only what changed
// since that report: Since makes it, and With puts the two together again.
type Report struct {
	Node       string           `json:"node" cbor:"1,keyasint" doc:"canonical ID"`
	Boot       uint64           `json:"boot" cbor:"2,keyasint" doc:"boot counter of the node"`
	Seq        uint64           `json:"seq" cbor:"3,keyasint" doc:"rises with each report of that boot, also when the process starts anew: milliseconds since the boot will do"`
	Base       uint64           `json:"base,omitempty" cbor:"4,keyasint,omitempty" doc:"it has what changed since the report of this number; 0: it is whole"`
	EveryS     int              `json:"every_s,omitempty" cbor:"8,keyasint,omitempty" doc:"seconds until the next report at the latest; 0: a minute"`
	Interfaces ReportInterfaces `json:"interfaces" cbor:"5,keyasint,omitempty"`
	NextHops   ReportNextHops   `json:"next_hops" cbor:"6,keyasint,omitempty" doc:"best next hop for each originator that matters, which is the gateway at least"`
	Overlay    ReportOverlay    `json:"overlay" cbor:"7,keyasint,omitempty" doc:"peers with a session"`
}

// ReportInterfaces is packed in CBOR.
type ReportInterfaces []ReportInterface

// ReportInterface is an interface of the device, and the links over it.
type ReportInterface struct {
	Name      string       `json:"name" doc:"kernel name, e.g. mesh0, eth0, bat0; with a port goes its MACsec interface"`
	Addresses []dot11.MAC  `json:"addresses" doc:"hardware addresses"`
	Transport Transport    `json:"transport,omitempty" enum:"halow,wifi,ethernet" doc:"absent where there can be no links, as with bat0"`
	FreqKHz   int          `json:"freq_khz,omitempty" doc:"centre of a radio's channel; of HaLow that below 1 GHz"`
	WidthKHz  int          `json:"width_khz,omitempty" doc:"of the channel"`
	Links     []ReportLink `json:"links,omitempty"`
	Gone      bool         `json:"gone,omitempty" doc:"with base: the interface and its links are not there any more"`
}

// ReportLink is a link as one of its ends sees it. What is not known is zero.
type ReportLink struct {
	Peer          dot11.MAC `json:"peer,omitzero" doc:"hardware address of the other end; absent where only the node is known"`
	Node          string    `json:"node,omitempty" doc:"canonical ID of the other end, where its keys were proven on this port"`
	SignalDBm     int       `json:"signal_dbm,omitempty"`
	TxKbps        int       `json:"tx_kbps,omitempty" doc:"rate of the last frame to the peer"`
	RxKbps        int       `json:"rx_kbps,omitempty" doc:"rate of the last frame from it"`
	ExpectedKbps  int       `json:"expected_kbps,omitempty" doc:"throughput that routing, or else the kernel, expects"`
	TQ            int       `json:"tq,omitempty" doc:"BATMAN_IV transmit quality of the link, 1 to 255"`
	RetryPermille int       `json:"retry_permille,omitempty" doc:"transmissions that were repetitions, since the report before"`
	FailPermille  int       `json:"fail_permille,omitempty" doc:"frames that were given up, since the report before"`
	InactiveMS    int       `json:"inactive_ms,omitempty" doc:"since the last frame from the peer"`
	Gone          bool      `json:"gone,omitempty" doc:"with base: the link is not there any more"`
}

// ReportNextHops is packed in CBOR.
type ReportNextHops []ReportNextHop

// ReportNextHop is the neighbour by which routing reaches another node.
type ReportNextHop struct {
	Node     string    `json:"node" doc:"canonical ID of the node that is reached, the originator"`
	Next     dot11.MAC `json:"next" doc:"hardware address of the neighbour"`
	NextNode string    `json:"next_node,omitempty" doc:"canonical ID that the neighbour is said to have; absent where it is not known"`
	Iface    string    `json:"iface" doc:"interface towards it"`
	TQ       int       `json:"tq,omitempty" doc:"BATMAN_IV transmit quality of the whole way, 1 to 255"`
	Kbps     int       `json:"kbps,omitempty" doc:"BATMAN_V throughput of the whole way"`
}

// ReportOverlay is packed in CBOR.
type ReportOverlay []ReportOverlayPeer

// ReportOverlayPeer is a peer of the overlay.
type ReportOverlayPeer struct {
	Node       string `json:"node" doc:"canonical ID"`
	HandshakeS int    `json:"handshake_s" doc:"seconds since the last handshake; -1: there was none"`
	Direct     bool   `json:"direct" doc:"frames go to its own endpoint, not by way of the gateway"`
	Gone       bool   `json:"gone,omitempty" doc:"with base: there is no session any more"`
}

// Check says what of the report was expected to be otherwise, and what came.
func (r Report) Check() error {
	if !validNode(r.Node) {
		return fmt.Errorf("report: node: expected a canonical ID such as n-abcdefghij2345abcdef, got %.40q", r.Node)
	}
	if r.Boot < 1 || r.Boot > maxCounter || r.Seq < 1 || r.Seq > maxCounter || r.Base >= r.Seq {
		return fmt.Errorf("report of %s: expected boot and seq of 1 to 2^53-1, and a base below seq, got %d, %d and %d", r.Node, r.Boot, r.Seq, r.Base)
	}
	if !within(r.EveryS, 0, MaxReportEveryS) {
		return fmt.Errorf("report of %s: expected the next within %d s, got %d", r.Node, MaxReportEveryS, r.EveryS)
	}
	if err := r.checkInterfaces(); err != nil {
		return fmt.Errorf("report of %s: %w", r.Node, err)
	}
	if err := r.NextHops.check(); err != nil {
		return fmt.Errorf("report of %s: %w", r.Node, err)
	}
	if err := r.Overlay.check(r.Base != 0); err != nil {
		return fmt.Errorf("report of %s: %w", r.Node, err)
	}
	return nil
}

func (r Report) checkInterfaces() error {
	if len(r.Interfaces) > MaxReportInterfaces {
		return fmt.Errorf("expected at most %d interfaces, got %d", MaxReportInterfaces, len(r.Interfaces))
	}
	names, links := map[string]bool{}, 0
	for _, i := range r.Interfaces {
		if names[i.Name] {
			return fmt.Errorf("interface %s: expected once, got twice", i.Name)
		}
		names[i.Name] = true
		links += len(i.Links)
		if links > MaxReportLinks {
			return fmt.Errorf("expected at most %d links", MaxReportLinks)
		}
		if err := i.check(r.Base != 0); err != nil {
			return fmt.Errorf("interface %.20q: %w", i.Name, err)
		}
	}
	return nil
}

func (i ReportInterface) check(changes bool) error {
	switch {
	case !validIface(i.Name):
		return fmt.Errorf("expected a name of 1 to %d letters, digits and .-_@", maxIfaceName)
	case len(i.Addresses) > MaxReportAddresses:
		return fmt.Errorf("expected at most %d addresses, got %d", MaxReportAddresses, len(i.Addresses))
	case i.Transport != "" && transportNumber(i.Transport) == 0:
		return fmt.Errorf("transport: expected halow, wifi or ethernet, got %.20q", i.Transport)
	case i.Transport == "" && len(i.Links) != 0 && !changes:
		return fmt.Errorf("expected no links without a transport, got %d", len(i.Links))
	case !within(i.FreqKHz, 0, maxKHz) || !within(i.WidthKHz, 0, maxKHz):
		return fmt.Errorf("expected a frequency and a width of at most %d kHz, got %d and %d", maxKHz, i.FreqKHz, i.WidthKHz)
	case i.Gone && (!changes || len(i.Links) != 0):
		return fmt.Errorf("expected to be gone since a base, and without links")
	}
	for _, a := range i.Addresses {
		if !validAddress(a) {
			return fmt.Errorf("address: expected a device's, got %s", a)
		}
	}
	seen := map[linkKey]bool{}
	for _, l := range i.Links {
		if err := l.check(changes); err != nil {
			return fmt.Errorf("link to %s%s: %w", l.Peer, l.Node, err)
		}
		if seen[l.key()] {
			return fmt.Errorf("link to %s%s: expected once, got twice", l.Peer, l.Node)
		}
		seen[l.key()] = true
	}
	return nil
}

func (l ReportLink) check(changes bool) error {
	switch {
	case l.Peer == dot11.MAC{} && l.Node == "":
		return fmt.Errorf("expected an address or a canonical ID of the peer")
	case l.Peer != dot11.MAC{} && !validAddress(l.Peer):
		return fmt.Errorf("expected the address of a device")
	case l.Node != "" && !validNode(l.Node):
		return fmt.Errorf("expected a canonical ID, got %.40q", l.Node)
	case !within(l.SignalDBm, -200, 100):
		return fmt.Errorf("signal: expected -200 to 100 dBm, got %d", l.SignalDBm)
	case !within(l.TxKbps, 0, maxKbps) || !within(l.RxKbps, 0, maxKbps) || !within(l.ExpectedKbps, 0, maxKbps):
		return fmt.Errorf("expected rates of 0 to %d kbit/s, got %d, %d and %d", maxKbps, l.TxKbps, l.RxKbps, l.ExpectedKbps)
	case !within(l.TQ, 0, 255):
		return fmt.Errorf("tq: expected 0 to 255, got %d", l.TQ)
	case !within(l.RetryPermille, 0, 1000) || !within(l.FailPermille, 0, 1000):
		return fmt.Errorf("expected retries and failures of 0 to 1000 permille, got %d and %d", l.RetryPermille, l.FailPermille)
	case !within(l.InactiveMS, 0, maxMillis):
		return fmt.Errorf("inactive: expected 0 to %d ms, got %d", maxMillis, l.InactiveMS)
	case l.Gone && !changes:
		return fmt.Errorf("expected to be gone since a base only")
	}
	return nil
}

func (list ReportNextHops) check() error {
	if len(list) > MaxReportNextHops {
		return fmt.Errorf("expected at most %d next hops, got %d", MaxReportNextHops, len(list))
	}
	seen := map[string]bool{}
	for _, h := range list {
		switch {
		case !validNode(h.Node) || seen[h.Node]:
			return fmt.Errorf("next hop: expected the canonical ID of a node, once each, got %.40q", h.Node)
		case !validAddress(h.Next):
			return fmt.Errorf("next hop to %s: expected the address of a device, got %s", h.Node, h.Next)
		case h.NextNode != "" && !validNode(h.NextNode):
			return fmt.Errorf("next hop to %s: expected a canonical ID, got %.40q", h.Node, h.NextNode)
		case !validIface(h.Iface):
			return fmt.Errorf("next hop to %s: expected an interface, got %.20q", h.Node, h.Iface)
		case !within(h.TQ, 0, 255) || !within(h.Kbps, 0, maxKbps):
			return fmt.Errorf("next hop to %s: expected a TQ of 0 to 255 and at most %d kbit/s, got %d and %d", h.Node, maxKbps, h.TQ, h.Kbps)
		}
		seen[h.Node] = true
	}
	return nil
}

func (list ReportOverlay) check(changes bool) error {
	if len(list) > MaxReportOverlay {
		return fmt.Errorf("expected at most %d overlay peers, got %d", MaxReportOverlay, len(list))
	}
	seen := map[string]bool{}
	for _, p := range list {
		if !validNode(p.Node) || seen[p.Node] {
			return fmt.Errorf("overlay peer: expected the canonical ID of a node, once each, got %.40q", p.Node)
		}
		if !within(p.HandshakeS, -1, maxSeconds) || p.HandshakeS < 0 && p.Direct {
			return fmt.Errorf("overlay peer %s: expected a handshake up to %d s ago, or -1 and no session, got %d", p.Node, maxSeconds, p.HandshakeS)
		}
		if p.Gone && (!changes || p.HandshakeS != -1) {
			return fmt.Errorf("overlay peer %s: expected to be gone since a base only, and without a handshake", p.Node)
		}
		seen[p.Node] = true
	}
	return nil
}

// linkKey names a link of an interface.
type linkKey struct {
	peer dot11.MAC
	node string
}

// key is the address where there is one: a node may be proven later.
func (l ReportLink) key() linkKey {
	if l.Peer != (dot11.MAC{}) {
		return linkKey{peer: l.Peer}
	}
	return linkKey{node: l.Node}
}

func within(v, low, high int) bool { return v >= low && v <= high }

func validAddress(a dot11.MAC) bool { return a != dot11.MAC{} && !a.Group() }

func validIface(s string) bool {
	return len(s) >= 1 && len(s) <= maxIfaceName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@") == ""
}
