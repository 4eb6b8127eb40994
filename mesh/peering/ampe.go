package peering

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"

	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// Suite selectors (9.4.2.24): the only cipher and key management spoken.
var (
	ccmp128 = []byte{0x00, 0x0f, 0xac, 4}
	akmSAE  = []byte{0x00, 0x0f, 0xac, 8}
)

const (
	keySize    = 16
	nonceSize  = 32
	igtkKeyID  = 4
	noExpiry   = 0xffffffff // of an MGTK, which is never renewed in a join
	groupSize  = keySize + 8 + 4
	igtkSize   = 2 + 6 + keySize
	ampeFixed  = 4 + 2*nonceSize // cipher suite and nonces
	ampeHeader = 2               // element ID and length, which are encrypted too
)

type nonce [nonceSize]byte

// Key is a temporal key of CCMP-128 or BIP-CMAC-128. It prints as a placeholder.
type Key [keySize]byte

const hidden = "key(hidden)"

// Format keeps the key out of whatever is printed.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue keeps the key out of logs.
func (Key) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText keeps the key out of JSON.
func (Key) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// GroupKeys protect what a station sends to all its peers. Each draws its own
// once per join and hands it to every peer in its Open.
type GroupKeys struct {
	MGTK    Key     // key index 1, which is not sent
	RSC     [8]byte // receive sequence counter of the MGTK, little endian, 6 octets of it used
	IGTK    Key     // key index 4; only with management frame protection
	IPN     [6]byte // packet number of the IGTK, little endian
	HasIGTK bool
}

// wipe overwrites the keys.
func (g *GroupKeys) wipe() { *g = GroupKeys{} }

// ampe is the plaintext of the Authenticated Mesh Peering Exchange element
// (9.4.2.118).
type ampe struct {
	sender   nonce // Selected by who sends it
	receiver nonce // zeros: the sender does not know it yet
	group    *GroupKeys
}

// append returns the element, its ID and length included.
func (a *ampe) append() []byte {
	b := make([]byte, 0, ampeHeader+ampeFixed+groupSize+igtkSize)
	b = append(b, byte(dot11.AMPE), 0)
	b = append(b, ccmp128...)
	b = append(b, a.sender[:]...)
	b = append(b, a.receiver[:]...)
	if g := a.group; g != nil {
		b = append(b, g.MGTK[:]...)
		b = append(b, g.RSC[:]...)
		b = binary.LittleEndian.AppendUint32(b, noExpiry)
		if g.HasIGTK {
			b = binary.LittleEndian.AppendUint16(b, igtkKeyID)
			b = append(b, g.IPN[:]...)
			b = append(b, g.IGTK[:]...)
		}
	}
	b[1] = byte(len(b) - ampeHeader)
	return b
}

// parseAMPE reads the decrypted element. Group keys are read if the frame is an
// Open, and ignored elsewhere.
func parseAMPE(b []byte, open bool) (ampe, error) {
	if len(b) < ampeHeader+ampeFixed || b[0] != byte(dot11.AMPE) || int(b[1]) != len(b)-ampeHeader {
		return ampe{}, fmt.Errorf("AMPE: %d octets are no such element", len(b))
	}
	b = b[ampeHeader:]
	if !bytes.Equal(b[:4], ccmp128) {
		return ampe{}, fmt.Errorf("AMPE: expected cipher suite %x, got %x", ccmp128, b[:4])
	}
	a := ampe{sender: nonce(b[4:]), receiver: nonce(b[4+nonceSize:])}
	if a.sender == (nonce{}) {
		return ampe{}, fmt.Errorf("AMPE: the sender's nonce is zero")
	}
	if !open {
		return a, nil
	}
	b = b[ampeFixed:]
	if len(b) != groupSize && len(b) != groupSize+igtkSize {
		return ampe{}, fmt.Errorf("AMPE: expected %d or %d octets of group keys, got %d", groupSize, groupSize+igtkSize, len(b))
	}
	g := &GroupKeys{MGTK: Key(b), RSC: [8]byte(b[keySize:])}
	if b = b[groupSize:]; len(b) > 0 {
		if id := binary.LittleEndian.Uint16(b); id != igtkKeyID && id != igtkKeyID+1 {
			return ampe{}, fmt.Errorf("AMPE: expected IGTK of index %d or %d, got %d", igtkKeyID, igtkKeyID+1, id)
		}
		g.HasIGTK, g.IPN, g.IGTK = true, [6]byte(b[2:]), Key(b[8:])
	}
	a.group = g
	return a, nil
}

// minMax is the lesser address followed by the greater; SAE has it the other
// way round.
func minMax(a, b dot11.MAC) []byte {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	return append(a[:], b[:]...)
}

// deriveAEK returns the key that encrypts AMPE between two stations (14.5.7).
func deriveAEK(pmk *sae.PMK, a, b dot11.MAC) (aek [sivKeySize]byte) {
	dot11.KDF(aek[:], pmk[:], "AEK Derivation", akmSAE, minMax(a, b))
	return aek
}

// side is what one station brings to the temporal key.
type side struct {
	mac   dot11.MAC
	nonce nonce
	link  uint16
}

// deriveMTK returns the key of the link's unicast frames (14.5.7). Nonces, link
// IDs and addresses are ordered each for itself, link IDs as numbers.
func deriveMTK(pmk *sae.PMK, a, b side) (mtk Key) {
	n, m := a.nonce, b.nonce
	if bytes.Compare(n[:], m[:]) > 0 {
		n, m = m, n
	}
	var links []byte
	links = binary.LittleEndian.AppendUint16(links, min(a.link, b.link))
	links = binary.LittleEndian.AppendUint16(links, max(a.link, b.link))
	dot11.KDF(mtk[:], pmk[:], "Temporal Key Derivation", n[:], m[:], links, akmSAE, minMax(a.mac, b.mac))
	return mtk
}
