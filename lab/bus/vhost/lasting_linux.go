package vhost

import "golang.org/x/sys/unix"

// lasting tells whether a file can't become shorter: it is sealed, as QEMU's memory
// backend of memfd does by itself.
func lasting(fd int) bool {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return err == nil && seals&unix.F_SEAL_SHRINK != 0
}
