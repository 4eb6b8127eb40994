package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of the kernel's interface to a bridge's multicast database
// (linux/if_bridge.h).
const (
	mdbGroup     = 26 // RTNLGRP_MDB
	mdba         = 1  // MDBA_MDB
	mdbaEntry    = 1  // MDBA_MDB_ENTRY
	mdbaInfo     = 1  // MDBA_MDB_ENTRY_INFO
	portHead     = 8  // struct br_port_msg: family, padding, index of the bridge
	entrySize    = 28 // struct br_mdb_entry
	entryAddress = 8
	entryProto   = 24
)

const (
	// joinsEvery is how often the database is read even when nothing is said of it.
	joinsEvery = 30 * time.Second
	// settle is waited for after a change, for more of them.
	settle = 200 * time.Millisecond
)

// followJoins calls joined with the IPv4 groups, listed or not, that hosts behind the
// bridge of that index listen to, at first and whenever they may be others, until ctx ends.
func followJoins(ctx context.Context, bridge int, joined func([]netip.Addr)) error {
	events, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("follow multicast groups: %w", err)
	}
	defer events.Close()
	if err := events.JoinGroup(mdbGroup); err != nil {
		return fmt.Errorf("follow multicast groups: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	defer stop()
	changed, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		for {
			_, err := events.Receive()
			if err != nil && !errors.Is(err, unix.ENOBUFS) { // what was lost, the next look finds
				ended <- err
				return
			}
			wake(changed)
		}
	}()
	look := time.NewTicker(joinsEvery)
	defer look.Stop()
	for {
		groups, err := joins(bridge)
		if err != nil {
			_ = events.Close()
			<-ended
			return err
		}
		joined(groups)
		select {
		case <-ctx.Done():
			<-ended
			return nil
		case err := <-ended:
			return fmt.Errorf("follow multicast groups: %w", err)
		case <-changed:
			select {
			case <-ctx.Done():
			case <-time.After(settle):
			}
		case <-look.C:
		}
	}
}

// joins reads the database.
func joins(bridge int) ([]netip.Addr, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("multicast groups: %w", err)
	}
	defer c.Close()
	list, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETMDB, Flags: netlink.Request | netlink.Dump}, Data: append([]byte{unix.AF_BRIDGE}, make([]byte, portHead-1)...),
	})
	if err != nil {
		return nil, fmt.Errorf("multicast groups: %w; has the kernel no IGMP snooping?", err)
	}
	var groups []netip.Addr
	for _, m := range list {
		g, err := parseJoins(m.Data, bridge)
		if err != nil {
			return nil, fmt.Errorf("multicast groups: %w", err)
		}
		groups = append(groups, g...)
	}
	return groups, nil
}

// parseJoins returns the IPv4 groups of a message that hosts behind that bridge's
// ports have joined: what the device itself has joined is at the bridge, not at a port.
func parseJoins(b []byte, bridge int) (groups []netip.Addr, err error) {
	if len(b) < portHead {
		return nil, fmt.Errorf("expected at least %d octets, got %d", portHead, len(b))
	}
	if int(binary.NativeEndian.Uint32(b[4:])) != bridge {
		return nil, nil
	}
	top, err := netlink.NewAttributeDecoder(b[portHead:])
	if err != nil {
		return nil, err
	}
	for top.Next() {
		if top.Type() != mdba {
			continue
		}
		top.Nested(func(entries *netlink.AttributeDecoder) error {
			for entries.Next() {
				if entries.Type() != mdbaEntry {
					continue
				}
				entries.Nested(func(infos *netlink.AttributeDecoder) error {
					for infos.Next() {
						if infos.Type() != mdbaInfo {
							continue
						}
						// Attributes of the entry follow its structure.
						if e := infos.Bytes(); len(e) >= entrySize && int(binary.NativeEndian.Uint32(e)) != bridge &&
							binary.BigEndian.Uint16(e[entryProto:]) == unix.ETH_P_IP {
							groups = append(groups, netip.AddrFrom4([4]byte(e[entryAddress:])))
						}
					}
					return nil
				})
			}
			return nil
		})
	}
	return groups, top.Err()
}
