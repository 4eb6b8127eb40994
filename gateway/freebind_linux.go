package gateway

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// freebind lets a socket listen on an address that the device does not have
// yet: the overlay's comes with wg0, which may be made and removed at any time.
func freebind(_, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1) })
	return errors.Join(ctl, err)
}
