package peering

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
)

// The sizes of AES-SIV with AES-128 in octets: of its key, which is two, and of
// the synthetic initialization vector that authenticates.
const (
	sivKeySize = 32
	sivSize    = aes.BlockSize
)

var errForged = errors.New("does not decrypt: forged, damaged, or under another key")

// siv is AES-SIV (RFC 5297). No library at hand takes more than one string of
// associated data, and AMPE has three.
type siv struct {
	mac cipher.Block // K1, of S2V
	ctr cipher.Block // K2
}

func newSIV(key *[sivKeySize]byte) siv {
	mac, err := aes.NewCipher(key[:sivKeySize/2])
	if err != nil {
		panic(err) // the size is right
	}
	ctr, err := aes.NewCipher(key[sivKeySize/2:])
	if err != nil {
		panic(err)
	}
	return siv{mac, ctr}
}

// seal returns the synthetic IV and the ciphertext, as long as the plaintext.
func (s siv) seal(plain []byte, ad ...[]byte) (v [sivSize]byte, out []byte) {
	v = s.s2v(plain, ad)
	out = make([]byte, len(plain))
	s.counter(v, out, plain)
	return v, out
}

// open returns the plaintext, or errForged.
func (s siv) open(v [sivSize]byte, in []byte, ad ...[]byte) ([]byte, error) {
	plain := make([]byte, len(in))
	s.counter(v, plain, in)
	expected := s.s2v(plain, ad)
	if subtle.ConstantTimeCompare(v[:], expected[:]) != 1 {
		clear(plain)
		return nil, errForged
	}
	return plain, nil
}

func (s siv) counter(v [sivSize]byte, out, in []byte) {
	v[8] &= 0x7f // section 2.5: so that 32- and 64-bit additions suffice
	v[12] &= 0x7f
	cipher.NewCTR(s.ctr, v[:]).XORKeyStream(out, in)
}

// s2v is section 2.4.
func (s siv) s2v(plain []byte, ad [][]byte) [sivSize]byte {
	d := s.cmac(make([]byte, sivSize))
	for _, a := range ad {
		d = double(d)
		m := s.cmac(a)
		subtle.XORBytes(d[:], d[:], m[:])
	}
	if len(plain) < sivSize {
		d = double(d)
		var t [sivSize]byte
		copy(t[:], plain)
		t[len(plain)] = 0x80
		subtle.XORBytes(d[:], d[:], t[:])
		return s.cmac(d[:])
	}
	t := append([]byte(nil), plain...)
	end := t[len(t)-sivSize:]
	subtle.XORBytes(end, end, d[:])
	defer clear(t)
	return s.cmac(t)
}

// cmac is AES-CMAC (RFC 4493).
func (s siv) cmac(m []byte) (x [sivSize]byte) {
	var l [sivSize]byte
	s.mac.Encrypt(l[:], l[:])
	k := double(l)
	for len(m) > sivSize {
		subtle.XORBytes(x[:], x[:], m[:sivSize])
		s.mac.Encrypt(x[:], x[:])
		m = m[sivSize:]
	}
	var last [sivSize]byte
	if copy(last[:], m) < sivSize {
		last[len(m)] = 0x80
		k = double(k)
	}
	subtle.XORBytes(x[:], x[:], last[:])
	subtle.XORBytes(x[:], x[:], k[:])
	s.mac.Encrypt(x[:], x[:])
	return x
}

// double multiplies by x in GF(2^128), in constant time.
func double(b [sivSize]byte) (d [sivSize]byte) {
	for i := range sivSize - 1 {
		d[i] = b[i]<<1 | b[i+1]>>7
	}
	d[sivSize-1] = b[sivSize-1]<<1 ^ 0x87&-(b[0]>>7)
	return d
}
