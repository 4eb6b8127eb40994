package chips

import "sync"

// MAX1704x is a Maxim MAX17048 (19-6171) or MAX17040 (19-5210).
type MAX1704x struct {
	mu sync.Mutex
	words
	eight               bool
	volts, percent, per float64
}

// NewMAX17048 returns the gauge of a cell, which is charged by so many per cent an
// hour.
func NewMAX17048(volts, percent, perHour float64) *MAX1704x {
	return newMAX1704x(true, volts, percent, perHour)
}

// NewMAX17040 returns the gauge of a cell.
func NewMAX17040(volts, percent float64) *MAX1704x { return newMAX1704x(false, volts, percent, 0) }

func newMAX1704x(eight bool, volts, percent, perHour float64) *MAX1704x {
	c := &MAX1704x{eight: eight, volts: volts, percent: percent, per: perHour}
	c.words.read, c.words.write = c.load, func(byte, uint16, int) {}
	return c
}

// Set changes what is to be measured.
func (c *MAX1704x) Set(volts, percent, perHour float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volts, c.percent, c.per = volts, percent, perHour
}

// Tx implements Chip.
func (c *MAX1704x) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}

func (c *MAX1704x) load(reg byte) uint16 {
	switch {
	case reg == 0x02 && c.eight:
		return uint16(clamp(c.volts/78.125e-6, 0, 65535))
	case reg == 0x02:
		return uint16(clamp(c.volts/1.25e-3, 0, 4095) << 4)
	case reg == 0x04:
		return uint16(clamp(c.percent*256, 0, 65535))
	case reg == 0x08 && c.eight:
		return 0x0012
	case reg == 0x08:
		return 0x0002
	case reg == 0x16 && c.eight:
		return uint16(clamp(c.per/0.208, -32768, 32767))
	}
	return 0
}
