package sae

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"filippo.io/nistec"

	"halo.internal/model/dot11"
)

const (
	kckSize     = 32
	confirmSize = 32
)

// values are what a Commit says about a handshake.
type values struct {
	scalar  [scalarSize]byte
	element [elementSize]byte
}

// secrets are what a side keeps of its own Commit until it has the keys.
type secrets struct {
	rand [scalarSize]byte
	pwe  *nistec.P256Point
}

// wipe leaves the password element, which its peer keeps for the next time.
func (s *secrets) wipe() { clear(s.rand[:]) }

// commit draws rand and mask and returns scalar and element (12.4.5.2).
func commit(pwe *nistec.P256Point, random io.Reader) (values, secrets, error) {
	for {
		r, err := randomScalar(random)
		if err != nil {
			return values{}, secrets{}, err
		}
		mask, err := randomScalar(random)
		if err != nil {
			return values{}, secrets{}, err
		}
		sum := addScalars(r, mask)
		if inRange(sum) == 0 {
			continue
		}
		e, err := nistec.NewP256Point().ScalarMult(pwe, mask)
		clear(mask)
		if err != nil {
			return values{}, secrets{}, fmt.Errorf("commit element: %w", err)
		}
		v := values{scalar: [scalarSize]byte(sum), element: [elementSize]byte(e.Negate(e).Bytes()[1:])}
		s := secrets{rand: [scalarSize]byte(r), pwe: pwe}
		clear(r)
		return v, s, nil
	}
}

// check refuses values that 12.4.5.4 refuses. A reflection of our own is the
// caller's to see.
func (v *values) check() error {
	if inRange(v.scalar[:]) == 0 {
		return errors.New("commit scalar is out of range")
	}
	if _, err := point(v.element[:]); err != nil {
		return fmt.Errorf("commit element: %w", err)
	}
	return nil
}

// keys are what both sides derive.
type keys struct {
	kck   [kckSize]byte
	pmk   PMK
	pmkid PMKID
}

func (k *keys) wipe() {
	clear(k.kck[:])
	clear(k.pmk[:])
}

// derive computes the keys that own secrets and the peer's Commit give
// (12.4.5.4). Salt is the rejected groups of both sides, nil if there are none.
func derive(s *secrets, own, peer *values, salt []byte) (keys, error) {
	e, err := point(peer.element[:])
	if err != nil {
		return keys{}, fmt.Errorf("commit element: %w", err)
	}
	k, err := nistec.NewP256Point().ScalarMult(s.pwe, peer.scalar[:])
	if err != nil {
		return keys{}, fmt.Errorf("shared element: %w", err)
	}
	k.Add(k, e)
	if k, err = k.ScalarMult(k, s.rand[:]); err != nil {
		return keys{}, fmt.Errorf("shared element: %w", err)
	}
	x, err := k.BytesX()
	k.Set(nistec.NewP256Point())
	if err != nil {
		return keys{}, fmt.Errorf("shared element: %w", err) // the identity
	}
	return expand(x, own, peer, salt), nil
}

// expand derives the keys from the shared secret x, which it wipes.
func expand(x []byte, own, peer *values, salt []byte) keys {
	if len(salt) == 0 {
		salt = make([]byte, sha256.Size)
	}
	h := hmac.New(sha256.New, salt)
	h.Write(x)
	seed := h.Sum(nil)
	context := addScalars(own.scalar[:], peer.scalar[:])
	var out [kckSize + PMKSize]byte
	dot11.KDF(out[:], seed, "SAE KCK and PMK", context)
	ks := keys{kck: [kckSize]byte(out[:kckSize]), pmk: PMK(out[kckSize:]), pmkid: PMKID(context[:PMKIDSize])}
	clear(out[:])
	clear(seed)
	clear(x)
	return ks
}

// confirm returns the Confirm field that the side sends whose Commit is from,
// with its send-confirm counter (12.4.5.5, 12.4.5.6).
func confirm(kck []byte, counter uint16, from, to *values) [confirmSize]byte {
	h := hmac.New(sha256.New, kck)
	h.Write(binary.LittleEndian.AppendUint16(nil, counter))
	for _, v := range []*values{from, to} {
		h.Write(v.scalar[:])
		h.Write(v.element[:])
	}
	return [confirmSize]byte(h.Sum(nil))
}

// groupSalt joins the rejected groups that both sides named, those of the
// greater address first (12.4.5.4).
func groupSalt(own, peer dot11.MAC, ownGroups, peerGroups []byte) []byte {
	if bytes.Compare(own[:], peer[:]) > 0 {
		return append(bytes.Clone(ownGroups), peerGroups...)
	}
	return append(bytes.Clone(peerGroups), ownGroups...)
}
