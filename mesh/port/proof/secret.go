package proof

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"runtime/debug"
	"slices"

	"golang.org/x/crypto/argon2"

	"halo.internal/identity"
)

// Cost of guessing a mesh secret from recorded frames. A board of the Pi family
// spends a fraction of a second, once; bundles that HALO makes carry secrets
// which no cost would let anyone guess.
const (
	argonPasses = 1
	argonKiB    = 16 << 10
)

// Secret is what members of a mesh share. It prints as nothing.
type Secret struct {
	psk   [32]byte // Noise
	hello [32]byte // tags of greetings
}

// Derive makes the secret of a mesh's PSK; two networks with the same PSK have
// different ones. It takes 16 MiB and some time, and gives the memory back.
func Derive(meshPSK string, network identity.PublicKey) Secret {
	root := argon2.IDKey([]byte(meshPSK), slices.Concat([]byte("halo port psk 1"), network[:]), argonPasses, argonKiB, 1, 32)
	// Else the collector takes twice as much for the usual size of this process,
	// for as long as it runs.
	debug.FreeOSMemory()
	return Secret{psk: expand(root, "noise"), hello: expand(root, "hello")}
}

func expand(root []byte, use string) [32]byte {
	b, err := hkdf.Expand(sha256.New, root, "halo port "+use+" 1", 32)
	if err != nil {
		panic("proof: " + err.Error()) // 32 octets are always within HKDF's limit
	}
	return [32]byte(b)
}

// String hides the secret.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret.
func (Secret) GoString() string { return "(secret)" }

// Greets tells whether a frame that arrived from that address is the hello of a
// device that knows the secret: for ports that only listen. A recorded one
// greets as well; nothing may rest on it.
func (s Secret) Greets(from, to MAC, payload []byte) bool {
	k, body, err := parse(payload)
	if err != nil || k != kindHello || to != Broadcast || from[0]&1 != 0 {
		return false
	}
	return hmac.Equal(body[nonceSize:], s.tag(k, from, to, nonce(body[:nonceSize])))
}

// tag authenticates a greeting, so that strangers can't make a port begin
// handshakes. It covers the addresses: a recorded greeting speaks only for the
// device that made it.
func (s Secret) tag(k kind, from, to MAC, n nonce) []byte {
	h := hmac.New(sha256.New, s.hello[:])
	h.Write([]byte{byte(k)})
	h.Write(from[:])
	h.Write(to[:])
	h.Write(n[:])
	return h.Sum(nil)[:tagSize]
}
