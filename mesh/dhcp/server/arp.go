package server

import (
	"encoding/binary"
	"net/netip"
)

// arpSize is an ARP message (RFC 826) between Ethernet and IPv4, in octets.
const arpSize = 28

// heard is who speaks by ARP: of an address that is its own, or, in a probe
// (RFC 5227, 2.1.1), of one that it would like to have.
type heard struct {
	mac  mac
	addr netip.Addr
}

// parseARP reads a request or an answer; of other messages it says false.
func parseARP(b []byte) (heard, bool) {
	if len(b) < arpSize || binary.BigEndian.Uint16(b) != 1 || binary.BigEndian.Uint16(b[2:]) != 0x0800 || b[4] != 6 || b[5] != 4 {
		return heard{}, false
	}
	op := binary.BigEndian.Uint16(b[6:])
	h := heard{mac(b[8:14]), netip.AddrFrom4([4]byte(b[14:18]))}
	if h.addr.IsUnspecified() && op == 1 {
		h.addr = netip.AddrFrom4([4]byte(b[24:28]))
	}
	return h, (op == 1 || op == 2) && !h.addr.IsUnspecified()
}

// arpProbe asks who has an address without saying that anybody else does.
func arpProbe(from mac, a netip.Addr) []byte {
	b := make([]byte, 0, arpSize)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(b, from[:]...)
	b = append(b, make([]byte, 4+6)...)
	return append(b, a.AsSlice()...)
}
