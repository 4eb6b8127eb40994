package sak

import (
	"encoding/binary"
	"fmt"

	"halo.internal/mesh/port/proof"
)

// Messages begin with a version and a kind. What a later release adds stands
// behind what there is, in octets that are zero today and not looked at.
const (
	version = 1

	kindOffer = 1
	kindTaken = 2
)

// Cipher suites that an offer may name.
const (
	suiteNone      = 0
	suiteGCMAES128 = 1
)

// offer is what a member has: no MACsec, or a key of its own.
type offer struct {
	suite  uint8
	an     uint8
	serial uint32 // of the key
	using  uint32 // serial of the key in use: those of before are dead
	pn     uint32 // the lowest packet number that is to come
	sci    SCI
	key    Key
}

// taken acknowledges an offer.
type taken struct{ serial, using uint32 }

// Places in a message, in octets. Numbers are big-endian.
const (
	atSuite  = 2
	atAN     = 3
	atSerial = 4
	atUsing  = 8
	atPN     = 12
	atSCI    = 16
	atKey    = 24
)

func (o offer) marshal() (m proof.Message) {
	m[0], m[1], m[atSuite], m[atAN] = version, kindOffer, o.suite, o.an
	binary.BigEndian.PutUint32(m[atSerial:], o.serial)
	binary.BigEndian.PutUint32(m[atUsing:], o.using)
	binary.BigEndian.PutUint32(m[atPN:], o.pn)
	copy(m[atSCI:], o.sci[:])
	copy(m[atKey:], o.key[:])
	return m
}

func (t taken) marshal() (m proof.Message) {
	m[0], m[1] = version, kindTaken
	binary.BigEndian.PutUint32(m[atSerial:], t.serial)
	binary.BigEndian.PutUint32(m[atUsing:], t.using)
	return m
}

// parse returns an offer or a taken.
func parse(m proof.Message) (any, error) {
	if m[0] != version {
		return nil, fmt.Errorf("version: expected %d, got %d", version, m[0])
	}
	serial, using := binary.BigEndian.Uint32(m[atSerial:]), binary.BigEndian.Uint32(m[atUsing:])
	switch m[1] {
	case kindTaken:
		return taken{serial, using}, nil
	case kindOffer:
	default:
		return nil, fmt.Errorf("kind: expected %d or %d, got %d", kindOffer, kindTaken, m[1])
	}
	o := offer{
		suite: m[atSuite], an: m[atAN], serial: serial, using: using,
		pn: binary.BigEndian.Uint32(m[atPN:]), sci: SCI(m[atSCI:atKey]), key: Key(m[atKey : atKey+len(Key{})]),
	}
	switch {
	case o.suite == suiteNone:
		return offer{serial: serial, using: using}, nil
	case o.suite != suiteGCMAES128:
		return nil, fmt.Errorf("cipher suite: expected %d or %d, got %d", suiteNone, suiteGCMAES128, o.suite)
	case o.an >= numbers:
		return nil, fmt.Errorf("association number: expected one below %d, got %d", numbers, o.an)
	case serial == 0 || using > serial:
		return nil, fmt.Errorf("serials: expected a key's that is not older than the one in use, got %d and %d", serial, using)
	case o.pn == 0:
		return nil, fmt.Errorf("packet number: expected 1 or more, got 0")
	case o.key == Key{}:
		return nil, fmt.Errorf("key: expected one that was drawn, got none")
	}
	return o, nil
}
