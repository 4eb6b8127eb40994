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

	"halo.internal/mesh/iface"
	"halo.internal/model/paths"
)

// OpenSocket opens UDP port 4254 on one interface only and joins the group of
// announcements there.
func OpenSocket(name string) (Socket, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bind error
		err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), name) })
		return errors.Join(err, bind)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp6", fmt.Sprintf("[::]:%d", paths.AnnouncePort))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	p := ipv6.NewPacketConn(c)
	group := &net.UDPAddr{IP: paths.AnnounceGroup.AsSlice()}
	if err := errors.Join(
		p.JoinGroup(ifi, group),
		p.SetMulticastInterface(ifi),
		p.SetMulticastLoopback(false),
		p.SetMulticastHopLimit(1),
	); err != nil {
		return nil, errors.Join(fmt.Errorf("multicast on %s: %w", name, err), c.Close())
	}
	return &udpSocket{c.(*net.UDPConn), iface.Iface{Name: name, Index: ifi.Index}, strconv.Itoa(ifi.Index)}, nil
}

type udpSocket struct {
	conn  *net.UDPConn
	under iface.Iface
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

func (s *udpSocket) Watch(ctx context.Context) error { return s.under.Watch(ctx) }

func (s *udpSocket) Close() error { return s.conn.Close() }
