package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/listen"
	"halo.internal/model/paths"
)

// serveMembers speaks with the others, at the device's overlay address.
func (r *Relay) serveMembers(ctx context.Context, w Wanted) {
	at := listen.At{Iface: paths.OverlayIface, Addr: w.Overlay, From: []netip.Prefix{paths.OverlayNet}}
	at.Keep(ctx, r.Log, func(ctx context.Context) error {
		c, err := at.UDP(ctx, paths.RelayPort)
		if err != nil {
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		defer c.Close()
		r.reach(overlaySocket{c})
		defer r.reach(nil)
		buf := make([]byte, maxMessage+1)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return err
			}
			r.fromMember(buf[:n], from.(*net.UDPAddr).AddrPort().Addr().Unmap())
		}
	})
}

type overlaySocket struct{ c net.PacketConn }

func (s overlaySocket) send(msg []byte, to netip.Addr) error {
	_, err := s.c.WriteTo(msg, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, paths.RelayPort)))
	return err
}

// serveClients listens to the device's own clients and speaks to them, on br0.
func (r *Relay) serveClients(ctx context.Context, w Wanted) {
	at := listen.At{Iface: paths.ClientBridge, Addr: w.Clients.Addr().Next()}
	at.Keep(ctx, r.Log, func(ctx context.Context) error {
		ifi, err := net.InterfaceByName(paths.ClientBridge)
		if err != nil {
			return fmt.Errorf("interface %s: %w", paths.ClientBridge, err)
		}
		raw, err := openRaw(ifi)
		if err != nil {
			return err
		}
		defer raw.close()
		ctx, cancel := context.WithCancelCause(ctx)
		var owned sync.WaitGroup
		defer owned.Wait()
		defer cancel(nil)
		for _, g := range r.Groups {
			c, err := openGroup(ifi, g)
			if err != nil {
				return err
			}
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			owned.Go(func() {
				defer stop()
				cancel(r.listen(c, g))
			})
		}
		r.mu.Lock()
		r.emit = raw
		r.mu.Unlock()
		defer func() {
			r.mu.Lock()
			r.emit = nil
			r.mu.Unlock()
		}()
		owned.Go(func() { cancel(followJoins(ctx, ifi.Index, r.joined)) })
		<-ctx.Done()
		return context.Cause(ctx)
	})
}

// listen takes up what clients say to a group.
func (r *Relay) listen(c *ipv4.PacketConn, group netip.AddrPort) error {
	buf := make([]byte, MaxPayload+1)
	for {
		n, cm, from, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("listen to %s: %w", group, err)
		}
		if cm == nil || cm.TTL < 1 {
			continue // the kernel tells it, and lets none through that has had its time
		}
		a := from.(*net.UDPAddr).AddrPort()
		r.fromClient(datagram{ttl: uint8(cm.TTL), from: netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), group: group, payload: buf[:n]})
	}
}

// openGroup opens a socket that gets the group's datagrams that come in by the
// interface, and nothing else: package net would bind it to all addresses.
func openGroup(ifi *net.Interface, group netip.AddrPort) (*ipv4.PacketConn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket for %s: %w", group, err)
	}
	a := group.Addr().As4()
	err = errors.Join(
		unix.BindToDevice(fd, ifi.Name),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MULTICAST_ALL, 0),
		unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: a, Ifindex: int32(ifi.Index)}),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: a, Port: int(group.Port())}),
	)
	f := os.NewFile(uintptr(fd), group.String())
	defer f.Close() // the connection has its own
	if err != nil {
		return nil, fmt.Errorf("listen to %s on %s: %w", group, ifi.Name, err)
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("listen to %s on %s: %w", group, ifi.Name, err)
	}
	p := ipv4.NewPacketConn(c)
	if err := p.SetControlMessage(ipv4.FlagTTL, true); err != nil {
		return nil, errors.Join(fmt.Errorf("listen to %s on %s: %w", group, ifi.Name, err), p.Close())
	}
	return p, nil
}

// rawSocket emits packets as they are given, source included.
type rawSocket struct {
	fd  int
	mtu int
	id  atomic.Uint32 // of packets
}

func openRaw(ifi *net.Interface) (*rawSocket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return nil, fmt.Errorf("raw socket on %s: %w", ifi.Name, err)
	}
	err = errors.Join(
		unix.BindToDevice(fd, ifi.Name),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MULTICAST_LOOP, 0),
		unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raw socket on %s: %w", ifi.Name, err), unix.Close(fd))
	}
	s := &rawSocket{fd: fd, mtu: ifi.MTU}
	s.id.Store(rand.Uint32())
	return s, nil
}

func (s *rawSocket) close() { _ = unix.Close(s.fd) }

// maxTTL bounds how far an emitted datagram goes beyond the bridge.
const maxTTL = 32

func (s *rawSocket) emit(d datagram) error {
	for _, p := range packets(d, s.mtu, uint16(s.id.Add(1))) {
		if err := unix.Sendto(s.fd, p, 0, &unix.SockaddrInet4{Addr: d.group.Addr().As4()}); err != nil {
			return fmt.Errorf("emit for %s: %w", d.group, err)
		}
	}
	return nil
}

const (
	ipHead  = 20
	udpHead = 8
)

// packets returns the IPv4 packets of a datagram, fragments if the MTU (octets) is too
// small for one (RFC 791). The way here was one hop.
func packets(d datagram, mtu int, id uint16) [][]byte {
	from, to := d.from.Addr().As4(), d.group.Addr().As4()
	u := make([]byte, udpHead, udpHead+len(d.payload))
	binary.BigEndian.PutUint16(u, d.from.Port())
	binary.BigEndian.PutUint16(u[2:], d.group.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(udpHead+len(d.payload)))
	u = append(u, d.payload...)
	binary.BigEndian.PutUint16(u[6:], checksum(from, to, u))
	part := (max(mtu, 68) - ipHead) &^ 7 // 68 is the least of IPv4
	var list [][]byte
	for at := 0; at < len(u); at += part {
		end := min(at+part, len(u))
		field := uint16(at / 8)
		if end < len(u) {
			field |= 0x2000 // more fragments
		}
		p := make([]byte, ipHead, ipHead+end-at)
		p[0] = 0x45
		binary.BigEndian.PutUint16(p[2:], uint16(ipHead+end-at))
		binary.BigEndian.PutUint16(p[4:], max(id, 1)) // the kernel would put its own in for 0, another for each fragment
		binary.BigEndian.PutUint16(p[6:], field)
		p[8] = min(max(d.ttl-1, 1), maxTTL) // whoever says 1 means its own network, which is the clients of all here
		p[9] = unix.IPPROTO_UDP
		copy(p[12:], from[:])
		copy(p[16:], to[:])
		list = append(list, append(p, u[at:end]...)) // the kernel sums the header
	}
	return list
}

// checksum of a UDP datagram whose own field is 0 (RFC 768).
func checksum(from, to [4]byte, u []byte) uint16 {
	sum := uint32(unix.IPPROTO_UDP) + uint32(len(u))
	add := func(b []byte) {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) > 0 {
			sum += uint32(b[0]) << 8
		}
	}
	add(from[:])
	add(to[:])
	add(u)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if s := ^uint16(sum); s != 0 {
		return s
	}
	return 0xffff
}
