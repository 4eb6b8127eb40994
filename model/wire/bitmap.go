package wire

import "math/bits"

// bitmap holds one bit per metric or report, lowest bits first.
type bitmap []byte

func newBitmap(n int) bitmap { return make(bitmap, (n+7)/8) }

func (m bitmap) set(i int)      { m[i/8] |= 1 << (i % 8) }
func (m bitmap) get(i int) bool { return m[i/8]>>(i%8)&1 == 1 }

func (m bitmap) count() (n int) {
	for _, b := range m {
		n += bits.OnesCount8(b)
	}
	return n
}

// readBitmap takes a bitmap of n bits off b. Spare bits must be zero: count
// relies on it.
func readBitmap(b []byte, n int) (bitmap, []byte, error) {
	size := (n + 7) / 8
	if len(b) < size {
		return nil, nil, malformed("bitmap: expected %d octets, got %d", size, len(b))
	}
	m := bitmap(b[:size])
	if n%8 != 0 && m[size-1]>>(n%8) != 0 {
		return nil, nil, malformed("bitmap: expected %d bits, got more set", n)
	}
	return m, b[size:], nil
}
