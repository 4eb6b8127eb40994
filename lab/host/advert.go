package host

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// AllNodes hear each other on a link (RFC 4291, 2.7.1).
var AllNodes = netip.MustParseAddr("ff02::1")

// LinkLocal is the host's address on its link (RFC 4291, appendix A).
func (h *Host) LinkLocal() netip.Addr {
	m := h.MAC
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// Group is the MAC of a multicast group (RFC 2464, 7).
func Group(a netip.Addr) MAC {
	b := a.As16()
	return MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// routerAdvert is the type of a router advertisement.
const routerAdvert = 134

// RouterAdvert says to all that the host is a router, for half an hour, of the
// prefix, a /64 from which they are to take addresses (RFC 4861, 4.2).
func (h *Host) RouterAdvert(prefix netip.Prefix) Frame {
	const life = 1800
	b := []byte{routerAdvert, 0, 0, 0, 64, 0}
	b = binary.BigEndian.AppendUint16(b, life)
	b = append(b, make([]byte, 8)...)
	const onLink, autonomous = 0x80, 0x40
	b = append(b, 3, 4, byte(prefix.Bits()), onLink|autonomous)
	b = binary.BigEndian.AppendUint32(b, life)
	b = binary.BigEndian.AppendUint32(b, life)
	b = slices.Concat(b, make([]byte, 4), prefix.Addr().AsSlice(), []byte{1, 1}, h.MAC[:])
	from := h.LinkLocal()
	binary.BigEndian.PutUint16(b[2:], upper(from, AllNodes, protoICMPv6, b))
	return Ether(Group(AllNodes), h.MAC, TypeIPv6, IPv6(from, AllNodes, protoICMPv6, b))
}

// AdvertisedBy tells whether a frame is a router advertisement, and who sent it.
func AdvertisedBy(f Frame) (netip.Addr, bool) {
	p := f.Payload()
	if f.Kind() != TypeIPv6 || len(p) < 41 || p[6] != protoICMPv6 || p[40] != routerAdvert {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(p[8:24])), true
}
