package i2c

import (
	"context"
	"fmt"
	"time"

	"periph.io/x/conn/v3/i2c"
)

// maxCheck is how many octets of an answer are compared.
const maxCheck = 4

// Check is a question whose answer is known: of an identity, a setting, or a state.
type Check struct {
	Write []byte
	Wait  time.Duration // until the chip has an answer; 0: write and read are one transaction
	Read  int           // octets on the wire
	CRC   CRC
	// The answer, most significant octet first, and Mask must be Want; or anything
	// else, if Differs. With Any, the checksum alone counts.
	Mask, Want uint32
	Differs    bool
	Any        bool
}

// holds judges an answer without its checksums.
func (c *Check) holds(data []byte) bool {
	if c.Any {
		return true
	}
	var v uint32
	for _, b := range data {
		v = v<<8 | uint32(b)
	}
	return (v&c.Mask == c.Want) != c.Differs
}

func (c *Check) expected() string {
	switch {
	case c.Any:
		return fmt.Sprintf("%d octets with checksums", c.Read)
	case c.Differs:
		return fmt.Sprintf("anything but %#x in %#x", c.Want, c.Mask)
	}
	return fmt.Sprintf("%#x in %#x", c.Want, c.Mask)
}

// ask puts the question once. The answer is in room.
func (c *Check) ask(ctx context.Context, bus i2c.Bus, addr uint16, room []byte) (got []byte, ok bool, err error) {
	got, err = exchange(ctx, bus, addr, c.Write, c.Wait, room[:c.Read], c.CRC)
	if err != nil {
		return nil, false, err
	}
	return got, c.holds(got), nil
}

// exchange writes and reads once, and returns the answer without checksums.
func exchange(ctx context.Context, bus i2c.Bus, addr uint16, w []byte, wait time.Duration, r []byte, crc CRC) ([]byte, error) {
	clear(r) // a bus that takes a short answer for a whole one leaves the last one's octets
	if wait > 0 {
		if err := bus.Tx(addr, w, nil); err != nil {
			return nil, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		if err := bus.Tx(addr, nil, r); err != nil {
			return nil, err
		}
	} else if err := bus.Tx(addr, w, r); err != nil {
		return nil, err
	}
	return crc.strip(addr, w, r)
}
