package guard

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What a read of /dev/kmsg says when there is nothing newer, and when messages
// were overwritten before they were read.
const (
	errAgain   = unix.EAGAIN
	errOverrun = unix.EPIPE
)

// kmsg is /dev/kmsg read by plain system calls: each read is one message, and
// the end is EAGAIN, which package os would wait out.
type kmsg struct{ fd int }

const kmsgPath = "/dev/kmsg"

func openKmsg() (kmsg, error) {
	fd, err := unix.Open(kmsgPath, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return kmsg{}, &os.PathError{Op: "open", Path: kmsgPath, Err: err}
	}
	return kmsg{fd}, nil
}

func (k kmsg) Read(b []byte) (int, error) {
	n, err := unix.Read(k.fd, b)
	return max(n, 0), err
}

// wait waits until there is a message.
func (k kmsg) wait() error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			if err != nil {
				return fmt.Errorf("poll %s: %w", kmsgPath, err)
			}
			return nil
		}
	}
}

func (k kmsg) close() { unix.Close(k.fd) }
