package sae

import "math/bits"

// fieldElement is an integer modulo p in Montgomery form, x*2^256 mod p, of four
// limbs, the least significant first.
//
// Hunting and pecking asks forty times whether a number is a square, which in
// bigmod takes nine tenths of a handshake, since it knows nothing of p. nistec
// knows p, but tells a square from another number by an error, and so by time.
// This is the little that is needed in between: no branch and no index depends
// on a value.
type fieldElement [4]uint64

// p, and 2^512 mod p, which brings numbers into Montgomery form.
var (
	limbsP  = fieldElement{0xffffffffffffffff, 0x00000000ffffffff, 0, 0xffffffff00000001}
	limbsRR = fieldElement{0x0000000000000003, 0xfffffffbffffffff, 0xfffffffffffffffe, 0x00000004fffffffd}
	limbsB  = newFieldElement([scalarSize]byte(octets("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b")))
	limbs3  = newFieldElement([scalarSize]byte{31: 3})
)

// newFieldElement returns the big-endian b modulo p.
func newFieldElement(b [scalarSize]byte) fieldElement {
	x := fieldElement{be64(b[24:]), be64(b[16:]), be64(b[8:]), be64(b[0:])}
	x.reduce(0)
	return x.times(&limbsRR)
}

// reduce subtracts p once if x, with carry as its fifth limb, is not less.
func (x *fieldElement) reduce(carry uint64) {
	var y fieldElement
	var borrow uint64
	for i := range y {
		y[i], borrow = bits.Sub64(x[i], limbsP[i], borrow)
	}
	_, borrow = bits.Sub64(carry, 0, borrow)
	keep := -borrow // all ones if x was less
	for i := range x {
		x[i] = x[i]&keep | y[i]&^keep
	}
}

// times returns x*y/2^256 mod p: Montgomery multiplication, one limb of y after
// the other. Since p is -1 modulo 2^64, the multiple of p to add is the lowest
// limb itself.
func (x *fieldElement) times(y *fieldElement) fieldElement {
	var t0, t1, t2, t3, t4 uint64
	for i := range 4 {
		var c, hi, lo uint64
		v := y[i]
		// t += x * v
		hi, lo = bits.Mul64(x[0], v)
		t0, c = bits.Add64(t0, lo, 0)
		carry := hi + c
		hi, lo = bits.Mul64(x[1], v)
		lo, c = bits.Add64(lo, carry, 0)
		hi += c
		t1, c = bits.Add64(t1, lo, 0)
		carry = hi + c
		hi, lo = bits.Mul64(x[2], v)
		lo, c = bits.Add64(lo, carry, 0)
		hi += c
		t2, c = bits.Add64(t2, lo, 0)
		carry = hi + c
		hi, lo = bits.Mul64(x[3], v)
		lo, c = bits.Add64(lo, carry, 0)
		hi += c
		t3, c = bits.Add64(t3, lo, 0)
		carry = hi + c
		var t5 uint64
		t4, t5 = bits.Add64(t4, carry, 0)

		// t = (t + m*p) / 2^64, with m = t0 and p = 2^256 - 2^224 + 2^192 + 2^96 - 1:
		// t0 - m is zero; m*2^96 and m*(2^256 - 2^224 + 2^192) are added.
		m := t0
		t1, c = bits.Add64(t1, m<<32, 0)
		t2, c = bits.Add64(t2, m>>32, c)
		hi, lo = bits.Mul64(m, limbsP[3])
		t3, c = bits.Add64(t3, lo, c)
		t4, c = bits.Add64(t4, hi, c)
		t5 += c
		t0, t1, t2, t3, t4 = t1, t2, t3, t4, t5
	}
	z := fieldElement{t0, t1, t2, t3}
	z.reduce(t4)
	return z
}

// squared returns x squared n times over.
func (x fieldElement) squared(n int) fieldElement {
	for range n {
		x = x.times(&x)
	}
	return x
}

// plus returns x + y mod p.
func (x *fieldElement) plus(y *fieldElement) fieldElement {
	var z fieldElement
	var c uint64
	for i := range z {
		z[i], c = bits.Add64(x[i], y[i], c)
	}
	z.reduce(c)
	return z
}

// minus returns x - y mod p.
func (x *fieldElement) minus(y *fieldElement) fieldElement {
	var z fieldElement
	var borrow, c uint64
	for i := range z {
		z[i], borrow = bits.Sub64(x[i], y[i], borrow)
	}
	back := -borrow
	for i := range z {
		z[i], c = bits.Add64(z[i], limbsP[i]&back, c)
	}
	return z
}

// isZero returns 1 if x is zero, and 0 if not.
func (x *fieldElement) isZero() int {
	v := x[0] | x[1] | x[2] | x[3]
	return int(1 ^ (v|-v)>>63)
}

// onCurve returns 1 if a point has the big-endian abscissa x, taken modulo p,
// and 0 if none does. It takes the only root that x³ - 3x + b may have, its
// power of (p+1)/4 = 2^254 - 2^222 + 2^190 + 2^94, and squares it.
func onCurve(x *[scalarSize]byte) int {
	e := newFieldElement(*x)
	y := e.times(&e)
	y = y.minus(&limbs3)
	y = y.times(&e)
	y = y.plus(&limbsB)

	r := y // y^(2^n - 1) for n = 1, 2, 4, 8, 16, 32
	for n := 1; n < 32; n *= 2 {
		s := r.squared(n)
		r = s.times(&r)
	}
	r = r.squared(32) // 2^64 - 2^32
	r = r.times(&y)
	r = r.squared(96) // 2^160 - 2^128 + 2^96
	r = r.times(&y)
	r = r.squared(94)
	r = r.times(&r)
	d := r.minus(&y)
	ok := d.isZero()
	clear(e[:])
	clear(y[:])
	clear(r[:])
	clear(d[:])
	return ok
}
