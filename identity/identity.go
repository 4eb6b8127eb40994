// Package identity holds what makes a device one node for ever: its Ed25519
// key, the canonical ID and the addresses that follow from it, the messages it
// signs, and the file that keeps all this. The gateway's identity key is at
// the same time the key of its network.
package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// PublicKey is an Ed25519 public key.
type PublicKey [ed25519.PublicKeySize]byte

// Key is a node's secret: the Ed25519 identity and the X25519 key of its
// WireGuard overlay. It prints as its ID, never as its bytes.
type Key struct {
	seed      [ed25519.SeedSize]byte
	public    PublicKey // follows from the seed; that costs what a signature does, and is asked for everywhere
	wireguard [32]byte
}

// New makes a key from the system's randomness.
func New() Key {
	var k Key
	rand.Read(k.seed[:])
	rand.Read(k.wireguard[:])
	k.public = publicOf(k.seed)
	return k
}

// FromSeed makes a key with the given 32-octet identity seed, as a gateway's
// bundle carries it, and a fresh WireGuard key.
func FromSeed(seed []byte) (Key, error) {
	if len(seed) != ed25519.SeedSize {
		return Key{}, fmt.Errorf("identity seed: expected %d octets, got %d", ed25519.SeedSize, len(seed))
	}
	k := New()
	copy(k.seed[:], seed)
	k.public = publicOf(k.seed)
	return k, nil
}

// Seed returns the identity seed, for a bundle or a backup.
func (k Key) Seed() []byte { return k.seed[:] }

// Public returns the identity's public half.
func (k Key) Public() PublicKey { return k.public }

func publicOf(seed [ed25519.SeedSize]byte) PublicKey {
	return PublicKey(ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
}

// ID returns the canonical ID.
func (k Key) ID() string { return k.Public().ID() }

// WireGuard returns the X25519 private key of the overlay.
func (k Key) WireGuard() [32]byte { return k.wireguard }

// WithWireGuard returns the key with another X25519 private key for the overlay.
func (k Key) WithWireGuard(private [32]byte) Key {
	k.wireguard = private
	return k
}

// WireGuardPublic returns the X25519 public key of the overlay (RFC 7748).
func (k Key) WireGuardPublic() [32]byte {
	p, err := ecdh.X25519().NewPrivateKey(k.wireguard[:])
	if err != nil {
		panic("identity: " + err.Error()) // 32 octets are always a valid X25519 key
	}
	return [32]byte(p.PublicKey().Bytes())
}

// String returns the canonical ID, so that a key that reaches a log shows
// nothing secret.
func (k Key) String() string { return k.ID() }

// GoString is String: %#v prints no secret either.
func (k Key) GoString() string { return k.ID() }

// Sign signs a payload for one use. Contexts are constants such as
// "halo join 1": a signature made for one use is never valid for another.
func (k Key) Sign(context string, payload []byte) []byte {
	return ed25519.Sign(ed25519.NewKeyFromSeed(k.seed[:]), message(context, payload))
}

// Verify tells whether sig is p's signature over payload for that use.
func (p PublicKey) Verify(context string, payload, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(p[:], message(context, payload), sig)
}

func message(context string, payload []byte) []byte {
	m := make([]byte, 0, len(context)+1+len(payload))
	m = append(m, context...)
	m = append(m, 0)
	return append(m, payload...)
}

// idEncoding is base32 (RFC 4648) in lower case without padding.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// ID returns the canonical ID: "n-" and 20 characters, 100 bits of SHA-256.
func (p PublicKey) ID() string {
	h := sha256.Sum256(append([]byte("halo node id 1"), p[:]...))
	return "n-" + idEncoding.EncodeToString(h[:])[:20]
}

// ValidID tells whether s has the form of a canonical ID.
func ValidID(s string) bool {
	if len(s) != 22 || !strings.HasPrefix(s, "n-") {
		return false
	}
	return strings.Trim(s[2:], "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// Base64 returns the key in standard base64, as bundles and the API carry it.
func (p PublicKey) Base64() string { return base64.StdEncoding.EncodeToString(p[:]) }

// ParsePublicKey reads a key in standard base64.
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key: expected 44 characters of base64: %w", err)
	}
	if len(b) != ed25519.PublicKeySize {
		return PublicKey{}, fmt.Errorf("public key: expected %d octets, got %d", ed25519.PublicKeySize, len(b))
	}
	return PublicKey(b), nil
}

// Subnets of the network's ULA /48.
const (
	subnetUnderlay = 1
	subnetOverlay  = 2
)

// Underlay returns the address that node has on bat0 in the network of that
// key: a ULA (RFC 4193) whose global ID and interface ID are hashes, so that
// nobody has to give it out.
func Underlay(network, node PublicKey) netip.Addr { return ula(network, node, subnetUnderlay) }

// Overlay returns the IPv6 address that node has on wg0.
func Overlay(network, node PublicKey) netip.Addr { return ula(network, node, subnetOverlay) }

// Clients returns the IPv6 network of a node's clients, which goes with the one
// that they have of IPv4, a /24 of 10.43.0.0/16: the /64 of the network's ULA
// whose subnet ID is 0x0100 and the third octet.
func Clients(network PublicKey, v4 netip.Prefix) netip.Prefix {
	a := ula(network, PublicKey{}, 0).As16()
	clear(a[8:])
	a[6], a[7] = 1, v4.Addr().As4()[2]
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

func ula(network, node PublicKey, subnet byte) netip.Addr {
	n := sha256.Sum256(append([]byte("halo ula 1"), network[:]...))
	i := sha256.Sum256(append([]byte("halo iid 1"), node[:]...))
	var a [16]byte
	a[0] = 0xfd
	copy(a[1:6], n[:])
	a[7] = subnet
	copy(a[8:], i[:8])
	return netip.AddrFrom16(a)
}

// ErrSignature is returned where a signature does not fit.
var ErrSignature = errors.New("signature does not verify")
