package chips

import (
	"encoding/binary"
	"sync"
	"time"
)

// BMX280 is a Bosch BME280 or BMP280 (BST-BME280-DS002, BST-BMP280-DS001). Its
// trimming is that of the BMP280 data sheet's worked example (section 3.12), and
// for humidity that of a chip that was read.
type BMX280 struct {
	mu sync.Mutex
	registers
	humid                    bool
	celsius, percent, pascal float64
	until                    time.Time // it measures
	next                     [8]byte   // what it then has measured
	humidity                 byte      // ctrl_hum that holds: since ctrl_meas was written last
}

// NewBME280 returns a BME280.
func NewBME280(celsius, percent, pascal float64) *BMX280 {
	return newBMX280(true, celsius, percent, pascal)
}

// NewBMP280 returns a BMP280.
func NewBMP280(celsius, pascal float64) *BMX280 { return newBMX280(false, celsius, 0, pascal) }

func newBMX280(humid bool, celsius, percent, pascal float64) *BMX280 {
	c := &BMX280{humid: humid, celsius: celsius, percent: percent, pascal: pascal}
	c.pairs, c.onRead, c.onWrite = true, c.load, c.store
	c.reset()
	return c
}

// Set changes what is to be measured.
func (c *BMX280) Set(celsius, percent, pascal float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius, c.percent, c.pascal = celsius, percent, pascal
}

// LosePower lets the chip forget its settings.
func (c *BMX280) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset()
}

// Tx implements Chip.
func (c *BMX280) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}

// The registers that have a name here.
const (
	bmxID       = 0xd0
	bmxReset    = 0xe0
	bmxCtrlHum  = 0xf2
	bmxStatus   = 0xf3
	bmxCtrlMeas = 0xf4
	bmxConfig   = 0xf5
	bmxData     = 0xf7
)

// bmxTrim are dig_T1 to dig_P9.
var bmxTrim = [12]int{27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000}

// bmxHumid are dig_H1 to dig_H6.
var bmxHumid = [6]int{75, 362, 0, 310, 50, 30}

func (c *BMX280) reset() {
	c.reg = [256]byte{}
	c.until, c.humidity = time.Time{}, 0
	c.reg[bmxID] = 0x58
	for i, v := range bmxTrim {
		binary.LittleEndian.PutUint16(c.reg[0x88+2*i:], uint16(v))
	}
	copy(c.reg[bmxData:], []byte{0x80, 0, 0, 0x80, 0, 0, 0x80, 0})
	if !c.humid {
		clear(c.reg[bmxData+6:])
		return
	}
	c.reg[bmxID] = 0x60
	h := bmxHumid
	c.reg[0xa1] = byte(h[0])
	binary.LittleEndian.PutUint16(c.reg[0xe1:], uint16(h[1]))
	c.reg[0xe3] = byte(h[2])
	c.reg[0xe4] = byte(h[3] >> 4)
	c.reg[0xe5] = byte(h[3]&0xf | h[4]&0xf<<4)
	c.reg[0xe6] = byte(h[4] >> 4)
	c.reg[0xe7] = byte(h[5])
}

func (c *BMX280) load(reg byte) {
	if c.until.IsZero() || time.Now().Before(c.until) {
		return
	}
	c.until = time.Time{}
	copy(c.reg[bmxData:], c.next[:])
	c.reg[bmxStatus] &^= 0x08
	if c.reg[bmxCtrlMeas]&3 == 3 {
		c.measure() // normal mode
	} else {
		c.reg[bmxCtrlMeas] &^= 3
	}
}

func (c *BMX280) store(reg, v byte) {
	switch reg {
	case bmxReset:
		if v == 0xb6 {
			c.reset()
		}
	case bmxCtrlHum:
		if c.humid {
			c.reg[reg] = v & 7
		}
	case bmxConfig:
		c.reg[reg] = v
	case bmxCtrlMeas:
		c.reg[reg] = v
		c.humidity = c.reg[bmxCtrlHum] // 5.4.3: it holds from now on
		if v&3 != 0 {
			c.measure()
		}
	}
}

// times is how often something is measured for a mean, by its code.
func times(code byte) int { return [8]int{0, 1, 2, 4, 8, 16, 16, 16}[code&7] }

// measure begins a measurement (BME280 9.1, typical times).
func (c *BMX280) measure() {
	t, p, h := times(c.reg[bmxCtrlMeas]>>5), times(c.reg[bmxCtrlMeas]>>2), times(c.humidity)
	rawT := search(1<<20, c.celsius*100, func(raw int) float64 { v, _ := bmxTemperature(raw); return float64(v) })
	_, fine := bmxTemperature(rawT)
	rawP := search(1<<20, -c.pascal*256, func(raw int) float64 { return -float64(bmxPressure(raw, fine)) })
	rawH := search(1<<16, c.percent*1024, func(raw int) float64 { return float64(bmxHumidity(raw, fine)) })
	us := 1000 + 2000*t
	if p > 0 {
		us += 2000*p + 500
	} else {
		rawP = 0x80000
	}
	if h > 0 {
		us += 2000*h + 500
	} else {
		rawH = 0x8000
	}
	if t == 0 {
		rawT = 0x80000
	}
	c.next = [8]byte{byte(rawP >> 12), byte(rawP >> 4), byte(rawP << 4), byte(rawT >> 12), byte(rawT >> 4), byte(rawT << 4), byte(rawH >> 8), byte(rawH)}
	if !c.humid {
		c.next[6], c.next[7] = 0, 0
	}
	c.reg[bmxStatus] |= 0x08
	c.until = time.Now().Add(time.Duration(us) * time.Microsecond)
}

// search returns the raw number below n of which f, which rises, comes closest to
// what is wanted.
func search(n int, want float64, f func(raw int) float64) int {
	low, high := 0, n-1
	for low < high {
		mid := (low + high) / 2
		if f(mid) < want {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low > 0 && want-f(low-1) < f(low)-want {
		return low - 1
	}
	return low
}

// bmxTemperature is the data sheet's integer compensation (4.2.3): hundredths of a
// degree, and t_fine.
func bmxTemperature(raw int) (hundredths, fine int32) {
	t1, t2, t3 := int32(bmxTrim[0]), int32(bmxTrim[1]), int32(bmxTrim[2])
	a := int32(raw)
	v1 := (((a >> 3) - (t1 << 1)) * t2) >> 11
	d := (a >> 4) - t1
	v2 := (((d * d) >> 12) * t3) >> 14
	fine = v1 + v2
	return (fine*5 + 128) >> 8, fine
}

// bmxPressure is the data sheet's compensation of 64 bits (4.2.3): 256ths of a pascal.
func bmxPressure(raw int, fine int32) int64 {
	var p [10]int64
	for i := 1; i < 10; i++ {
		p[i] = int64(bmxTrim[2+i])
	}
	v1 := int64(fine) - 128000
	v2 := v1*v1*p[6] + ((v1 * p[5]) << 17) + p[4]<<35
	v1 = ((v1 * v1 * p[3]) >> 8) + ((v1 * p[2]) << 12)
	v1 = (((int64(1) << 47) + v1) * p[1]) >> 33
	if v1 == 0 {
		return 0
	}
	q := int64(1048576 - raw)
	q = (((q << 31) - v2) * 3125) / v1
	v1 = (p[9] * (q >> 13) * (q >> 13)) >> 25
	v2 = (p[8] * q) >> 19
	return ((q + v1 + v2) >> 8) + p[7]<<4
}

// bmxHumidity is the data sheet's integer compensation (4.2.3): 1024ths of a per cent.
func bmxHumidity(raw int, fine int32) int32 {
	var h [7]int32
	for i, v := range bmxHumid {
		h[i+1] = int32(v)
	}
	x := fine - 76800
	left := ((int32(raw) << 14) - (h[4] << 20) - h[5]*x + 16384) >> 15
	right := (((((((x*h[6])>>10)*(((x*h[3])>>11)+32768))>>10)+2097152)*h[2] + 8192) >> 14)
	x = left * right
	x -= ((((x >> 15) * (x >> 15)) >> 7) * h[1]) >> 4
	return min(max(x, 0), 419430400) >> 12
}
