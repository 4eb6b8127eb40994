package sae

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"filippo.io/bigmod"
	"filippo.io/nistec"

	"halo.internal/model/dot11"
)

// Constants of the simplified SWU map for P-256: z = -10; -b/a and b/(z*a),
// where a = -3.
var (
	swuZ         = minusTen()
	swuMinusBOnA = divide(negated(curve.b), negated(curve.three))
	swuBOnZA     = divide(curve.b, times(swuZ, negated(curve.three)))
)

func minusTen() *bigmod.Nat {
	return negated(field("000000000000000000000000000000000000000000000000000000000000000a"))
}

func negated(x *bigmod.Nat) *bigmod.Nat {
	return bigmod.NewNat().ExpandFor(curve.p).Sub(x, curve.p)
}

func times(x, y *bigmod.Nat) *bigmod.Nat { return copyOf(x, curve.p).Mul(y, curve.p) }

func inverse(x *bigmod.Nat) *bigmod.Nat { return bigmod.NewNat().Exp(x, curve.pMinus2, curve.p) }

func divide(x, y *bigmod.Nat) *bigmod.Nat { return times(x, inverse(y)) }

// passwordElement derives PT, the secret element that mesh ID, password and
// identifier determine whoever the peer is (12.4.4.2.3): two hashes to the
// field, mapped to the curve and added.
func passwordElement(meshID, password, identifier []byte) (*nistec.P256Point, error) {
	h := hmac.New(sha256.New, meshID)
	h.Write(password)
	h.Write(identifier)
	seed := h.Sum(nil)
	defer clear(seed)
	sum := nistec.NewP256Point()
	for _, label := range []string{"SAE Hash to Element u1 P1", "SAE Hash to Element u2 P2"} {
		wide, err := hkdf.Expand(sha256.New, seed, label, scalarSize+scalarSize/2)
		if err != nil {
			return nil, fmt.Errorf("password element: %w", err)
		}
		u, err := reduceWide(wide)
		clear(wide)
		if err != nil {
			return nil, fmt.Errorf("password element: %w", err)
		}
		p, err := mapToCurve(u)
		wipe(u)
		if err != nil {
			return nil, fmt.Errorf("password element: %w", err)
		}
		sum.Add(sum, p)
	}
	return sum, nil
}

// wideModulus is 2^384 + 1: large enough to hold what is then reduced.
var wideModulus = modulus("01" + "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000" + "1")

func reduceWide(b []byte) (*bigmod.Nat, error) {
	wide, err := bigmod.NewNat().SetBytes(b, wideModulus)
	if err != nil {
		return nil, err
	}
	defer wipe(wide)
	return bigmod.NewNat().Mod(wide, curve.p), nil
}

// mapToCurve is the simplified SWU map of 12.4.4.2.3. Both candidates are
// computed and one is chosen by masks.
func mapToCurve(u *bigmod.Nat) (*nistec.P256Point, error) {
	zu2 := times(times(u, u), swuZ)
	m := times(zu2, zu2).Add(zu2, curve.p) // z²u⁴ + zu²
	x1 := inverse(m)                       // zero stays zero
	x1.Add(field("0000000000000000000000000000000000000000000000000000000000000001"), curve.p)
	x1.Mul(swuMinusBOnA, curve.p)
	x1Bytes := x1.Bytes(curve.p)
	selectBytes(int(m.IsZero()), x1Bytes, swuBOnZA.Bytes(curve.p), x1.Bytes(curve.p))
	if _, err := x1.SetBytes(x1Bytes, curve.p); err != nil {
		return nil, err
	}
	x2 := times(zu2, x1)
	x := make([]byte, scalarSize)
	selectBytes(onCurve((*[scalarSize]byte)(x1Bytes)), x, x1Bytes, x2.Bytes(curve.p))
	defer wipe(zu2, m, x1, x2)
	defer clear(x)
	defer clear(x1Bytes)
	return lift(x, byte(u.IsOdd()))
}

// elementFor derives the password element of two stations from PT: it is
// multiplied by a hash of their addresses, which is never zero (12.4.4.3.3).
func elementFor(pt *nistec.P256Point, a, b dot11.MAC) (*nistec.P256Point, error) {
	h := hmac.New(sha256.New, make([]byte, sha256.Size))
	h.Write(maxMin(a, b))
	v, err := bigmod.NewNat().SetOverflowingBytes(h.Sum(nil), curve.qMinus1)
	if err != nil {
		return nil, fmt.Errorf("password element: %w", err)
	}
	return nistec.NewP256Point().ScalarMult(pt, addScalars(v.Bytes(curve.qMinus1), one))
}
