package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha512"
	"testing"
)

// TestAgree: both sides have one secret, for one context; the map to Curve25519
// is that of the private keys.
func TestAgree(t *testing.T) {
	a, b, c := key(t, 1), key(t, 2), key(t, 3)
	ab, errA := a.Agree(b.Public(), "x", 32)
	ba, errB := b.Agree(a.Public(), "x", 32)
	if errA != nil || errB != nil || !bytes.Equal(ab, ba) || len(ab) != 32 {
		t.Fatalf("got %x %v and %x %v", ab, errA, ba, errB)
	}
	for name, other := range map[string]func() ([]byte, error){
		"another context": func() ([]byte, error) { return a.Agree(b.Public(), "y", 32) },
		"another peer":    func() ([]byte, error) { return a.Agree(c.Public(), "x", 32) },
		"itself":          func() ([]byte, error) { return a.Agree(a.Public(), "x", 32) },
	} {
		if got, err := other(); err != nil || bytes.Equal(got, ab) {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
	for seed := range byte(20) {
		k := key(t, seed)
		h := sha512.Sum512(k.Seed())
		priv, err := ecdh.X25519().NewPrivateKey(h[:32])
		if err != nil {
			t.Fatal(err)
		}
		u, err := montgomery(k.Public())
		if err != nil || !bytes.Equal(u, priv.PublicKey().Bytes()) {
			t.Errorf("key %d: got %x, %v, want %x", seed, u, err, priv.PublicKey().Bytes())
		}
	}
}

// TestAgreeWithNobody: keys of small groups would make the secret known to all.
func TestAgreeWithNobody(t *testing.T) {
	one := PublicKey{0: 1}
	minusOne := PublicKey{}
	for i := range minusOne {
		minusOne[i] = 0xff
	}
	minusOne[0], minusOne[31] = 0xec, 0x7f
	beyond := minusOne
	beyond[0] = 0xee
	for name, p := range map[string]PublicKey{"neutral": one, "order two": minusOne, "order four": {}, "beyond the field": beyond} {
		if got, err := key(t, 1).Agree(p, "x", 32); err == nil {
			t.Errorf("%s: got %x", name, got)
		}
	}
}
