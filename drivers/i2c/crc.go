package i2c

import (
	"errors"
	"fmt"
)

// CRC says how an answer is protected.
type CRC string

// Checksums of answers. All are CRC-8, most significant bit first.
const (
	NoCRC CRC = ""
	// SensirionCRC follows each two octets: polynomial 0x31, initial value 0xFF
	// (SHT3x-DIS data sheet, section 4.12). What a block keeps has none of them.
	SensirionCRC CRC = "sensirion"
	// TrailingCRC is the last octet of an answer, of all others, as Sensirion's.
	TrailingCRC CRC = "trailing"
	// PEC is the last octet of an answer, of all that was on the bus, addresses and
	// what was written too: polynomial 0x07, initial value 0 (SMBus 3.1, section 6.4.1.3).
	PEC CRC = "smbus-pec"
)

// crcNames are what a template may say.
var crcNames = []string{string(SensirionCRC), string(TrailingCRC), string(PEC)}

// ErrCRC wraps answers that were damaged on their way, or come from a chip that
// has no such checksum.
var ErrCRC = errors.New("wrong checksum")

// dataLen is how many octets of an answer are not checksums; -1 where there can't
// be such an answer.
func (c CRC) dataLen(read int) int {
	switch c {
	case NoCRC:
		return read
	case SensirionCRC:
		if read%3 == 0 {
			return read / 3 * 2
		}
	case TrailingCRC, PEC:
		if read >= 2 {
			return read - 1
		}
	}
	return -1
}

// strip checks an answer and returns it without checksums, in place.
func (c CRC) strip(addr uint16, w, r []byte) ([]byte, error) {
	switch c {
	case SensirionCRC:
		n := 0
		for i := 0; i+3 <= len(r); i += 3 {
			if err := checkCRC(crc8(0x31, 0xff, r[i:i+2]), r[i+2]); err != nil {
				return nil, err
			}
			n += copy(r[n:], r[i:i+2])
		}
		return r[:n], nil
	case TrailingCRC:
		last := len(r) - 1
		return r[:last], checkCRC(crc8(0x31, 0xff, r[:last]), r[last])
	case PEC:
		last := len(r) - 1
		sum := byte(0)
		if len(w) > 0 {
			sum = crc8(0x07, crc8(0x07, 0, []byte{byte(addr << 1)}), w)
		}
		sum = crc8(0x07, crc8(0x07, sum, []byte{byte(addr<<1) | 1}), r[:last])
		return r[:last], checkCRC(sum, r[last])
	}
	return r, nil
}

func checkCRC(want, got byte) error {
	if want != got {
		return fmt.Errorf("%w: expected %02x, got %02x", ErrCRC, want, got)
	}
	return nil
}

func crc8(polynomial, sum byte, data []byte) byte {
	for _, b := range data {
		sum ^= b
		for range 8 {
			carry := sum & 0x80
			sum <<= 1
			if carry != 0 {
				sum ^= polynomial
			}
		}
	}
	return sum
}
