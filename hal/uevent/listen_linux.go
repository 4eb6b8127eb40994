package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Listener is a socket that gets every message from its opening on.
type Listener struct{ f *os.File }

// ErrLost is returned by Next when messages came faster than they were read:
// whoever keeps a picture of the devices must look at all of them again.
var ErrLost = errors.New("uevents were lost")

const (
	kernelGroup = 1
	buffer      = 1 << 20 // a coldplug's worth
)

// Listen opens a listener.
func Listen() (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}),
	)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("uevent socket: %w", err)
	}
	return &Listener{os.NewFile(uintptr(fd), "uevent")}, nil
}

// Next waits for the next message that can be read, until ctx ends.
func (l *Listener) Next(ctx context.Context) (Event, error) {
	if err := l.f.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.f.SetReadDeadline(time.Now()) }) // fails on a closed listener only
	defer stop()
	b := make([]byte, 16<<10) // the kernel's own limit is below
	for {
		n, err := l.f.Read(b)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return nil, ErrLost
		case err != nil:
			return nil, errors.Join(ctx.Err(), err)
		}
		if e, err := Parse(b[:n]); err == nil {
			return e, nil
		}
	}
}

// Close ends the listener.
func (l *Listener) Close() error { return l.f.Close() }
