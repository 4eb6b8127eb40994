package chips

import (
	"sync"
	"time"
)

// BH1750 is a Rohm BH1750FVI (2014.12 rev. D).
type BH1750 struct {
	mu     sync.Mutex
	lux    float64
	on     bool
	mode   byte
	result uint16
	next   uint16
	until  time.Time
}

// NewBH1750 returns a light meter.
func NewBH1750(lux float64) *BH1750 { return &BH1750{lux: lux} }

// Set changes what is to be measured.
func (c *BH1750) Set(lux float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lux = lux
}

// Tx implements Chip.
func (c *BH1750) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.until.IsZero() && !time.Now().Before(c.until) {
		c.result, c.until = c.next, time.Time{}
		if c.mode&0x20 != 0 {
			c.on = false // once
		}
	}
	for _, command := range w {
		c.command(command)
	}
	for i := range r {
		if i%2 == 0 {
			r[i] = byte(c.result >> 8)
		} else {
			r[i] = byte(c.result)
		}
	}
	return nil
}

func (c *BH1750) command(command byte) {
	switch {
	case command == 0x00:
		c.on, c.until = false, time.Time{}
	case command == 0x01:
		c.on = true
	case command == 0x07 && c.on:
		c.result = 0
	case command&0xcc == 0 && command&0x30 != 0:
		c.on, c.mode = true, command
		counts, ms := c.lux*1.2, 120
		if command&3 == 1 {
			counts *= 2
		}
		if command&3 == 3 {
			ms = 16
		}
		c.next = uint16(clamp(counts, 0, 65535))
		c.until = time.Now().Add(time.Duration(ms) * time.Millisecond)
	}
}
