package chips

import (
	"encoding/binary"
	"sync"
	"time"
)

// SHT is a Sensirion SHT31 (SHT3x-DIS, version 7) or SHT40 (SHT4x, version 6.5).
type SHT struct {
	mu sync.Mutex
	sensirion
	four             bool
	celsius, percent float64
	status           uint16
	periodic         bool
}

// NewSHT31 returns an SHT31.
func NewSHT31(celsius, percent float64) *SHT {
	return &SHT{celsius: celsius, percent: percent, status: 0x8010}
}

// NewSHT40 returns an SHT40.
func NewSHT40(celsius, percent float64) *SHT {
	return &SHT{celsius: celsius, percent: percent, four: true}
}

// Set changes what is to be measured.
func (c *SHT) Set(celsius, percent float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius, c.percent = celsius, percent
}

// Tx implements Chip.
func (c *SHT) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) > 0 {
		known := false
		if c.four {
			known = c.command8(w)
		} else if len(w) == 2 {
			known = c.command16(binary.BigEndian.Uint16(w))
		}
		if !known {
			return ErrNAK
		}
	}
	return c.read(r)
}

func (c *SHT) temperature() uint16 { return uint16(clamp((c.celsius+45)/175*65535, 0, 65535)) }

// limit is a limit of the SHT31: seven bits of humidity, nine of temperature.
func limit(celsius, percent float64) uint16 {
	return uint16(clamp(percent/100*65535, 0, 65535))&0xfe00 | uint16(clamp((celsius+45)/175*65535, 0, 65535))>>7
}

func (c *SHT) command16(command uint16) bool {
	measure := func(ms int) {
		c.say(time.Duration(ms)*time.Millisecond, c.temperature(), uint16(clamp(c.percent/100*65535, 0, 65535)))
	}
	switch command {
	case 0x2400, 0x2c06: // 4.3: high repeatability
		if c.periodic {
			return false
		}
		measure(13)
	case 0x240b, 0x2c0d:
		measure(5)
	case 0x2416, 0x2c10:
		measure(3)
	case 0x2130, 0x2236, 0x2032:
		c.periodic = true
	case 0xe000:
		if !c.periodic {
			return false
		}
		measure(0)
	case 0x3093:
		c.periodic = false
		c.busy(time.Millisecond)
	case 0x30a2:
		if c.periodic {
			return false
		}
		c.status = 0x8010
		c.busy(time.Millisecond)
	case 0x3041:
		c.status = 0
	case 0xf32d:
		c.say(0, c.status)
	case 0x3780, 0x3682:
		c.say(0, 0x1234, 0x5678)
	case 0xe11f: // Sensirion's note on alerts: the limits that it wakes up with
		c.say(0, limit(60, 80))
	case 0xe114:
		c.say(0, limit(58, 79))
	case 0xe109:
		c.say(0, limit(-9, 22))
	case 0xe102:
		c.say(0, limit(-10, 20))
	default:
		return false
	}
	return true
}

func (c *SHT) command8(w []byte) bool {
	if len(w) != 1 {
		return false
	}
	measure := func(us int) {
		c.say(time.Duration(us)*time.Microsecond, c.temperature(), uint16(clamp((c.percent+6)/125*65535, 0, 65535)))
	}
	switch w[0] {
	case 0xfd: // 4.5: high precision
		measure(6900)
	case 0xf6:
		measure(3700)
	case 0xe0:
		measure(1300)
	case 0x89:
		c.say(time.Millisecond/2, 0x0f4f, 0x1b2e)
	case 0x94:
		c.busy(time.Millisecond)
	default:
		return false
	}
	return true
}
