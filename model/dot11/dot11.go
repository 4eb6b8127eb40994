// Package dot11 holds what the clauses of IEEE 802.11 share that HALO speaks by
// itself: addresses, the header of management frames, elements, status and
// reason codes. It only reads and writes octets; what they mean for security or
// peering is decided in mesh/sae and mesh/peering.
//
// Clauses are those of IEEE Std 802.11-2020.
package dot11

import (
	"encoding/binary"
	"fmt"
	"net"
)

// MAC is a station's address.
type MAC [6]byte

// String returns the usual notation.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText is String, for JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMAC does.
func (m *MAC) UnmarshalText(b []byte) (err error) {
	*m, err = ParseMAC(string(b))
	return err
}

// ParseMAC reads the usual notation, six octets.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("hardware address: expected six octets such as 02:00:00:00:00:01, got %.40q", s)
	}
	return MAC(hw), nil
}

// Group tells whether the address is of a group, which no station sends from.
func (m MAC) Group() bool { return m[0]&1 != 0 }

// Subtype is a management frame's kind (9.2.4.1.3).
type Subtype byte

// Subtypes that HALO sends.
const (
	ProbeRequest   Subtype = 4
	Authentication Subtype = 11
	Action         Subtype = 13
)

// HeaderSize is the octets of a management frame's header without HT control.
const HeaderSize = 24

// Bits of the first two octets.
const (
	versionAndType = 0x0f // management is type 0, version 0
	flagToFromDS   = 0x03
	flagProtected  = 0x40
	flagOrder      = 0x80
)

// Header is what matters of a management frame's header (9.3.3.2): receiver and
// transmitter. The third address is the transmitter's too when mesh stations
// authenticate and peer.
type Header struct {
	Subtype Subtype
	To      MAC // address 1, RA
	From    MAC // address 2, TA
}

// ParseManagement splits a management frame, from its Frame Control field on
// and without FCS, into header and body; the body aliases b. Frames that are
// encrypted, carry an HT Control field or come from a group address are
// refused.
func ParseManagement(b []byte) (Header, []byte, error) {
	if len(b) < HeaderSize {
		return Header{}, nil, fmt.Errorf("management frame: expected at least %d octets, got %d", HeaderSize, len(b))
	}
	if b[0]&versionAndType != 0 {
		return Header{}, nil, fmt.Errorf("management frame: expected type and version 0, got %#02x", b[0]&versionAndType)
	}
	if b[1]&(flagToFromDS|flagProtected|flagOrder) != 0 {
		return Header{}, nil, fmt.Errorf("management frame: unexpected flags %#02x", b[1])
	}
	h := Header{Subtype: Subtype(b[0] >> 4), To: MAC(b[4:10]), From: MAC(b[10:16])}
	if h.From.Group() {
		return Header{}, nil, fmt.Errorf("management frame: sent from the group address %s", h.From)
	}
	return h, b[HeaderSize:], nil
}

// AppendManagement appends the header to b; duration and sequence are left to
// the radio.
func AppendManagement(b []byte, h Header) []byte {
	b = append(b, byte(h.Subtype)<<4, 0, 0, 0)
	b = append(b, h.To[:]...)
	b = append(b, h.From[:]...)
	b = append(b, h.From[:]...)
	return binary.LittleEndian.AppendUint16(b, 0)
}

// Frame is a management frame to be sent, header included.
type Frame struct {
	To    MAC
	Bytes []byte
}
