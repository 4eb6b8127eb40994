package identity

import (
	"crypto/ecdh"
	"crypto/sha512"
	"fmt"
	"math/big"
	"slices"
)

// Exchange returns the X25519 private key that belongs to the identity, for what
// is sealed for this node. It follows from the seed as libsodium's
// crypto_sign_ed25519_sk_to_curve25519 does, so that it stays as long as the
// identity, whatever becomes of the overlay's key.
func (k Key) Exchange() *ecdh.PrivateKey {
	h := sha512.Sum512(k.seed[:]) // RFC 8032 5.1.5; X25519 clamps by itself
	p, err := ecdh.X25519().NewPrivateKey(h[:32])
	if err != nil {
		panic("identity: " + err.Error()) // 32 octets are always a valid X25519 key
	}
	return p
}

// p25519 is the prime of the field.
var p25519 = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))

// Exchange returns the X25519 public key that belongs to the identity: the
// u coordinate (1+y)/(1−y) of its point (RFC 7748 4.1). A key that is no point,
// or one of small order, seals nothing: with those, ECDH fails.
func (p PublicKey) Exchange() (*ecdh.PublicKey, error) {
	y := slices.Clone(p[:])
	y[31] &= 0x7f // the sign of x
	slices.Reverse(y)
	v := new(big.Int).SetBytes(y)
	below := new(big.Int).Sub(big.NewInt(1), v)
	below.Mod(below, p25519)
	if below.Sign() == 0 || v.Cmp(p25519) >= 0 {
		return nil, fmt.Errorf("identity key of %s: expected a point of the curve with an inverse", p.ID())
	}
	u := new(big.Int).Add(big.NewInt(1), v)
	u.Mul(u, below.ModInverse(below, p25519))
	b := u.Mod(u, p25519).FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return ecdh.X25519().NewPublicKey(b)
}
