package identity

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// PossessionSize is the length of a proof of possession.
const PossessionSize = 16

// ProvePossession returns the proof that node has the private half of an X25519 key of
// the overlay, for the gateway of that network alone: such a key cannot sign. It is a
// MAC of node and public key under what private and the network's key agree on, as in
// RFC 6955 5. It is the same each time, and no other node's: whoever has heard it can
// do nothing with it.
func ProvePossession(network, node PublicKey, private [32]byte) ([]byte, error) {
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, fmt.Errorf("proof of possession: %w", err)
	}
	to, err := network.Exchange()
	if err != nil {
		return nil, fmt.Errorf("proof of possession: %w", err)
	}
	shared, err := key.ECDH(to)
	if err != nil {
		return nil, fmt.Errorf("proof of possession: %w", err)
	}
	return possession(shared, network, node, key.PublicKey().Bytes()), nil
}

// Possesses tells the gateway, whose key k is the network's, whether proof shows that
// node has the private half of an X25519 public key.
func (k Key) Possesses(node PublicKey, public, proof []byte) bool {
	key, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return false
	}
	shared, err := k.Exchange().ECDH(key) // fails for keys of small order, which anybody has
	return err == nil && hmac.Equal(possession(shared, k.Public(), node, key.Bytes()), proof)
}

func possession(shared []byte, network, node PublicKey, public []byte) []byte {
	key, err := hkdf.Key(sha256.New, shared, network[:], "halo possession 1", sha256.Size)
	if err != nil {
		panic("identity: " + err.Error()) // 32 octets are always within HKDF's limit
	}
	m := hmac.New(sha256.New, key)
	m.Write(node[:]) // a hash takes everything
	m.Write(public)
	return m.Sum(nil)[:PossessionSize]
}
