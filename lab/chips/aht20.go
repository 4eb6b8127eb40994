package chips

import (
	"sync"
	"time"
)

// AHT20 is an Aosong AHT20 (data sheet version 1.1).
type AHT20 struct {
	mu               sync.Mutex
	celsius, percent float64
	calibrated       bool
	until            time.Time
	result           [5]byte
}

// NewAHT20 returns a hygrometer.
func NewAHT20(celsius, percent float64) *AHT20 { return &AHT20{celsius: celsius, percent: percent} }

// LosePower lets the chip forget its calibration.
func (c *AHT20) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calibrated, c.result = false, [5]byte{}
}

// Tx implements Chip.
func (c *AHT20) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch string(w) {
	case "\xbe\x08\x00":
		c.calibrated = true
	case "\xba":
		c.calibrated = false
	case "\xac\x33\x00":
		h, t := clamp(c.percent/100*(1<<20), 0, 1<<20-1), clamp((c.celsius+50)/200*(1<<20), 0, 1<<20-1)
		c.result = [5]byte{byte(h >> 12), byte(h >> 4), byte(h<<4) | byte(t>>16), byte(t >> 8), byte(t)}
		c.until = time.Now().Add(75 * time.Millisecond)
	}
	if len(r) == 0 {
		return nil
	}
	status := byte(0x10)
	if c.calibrated {
		status |= 0x08
	}
	if time.Now().Before(c.until) {
		status |= 0x80
	}
	answer := append([]byte{status}, c.result[:]...)
	copy(r, append(answer, sum(answer)))
	return nil
}
