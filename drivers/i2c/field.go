package i2c

import (
	"fmt"
	"strconv"
	"strings"
)

// field is a number in a block.
type field struct {
	slot   int // of the formulas' variables
	block  int
	at     int // octets from the start
	width  int // octets
	little bool
	signed bool
	high   int // most significant bit, from 0
	low    int
}

// decode takes the number out of its block.
func (f *field) decode(block []byte) float64 {
	var raw uint64
	for i, b := range block[f.at : f.at+f.width] {
		if f.little {
			raw |= uint64(b) << (8 * i)
		} else {
			raw = raw<<8 | uint64(b)
		}
	}
	n := f.high - f.low + 1
	raw = raw >> f.low & (1<<n - 1)
	if f.signed {
		return float64(int64(raw<<(64-n)) >> (64 - n))
	}
	return float64(raw)
}

// parseType reads u8, s8, and u16be, s24le and so on.
func (f *field) parseType(text string) error {
	bad := fmt.Errorf("expected u8, s8, or u or s, 16, 24 or 32, and be or le, such as s16be, got %.40q", text)
	if text == "" {
		return bad
	}
	sign, rest := text[0], text[1:]
	switch {
	case rest == "8":
	case strings.HasSuffix(rest, "le"):
		f.little = true
		rest = strings.TrimSuffix(rest, "le")
	case strings.HasSuffix(rest, "be"):
		rest = strings.TrimSuffix(rest, "be")
	default:
		return bad
	}
	switch rest {
	case "8", "16", "24", "32":
		bits, _ := strconv.Atoi(rest) // one of four
		f.width, f.high, f.low = bits/8, bits-1, 0
	default:
		return bad
	}
	if rest == "8" && len(text) != 2 || sign != 'u' && sign != 's' {
		return bad
	}
	f.signed = sign == 's'
	return nil
}

// parseBits reads 15:4 or 7, as data sheets write bits of a word.
func (f *field) parseBits(text string) error {
	if text == "" {
		return nil
	}
	first, second, two := strings.Cut(text, ":")
	high, err := strconv.ParseUint(first, 10, 8)
	low := high
	if err == nil && two {
		low, err = strconv.ParseUint(second, 10, 8)
	}
	if err != nil || low > high || int(high) >= 8*f.width {
		return fmt.Errorf(`expected bits such as "15:4" or "7" of the %d that the type has, got %.40q`, 8*f.width, text)
	}
	f.high, f.low = int(high), int(low)
	return nil
}
