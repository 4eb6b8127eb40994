package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Numbers of protocols.
const (
	protoICMP   = 1
	protoUDP    = 17
	protoICMPv6 = 58
)

// IPv4 makes a packet (RFC 791).
func IPv4(from, to netip.Addr, proto byte, payload []byte) []byte {
	const head = 20
	b := make([]byte, head, head+len(payload))
	b[0], b[8], b[9] = 4<<4|head/4, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(head+len(payload)))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// IPv6 makes a packet (RFC 8200) as neighbours send it to each other.
func IPv6(from, to netip.Addr, next byte, payload []byte) []byte {
	b := []byte{6 << 4, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, next, 255)
	return slices.Concat(b, from.AsSlice(), to.AsSlice(), payload)
}

// UDP4 makes a datagram in an IPv4 packet; it has no checksum (RFC 768).
func UDP4(from, to netip.AddrPort, payload []byte) []byte {
	return IPv4(from.Addr(), to.Addr(), protoUDP, udp(from.Port(), to.Port(), payload))
}

// UDP6 makes one in an IPv6 packet.
func UDP6(from, to netip.AddrPort, payload []byte) []byte {
	u := udp(from.Port(), to.Port(), payload)
	binary.BigEndian.PutUint16(u[6:], upper(from.Addr(), to.Addr(), protoUDP, u))
	return IPv6(from.Addr(), to.Addr(), protoUDP, u)
}

func udp(from, to uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// checksum of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// upper is the checksum of what is in an IPv6 packet (RFC 8200, 8.1).
func upper(from, to netip.Addr, proto byte, payload []byte) uint16 {
	b := slices.Concat(from.AsSlice(), to.AsSlice(), binary.BigEndian.AppendUint32(nil, uint32(len(payload))), []byte{0, 0, 0, proto}, payload)
	if sum := checksum(b); sum != 0 || proto != protoUDP {
		return sum
	}
	return 0xffff
}

// ipv4 takes a packet apart; ok is false for what is none.
func ipv4(p []byte) (from, to netip.Addr, proto byte, payload []byte, ok bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return
	}
	head, total := int(p[0]&0xf)*4, int(binary.BigEndian.Uint16(p[2:]))
	if head < 20 || total < head || total > len(p) {
		return
	}
	return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[9], p[head:total], true
}

// arp makes a message of ARP (RFC 826).
func arp(op uint16, from MAC, sender netip.Addr, to MAC, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4}
	b = binary.BigEndian.AppendUint16(b, op)
	return slices.Concat(b, from[:], sender.AsSlice(), to[:], target.AsSlice())
}

const (
	arpRequest = 1
	arpReply   = 2
)

// answer answers who asks for this host's address.
func (h *Host) answer(f Frame) {
	mine := h.Address()
	if f.Kind() != TypeARP || !mine.Is4() {
		return
	}
	p := f.Payload()
	if len(p) < 28 || binary.BigEndian.Uint16(p[6:]) != arpRequest || netip.AddrFrom4([4]byte(p[24:28])) != mine {
		return
	}
	to, sender := MAC(p[8:14]), netip.AddrFrom4([4]byte(p[14:18]))
	// In a goroutine of its own, as whoever reads must not wait for his own words.
	h.wg.Go(func() { _ = h.Send(Ether(to, h.MAC, TypeARP, arp(arpReply, h.MAC, mine, to, sender))) })
}

// resolve asks for the MAC of a neighbour.
func (h *Host) resolve(ctx context.Context, a netip.Addr) (mac MAC, err error) {
	found := make(chan MAC, 1)
	err = h.ask(ctx, "ARP for "+a.String(), time.Second,
		func() Frame { return Ether(Broadcast, h.MAC, TypeARP, arp(arpRequest, h.MAC, h.Address(), MAC{}, a)) },
		func(f Frame) bool {
			p := f.Payload()
			if f.Kind() != TypeARP || len(p) < 28 || binary.BigEndian.Uint16(p[6:]) != arpReply || netip.AddrFrom4([4]byte(p[14:18])) != a {
				return false
			}
			select {
			case found <- MAC(p[8:14]):
			default:
			}
			return true
		})
	if err != nil {
		return mac, err
	}
	return <-found, nil
}

// Ping sends echo requests (RFC 792) to an address, by way of a neighbour, until one
// is answered.
func (h *Host) Ping(ctx context.Context, to, via netip.Addr) error {
	mine := h.Address()
	if !mine.Is4() {
		return fmt.Errorf("ping %s: the host has no address", to)
	}
	mac, err := h.resolve(ctx, via)
	if err != nil {
		return err
	}
	const echo, reply = 8, 0
	seq := uint16(0)
	return h.ask(ctx, "ping "+to.String(), time.Second, func() Frame {
		seq++
		b := []byte{echo, 0, 0, 0, 'H', 'L'}
		b = binary.BigEndian.AppendUint16(b, seq)
		binary.BigEndian.PutUint16(b[2:], checksum(b))
		return Ether(mac, h.MAC, TypeIPv4, IPv4(mine, to, protoICMP, b))
	}, func(f Frame) bool {
		if f.Kind() != TypeIPv4 || f.To() != h.MAC {
			return false
		}
		from, dest, proto, p, ok := ipv4(f.Payload())
		return ok && from == to && dest == mine && proto == protoICMP && len(p) >= 8 && p[0] == reply && p[4] == 'H' && p[5] == 'L'
	})
}

// Claims says to all that an address is the host's (gratuitous ARP, RFC 5227).
func (h *Host) Claims(a netip.Addr) Frame {
	return Ether(Broadcast, h.MAC, TypeARP, arp(arpReply, h.MAC, a, Broadcast, a))
}
