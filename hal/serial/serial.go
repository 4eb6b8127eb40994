// Package serial opens serial ports in raw mode, at any rate, with deadlines for
// reading, and finds those that a device has: USB adapters and modems, and the UARTs of
// its board.
package serial

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a rate, in bit/s: what the kernel's drivers know what to do with.
const (
	MinRate = 50
	MaxRate = 4_000_000
)

// Port is an open serial port. One goroutine may read while another closes it.
type Port struct {
	f    *os.File
	name string
}

// Open opens a port: raw, eight bits, no parity, one stop bit, no flow control, at that
// rate in bit/s. It waits for no carrier, and nobody else may open the port meanwhile.
func Open(name string, rate int) (*Port, error) {
	// Without O_NONBLOCK a port whose modem lines say that nobody is there would not open,
	// and reads of it would know no deadline.
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("serial port %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TIOCEXCL, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("serial port %s: expected a terminal of the kernel: %w", name, err), unix.Close(fd))
	}
	p := &Port{os.NewFile(uintptr(fd), name), name}
	if err := p.SetRate(rate); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// SetRate has the port go on at another rate. What has come in and was not read is gone:
// it came at the one before.
func (p *Port) SetRate(rate int) error {
	if rate < MinRate || rate > MaxRate {
		return fmt.Errorf("serial port %s: expected a rate of %d to %d bit/s, got %d", p.name, MinRate, MaxRate, rate)
	}
	err := p.control(func(fd int) error {
		// TCGETS2 and BOTHER take the rate as a number, so that none is missing.
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err != nil {
			return err
		}
		raw(t, uint32(rate))
		if err := unix.IoctlSetTermios(fd, unix.TCSETS2, t); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
	})
	if err != nil {
		return fmt.Errorf("serial port %s: %d bit/s: %w", p.name, rate, err)
	}
	return nil
}

// raw is what cfmakeraw(3) makes, without hang-up on close: that drops DTR, by which some
// boards behind USB adapters restart.
func raw(t *unix.Termios, rate uint32) {
	t.Iflag = unix.IGNBRK | unix.IGNPAR
	t.Oflag = 0
	t.Lflag = 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.BOTHER
	t.Ispeed, t.Ospeed = rate, rate
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}

// Rate returns the rate that the driver has made of what was asked for, in bit/s.
func (p *Port) Rate() (int, error) {
	rate := 0
	err := p.control(func(fd int) error {
		t, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
		if err == nil {
			rate = int(t.Ispeed)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("serial port %s: rate: %w", p.name, err)
	}
	return rate, nil
}

func (p *Port) control(f func(fd int) error) error {
	c, err := p.f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Read reads what has come, at least one octet. The error wraps os.ErrDeadlineExceeded
// when the deadline came first; io.EOF or another one when the device has gone.
func (p *Port) Read(b []byte) (int, error) { return p.f.Read(b) }

// Write sends all of b.
func (p *Port) Write(b []byte) (int, error) { return p.f.Write(b) }

// SetReadDeadline ends reads at that time; zero: never.
func (p *Port) SetReadDeadline(t time.Time) error { return p.f.SetReadDeadline(t) }

// Close closes the port and ends a read.
func (p *Port) Close() error { return p.f.Close() }

// Name is the port's device file.
func (p *Port) Name() string { return p.name }
