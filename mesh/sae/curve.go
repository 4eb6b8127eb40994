package sae

import (
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"filippo.io/bigmod"
	"filippo.io/nistec"
)

// Group is the one finite cyclic group that is spoken: NIST P-256, number 19 of
// the IANA registry that 12.4.4.1 refers to. Every implementation has to have
// it.
const Group = 19

const (
	scalarSize  = 32
	elementSize = 64 // x and y
)

// curve is P-256: y² = x³ - 3x + b over p, of prime order q. bigmod computes in
// constant time; math/big would not.
var curve = struct {
	p, q, qMinus1 *bigmod.Modulus
	pBytes        []byte
	qBytes        []byte
	b             *bigmod.Nat
	three         *bigmod.Nat
	pMinus2       []byte // the exponent of inversion
}{
	p:       modulus("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
	q:       modulus("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
	qMinus1: modulus("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550"),
	pBytes:  octets("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"),
	qBytes:  octets("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
	b:       field("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"),
	three:   field("0000000000000000000000000000000000000000000000000000000000000003"),
	pMinus2: octets("ffffffff00000001000000000000000000000000fffffffffffffffffffffffd"),
}

func octets(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func modulus(s string) *bigmod.Modulus {
	m, err := bigmod.NewModulus(octets(s))
	if err != nil {
		panic(err)
	}
	return m
}

func field(s string) *bigmod.Nat {
	n, err := bigmod.NewNat().SetBytes(octets(s), modulus("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"))
	if err != nil {
		panic(err)
	}
	return n
}

// copyOf returns a copy of x, which must be reduced modulo m.
func copyOf(x *bigmod.Nat, m *bigmod.Modulus) *bigmod.Nat {
	return bigmod.NewNat().ExpandFor(m).Add(x, m)
}

// less returns 1 if the big-endian a is less than b, both of 32 octets, and 0
// if not, in constant time.
func less(a, b []byte) int {
	var borrow uint64
	for i := 24; i >= 0; i -= 8 {
		_, borrow = bits.Sub64(be64(a[i:]), be64(b[i:]), borrow)
	}
	return int(borrow)
}

func be64(b []byte) uint64 {
	_ = b[7]
	return uint64(b[0])<<56 | uint64(b[1])<<48 | uint64(b[2])<<40 | uint64(b[3])<<32 |
		uint64(b[4])<<24 | uint64(b[5])<<16 | uint64(b[6])<<8 | uint64(b[7])
}

// lift returns the point of abscissa x whose ordinate has the parity given.
func lift(x []byte, parity byte) (*nistec.P256Point, error) {
	var b [1 + scalarSize]byte
	b[0] = 2 | parity&1
	copy(b[1:], x)
	defer clear(b[:])
	return nistec.NewP256Point().SetBytes(b[:])
}

var one = append(make([]byte, scalarSize-1), 1)

// inRange returns 1 if 1 < s < q, as 12.4.5.4 demands of scalars.
func inRange(s []byte) int { return less(one, s) & less(s, curve.qBytes) }

// randomScalar returns an integer between 1 and q, both excluded, of 32 octets.
func randomScalar(random io.Reader) ([]byte, error) {
	s := make([]byte, scalarSize)
	for range 64 { // each misses with a chance of 2^-32
		if _, err := io.ReadFull(random, s); err != nil {
			return nil, fmt.Errorf("random scalar: %w", err)
		}
		if inRange(s) == 1 {
			return s, nil
		}
	}
	return nil, errors.New("random scalar: the source of randomness is stuck")
}

// addScalars returns a + b modulo q; both are less than q.
func addScalars(a, b []byte) []byte {
	x, errX := bigmod.NewNat().SetBytes(a, curve.q)
	y, errY := bigmod.NewNat().SetBytes(b, curve.q)
	if errX != nil || errY != nil {
		panic("sae: scalar out of range")
	}
	sum := x.Add(y, curve.q).Bytes(curve.q)
	wipe(x, y)
	return sum
}

// point reads the 64 octets of an element: coordinates less than p, on the
// curve, and so of order q. Infinity has no such form.
func point(element []byte) (*nistec.P256Point, error) {
	var b [1 + elementSize]byte
	if len(element) != elementSize {
		return nil, fmt.Errorf("element: expected %d octets, got %d", elementSize, len(element))
	}
	b[0] = 4
	copy(b[1:], element)
	return nistec.NewP256Point().SetBytes(b[:])
}

// wipe overwrites numbers that were secret.
func wipe(list ...*bigmod.Nat) {
	for _, n := range list {
		clear(n.Bits())
	}
}

// selectBytes copies x into out if cond is 1, and y if it is 0.
func selectBytes(cond int, out, x, y []byte) {
	subtle.ConstantTimeCopy(1-cond, out, y)
	subtle.ConstantTimeCopy(cond, out, x)
}
