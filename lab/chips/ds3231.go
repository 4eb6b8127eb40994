package chips

import (
	"sync"
	"time"
)

// DS3231 is a Maxim DS3231 (19-5170, revision 10).
type DS3231 struct {
	mu sync.Mutex
	registers
	celsius float64
	at      time.Time // what it showed when it was set
	set     time.Time // when
	wrote   bool      // the time is written in this transaction
}

// NewDS3231 returns a clock that shows a time. It does not know whether that is
// right: it has lost its power before.
func NewDS3231(at time.Time, celsius float64) *DS3231 {
	c := &DS3231{celsius: celsius, at: at, set: time.Now()}
	c.onRead, c.onWrite = c.load, c.store
	c.reg[0x0e], c.reg[0x0f] = 0x1c, 0x88
	return c
}

// Set changes what is to be measured.
func (c *DS3231) Set(celsius float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.celsius = celsius
}

// Now is what the clock shows.
func (c *DS3231) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *DS3231) now() time.Time { return c.at.Add(time.Since(c.set)) }

// LosePower stops the clock.
func (c *DS3231) LosePower() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.set = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Now()
	c.reg[0x0f] |= 0x80
}

// Tx implements Chip.
func (c *DS3231) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fill() // the time is read into a buffer at the start
	c.wrote = false
	c.tx(w, r)
	if c.wrote {
		c.take()
	}
	return nil
}

func bcd(n int) byte { return byte(n/10<<4 | n%10) }

func number(b byte) int { return int(b>>4)*10 + int(b&0xf) }

func (c *DS3231) fill() {
	t := c.now().UTC()
	hour := bcd(t.Hour())
	if c.reg[2]&0x40 != 0 { // twelve hours
		hour = 0x40 | bcd((t.Hour()+11)%12+1)
		if t.Hour() >= 12 {
			hour |= 0x20
		}
	}
	month := bcd(int(t.Month()))
	if t.Year() >= 2100 {
		month |= 0x80
	}
	copy(c.reg[:], []byte{bcd(t.Second()), bcd(t.Minute()), hour, byte(t.Weekday()) + 1, bcd(t.Day()), month, bcd(t.Year() % 100)})
	raw := clamp(c.celsius*4, -512, 511)
	c.reg[0x11], c.reg[0x12] = byte(raw>>2), byte(raw<<6)
}

func (c *DS3231) take() {
	hour := number(c.reg[2] & 0x3f)
	if c.reg[2]&0x40 != 0 {
		hour = number(c.reg[2]&0x1f) % 12
		if c.reg[2]&0x20 != 0 {
			hour += 12
		}
	}
	year := 2000 + number(c.reg[6])
	if c.reg[5]&0x80 != 0 {
		year += 100
	}
	c.at = time.Date(year, time.Month(number(c.reg[5]&0x1f)), number(c.reg[4]&0x3f), hour, number(c.reg[1]), number(c.reg[0]), 0, time.UTC)
	c.set = time.Now()
}

func (c *DS3231) store(reg, v byte) {
	switch {
	case reg <= 0x06:
		c.reg[reg], c.wrote = v, true
	case reg == 0x0f: // the flags can be taken back only
		c.reg[reg] = c.reg[reg]&v&0x83 | v&0x08
	case reg <= 0x10:
		c.reg[reg] = v
	}
}

func (c *DS3231) load(byte) {
	if c.pointer > 0x12 {
		c.pointer = 0 // the pointer goes round
	}
}
