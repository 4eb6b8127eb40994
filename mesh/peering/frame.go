package peering

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// action is the kind of a Mesh Peering frame, which is of the category
// Self-protected (9.6.15).
type action byte

const (
	open    action = 1
	confirm action = 2
	closing action = 3

	categorySelfProtected = 15
)

func (a action) String() string {
	switch a {
	case open:
		return "Open"
	case confirm:
		return "Confirm"
	case closing:
		return "Close"
	}
	return fmt.Sprintf("action %d", byte(a))
}

const (
	protocolAMPE     = 1
	capabilityOfMesh = 0x0010 // privacy
	maxCiphertext    = 2 + 255
)

var errForeign = errors.New("not a mesh peering frame")

// message is a Mesh Peering frame without what AMPE encrypts.
type message struct {
	action     action
	capability uint16 // Open, Confirm
	aid        uint16 // Confirm: what the sender calls the receiver
	meshID     []byte
	config     []byte // body of the Mesh Configuration element: Open, Confirm
	rsn        []byte // body of the RSN element: Open, Confirm
	local      uint16 // link ID that the sender chose
	peer       uint16 // link ID that the receiver chose: Confirm, Close; 0: not known
	reason     dot11.Reason
	pmkid      sae.PMKID

	clear      []byte // from Category up to the MIC element: what is authenticated
	mic        [sivSize]byte
	ciphertext []byte
}

// parse reads the body of an Action frame. Slices alias b. Everything up to the
// MIC element is elements; all behind it is ciphertext.
func parse(b []byte) (*message, error) {
	if len(b) < 2 || b[0] != categorySelfProtected {
		return nil, errForeign
	}
	m := &message{action: action(b[1])}
	rest := b[2:]
	fixed := 0
	switch m.action {
	case open:
		fixed = 2
	case confirm:
		fixed = 4
	case closing:
	default:
		return nil, errForeign
	}
	if len(rest) < fixed {
		return nil, fmt.Errorf("%v: cut short at %d octets", m.action, len(b))
	}
	if m.action != closing {
		m.capability = binary.LittleEndian.Uint16(rest)
	}
	if m.action == confirm {
		m.aid = binary.LittleEndian.Uint16(rest[2:])
	}
	rest = rest[fixed:]
	seen := map[dot11.ElementID]bool{}
	for {
		if len(rest) == 0 {
			return nil, fmt.Errorf("%v: expected a MIC element", m.action)
		}
		e, after, err := dot11.NextElement(rest)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", m.action, err)
		}
		if e.ID == dot11.MIC {
			if len(e.Body) != sivSize {
				return nil, fmt.Errorf("%v: expected a MIC of %d octets, got %d", m.action, sivSize, len(e.Body))
			}
			m.clear, m.mic, m.ciphertext = b[:len(b)-len(rest)], [sivSize]byte(e.Body), after
			break
		}
		rest = after
		switch e.ID {
		case dot11.MeshID, dot11.MeshConfiguration, dot11.RSN, dot11.MeshPeeringManagement:
			if seen[e.ID] {
				return nil, fmt.Errorf("%v: element %d comes twice", m.action, e.ID)
			}
			seen[e.ID] = true
		}
		if err := m.take(e); err != nil {
			return nil, err
		}
	}
	if !seen[dot11.MeshPeeringManagement] || !seen[dot11.MeshID] {
		return nil, fmt.Errorf("%v: expected Mesh ID and Mesh Peering Management elements", m.action)
	}
	if len(m.ciphertext) > maxCiphertext {
		return nil, fmt.Errorf("%v: expected at most %d octets of ciphertext, got %d", m.action, maxCiphertext, len(m.ciphertext))
	}
	return m, nil
}

func (m *message) take(e dot11.Element) error {
	switch e.ID {
	case dot11.MeshID:
		if len(e.Body) == 0 || len(e.Body) > 32 {
			return fmt.Errorf("%v: mesh ID of %d octets", m.action, len(e.Body))
		}
		m.meshID = e.Body
	case dot11.MeshConfiguration:
		if len(e.Body) != 7 {
			return fmt.Errorf("%v: mesh configuration of %d octets", m.action, len(e.Body))
		}
		m.config = e.Body
	case dot11.RSN:
		m.rsn = e.Body
	case dot11.MeshPeeringManagement:
		return m.takePeering(e.Body)
	}
	return nil
}

// takePeering reads the Mesh Peering Management element (9.4.2.102).
func (m *message) takePeering(b []byte) error {
	const always = 2 + 2 + sae.PMKIDSize
	more := map[action]int{open: 0, confirm: 2, closing: 4}[m.action]
	without := m.action == closing && len(b) == always+2 // a Close need not know the peer's link ID
	if len(b) != always+more && !without {
		return fmt.Errorf("%v: mesh peering management of %d octets, expected %d", m.action, len(b), always+more)
	}
	if p := binary.LittleEndian.Uint16(b); p != protocolAMPE {
		return fmt.Errorf("%v: expected the authenticated protocol %d, got %d", m.action, protocolAMPE, p)
	}
	m.local = binary.LittleEndian.Uint16(b[2:])
	b = b[4:]
	if m.action != open && !without {
		m.peer = binary.LittleEndian.Uint16(b)
		b = b[2:]
	}
	if m.action == closing {
		m.reason = dot11.Reason(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	m.pmkid = sae.PMKID(b)
	return nil
}

// elements are what a station says of itself in Open and Confirm.
type elements struct {
	rates, extendedRates []byte // bodies; empty: no such element
	trailing             []byte // whole elements, behind Mesh Peering Management
}

// build returns the frame's body up to the MIC element, in the order of
// 9.6.15.2 to 9.6.15.4.
func (m *message) build(el *elements) []byte {
	b := make([]byte, 0, 384)
	b = append(b, categorySelfProtected, byte(m.action))
	if m.action != closing {
		b = binary.LittleEndian.AppendUint16(b, m.capability)
		if m.action == confirm {
			b = binary.LittleEndian.AppendUint16(b, m.aid)
		}
		b = dot11.AppendElement(b, dot11.SupportedRates, el.rates)
		if len(el.extendedRates) > 0 {
			b = dot11.AppendElement(b, dot11.ExtendedSupportedRates, el.extendedRates)
		}
		b = dot11.AppendElement(b, dot11.RSN, m.rsn)
	}
	b = dot11.AppendElement(b, dot11.MeshID, m.meshID)
	if m.action != closing {
		b = dot11.AppendElement(b, dot11.MeshConfiguration, m.config)
	}
	p := binary.LittleEndian.AppendUint16(nil, protocolAMPE)
	p = binary.LittleEndian.AppendUint16(p, m.local)
	if m.action != open {
		p = binary.LittleEndian.AppendUint16(p, m.peer)
	}
	if m.action == closing {
		p = binary.LittleEndian.AppendUint16(p, uint16(m.reason))
	}
	b = dot11.AppendElement(b, dot11.MeshPeeringManagement, append(p, m.pmkid[:]...))
	if m.action != closing {
		b = append(b, el.trailing...)
	}
	return b
}

// morseAAD is how much of the body Morse's supplicant authenticates: its driver
// rewrites the elements behind on the way.
const morseAAD = 6

// associated returns the third string of associated data.
func associated(body []byte, morse bool) []byte {
	if morse {
		return body[:min(morseAAD, len(body))]
	}
	return body
}

// seal returns the whole frame: header, body, MIC and the encrypted AMPE.
func seal(s siv, morse bool, h dot11.Header, body []byte, a *ampe) []byte {
	plain := a.append()
	v, out := s.seal(plain, h.From[:], h.To[:], associated(body, morse))
	clear(plain)
	b := dot11.AppendManagement(make([]byte, 0, dot11.HeaderSize+len(body)+2+len(v)+len(out)), h)
	b = append(b, body...)
	b = dot11.AppendElement(b, dot11.MIC, v[:])
	return append(b, out...)
}

// unseal returns a frame's AMPE element, or errForged.
func (m *message) unseal(s siv, morse bool, h dot11.Header) (ampe, error) {
	plain, err := s.open(m.mic, m.ciphertext, h.From[:], h.To[:], associated(m.clear, morse))
	if err != nil {
		return ampe{}, err
	}
	defer clear(plain)
	return parseAMPE(plain, m.action == open)
}

// Bits of RSN capabilities (9.4.2.24.4).
const (
	mfpRequired = 1 << 6
	mfpCapable  = 1 << 7
)

// MFP says whether management frames are protected.
type MFP int

// Policies.
const (
	MFPRequired MFP = iota
	MFPOptional
	MFPOff
)

// RSN returns the body of the RSN element of a policy: CCMP-128 and SAE. It is
// also for the beacon, without which others do not peer.
func RSN(p MFP) []byte {
	b := []byte{1, 0}
	b = append(b, ccmp128...)
	b = append(append(b, 1, 0), ccmp128...)
	b = append(append(b, 1, 0), akmSAE...)
	return binary.LittleEndian.AppendUint16(b, map[MFP]uint16{MFPRequired: mfpRequired | mfpCapable, MFPOptional: mfpCapable}[p])
}

// agreeRSN checks a peer's RSN element against own policy, and tells whether
// management frames of the two are protected.
func agreeRSN(own MFP, b []byte) (protected bool, err error) {
	const plain = 2 + 4 + 2 + 4 + 2 + 4 + 2
	if len(b) < plain || !bytes.Equal(b[:plain-2], RSN(own)[:plain-2]) {
		return false, fmt.Errorf("RSN: expected CCMP-128 and SAE alone, got %x", b)
	}
	caps := binary.LittleEndian.Uint16(b[plain-2:])
	switch {
	case own == MFPRequired && caps&mfpCapable == 0:
		return false, errors.New("RSN: the peer does not protect management frames")
	case own == MFPOff && caps&mfpRequired != 0:
		return false, errors.New("RSN: the peer demands protected management frames")
	}
	return own != MFPOff && caps&mfpCapable != 0, nil
}
