// Package airtime tells what a channel is taken by: the frames of the air (whose
// payload is encrypted) and what members handed to their mesh interfaces (which is
// not) are brought together, and the time is summed up by kind: beacons, peering,
// the messages of batman-adv, and what it carries.
package airtime

import (
	"encoding/binary"
	"fmt"
)

// Kind names what a frame is for.
type Kind string

// Kinds of 802.11 frames (9.2.4.1.3, 9.6).
const (
	Beacon     Kind = "beacon"
	Probe      Kind = "probe"
	SAE        Kind = "SAE"
	Peering    Kind = "mesh peering"
	Management Kind = "other management"
	Protected  Kind = "encrypted management" // robust action frames to one, as those of block acknowledgement
	Data       Kind = "data, not recognised"
	Damaged    Kind = "damaged"
)

// Kinds of batman-adv packets (uapi/linux/batadv_packet.h). What it carries for
// bat0 is named by what is inside, see inside.
const (
	OGM      Kind = "OGM"
	ELP      Kind = "ELP"
	ELPProbe Kind = "ELP probe"
	OGM2     Kind = "OGM2"
	ICMP     Kind = "batman-adv ICMP"
	TVLV     Kind = "batman-adv TVLV"
	Fragment Kind = "fragment"
	Unknown  Kind = "unknown batman-adv packet"
	Stray    Kind = "not batman-adv"
)

// Kinds of what bat0 carries.
const (
	Announcement Kind = "announcement"
	Overlay      Kind = "overlay"
	Join         Kind = "join"
	DHCP         Kind = "DHCP"
	ARP          Kind = "ARP"
	Neighbour    Kind = "neighbour discovery" // advertisements of neighbours, redirects
	Solicitation Kind = "neighbour solicitation"
	Router       Kind = "router discovery"
	Multicast    Kind = "multicast listener"
	Doctor       Kind = "path doctor"
	Echo         Kind = "echo" // of ICMPv6
)

// Octets that frames have around what the mesh interface was handed: CCMP header
// and MIC, mesh control, LLC with SNAP (12.5.3, 9.2.4.7.3).
const (
	ccmp        = 8 + 8
	meshControl = 6
	llc         = 8
)

// air returns what the header of a frame tells. Of data, receiver and payload are
// those by which it is found among what was handed over: what is behind the
// Ethernet header.
func air(b []byte) (k Kind, receiver [6]byte, payload int) {
	if len(b) < 24 {
		return Damaged, receiver, 0
	}
	receiver = [6]byte(b[4:10])
	protected := b[1]&0x40 != 0
	switch kind, subtype := b[0]>>2&3, b[0]>>4; {
	case kind == 0 && subtype == 8:
		return Beacon, receiver, 0
	case kind == 0 && (subtype == 4 || subtype == 5):
		return Probe, receiver, 0
	case kind == 0 && subtype == 11:
		return SAE, receiver, 0
	case kind == 0 && subtype == 13 && !protected && len(b) > 24 && b[24] == 15: // self-protected
		return Peering, receiver, 0
	case kind == 0 && protected:
		return Protected, receiver, 0
	case kind == 0:
		return Management, receiver, 0
	case kind != 2:
		return Damaged, receiver, 0
	case subtype&8 == 0:
		return Data, receiver, -1 // a mesh sends QoS data alone
	}
	head := 24 + 2
	if b[1]&3 == 3 { // four addresses
		head += 6
	}
	payload = len(b) - head - meshControl - llc
	if protected {
		payload -= ccmp
	}
	return Data, receiver, payload
}

// ethernet returns what a frame is that was handed to a mesh interface.
func ethernet(b []byte) Kind {
	const head, batman = 14, 0x4305
	if len(b) <= head || binary.BigEndian.Uint16(b[12:]) != batman {
		return Stray
	}
	p := b[head:]
	rest := func(header int) []byte { return p[min(header, len(p)):] }
	switch p[0] {
	case 0x00:
		return OGM
	case 0x01:
		return "broadcast: " + inside(rest(14))
	case 0x03:
		if b[0]&1 == 0 {
			return ELPProbe
		}
		return ELP
	case 0x04:
		return OGM2
	case 0x05:
		return "multicast"
	case 0x40:
		return "unicast: " + inside(rest(10))
	case 0x41:
		return Fragment
	case 0x42:
		return "unicast: " + inside(rest(18))
	case 0x43:
		return ICMP
	case 0x44:
		return TVLV
	}
	return Unknown
}

// inside returns what an Ethernet frame is that bat0 carries.
func inside(b []byte) Kind {
	if len(b) < 14 {
		return Damaged
	}
	p := b[14:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case 0x0806:
		return ARP
	case 0x86dd:
		if len(p) < 40+4 {
			return Damaged
		}
		next, q := p[6], p[40:]
		if next == 0 && len(q) >= 8 { // hop-by-hop options, as reports of listeners have
			next, q = q[0], q[min(int(q[1])*8+8, len(q)):]
		}
		switch {
		case next == 58 && len(q) > 0 && (q[0] == 133 || q[0] == 134):
			return Router
		case next == 58 && len(q) > 0 && q[0] == 135:
			return Solicitation
		case next == 58 && len(q) > 0 && (q[0] == 136 || q[0] == 137):
			return Neighbour
		case next == 58 && len(q) > 0 && (q[0] >= 130 && q[0] <= 132 || q[0] == 143):
			return Multicast
		case next == 58 && len(q) > 0 && (q[0] == 128 || q[0] == 129):
			return Echo
		}
		return transport(next, q)
	case 0x0800:
		if len(p) < 20 {
			return Damaged
		}
		return transport(p[9], p[min(int(p[0]&0xf)*4, len(p)):])
	}
	return Kind(fmt.Sprintf("EtherType %#04x", binary.BigEndian.Uint16(b[12:])))
}

// transport goes by ports, of either end.
func transport(protocol byte, q []byte) Kind {
	const tcp, udp = 6, 17
	if len(q) < 4 {
		return Damaged
	}
	if protocol != tcp && protocol != udp {
		return Kind(fmt.Sprintf("IP protocol %d", protocol))
	}
	for _, port := range []uint16{binary.BigEndian.Uint16(q), binary.BigEndian.Uint16(q[2:])} {
		switch {
		case protocol == udp && port == 4254:
			return Announcement
		case protocol == udp && port == 4259:
			return Doctor
		case protocol == udp && port == 51820:
			return Overlay
		case protocol == udp && port == 67:
			return DHCP
		case protocol == tcp && port == 8443:
			return Join
		}
	}
	return Kind(fmt.Sprintf("IP protocol %d, port %d", protocol, binary.BigEndian.Uint16(q[2:])))
}
