package iface

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Told calls told when it listens, and from then on whenever links or addresses may be
// others, in the network namespace of the calling thread (rtnetlink(7)), until ctx ends. It
// costs nothing while nothing happens. told must not block. An error says that nothing is
// heard any more.
func Told(ctx context.Context, told func()) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR})
	if err != nil {
		return fmt.Errorf("follow links and addresses: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	for {
		told()
		_, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // more than there was room for
			return fmt.Errorf("follow links and addresses: %w", err)
		}
	}
}
