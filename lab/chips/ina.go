package chips

import "sync"

// INA is a Texas Instruments INA219 (SBOS448G), INA226 (SBOS547A) or INA260
// (SBOS656C).
type INA struct {
	mu sync.Mutex
	words
	kind        inaKind
	ohm         float64
	volts, amps float64
	config, cal uint16
}

// inaKind is what the three differ in.
type inaKind struct {
	config        uint16 // after a reset
	shuntLSB      float64
	shuntMax      int
	busLSB        float64
	currentShift  int // current = shunt * cal / 2^currentShift
	powerDivider  int // power = current * bus / powerDivider
	manufacturer  uint16
	die           uint16
	busShift      int
	busMax        int
	currentDirect bool // register 1 is the current: 1.25 mA
}

// NewINA219 returns an INA219 with a shunt.
func NewINA219(ohm, volts, amps float64) *INA {
	return newINA(inaKind{config: 0x399f, shuntLSB: 10e-6, shuntMax: 32000, busLSB: 4e-3, currentShift: 12, powerDivider: 5000, busShift: 3, busMax: 0x1fff}, ohm, volts, amps)
}

// NewINA226 returns an INA226 with a shunt.
func NewINA226(ohm, volts, amps float64) *INA {
	return newINA(inaKind{config: 0x4127, shuntLSB: 2.5e-6, shuntMax: 32767, busLSB: 1.25e-3, busMax: 0x7fff, currentShift: 11, powerDivider: 20000,
		manufacturer: 0x5449, die: 0x2260}, ohm, volts, amps)
}

// NewINA260 returns an INA260, whose shunt of 2 mΩ is inside.
func NewINA260(volts, amps float64) *INA {
	return newINA(inaKind{config: 0x6127, shuntLSB: 2.5e-6, shuntMax: 32767, busLSB: 1.25e-3, busMax: 0x7fff, manufacturer: 0x5449, die: 0x2270, currentDirect: true}, 0.002, volts, amps)
}

func newINA(k inaKind, ohm, volts, amps float64) *INA {
	c := &INA{kind: k, ohm: ohm, volts: volts, amps: amps, config: k.config}
	c.words.read, c.words.write = c.load, c.store
	return c
}

// Set changes what is to be measured.
func (c *INA) Set(volts, amps float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volts, c.amps = volts, amps
}

// LosePower lets the chip forget its settings.
func (c *INA) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config, c.cal = c.kind.config, 0
}

// Tx implements Chip.
func (c *INA) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}

func (c *INA) shunt() int {
	return clamp(c.amps*c.ohm/c.kind.shuntLSB, -c.kind.shuntMax, c.kind.shuntMax)
}

func (c *INA) bus() int { return clamp(c.volts/c.kind.busLSB, 0, c.kind.busMax) }

func (c *INA) current() int { return c.shunt() * int(c.cal) / (1 << c.kind.currentShift) }

func (c *INA) load(reg byte) uint16 {
	k := c.kind
	switch {
	case reg == 0:
		return c.config
	case reg == 1 && k.currentDirect:
		return uint16(clamp(c.amps/1.25e-3, -32768, 32767))
	case reg == 1:
		return uint16(c.shunt())
	case reg == 2 && k.busShift > 0:
		return uint16(c.bus()<<k.busShift | 2) // conversion ready
	case reg == 2:
		return uint16(c.bus())
	case reg == 3 && k.currentDirect:
		return uint16(clamp(c.volts*c.amps/10e-3, 0, 0xffff))
	case reg == 3:
		return uint16(max(c.current(), -c.current()) * c.bus() / k.powerDivider)
	case reg == 4 && !k.currentDirect:
		return uint16(c.current())
	case reg == 5 && !k.currentDirect:
		return c.cal
	case reg == 6 && k.die != 0:
		return 0x0008 // conversion ready
	case reg == 0xfe && k.die != 0:
		return k.manufacturer
	case reg == 0xff && k.die != 0:
		return k.die
	}
	return 0
}

func (c *INA) store(reg byte, v uint16, octets int) {
	if octets != 2 {
		return // half a register is dropped at the stop
	}
	switch reg {
	case 0:
		if c.config = v; v&0x8000 != 0 {
			c.config, c.cal = c.kind.config, 0
		}
	case 5:
		c.cal = v
	}
}
