package chips

import (
	"encoding/binary"
	"sync"
	"time"
)

// SCD41 is a Sensirion SCD41 (SCD4x, version 1.3).
type SCD41 struct {
	mu sync.Mutex
	sensirion
	ppm, celsius, percent float64
	periodic              bool
	began                 time.Time // the last measurement that was read, or the start
	told                  bool      // the answer is a measurement
}

// NewSCD41 returns a meter of carbon dioxide.
func NewSCD41(ppm, celsius, percent float64) *SCD41 {
	return &SCD41{ppm: ppm, celsius: celsius, percent: percent}
}

// Set changes what is to be measured.
func (c *SCD41) Set(ppm, celsius, percent float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ppm, c.celsius, c.percent = ppm, celsius, percent
}

// LosePower lets the chip forget that it measures.
func (c *SCD41) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.periodic = false
}

// Tx implements Chip.
func (c *SCD41) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) > 0 && (len(w) < 2 || time.Now().Before(c.ready) || !c.command(binary.BigEndian.Uint16(w))) {
		return ErrNAK
	}
	if err := c.read(r); err != nil {
		return err
	}
	if c.told && len(r) > 0 { // its buffer is empty then
		c.told, c.began = false, time.Now()
	}
	return nil
}

func (c *SCD41) command(command uint16) bool {
	const ms = time.Millisecond
	c.told = false
	there := c.periodic && time.Since(c.began) >= 5*time.Second
	switch {
	case command == 0xe4b8: // 3.8.2
		v := uint16(0x8000)
		if there {
			v = 0x8006
		}
		c.say(0, v) // within 1 ms by the data sheet; what periph has recorded of chips shows none
	case command == 0xec05 && there: // 3.5.2
		c.told = true
		c.say(0, uint16(clamp(c.ppm, 0, 65535)), uint16(clamp((c.celsius+45)/175*65535, 0, 65535)), uint16(clamp(c.percent/100*65535, 0, 65535)))
	case command == 0x3f86: // 3.5.3
		c.periodic = false
		c.busy(500 * ms)
	case c.periodic:
		return false
	case command == 0x21b1: // 3.5.1
		c.periodic, c.began = true, time.Now()
	case command == 0x3682:
		c.say(0, 0xf896, 0x9f07, 0x3bbe)
	default:
		return false
	}
	return true
}
