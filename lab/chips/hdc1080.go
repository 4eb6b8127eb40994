package chips

import (
	"sync"
	"time"
)

// HDC1080 is a Texas Instruments HDC1080 (SNAS672A).
type HDC1080 struct {
	mu               sync.Mutex
	celsius, percent float64
	config           uint16
	pointer          byte
	until            time.Time
	result           [2]uint16
}

// NewHDC1080 returns a hygrometer.
func NewHDC1080(celsius, percent float64) *HDC1080 {
	return &HDC1080{celsius: celsius, percent: percent, config: 0x1000}
}

// Set changes what is to be measured.
func (c *HDC1080) Set(celsius, percent float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius, c.percent = celsius, percent
}

// Tx implements Chip.
func (c *HDC1080) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) > 0 {
		c.pointer = w[0]
		if len(w) == 3 && w[0] == 2 {
			c.config = uint16(w[1])<<8 | uint16(w[2])
		}
		if len(w) == 1 && w[0] < 2 {
			c.trigger()
		}
	}
	if len(r) == 0 {
		return nil
	}
	if c.pointer < 2 && time.Now().Before(c.until) {
		return ErrNAK // 8.5.1.2
	}
	words := []uint16{c.register(c.pointer)}
	if c.pointer == 0 && c.config&0x1000 != 0 {
		words = c.result[:]
	}
	for i := range r {
		r[i] = byte(words[min(i/2, len(words)-1)] >> (8 * (1 - i%2)))
	}
	return nil
}

// trigger measures what the pointer is at, or both.
func (c *HDC1080) trigger() {
	const temperature, humidity = 6350 * time.Microsecond, 6500 * time.Microsecond
	c.result[0] = uint16(clamp((c.celsius+40)/165*65536, 0, 65535)) &^ 3
	c.result[1] = uint16(clamp(c.percent/100*65536, 0, 65535)) &^ 3
	d := temperature + humidity
	if c.config&0x1000 == 0 {
		if d = temperature; c.pointer == 1 {
			d = humidity
		}
	}
	c.until = time.Now().Add(d)
}

func (c *HDC1080) register(reg byte) uint16 {
	switch reg {
	case 0, 1:
		return c.result[reg]
	case 2:
		return c.config
	case 0xfe:
		return 0x5449
	case 0xff:
		return 0x1050
	}
	return 0
}
