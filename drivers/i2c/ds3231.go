package i2c

import (
	"context"
	"errors"
	"fmt"
	"time"

	"periph.io/x/conn/v3/i2c"
)

// ErrStopped is what a clock says that has been without power, or was never set.
var ErrStopped = errors.New("the clock has stopped since it was set")

// Clock is a DS3231 as a clock (19-5170, revision 10). It counts the years from 2000
// to 2199, in UTC here.
type Clock struct {
	run runner
}

// NewClock returns the clock at an address of a bus: of a DS3231 0x68. It asks
// nothing of it yet.
func NewClock(bus i2c.Bus, addr uint16) *Clock {
	return &Clock{runner{bus: bus, addr: addr, retries: 2}}
}

// Time reads the clock, to the second. The error wraps ErrStopped where the time is
// of no use.
func (c *Clock) Time(ctx context.Context) (time.Time, error) {
	status, err := c.run.transact(ctx, []byte{0x0F}, 0, 1, NoCRC)
	if err != nil {
		return time.Time{}, err
	}
	if status[0]&0x80 != 0 { // oscillator stop flag
		return time.Time{}, fmt.Errorf("ds3231: %w", ErrStopped)
	}
	r, err := c.run.transact(ctx, []byte{0x00}, 0, 7, NoCRC)
	if err != nil {
		return time.Time{}, err
	}
	return clockTime(r)
}

// clockTime reads seconds, minutes, hours, weekday, day, month and year.
func clockTime(r []byte) (time.Time, error) {
	bad := false
	number := func(b, mask byte, low, high int) int {
		b &= mask
		n := int(b>>4)*10 + int(b&0xf)
		bad = bad || b&0xf > 9 || n < low || n > high
		return n
	}
	second, minute := number(r[0], 0xff, 0, 59), number(r[1], 0xff, 0, 59)
	hour := 0
	if r[2]&0x40 == 0 {
		hour = number(r[2], 0xff, 0, 23)
	} else if hour = number(r[2], 0x1f, 1, 12) % 12; r[2]&0x20 != 0 {
		hour += 12
	}
	day, month, year := number(r[4], 0xff, 1, 31), number(r[5], 0x7f, 1, 12), 2000+number(r[6], 0xff, 0, 99)
	if r[5]&0x80 != 0 {
		year += 100
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	if bad || t.Day() != day {
		return time.Time{}, fmt.Errorf("ds3231: expected a date and a time of day, got % x", r)
	}
	return t, nil
}

// SetTime sets the clock to the second that has begun, and lets it run.
func (c *Clock) SetTime(ctx context.Context, t time.Time) error {
	t = t.UTC()
	if t.Year() < 2000 || t.Year() > 2199 {
		return fmt.Errorf("ds3231: expected a year from 2000 to 2199, got %d", t.Year())
	}
	bcd := func(n int) byte { return byte(n/10<<4 | n%10) }
	month := bcd(int(t.Month()))
	if t.Year() >= 2100 {
		month |= 0x80
	}
	w := []byte{0x00, bcd(t.Second()), bcd(t.Minute()), bcd(t.Hour()), byte(t.Weekday()) + 1, bcd(t.Day()), month, bcd(t.Year() % 100)}
	if _, err := c.run.transact(ctx, w, 0, 0, NoCRC); err != nil {
		return err
	}
	// The oscillator runs on the battery too (control, bit 7), and its flag is taken
	// back last: a time that was half written is not one.
	r, err := c.run.transact(ctx, []byte{0x0E}, 0, 2, NoCRC)
	if err != nil {
		return err
	}
	_, err = c.run.transact(ctx, []byte{0x0E, r[0] &^ 0x80, r[1] &^ 0x80}, 0, 0, NoCRC)
	return err
}
