package clock

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is the clock of the machine that this process runs on.
type Machine struct{ rtc string }

var _ System = Machine{}

// NewMachine returns the machine's clock, with its first battery-backed clock.
func NewMachine() Machine { return Machine{rtc: "/dev/rtc0"} }

// Now returns the system time without Go's monotonic reading: what is compared
// here are wall times across steps.
func (Machine) Now() time.Time { return time.Now().Round(0) }

// Set sets the system time and, where there is one, the battery-backed clock:
// nobody else on the appliance would.
func (m Machine) Set(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("settimeofday: %w", err)
	}
	u := t.UTC()
	_ = m.with(func(fd int) error { // one that is missing or stuck is found out by Start, when it matters
		return unix.IoctlSetRTCTime(fd, &unix.RTCTime{
			Sec: int32(u.Second()), Min: int32(u.Minute()), Hour: int32(u.Hour()),
			Mday: int32(u.Day()), Mon: int32(u.Month()) - 1, Year: int32(u.Year()) - 1900,
		})
	})
	return nil
}

// RTC reads the battery-backed clock.
func (m Machine) RTC() (time.Time, error) {
	var r *unix.RTCTime
	err := m.with(func(fd int) (err error) {
		r, err = unix.IoctlGetRTCTime(fd)
		return err
	})
	if err != nil {
		return time.Time{}, err
	}
	return time.Date(int(r.Year)+1900, time.Month(r.Mon+1), int(r.Mday), int(r.Hour), int(r.Min), int(r.Sec), 0, time.UTC), nil
}

func (m Machine) with(f func(fd int) error) error {
	d, err := os.Open(m.rtc)
	if err != nil {
		return fmt.Errorf("battery-backed clock: %w", err)
	}
	if err := f(int(d.Fd())); err != nil {
		return errors.Join(fmt.Errorf("battery-backed clock %s: %w", m.rtc, err), d.Close())
	}
	return d.Close()
}
