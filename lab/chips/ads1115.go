package chips

import (
	"sync"
	"time"
)

// ADS1115 is a Texas Instruments ADS1115 (SBAS444D).
type ADS1115 struct {
	mu sync.Mutex
	words
	volts     [4]float64
	config    uint16
	low, high uint16
	result    uint16
	until     time.Time
}

// NewADS1115 returns a converter with voltages at its inputs.
func NewADS1115(volts [4]float64) *ADS1115 {
	c := &ADS1115{volts: volts, config: 0x8583, low: 0x8000, high: 0x7fff}
	c.words.read, c.words.write = c.load, c.store
	return c
}

// Set changes what is to be measured.
func (c *ADS1115) Set(volts [4]float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.volts = volts
}

// Tx implements Chip.
func (c *ADS1115) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}

// input is the voltage that the multiplexer passes (9.6.3).
func (c *ADS1115) input() float64 {
	v := c.volts
	return [8]float64{v[0] - v[1], v[0] - v[3], v[1] - v[3], v[2] - v[3], v[0], v[1], v[2], v[3]}[c.config>>12&7]
}

// convert begins a conversion, of which the result is there at its end.
func (c *ADS1115) convert() {
	scale := [8]float64{6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256}[c.config>>9&7]
	rate := [8]int{8, 16, 32, 64, 128, 250, 475, 860}[c.config>>5&7]
	c.result = uint16(clamp(c.input()*32768/scale, -32768, 32767))
	c.until = time.Now().Add(time.Second / time.Duration(rate))
}

func (c *ADS1115) load(reg byte) uint16 {
	switch reg & 3 {
	case 0:
		if c.config&0x100 == 0 {
			c.convert() // continuously
		} else if time.Now().Before(c.until) {
			return 0
		}
		return c.result
	case 1:
		v := c.config &^ 0x8000
		if !time.Now().Before(c.until) {
			v |= 0x8000
		}
		return v
	case 2:
		return c.low
	}
	return c.high
}

func (c *ADS1115) store(reg byte, v uint16, octets int) {
	if octets != 2 {
		return
	}
	switch reg & 3 {
	case 1:
		if c.config = v; v&0x8100 == 0x8100 {
			c.convert()
		}
	case 2:
		c.low = v
	case 3:
		c.high = v
	}
}
