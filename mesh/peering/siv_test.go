package peering

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSIV are the examples of RFC 5297, appendix A.
func TestSIV(t *testing.T) {
	for name, c := range map[string]struct {
		key, plain, out string
		ad              []string
	}{
		"A.1 deterministic": {
			key:   "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
			ad:    []string{"101112131415161718191a1b1c1d1e1f2021222324252627"},
			plain: "112233445566778899aabbccddee",
			out:   "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c",
		},
		"A.2 nonce-based": {
			key: "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
			ad: []string{
				"00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
				"102030405060708090a0", "09f911029d74e35bd84156c5635688c0",
			},
			plain: "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
			out:   "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
		},
	} {
		s := newSIV((*[sivKeySize]byte)(fromHex(t, c.key)))
		var ad [][]byte
		for _, a := range c.ad {
			ad = append(ad, fromHex(t, a))
		}
		plain := fromHex(t, c.plain)
		v, out := s.seal(plain, ad...)
		if got := hex.EncodeToString(append(v[:], out...)); got != c.out {
			t.Errorf("%s: expected %s, got %s", name, c.out, got)
		}
		back, err := s.open(v, out, ad...)
		if err != nil || !bytes.Equal(back, plain) {
			t.Errorf("%s: expected the plaintext, got %x %v", name, back, err)
		}
		for i := range v {
			w := v
			w[i] ^= 1
			if _, err := s.open(w, out, ad...); err == nil {
				t.Errorf("%s: a changed octet %d of the IV opens", name, i)
			}
		}
		if _, err := s.open(v, out[1:], ad...); err == nil {
			t.Errorf("%s: cut ciphertext opens", name)
		}
		ad[0] = append(bytes.Clone(ad[0]), 0)
		if _, err := s.open(v, out, ad...); err == nil {
			t.Errorf("%s: other associated data opens", name)
		}
	}
}
