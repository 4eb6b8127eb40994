package sae

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"filippo.io/nistec"

	"halo.internal/model/dot11"
)

// huntRounds is how many candidates are always tried. One in two is no
// abscissa of the curve, so that one password in 2^40 finds none.
const huntRounds = 40

// hunt derives the password element of two stations by hunting and pecking
// (12.4.4.2.2). All rounds take the same steps whatever they find; the first
// that found a point is kept by masks.
func hunt(password []byte, a, b dot11.MAC) (*nistec.P256Point, error) {
	var x [scalarSize]byte
	var parity byte
	found := 0
	for counter := byte(1); counter <= huntRounds; counter++ {
		ok, candidate, odd := candidateOf(password, a, b, counter)
		take := ok &^ found
		subtle.ConstantTimeCopy(take, x[:], candidate[:])
		parity = byte(subtle.ConstantTimeSelect(take, int(odd), int(parity)))
		found |= take
		clear(candidate[:])
	}
	defer clear(x[:])
	if found == 0 {
		return nil, fmt.Errorf("password element: none in %d rounds", huntRounds)
	}
	return lift(x[:], parity)
}

// candidateOf returns the abscissa and parity that a counter gives, and 1 if
// there is such a point, else 0.
func candidateOf(password []byte, a, b dot11.MAC, counter byte) (ok int, x [scalarSize]byte, parity byte) {
	h := hmac.New(sha256.New, maxMin(a, b))
	h.Write(password)
	h.Write([]byte{counter})
	var seed [sha256.Size]byte
	h.Sum(seed[:0])
	dot11.KDF(x[:], seed[:], "SAE Hunting and Pecking", curve.pBytes)
	ok = less(x[:], curve.pBytes) & onCurve(&x)
	parity = seed[len(seed)-1] & 1
	clear(seed[:])
	return ok, x, parity
}

// maxMin is the greater address followed by the lesser.
func maxMin(a, b dot11.MAC) []byte {
	if bytes.Compare(a[:], b[:]) < 0 {
		a, b = b, a
	}
	return append(a[:], b[:]...)
}
