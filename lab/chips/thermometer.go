package chips

import (
	"sync"
)

// Thermometer is a chip whose temperature is a register of 16 bits: LM75 (SNOS808P),
// TMP105 (SLLS648C), TMP102 (SBOS397H) or MCP9808 (DS25095A).
type Thermometer struct {
	mu sync.Mutex
	words
	celsius float64
	regs    map[byte]uint16
	reset   map[byte]uint16
	convert func(celsius float64, config uint16) uint16
}

func newThermometer(celsius float64, reset map[byte]uint16, convert func(float64, uint16) uint16) *Thermometer {
	c := &Thermometer{celsius: celsius, reset: reset, convert: convert}
	c.words.read, c.words.write = c.load, c.store
	c.losePower()
	return c
}

// leftAligned is the temperature in the upper bits of a register.
func leftAligned(celsius, low, high, lsb float64, bits int) uint16 {
	n := clamp(min(max(celsius, low), high)/lsb, -1<<(bits-1), 1<<(bits-1)-1)
	return uint16(n << (16 - bits))
}

// NewLM75 returns an LM75 of nine bits. What is behind them is set, since it is
// undefined.
func NewLM75(celsius float64) *Thermometer {
	return newThermometer(celsius, map[byte]uint16{1: 0, 2: 0x4b7f, 3: 0x507f}, func(t float64, _ uint16) uint16 {
		return leftAligned(t, -55, 125, 0.5, 9) | 0x7f
	})
}

// NewTMP105 returns a TMP105, of nine bits until it is told to measure twelve.
func NewTMP105(celsius float64) *Thermometer {
	return newThermometer(celsius, map[byte]uint16{1: 0, 2: 0x4b00, 3: 0x5000}, func(t float64, config uint16) uint16 {
		bits := 9 + int(config>>13&3)
		return leftAligned(t, -55, 127.9375, 0.5/float64(int(1)<<(bits-9)), bits)
	})
}

// NewTMP102 returns a TMP102, of twelve bits.
func NewTMP102(celsius float64) *Thermometer {
	return newThermometer(celsius, map[byte]uint16{1: 0x60a0, 2: 0x4b00, 3: 0x5000}, func(t float64, config uint16) uint16 {
		if config&0x10 != 0 {
			return leftAligned(t, -55, 150, 0.0625, 13) | 1
		}
		return leftAligned(t, -55, 127.9375, 0.0625, 12)
	})
}

// NewMCP9808 returns an MCP9808.
func NewMCP9808(celsius float64) *Thermometer {
	return newThermometer(celsius, map[byte]uint16{1: 0, 6: 0x0054, 7: 0x0400, 8: 0x0300}, func(t float64, _ uint16) uint16 {
		// 5.1.3: limits of 0 °C are passed: the upper and the critical one are then told.
		flags := uint16(0)
		if t > 0 {
			flags = 0xc000
		}
		return flags | uint16(clamp(min(max(t, -40), 125)*16, -4096, 4095))&0x1fff
	})
}

// Set changes what is to be measured.
func (c *Thermometer) Set(celsius float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius = celsius
}

// LosePower lets the chip forget its settings.
func (c *Thermometer) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.losePower()
}

func (c *Thermometer) losePower() {
	c.regs = map[byte]uint16{}
	for r, v := range c.reset {
		c.regs[r] = v
	}
}

// temperatureRegister is 5 on the MCP9808, and 0 elsewhere.
func (c *Thermometer) temperatureRegister() byte {
	if c.reset[6] != 0 {
		return 5
	}
	return 0
}

// Tx implements Chip.
func (c *Thermometer) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}

func (c *Thermometer) load(reg byte) uint16 {
	if reg == c.temperatureRegister() {
		return c.convert(c.celsius, c.regs[1])
	}
	return c.regs[reg]
}

func (c *Thermometer) store(reg byte, v uint16, octets int) {
	switch reg {
	case c.temperatureRegister(), 6, 7:
		return
	}
	if octets == 1 {
		v |= c.regs[reg] & 0xff
	}
	c.regs[reg] = v
}
