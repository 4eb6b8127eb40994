package identity

import (
	"bytes"
	"testing"
)

// TestPossession: who has a key proves it, and nobody else does, whatever he has heard.
func TestPossession(t *testing.T) {
	network, node, other := New(), New(), New()
	prove := func(of PublicKey, by PublicKey, k Key) []byte {
		t.Helper()
		b, err := ProvePossession(of, by, k.WireGuard())
		if err != nil || len(b) != PossessionSize {
			t.Fatalf("got %d octets, %v", len(b), err)
		}
		return b
	}
	own, others := node.WireGuardPublic(), other.WireGuardPublic()
	good := prove(network.Public(), node.Public(), node)
	if again := prove(network.Public(), node.Public(), node); !bytes.Equal(good, again) {
		t.Error("the proof is another one each time")
	}
	same := own
	same[31] |= 0x80 // X25519 ignores the bit (RFC 7748 5), and would take this for the same key
	for _, tc := range []struct {
		name   string
		node   PublicKey
		public []byte
		proof  []byte
		want   bool
	}{
		{"its own", node.Public(), own[:], good, true},
		{"another node repeats it", other.Public(), own[:], good, false},
		{"another node's key, with a proof of its own", node.Public(), others[:], good, false},
		{"made with a key of another's", node.Public(), own[:], prove(network.Public(), node.Public(), other), false},
		{"for another network", node.Public(), own[:], prove(other.Public(), node.Public(), node), false},
		{"the same key, written otherwise", node.Public(), same[:], good, false},
		{"none", node.Public(), own[:], nil, false},
		{"half of it", node.Public(), own[:], good[:PossessionSize/2], false},
		{"no key", node.Public(), nil, good, false},
		{"a key that everybody has", node.Public(), make([]byte, 32), possession(make([]byte, 32), network.Public(), node.Public(), make([]byte, 32)), false},
	} {
		if got := network.Possesses(tc.node, tc.public, tc.proof); got != tc.want {
			t.Errorf("%s: got %v", tc.name, got)
		}
	}
	if _, err := ProvePossession(PublicKey{1}, node.Public(), node.WireGuard()); err == nil {
		t.Error("a network's key that is no point was taken")
	}
}
