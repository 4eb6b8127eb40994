package chips

import (
	"encoding/binary"
	"math"
	"sync"
	"time"
)

// BME680 is a Bosch BME680 (BST-BME680-DS001, revision 1.8).
type BME680 struct {
	mu sync.Mutex
	registers
	celsius, percent, pascal, ohm float64
	until                         time.Time
	next                          [13]byte // 0x1f to 0x2b
}

// NewBME680 returns a BME680.
func NewBME680(celsius, percent, pascal, ohm float64) *BME680 {
	c := &BME680{celsius: celsius, percent: percent, pascal: pascal, ohm: ohm}
	c.pairs, c.onRead, c.onWrite = true, c.load, c.store
	c.reset()
	return c
}

// Set changes what is to be measured.
func (c *BME680) Set(celsius, percent, pascal, ohm float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius, c.percent, c.pascal, c.ohm = celsius, percent, pascal, ohm
}

// LosePower lets the chip forget its settings.
func (c *BME680) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset()
}

// Heater is the register of the heater's resistance of step 0.
func (c *BME680) Heater() byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reg[0x5a]
}

// Tx implements Chip.
func (c *BME680) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}

// What is burnt into this chip.
const (
	b680T1, b680T2, b680T3                                       = 26203, 26388, 3
	b680P1, b680P2, b680P3, b680P4, b680P5                       = 36673, -10515, 88, 7310, -110
	b680P6, b680P7, b680P8, b680P9, b680P10                      = 30, 40, -1027, -2500, 30
	b680H1, b680H2, b680H3, b680H4, b680H5, b680H6, b680H7       = 775, 1022, 0, 45, 20, 120, -100
	b680G1, b680G2, b680G3, b680HeatRange, b680HeatVal, b680Swap = -30, -5969, 18, 1, 50, -2
)

func (c *BME680) reset() {
	c.reg = [256]byte{}
	c.until = time.Time{}
	c.reg[0xd0] = 0x61
	put := func(reg, v int) { c.reg[reg] = byte(v) }
	put16 := func(reg, v int) { binary.LittleEndian.PutUint16(c.reg[reg:], uint16(v)) }
	put16(0xe9, b680T1)
	put16(0x8a, b680T2)
	put(0x8c, b680T3)
	put16(0x8e, b680P1)
	put16(0x90, b680P2)
	put(0x92, b680P3)
	put16(0x94, b680P4)
	put16(0x96, b680P5)
	put(0x98, b680P7)
	put(0x99, b680P6)
	put16(0x9c, b680P8)
	put16(0x9e, b680P9)
	put(0xa0, b680P10)
	put(0xe1, b680H2>>4)
	put(0xe2, b680H2&0xf<<4|b680H1&0xf)
	put(0xe3, b680H1>>4)
	put(0xe4, b680H3)
	put(0xe5, b680H4)
	put(0xe6, b680H5)
	put(0xe7, b680H6)
	put(0xe8, b680H7)
	put16(0xeb, b680G2)
	put(0xed, b680G1)
	put(0xee, b680G3)
	put(0x00, b680HeatVal)
	put(0x02, b680HeatRange<<4|0x0f)
	put(0x04, b680Swap<<4|0x05)
	copy(c.reg[0x1f:], []byte{0x80, 0, 0, 0x80, 0, 0, 0x80, 0})
}

func (c *BME680) load(byte) {
	if c.until.IsZero() || time.Now().Before(c.until) {
		return
	}
	c.until = time.Time{}
	copy(c.reg[0x1f:], c.next[:])
	c.reg[0x1d] = 0x80
	c.reg[0x74] &^= 3
}

func (c *BME680) store(reg, v byte) {
	switch {
	case reg == 0xe0 && v == 0xb6:
		c.reset()
	case reg >= 0x50 && reg <= 0x75:
		c.reg[reg] = v
		if reg == 0x74 && v&3 == 1 {
			c.measure()
		}
	}
}

// measure begins a measurement in forced mode (3.1).
func (c *BME680) measure() {
	t, p, h := times(c.reg[0x74]>>5), times(c.reg[0x74]>>2), times(c.reg[0x72])
	rawT := search(1<<20, c.celsius*100, func(raw int) float64 { v, _ := b680Temperature(raw); return float64(v) })
	_, fine := b680Temperature(rawT)
	rawP := search(1<<20, -c.pascal, func(raw int) float64 { return -float64(b680Pressure(raw, fine)) })
	rawH := search(1<<16, c.percent*1000, func(raw int) float64 { return float64(b680Humidity(raw, fine)) })
	if t == 0 {
		rawT = 0x80000
	}
	if p == 0 {
		rawP = 0x80000
	}
	if h == 0 {
		rawH = 0x8000
	}
	us := 1963*(t+p+h) + 477*9
	c.next = [13]byte{byte(rawP >> 12), byte(rawP >> 4), byte(rawP << 4), byte(rawT >> 12), byte(rawT >> 4), byte(rawT << 4), byte(rawH >> 8), byte(rawH)}
	if c.reg[0x71]&0x10 != 0 {
		raw, scale := b680Gas(c.ohm)
		status := byte(0x20) // valid
		if c.reg[0x5a] != 0 && c.reg[0x64] != 0 {
			status |= 0x10 // the plate is as hot as it is to be
		}
		c.next[11], c.next[12] = byte(raw>>2), byte(raw<<6)|status|byte(scale)
		us += 1000 * int(c.reg[0x64]&0x3f) << (2 * (c.reg[0x64] >> 6))
	}
	c.reg[0x1d] = 0x20
	c.until = time.Now().Add(time.Duration(us) * time.Microsecond)
}

// b680Temperature is the data sheet's integer compensation (3.3.1): hundredths of a
// degree, and t_fine.
func b680Temperature(raw int) (hundredths, fine int32) {
	v1 := int64(raw>>3) - b680T1<<1
	v2 := v1 * b680T2 >> 11
	v3 := (v1 >> 1) * (v1 >> 1) >> 12
	v3 = v3 * (b680T3 << 4) >> 14
	fine = int32(v2 + v3)
	return (fine*5 + 128) >> 8, fine
}

// b680Pressure is the data sheet's integer compensation (3.3.2): pascals.
func b680Pressure(raw int, fine int32) int32 {
	v1 := fine>>1 - 64000
	v2 := (((v1 >> 2) * (v1 >> 2)) >> 11 * b680P6) >> 2
	v2 += v1 * b680P5 << 1
	v2 = v2>>2 + b680P4<<16
	v1 = (((v1>>2)*(v1>>2))>>13*(b680P3<<5))>>3 + b680P2*v1>>1
	v1 >>= 18
	v1 = (32768 + v1) * b680P1 >> 15
	left := 1048576 - raw - int(v2>>12)
	if left <= 0 || v1 <= 0 {
		return 0 // no air, which the arithmetic of the data sheet does not foresee
	}
	q := uint32(left) * 3125
	if q >= 1<<30 {
		q = q / uint32(v1) << 1
	} else {
		q = q << 1 / uint32(v1)
	}
	press := int32(q)
	v1 = b680P9 * (((press >> 3) * (press >> 3)) >> 13) >> 12
	v2 = press >> 2 * b680P8 >> 13
	v3 := int32(int64(press>>8) * int64(press>>8) * int64(press>>8) * b680P10 >> 17)
	return press + (v1+v2+v3+b680P7<<7)>>4
}

// b680Humidity is the data sheet's integer compensation (3.3.3): thousandths of a
// per cent.
func b680Humidity(raw int, fine int32) int32 {
	t := (fine*5 + 128) >> 8
	v1 := int32(raw) - b680H1*16 - t*b680H3/100>>1
	v2 := b680H2 * (t*b680H4/100 + t*(t*b680H5/100)>>6/100 + 1<<14) >> 10
	v3 := v1 * v2
	v4 := (b680H6<<7 + t*b680H7/100) >> 4
	v5 := ((v3 >> 14) * (v3 >> 14)) >> 10
	v6 := v4 * v5 >> 1
	return min(max((v3+v6)>>10*1000>>12, 0), 100000)
}

// The data sheet's constants of gas ranges, for integers (3.4.1).
var (
	b680Range1 = [16]int64{2147483647, 2147483647, 2147483647, 2147483647, 2147483647, 2126008810, 2147483647, 2130303777,
		2147483647, 2147483647, 2143188679, 2136746228, 2147483647, 2126008810, 2147483647, 2147483647}
	b680Range2 = [16]int64{4096000000, 2048000000, 1024000000, 512000000, 255744255, 127110228, 64000000, 32258064,
		16016016, 8000000, 4000000, 2000000, 1000000, 500000, 250000, 125000}
)

// b680Ohm is the data sheet's integer conversion (3.4.1).
func b680Ohm(raw, scale int) int64 {
	v1 := (1340 + 5*b680Swap) * b680Range1[scale] >> 16
	v2 := int64(raw)<<15 - 16777216 + v1
	return (b680Range2[scale]*v1>>9 + v2>>1) / v2
}

// b680Gas returns the raw number and range that come closest to a resistance.
func b680Gas(ohm float64) (raw, scale int) {
	best := math.Inf(1)
	for s := range 16 {
		r := search(1<<10, -ohm, func(raw int) float64 { return -float64(b680Ohm(raw, s)) })
		if d := math.Abs(float64(b680Ohm(r, s)) - ohm); d < best {
			best, raw, scale = d, r, s
		}
	}
	return raw, scale
}
