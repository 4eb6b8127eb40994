package identity

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestExchangeKeysBelongTogether: what is computed of the public half is the
// public half of what is computed of the secret one.
func TestExchangeKeysBelongTogether(t *testing.T) {
	for range 200 {
		k := New()
		p, err := k.Public().Exchange()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Bytes(), k.Exchange().PublicKey().Bytes()) {
			t.Fatalf("%s: the two halves differ", k)
		}
	}
}

// TestExchangeIsLibsodiums uses the vector of libsodium's test/default/ed25519_convert.c.
func TestExchangeIsLibsodiums(t *testing.T) {
	seed, _ := hex.DecodeString("421151a459faeade3d247115f94aedae42318124095afabe4d1451a559faedee")
	k, err := FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.Public().Exchange()
	if err != nil {
		t.Fatal(err)
	}
	const public, secret = "f1814f0e8ff1043d8a44d25babff3cedcae6c22c3edaa48f857ae70de2baae50", "8052030376d47112be7f73ed7a019293dd12ad910b654455798b4667d73de166"
	if got := hex.EncodeToString(p.Bytes()); got != public {
		t.Errorf("public: got %s, want %s", got, public)
	}
	got := k.Exchange().Bytes()
	got[0] &= 248
	got[31] = got[31]&127 | 64 // libsodium clamps what it returns
	if hex.EncodeToString(got) != secret {
		t.Errorf("secret: got %x, want %s", got, secret)
	}
}

func TestExchangeRefusesWhatIsNoPoint(t *testing.T) {
	one := PublicKey{1} // y = 1, the neutral element
	over := PublicKey(bytes.Repeat([]byte{0xff}, 32))
	for _, p := range []PublicKey{one, over} {
		if _, err := p.Exchange(); err == nil {
			t.Errorf("%x was taken", p)
		}
	}
	low := PublicKey{} // y = 0: of order four
	if x, err := low.Exchange(); err == nil {
		if _, err := New().Exchange().ECDH(x); err == nil {
			t.Error("a key of small order agreed on a secret")
		}
	}
}
