package proof

import (
	"errors"
	"fmt"
)

// Frames begin with the magic, a version and a kind. The body of each kind has
// one size, so there is no length to lie about; Ethernet may pad a short frame
// with zeros.
const (
	magic   = "HALO"
	version = 1
	header  = len(magic) + 2

	nonceSize = 16
	tagSize   = 16
	noiseSize = 32 + tagSize          // an ephemeral key and an empty payload
	proofSize = 32 + 64 + tagSize     // identity key and signature, encrypted
	aliveSize = counterSize + tagSize // counter and empty payload
	sealSize  = counterSize + MessageSize + tagSize
	maxFrame  = header + proofSize      // the longest kind
	greetSize = nonceSize + tagSize     // hello and solicit
	startSize = 2*nonceSize + noiseSize // initiate

	counterSize = 8
)

// MaxFrame is the most octets that a frame's payload may have.
const MaxFrame = maxFrame

type kind byte

const (
	kindHello kind = iota + 1
	kindSolicit
	kindInitiate
	kindRespond
	kindAuthenticate
	kindConfirm
	kindAlive
	kindSealed
)

// sizes of the bodies, by kind.
var sizes = [...]int{
	kindHello:        greetSize,
	kindSolicit:      greetSize,
	kindInitiate:     startSize,
	kindRespond:      noiseSize,
	kindAuthenticate: proofSize,
	kindConfirm:      proofSize,
	kindAlive:        aliveSize,
	kindSealed:       sealSize,
}

type nonce [nonceSize]byte

var errForeign = errors.New("not a frame of this protocol")

// parse returns a frame's kind and body, which aliases b.
func parse(b []byte) (kind, []byte, error) {
	if len(b) < header || string(b[:len(magic)]) != magic || b[len(magic)] != version {
		return 0, nil, errForeign
	}
	k := kind(b[len(magic)+1])
	if k < kindHello || int(k) >= len(sizes) {
		return 0, nil, fmt.Errorf("kind: expected %d to %d, got %d", kindHello, len(sizes)-1, k)
	}
	end := header + sizes[k]
	if len(b) < end {
		return 0, nil, fmt.Errorf("kind %d: expected %d octets, got %d", k, end, len(b))
	}
	if len(b) > max(end, frameMin) {
		return 0, nil, fmt.Errorf("kind %d: expected at most %d octets, got %d", k, max(end, frameMin), len(b))
	}
	for _, pad := range b[end:] {
		if pad != 0 {
			return 0, nil, fmt.Errorf("kind %d: expected padding of zeros", k)
		}
	}
	return k, b[header:end], nil
}

// build returns the frame of that kind; parts are its body.
func build(k kind, parts ...[]byte) []byte {
	b := make([]byte, 0, maxFrame)
	b = append(b, magic...)
	b = append(b, version, byte(k))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}
