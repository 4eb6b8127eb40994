// Package claim is the cryptography of claiming a gateway: how the first user
// and the gateway prove to each other that they know the claim code before
// either believes the other. The client checks the gateway's proof, which
// covers the key of the TLS connection, and only then sends a password; the
// code itself never travels. Both gateway-api and its clients use it.
//
//	K            = argon2id(normalised code, salt = network key)
//	server proof = HMAC-SHA256(K, "halo claim server 1" ‖ client nonce ‖ server nonce ‖ binding)
//	client proof = HMAC-SHA256(K, "halo claim client 1" ‖ client nonce ‖ server nonce ‖ binding ‖
//	               SHA-256(username ‖ 0 ‖ password))
//
// The binding is the SHA-256 of the TLS leaf's public key (SPKI), or empty on
// the loopback and the overlay, where HTTP is plain.
package claim

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Sizes in octets.
const (
	NonceSize = 32
	SaltSize  = 32 // the network key
)

// ForRestore stands in the place of the user's name in a client's proof, with an empty
// password, for a gateway that is to be restored from a backup. No user has such a name.
const ForRestore = "restore a backup"

// A code has 13 symbols of 5 bits: 65 bits in three groups.
const (
	alphabet   = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's base32: nothing to confuse when read aloud
	symbols    = 13
	minSymbols = 12 // 60 bits
	maxSymbols = 64
)

// Cost of the key derivation. The code is random, so that this only has to
// make a search dearer, not bearable for a weak password; the memory fits a
// board of 512 MB.
const (
	argonTime    = 2
	argonKiB     = 19 << 10
	argonThreads = 1
)

// NewCode makes a claim code of 65 random bits, e.g. "7K3M-Q0ZT-4WXPB".
func NewCode() string {
	raw := make([]byte, symbols)
	rand.Read(raw)
	var b strings.Builder
	for i, r := range raw {
		if i == 4 || i == 8 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[r&31])
	}
	return b.String()
}

// ErrCode is returned for a text that cannot be a claim code.
var ErrCode = errors.New("not a claim code")

// Normalise brings a code as a person typed it into the form that is hashed:
// upper case without separators, O read as 0, I and L as 1.
func Normalise(code string) (string, error) {
	var b strings.Builder
	for _, r := range strings.ToUpper(code) {
		switch {
		case r == '-' || r == ' ' || r == '\t' || r == '\r' || r == '\n':
		case r == 'O':
			b.WriteByte('0')
		case r == 'I' || r == 'L':
			b.WriteByte('1')
		case r >= '0' && r <= '9' || r >= 'A' && r <= 'Z':
			b.WriteRune(r)
		default:
			return "", fmt.Errorf("%w: expected letters, digits and hyphens", ErrCode)
		}
		if b.Len() > maxSymbols {
			return "", fmt.Errorf("%w: expected at most %d letters and digits", ErrCode, maxSymbols)
		}
	}
	if b.Len() < minSymbols {
		return "", fmt.Errorf("%w: expected at least %d letters and digits, got %d", ErrCode, minSymbols, b.Len())
	}
	return b.String(), nil
}

// Key is what both sides derive from the code. It prints as nothing.
type Key struct{ k [32]byte }

// String keeps the key out of logs.
func (Key) String() string { return "claim key" }

// GoString is String.
func (Key) GoString() string { return "claim key" }

// Derive derives the key from a code and the salt that the gateway sent, its
// network key.
func Derive(code string, salt []byte) (Key, error) {
	norm, err := Normalise(code)
	if err != nil {
		return Key{}, err
	}
	if len(salt) != SaltSize {
		return Key{}, fmt.Errorf("claim salt: expected %d octets, got %d", SaltSize, len(salt))
	}
	return Key{[32]byte(argon2.IDKey([]byte(norm), salt, argonTime, argonKiB, argonThreads, 32))}, nil
}

// NewNonce makes one side's nonce.
func NewNonce() []byte {
	n := make([]byte, NonceSize)
	rand.Read(n)
	return n
}

// Binding names the TLS connection's server key in a proof.
func Binding(leaf *x509.Certificate) []byte {
	h := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return h[:]
}

// Exchange is what one claim's proofs cover besides the code.
type Exchange struct {
	ClientNonce []byte
	ServerNonce []byte
	Binding     []byte // of the TLS leaf; empty on loopback and overlay
}

// ErrExchange is returned for nonces or a binding of the wrong size.
var ErrExchange = errors.New("claim: nonces must have 32 octets, the binding 32 or none")

func (e Exchange) check() error {
	if len(e.ClientNonce) != NonceSize || len(e.ServerNonce) != NonceSize ||
		(len(e.Binding) != 0 && len(e.Binding) != sha256.Size) {
		return ErrExchange
	}
	return nil
}

// ServerProof is what the gateway sends first.
func (k Key) ServerProof(e Exchange) ([]byte, error) {
	return k.mac(e, "halo claim server 1", nil)
}

// ClientProof is what the client sends with the user name and password that it
// covers.
func (k Key) ClientProof(e Exchange, username, password string) ([]byte, error) {
	h := sha256.Sum256([]byte(username + "\x00" + password))
	return k.mac(e, "halo claim client 1", h[:])
}

// VerifyServer tells whether proof is the gateway's for this exchange.
func (k Key) VerifyServer(e Exchange, proof []byte) bool {
	want, err := k.ServerProof(e)
	return err == nil && hmac.Equal(want, proof)
}

// VerifyClient tells whether proof is the client's for this exchange and these
// credentials.
func (k Key) VerifyClient(e Exchange, username, password string, proof []byte) bool {
	want, err := k.ClientProof(e, username, password)
	return err == nil && hmac.Equal(want, proof)
}

func (k Key) mac(e Exchange, label string, more []byte) ([]byte, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	m := hmac.New(sha256.New, k.k[:])
	for _, part := range [][]byte{[]byte(label), e.ClientNonce, e.ServerNonce, e.Binding, more} {
		m.Write(part)
	}
	return m.Sum(nil), nil
}
