package systemtest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"halo.internal/model/paths"
)

// Sealed looks at frames of the mesh one after the other and refuses what could
// show to a listener what is said: MACsec has to be encrypted, and inside of
// batman-adv there may only be what keeps IPv6 going, announcements, WireGuard and
// TLS. The zero value is ready.
type Sealed struct {
	parts map[string]map[byte][]byte // of packets that came in fragments
	first map[string]uint32          // number of a connection's first octet, by direction
}

// Check returns an error with the frame's first octets unless all in it is
// allowed. A fragment is judged with the last one of its packet.
func (s *Sealed) Check(frame []byte) error {
	if err := s.outer(frame); err != nil {
		return fmt.Errorf("%w, in %x", err, frame[:min(len(frame), 128)])
	}
	return nil
}

const etherHead = 14

func (s *Sealed) outer(f []byte) error {
	if len(f) < etherHead {
		return fmt.Errorf("expected an Ethernet header, got %d octets", len(f))
	}
	switch kind := binary.BigEndian.Uint16(f[12:]); kind {
	case paths.EtherTypeProof, paths.EtherTypeRejoin: // what is in a question and its answer is signed, and the secret sealed
		return nil
	case paths.EtherTypeMACsec:
		return macsec(f[etherHead:])
	case paths.EtherTypeBatman:
		return s.batman(string(f[:12]), f[etherHead:])
	default:
		return fmt.Errorf("EtherType %#04x, expected a proof, MACsec or batman-adv", kind)
	}
}

// macsec takes what is behind the EtherType of a MACsec frame: its tag says whether
// the rest is encrypted (IEEE 802.1AE 9.5).
func macsec(p []byte) error {
	const head, check, version, encrypted, changed = 14, 16, 0x80, 0x08, 0x04
	if len(p) < head+check {
		return fmt.Errorf("MACsec frame of %d octets", len(p))
	}
	if p[0]&(version|encrypted|changed) != encrypted|changed {
		return fmt.Errorf("MACsec frame that is not encrypted")
	}
	return nil
}

// Packets of batman-adv's wire format 15 (linux/batadv_packet.h).
const (
	batVersion = 15

	batOGM, batBroadcast, batELP, batOGM2, batMulticast             = 0x00, 0x01, 0x03, 0x04, 0x05
	batUnicast, batFragment, batUnicast4, batICMP, batUnicastTables = 0x40, 0x41, 0x42, 0x43, 0x44
)

// batman takes a packet of the hop between two addresses.
func (s *Sealed) batman(hop string, p []byte) error {
	const multicastHead = 6
	if len(p) < multicastHead {
		return fmt.Errorf("packet of batman-adv of %d octets", len(p))
	}
	if p[1] != batVersion {
		return fmt.Errorf("batman-adv of version %d, expected %d", p[1], batVersion)
	}
	switch p[0] {
	case batOGM, batELP, batOGM2, batICMP, batUnicastTables: // its own affairs
		return nil
	case batBroadcast:
		return s.inner(p, 14)
	case batMulticast:
		return s.inner(p, multicastHead+int(binary.BigEndian.Uint16(p[4:])))
	case batUnicast:
		return s.inner(p, 10)
	case batUnicast4:
		return s.inner(p, 18)
	case batFragment:
		return s.fragment(hop, p)
	}
	return fmt.Errorf("packet of batman-adv of type %#02x", p[0])
}

// fragment keeps a part until all of its packet are there. They are numbered
// from the packet's end.
func (s *Sealed) fragment(hop string, p []byte) error {
	const head = 20
	if len(p) < head {
		return fmt.Errorf("fragment of %d octets", len(p))
	}
	key, number, total := hop+string(p[10:18]), p[3]>>4, int(binary.BigEndian.Uint16(p[18:]))
	if s.parts == nil {
		s.parts = map[string]map[byte][]byte{}
	}
	if s.parts[key] == nil {
		s.parts[key] = map[byte][]byte{}
	}
	parts := s.parts[key]
	parts[number] = p[head:]
	var whole []byte
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(parts))) {
		whole = append(whole, parts[n]...)
	}
	if len(whole) < total {
		return nil
	}
	delete(s.parts, key)
	if len(whole) == 0 || len(whole) > total || whole[0] == batFragment {
		return fmt.Errorf("fragments of %d octets, expected %d", len(whole), total)
	}
	return s.batman(hop, whole)
}

// inner takes the frame of bat0 behind a packet's head.
func (s *Sealed) inner(p []byte, head int) error {
	if len(p) < head+etherHead {
		return fmt.Errorf("packet of type %#02x of %d octets", p[0], len(p))
	}
	f := p[head:]
	const arp, ipv6 = 0x0806, 0x86dd
	switch kind := binary.BigEndian.Uint16(f[12:]); kind {
	case arp:
		return nil
	case ipv6:
		return s.ipv6(f[etherHead:])
	default:
		return fmt.Errorf("EtherType %#04x on bat0", kind)
	}
}

func (s *Sealed) ipv6(p []byte) error {
	const (
		head                     = 40
		hopByHop, tcp, udp, icmp = 0, 6, 17, 58
	)
	if len(p) < head || len(p) < head+int(binary.BigEndian.Uint16(p[4:])) {
		return fmt.Errorf("IPv6 packet of %d octets", len(p))
	}
	next, body := p[6], p[head:head+int(binary.BigEndian.Uint16(p[4:]))]
	if next == hopByHop && len(body) >= 8 { // of multicast listener reports
		n := 8 + 8*int(body[1])
		if len(body) < n {
			return fmt.Errorf("hop-by-hop options of %d octets", len(body))
		}
		next, body = body[0], body[n:]
	}
	switch {
	case next == icmp:
		return nil
	case next == udp && len(body) >= 8:
		return datagram(body)
	case next == tcp && len(body) >= 20:
		return s.segment(string(p[8:head]), body)
	}
	return fmt.Errorf("IPv6 packet with next header %d and %d octets", next, len(body))
}

func ports(b []byte) (from, to uint16) {
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
}

func datagram(b []byte) error {
	from, to := ports(b)
	message := b[8:]
	switch {
	case to == paths.AnnouncePort:
		return nil
	case to == paths.WireGuardPort:
		if len(message) < 32 || message[0] < 1 || message[0] > 4 || message[1]|message[2]|message[3] != 0 {
			return fmt.Errorf("no message of WireGuard on its port")
		}
		return nil
	}
	return fmt.Errorf("UDP from port %d to %d", from, to)
}

// segment is of TCP between two addresses. What is said first in a connection,
// by either side, must be a record of TLS.
func (s *Sealed) segment(between string, b []byte) error {
	const syn = 2
	from, to := ports(b)
	if from != paths.APITLSPort && to != paths.APITLSPort {
		return fmt.Errorf("TCP from port %d to %d", from, to)
	}
	head := int(b[12]>>4) * 4
	if head < 20 || head > len(b) {
		return fmt.Errorf("TCP header of %d octets in %d", head, len(b))
	}
	key, number, data := between+string(b[:4]), binary.BigEndian.Uint32(b[4:]), b[head:]
	if s.first == nil {
		s.first = map[string]uint32{}
	}
	if b[13]&syn != 0 {
		s.first[key] = number + 1
		return nil
	}
	first, known := s.first[key]
	if !known || number != first || len(data) == 0 {
		return nil
	}
	if data[0] < 20 || data[0] > 23 || len(data) > 1 && data[1] != 3 {
		return fmt.Errorf("a connection to port %d that does not begin with a record of TLS", paths.APITLSPort)
	}
	return nil
}
