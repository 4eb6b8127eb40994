package chips

import (
	"encoding/binary"
	"sync"
	"time"
)

// SGP40 is a Sensirion SGP40 (version 1.2). Its raw signal is what it is told.
type SGP40 struct {
	mu sync.Mutex
	sensirion
	raw uint16
}

// NewSGP40 returns a meter of organic compounds.
func NewSGP40(raw uint16) *SGP40 { return &SGP40{raw: raw} }

// Tx implements Chip.
func (c *SGP40) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) > 0 && (len(w) < 2 || !checked(w[2:]) || !c.command(binary.BigEndian.Uint16(w), len(w)-2)) {
		return ErrNAK
	}
	return c.read(r)
}

func (c *SGP40) command(command uint16, arguments int) bool {
	switch {
	case command == 0x260f && arguments == 6: // sgp40_measure_raw
		c.say(30*time.Millisecond, c.raw)
	case command == 0x3682 && arguments == 0:
		c.say(time.Millisecond/2, 0x0000, 0x0175, 0x3c42)
	case command == 0x280e && arguments == 0:
		c.say(320*time.Millisecond, 0xd400)
	default:
		return false
	}
	return true
}
