package wire

import (
	"encoding/binary"
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
	best, mode, order := int(^uint(0)>>1), 0, 0
	for o := 0; o <= 2 && o < len(vs); o++ {
		series := differences(vs, o)
		head, rest := series[:o], series[o:]
		low, width := frame(rest)
		if n := varintsLen(head) + varintLen(low) + (len(rest)*width+7)/8; n < best {
			best, mode, order = n, o, o
		}
		if n := varintsLen(series); n < best {
			best, mode, order = n, modeVarints, o
		}
	}
	series := differences(vs, order)
	if mode == modeVarints {
		dst = append(dst, modeVarints<<6|byte(order))
		for _, v := range series {
			dst = binary.AppendVarint(dst, v)
		}
		return dst
	}
	low, width := frame(series[order:])
	dst = append(dst, byte(mode<<6|min(width, 63)))
	for _, v := range series[:order] {
		dst = binary.AppendVarint(dst, v)
	}
	dst = binary.AppendVarint(dst, low)
	return appendBits(dst, series[order:], low, width)
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

// differences returns the order-th differences of vs behind the order first
// terms that sum needs to undo it. Arithmetic wraps, on both sides alike.
func differences(vs []int64, order int) []int64 {
	out := append([]int64(nil), vs...)
	for o := range order {
		for i := len(out) - 1; i > o; i-- {
			out[i] -= out[i-1]
		}
	}
	return out
}

// sum undoes differences in place.
func sum(vs []int64, order int) {
	for o := order - 1; o >= 0; o-- {
		for i := o + 1; i < len(vs); i++ {
			vs[i] += vs[i-1]
		}
	}
}

// frame returns the smallest of vs and the bits that the largest needs above
// it; 64 where 63 would do, for which the mode octet has no room.
func frame(vs []int64) (low int64, width int) {
	low, high := vs[0], vs[0]
	for _, v := range vs {
		low, high = min(low, v), max(high, v)
	}
	width = bits.Len64(uint64(high) - uint64(low))
	if width == 63 {
		width = 64
	}
	return low, width
}

func appendBits(dst []byte, vs []int64, low int64, width int) []byte {
	var acc uint64
	have := 0
	for _, v := range vs {
		x := uint64(v) - uint64(low)
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
	for i := range vs {
		var x uint64
		for got, at := 0, i*width; got < width; {
			take := min(8-at%8, width-got)
			part := packed[at/8] >> (at % 8) & (1<<take - 1)
			x |= uint64(part) << got
			got, at = got+take, at+take
		}
		vs[i] = int64(uint64(low) + x)
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

func varintsLen(vs []int64) (n int) {
	for _, v := range vs {
		n += varintLen(v)
	}
	return n
}
