package wire

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// The modes of a column; see the package's text.
const (
	modeValues  = 0
	modeDeltas  = 1
	modeSlopes  = 2 // differences of differences
	modeVarints = 3
)

// AppendColumn packs values as batches have them, for what is kept of them. Their
// number has to be known to who reads it.
func AppendColumn(dst []byte, vs []int64) []byte { return appendColumn(dst, vs) }

// ReadColumn fills vs from what AppendColumn made, and returns what is behind it.
func ReadColumn(b []byte, vs []int64) (rest []byte, err error) { return readColumn(b, vs) }

// appendColumn packs vs in the smallest way.
func appendColumn(dst []byte, vs []int64) []byte {
	if len(vs) == 0 {
		return dst
	}
	if len(vs) == 1 {
		return binary.AppendVarint(dst, vs[0])
	}
	best, mode, order := math.MaxInt, 0, 0
	for o := 0; o <= 2 && o < len(vs); o++ {
		head := 0
		for i := range o {
			head += varintLen(difference(vs, o, i))
		}
		low, width := frame(vs, o)
		if n := head + varintLen(low) + ((len(vs)-o)*width+7)/8; n < best {
			best, mode, order = n, o, o
		}
		n := head
		for i := o; i < len(vs) && n < best; i++ {
			n += varintLen(difference(vs, o, i))
		}
		if n < best {
			best, mode, order = n, modeVarints, o
		}
	}
	if mode == modeVarints {
		return appendVarints(append(dst, modeVarints<<6|byte(order)), vs, order, len(vs))
	}
	low, width := frame(vs, order)
	dst = appendVarints(append(dst, byte(mode<<6|min(width, 63))), vs, order, order)
	return appendBits(binary.AppendVarint(dst, low), vs, order, low, width)
}

// appendVarints appends the first n of the differences of that order as varints.
func appendVarints(dst []byte, vs []int64, order, n int) []byte {
	for i := range n {
		dst = binary.AppendVarint(dst, difference(vs, order, i))
	}
	return dst
}

// readColumn fills vs from b and returns the rest of b.
func readColumn(b []byte, vs []int64) ([]byte, error) {
	if len(vs) == 0 {
		return b, nil
	}
	if len(vs) == 1 {
		return readVarints(b, vs)
	}
	if len(b) == 0 {
		return nil, malformed("column: expected a mode octet, got the end")
	}
	mode, width := int(b[0]>>6), int(b[0]&63)
	b = b[1:]
	order := mode
	if mode == modeVarints {
		order = width
	}
	if order > 2 || order >= len(vs) {
		return nil, malformed("column: expected differences of an order below 3 and below its %d values, got order %d", len(vs), order)
	}
	if mode == modeVarints {
		b, err := readVarints(b, vs)
		sum(vs, order)
		return b, err
	}
	b, err := readVarints(b, vs[:order])
	if err != nil {
		return nil, err
	}
	low, n := binary.Varint(b)
	if n <= 0 {
		return nil, malformed("column: expected its smallest value, got no valid varint")
	}
	if width == 63 {
		width = 64
	}
	b, err = readBits(b[n:], vs[order:], low, width)
	sum(vs, order)
	return b, err
}

// difference returns the i-th of the differences of that order, which is 2 at most: the first
// ones are the terms that sum needs to undo it. Arithmetic wraps, on both sides alike.
func difference(vs []int64, order, i int) int64 {
	switch min(order, i) {
	case 0:
		return vs[i]
	case 1:
		return vs[i] - vs[i-1]
	default:
		return vs[i] - 2*vs[i-1] + vs[i-2]
	}
}

// sum undoes differences in place.
func sum(vs []int64, order int) {
	for o := order - 1; o >= 0; o-- {
		for i := o + 1; i < len(vs); i++ {
			vs[i] += vs[i-1]
		}
	}
}

// frame returns the smallest of the differences of that order, the first terms left out, and
// the bits that the largest needs above it; 64 where 63 would do, for which the mode octet has
// no room.
func frame(vs []int64, order int) (low int64, width int) {
	low = difference(vs, order, order)
	high := low
	for i := order + 1; i < len(vs); i++ {
		d := difference(vs, order, i)
		low, high = min(low, d), max(high, d)
	}
	width = bits.Len64(uint64(high) - uint64(low))
	if width == 63 {
		width = 64
	}
	return low, width
}

func appendBits(dst []byte, vs []int64, order int, low int64, width int) []byte {
	var acc uint64
	have := 0
	for i := order; i < len(vs); i++ {
		x := uint64(difference(vs, order, i)) - uint64(low)
		acc |= x << have
		if have+width < 64 {
			have += width
		} else {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			used := 64 - have
			acc = x >> used // a shift by 64 gives 0, as wanted
			have = width - used
		}
	}
	for ; have > 0; have -= 8 {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

func readBits(b []byte, vs []int64, low int64, width int) ([]byte, error) {
	size := (len(vs)*width + 7) / 8
	if len(b) < size {
		return nil, malformed("column: expected %d octets for %d values of %d bits, got %d", size, len(vs), width, len(b))
	}
	packed, rest := b[:size], b[size:]
	mask := uint64(1)<<width - 1 // of 64: all, since a shift by 64 gives 0
	for i := range vs {
		octet, bit := i*width/8, i*width%8
		nine := b[octet:] // what is behind the column is masked out
		if len(nine) < 9 {
			nine = append(make([]byte, 0, 9), nine...)[:9]
		}
		vs[i] = low + int64((binary.LittleEndian.Uint64(nine)>>bit|uint64(nine[8])<<(64-bit))&mask)
	}
	if spare := size*8 - len(vs)*width; spare > 0 && packed[size-1]>>(8-spare) != 0 {
		return nil, malformed("column: expected the last %d bits to be zero, got %08b", spare, packed[size-1])
	}
	return rest, nil
}

func readVarints(b []byte, vs []int64) ([]byte, error) {
	for i := range vs {
		v, n := binary.Varint(b)
		if n <= 0 {
			return nil, malformed("column: expected %d varints, got %d and then no valid one", len(vs), i)
		}
		vs[i], b = v, b[n:]
	}
	return b, nil
}

func varintLen(v int64) int {
	zigzag := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(zigzag|1) + 6) / 7
}
