package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// Agree returns a secret of n octets that the holders of two identities, and
// nobody else, can compute: X25519 between the Curve25519 forms of both keys
// (RFC 7748, 4.1), as libsodium and age do it, and HKDF-SHA256 over it, the
// context and both public keys. The same pair has the same secret for ever.
func (k Key) Agree(peer PublicKey, context string, n int) ([]byte, error) {
	h := sha512.Sum512(k.seed[:]) // the scalar of Ed25519 (RFC 8032, 5.1.5); X25519 clamps it
	own, err := ecdh.X25519().NewPrivateKey(h[:32])
	if err != nil {
		panic("identity: " + err.Error()) // 32 octets are always a valid X25519 key
	}
	u, err := montgomery(peer)
	if err != nil {
		return nil, fmt.Errorf("agree with %s: %w", peer.ID(), err)
	}
	theirs, err := ecdh.X25519().NewPublicKey(u)
	if err != nil {
		return nil, fmt.Errorf("agree with %s: %w", peer.ID(), err)
	}
	shared, err := own.ECDH(theirs)
	if err != nil { // a point of low order
		return nil, fmt.Errorf("agree with %s: %w", peer.ID(), err)
	}
	first, second := k.Public(), peer
	if bytes.Compare(first[:], second[:]) > 0 {
		first, second = second, first
	}
	return hkdf.Key(sha256.New, shared, slices.Concat(first[:], second[:]), context, n)
}

var (
	fieldPrime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	errPoint   = errors.New("expected a point of Curve25519")
)

// montgomery maps a public key to Curve25519: u = (1+y)/(1-y). It is public, so
// that the time this takes may tell of it.
func montgomery(p PublicKey) ([]byte, error) {
	le := p
	le[31] &= 0x7f // the sign of x
	slices.Reverse(le[:])
	y := new(big.Int).SetBytes(le[:])
	if y.Cmp(fieldPrime) >= 0 {
		return nil, errPoint
	}
	one := big.NewInt(1)
	inverse := new(big.Int).ModInverse(new(big.Int).Mod(new(big.Int).Sub(one, y), fieldPrime), fieldPrime)
	if inverse == nil { // y is 1
		return nil, errPoint
	}
	u := new(big.Int).Mod(inverse.Mul(inverse, new(big.Int).Add(one, y)), fieldPrime)
	out := u.FillBytes(make([]byte, 32))
	slices.Reverse(out)
	return out, nil
}
