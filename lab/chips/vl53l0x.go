package chips

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"time"
)

// VL53L0X is an ST VL53L0X, as far as its data sheet (DS11555) and ST's program show
// what it does: identity, non-volatile memory, reference calibration, single
// measurements. It refuses to measure when a step of its start was left out.
type VL53L0X struct {
	mu sync.Mutex
	registers
	mm         float64
	page       byte
	upper      [256]byte // registers of the other pages, as far as they are asked
	until      time.Time
	calibrated byte // bits: voltage, phase
	spads      bool // the map was chosen
	stopped    bool // the stop variable was given back since the last measurement
}

// vlSPADs is how many reference SPADs this chip wants, all behind an aperture, and
// vlMap which of them are good.
const vlSPADs = 5

var vlMap = [6]byte{0x00, 0xf0, 0xff, 0xff, 0xff, 0x0f}

const vlStop = 0x3c

// NewVL53L0X returns a distance meter. What is farther than 2 m it does not see.
func NewVL53L0X(mm float64) *VL53L0X {
	c := &VL53L0X{mm: mm}
	c.onRead, c.onWrite = c.load, c.store
	c.LosePower()
	return c
}

// Set changes the distance.
func (c *VL53L0X) Set(mm float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mm = mm
}

// LosePower lets the chip forget its start.
func (c *VL53L0X) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reg, c.upper = [256]byte{}, [256]byte{}
	c.page, c.calibrated, c.spads, c.stopped, c.until = 0, 0, false, false, time.Time{}
	c.reg[0xc0], c.reg[0xc1], c.reg[0xc2] = 0xee, 0xaa, 0x10
	c.reg[0x61] = 0
	copy(c.reg[0xb0:], vlMap[:])
	c.upper[0x91] = vlStop
}

// Started tells whether the chip was started as ST's program does.
func (c *VL53L0X) Started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spads && c.calibrated == 3
}

// Tx implements Chip.
func (c *VL53L0X) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.page != 0 {
		c.other(w, r)
		return nil
	}
	c.tx(w, r)
	return nil
}

// other is a transaction with a page that is not the first.
func (c *VL53L0X) other(w, r []byte) {
	if len(w) > 0 {
		c.pointer = w[0]
	}
	for _, v := range w[min(1, len(w)):] {
		switch {
		case c.pointer == 0xff:
			c.page = v
		case c.pointer == 0x91 && c.page == 1:
			c.stopped = v == vlStop
		case c.pointer == 0x83 && c.page == 7 && v == 0:
			c.upper[0x83] = 1 // the memory was read
			c.upper[0x92] = vlSPADs | 0x80
		default:
			c.upper[c.pointer] = v
		}
		c.pointer++
	}
	for i := range r {
		r[i] = c.upper[c.pointer]
		c.pointer++
	}
}

func (c *VL53L0X) load(reg byte) {
	if !c.until.IsZero() && !time.Now().Before(c.until) {
		c.until = time.Time{}
		c.finish()
	}
}

// finish is the end of what 0x00 began.
func (c *VL53L0X) finish() {
	c.reg[0x13] = c.reg[0x13]&^7 | 4
	start, sequence := c.reg[0x00], c.reg[0x01]
	switch {
	case sequence == 0x01 && start&0x40 != 0:
		c.calibrated |= 1
	case sequence == 0x02:
		c.calibrated |= 2
	default:
		c.reg[0x00] &^= 1
		c.result()
		c.stopped = false
	}
}

// result puts a measurement into the twelve octets of the result.
func (c *VL53L0X) result() {
	status, mm := byte(11), uint16(clamp(c.mm, 0, 65535))
	if c.mm > 2000 {
		status, mm = 4, 8190 // no signal behind the noise
	}
	c.reg[0x14] = status<<3 | 1
	binary.BigEndian.PutUint16(c.reg[0x1e:], mm)
}

func (c *VL53L0X) store(reg, v byte) {
	switch {
	case reg == 0xff:
		c.page = v
	case reg == 0x0b && v&1 != 0:
		c.reg[0x13] &^= 7
	case reg == 0x00:
		c.reg[0x00] = v
		ranging := c.reg[0x01] != 0x01 && c.reg[0x01] != 0x02
		if v&1 != 0 && (!ranging || c.stopped) {
			c.until = time.Now().Add(33 * time.Millisecond)
		}
	case reg >= 0xb0 && reg <= 0xb5:
		c.reg[reg] = v
		n := 0
		for _, b := range c.reg[0xb0:0xb6] {
			n += bits.OnesCount8(b)
		}
		// Those behind an aperture begin at the twelfth.
		c.spads = n == vlSPADs && c.reg[0xb0] == 0 && c.reg[0xb1]&0x0f == 0
	case reg >= 0xc0 && reg <= 0xc2:
	default:
		c.reg[reg] = v
	}
}
