package chips

import (
	"encoding/binary"
	"sync"
)

// MPU6050 is an InvenSense MPU-6050 (RM-MPU-6000A-00, revision 4.2).
type MPU6050 struct {
	mu sync.Mutex
	registers
	accel, gyro [3]float64 // in g, and degrees a second
	celsius     float64
}

// NewMPU6050 returns a chip that feels accelerations, in g, and rotations, in degrees
// a second.
func NewMPU6050(accel, gyro [3]float64, celsius float64) *MPU6050 {
	c := &MPU6050{accel: accel, gyro: gyro, celsius: celsius}
	c.onRead, c.onWrite = c.load, c.store
	c.reset()
	return c
}

// Set changes what is to be measured.
func (c *MPU6050) Set(accel, gyro [3]float64, celsius float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accel, c.gyro, c.celsius = accel, gyro, celsius
}

// LosePower lets the chip forget its settings.
func (c *MPU6050) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset()
}

func (c *MPU6050) reset() {
	c.reg = [256]byte{}
	c.reg[0x6b], c.reg[0x75] = 0x40, 0x68
}

// Tx implements Chip.
func (c *MPU6050) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tx(w, r)
	return nil
}

func (c *MPU6050) store(reg, v byte) {
	if reg == 0x6b && v&0x80 != 0 {
		c.reset()
		return
	}
	if reg != 0x75 {
		c.reg[reg] = v
	}
}

// perDPS is the gyroscope's sensitivity by its range (4.19).
var perDPS = [4]float64{131, 65.5, 32.8, 16.4}

func (c *MPU6050) load(reg byte) {
	if reg < 0x3b || reg > 0x48 || c.reg[0x6b]&0x40 != 0 {
		return // asleep it keeps what it has
	}
	g, dps := c.reg[0x1c]>>3&3, c.reg[0x1b]>>3&3
	put := func(reg int, v float64) {
		binary.BigEndian.PutUint16(c.reg[reg:], uint16(clamp(v, -32768, 32767)))
	}
	for i := range 3 {
		put(0x3b+2*i, c.accel[i]*16384/float64(int(1)<<g))
		put(0x43+2*i, c.gyro[i]*perDPS[dps])
	}
	put(0x41, (c.celsius-36.53)*340)
}
