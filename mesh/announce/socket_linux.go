package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"halo.internal/model/paths"
)

// OpenSocket opens UDP port 4254 on one interface only and joins the group of
// announcements there.
func OpenSocket(iface string) (Socket, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bind error
		err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), iface) })
		return errors.Join(err, bind)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp6", fmt.Sprintf("[::]:%d", paths.AnnouncePort))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", iface, err)
	}
	p := ipv6.NewPacketConn(c)
	group := &net.UDPAddr{IP: paths.AnnounceGroup.AsSlice()}
	if err := errors.Join(
		p.JoinGroup(ifi, group),
		p.SetMulticastInterface(ifi),
		p.SetMulticastLoopback(false),
		p.SetMulticastHopLimit(1),
	); err != nil {
		return nil, errors.Join(fmt.Errorf("multicast on %s: %w", iface, err), c.Close())
	}
	return &udpSocket{c.(*net.UDPConn), iface, ifi.Index, strconv.Itoa(ifi.Index)}, nil
}

type udpSocket struct {
	conn  *net.UDPConn
	iface string
	index int
	zone  string // the interface by index: a name would be looked up for each message
}

func (s *udpSocket) Receive(b []byte) (int, netip.Addr, error) {
	n, from, err := s.conn.ReadFromUDPAddrPort(b)
	return n, from.Addr().WithZone(""), err
}

func (s *udpSocket) Send(b []byte, to netip.Addr) error {
	if to.IsLinkLocalUnicast() || to.IsLinkLocalMulticast() {
		to = to.WithZone(s.zone)
	}
	_, err := s.conn.WriteToUDPAddrPort(b, netip.AddrPortFrom(to, paths.AnnouncePort))
	return err
}

func (s *udpSocket) Check() error {
	ifi, err := net.InterfaceByName(s.iface)
	if err != nil {
		return fmt.Errorf("interface %s: %w", s.iface, err)
	}
	if ifi.Index != s.index {
		return fmt.Errorf("interface %s: was made anew", s.iface)
	}
	return nil
}

func (s *udpSocket) Close() error { return s.conn.Close() }
