package iface

import (
	"time"

	"golang.org/x/sys/unix"
)

// changesAnyway is after what time something may have changed unheard: an event can
// get lost, and there is one for hardly anything that a driver does.
const changesAnyway = 30 * time.Second

// Changes tells whether interfaces, addresses, routes or routing rules may be others
// than when it was last asked, in the network namespace that the first call was made
// in (rtnetlink(7)). To look at all of them, of which a device has dozens, costs a
// small board a thousand times what that does. The zero value is ready.
type Changes struct {
	fd   int // one more than the socket's; 0: there is none yet
	told time.Time
}

// rtnetlink's groups of multicast, as bits.
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE |
	unix.RTMGRP_IPV4_RULE | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// Any tells whether to look: the first time, whenever the kernel has told of a change
// or of one that it could not tell, and when it has not been so for half a minute.
func (c *Changes) Any() bool {
	now := time.Now()
	if c.heard() || now.Sub(c.told) >= changesAnyway {
		c.told = now
		return true
	}
	return false
}

// Close ends it.
func (c *Changes) Close() {
	if c.fd != 0 {
		_ = unix.Close(c.fd - 1)
		c.fd = 0
	}
}

// heard takes in all that the kernel has told since.
func (c *Changes) heard() bool {
	if c.fd == 0 {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return true
		}
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
			_ = unix.Close(fd)
			return true
		}
		c.fd = fd + 1
		return true
	}
	var b [1]byte // that there is a message says enough
	for heard := false; ; heard = true {
		_, _, err := unix.Recvfrom(c.fd-1, b[:], unix.MSG_TRUNC)
		switch err {
		case nil, unix.EINTR, unix.ENOBUFS: // told, and more than there was room for
		case unix.EAGAIN:
			return heard
		default:
			c.Close()
			return true
		}
	}
}
