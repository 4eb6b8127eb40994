package operator

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"halo.internal/identity"
)

// Both ends of a door prove their keys within TLS 1.3: a node's identity, an
// operator's own key. What is in these certificates besides the key means
// nothing: who a node is follows from its key, who an operator is from the
// operator certificate that names the key.

// TLSCertificate wraps an Ed25519 key, given by its seed, for TLS.
func TLSCertificate(seed []byte, name string) (tls.Certificate, error) {
	if len(seed) != ed25519.SeedSize {
		return tls.Certificate{}, fmt.Errorf("key of %s: expected %d octets, got %d", name, ed25519.SeedSize, len(seed))
	}
	key := ed25519.NewKeyFromSeed(seed)
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		// Nobody looks at these; clocks here may be anything.
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("key of %s: %w", name, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ErrNoKey is returned for a peer that has proved no key of this kind.
var ErrNoKey = errors.New("it has not proved an Ed25519 key")

// PeerKey returns the key that the other end has proved.
func PeerKey(s tls.ConnectionState) (identity.PublicKey, error) {
	if len(s.PeerCertificates) == 0 {
		return identity.PublicKey{}, ErrNoKey
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return identity.PublicKey{}, ErrNoKey
	}
	return identity.PublicKey(key), nil
}
