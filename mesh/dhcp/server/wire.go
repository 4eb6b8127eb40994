package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/iface"
)

// Bounds of what an interface is listened to; the kernel drops the rest, at no
// cost to the processor.
const (
	messagesASecond = 1000
	arpASecond      = 2000
	waiting         = 64
	maxMessage      = 1500
	ipHeader        = 20
	udpHeader       = 8
)

// wire is the sockets of one interface. DHCP is read and written as raw frames:
// they tell from which MAC a message came, and reach clients that have no address
// and answer no ARP.
type wire struct {
	under    iface.Iface
	dhcp     *packet.Conn
	ars      *packet.Conn
	port     net.PacketConn // keeps the kernel from telling clients that nobody listens; nothing is read from it
	messages chan message
	arp      chan heard
}

// open opens the sockets. Of ARP, only what speaks of addresses in the network
// gets through.
func open(name string, network netip.Prefix) (_ *wire, err error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	if len(ifi.HardwareAddr) != 6 {
		return nil, fmt.Errorf("interface %s: expected a MAC of 6 octets, got %d", name, len(ifi.HardwareAddr))
	}
	w := &wire{under: iface.Iface{Name: name, Index: ifi.Index}, messages: make(chan message, waiting), arp: make(chan heard, waiting)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("listen on %s: %w", name, err), w.close())
		}
	}()
	if w.dhcp, err = listen(ifi, unix.ETH_P_IP, toServer); err != nil {
		return nil, err
	}
	if w.ars, err = listen(ifi, unix.ETH_P_ARP, arpOf(network)); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bind error
		err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), name) })
		return errors.Join(err, bind)
	}}
	w.port, err = lc.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", dhcpv4.ServerPort))
	return w, err
}

func listen(ifi *net.Interface, protocol int, filter []bpf.Instruction) (*packet.Conn, error) {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return nil, err
	}
	return packet.Listen(ifi, packet.Datagram, protocol, &packet.Config{Filter: raw})
}

// toServer lets through whole UDP datagrams to the port of DHCP servers.
var toServer = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 4}, // a fragment
	bpf.LoadMemShift{Off: 0},
	bpf.LoadIndirect{Off: 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: dhcpv4.ServerPort, SkipTrue: 1},
	bpf.RetConstant{Val: maxMessage},
	bpf.RetConstant{Val: 0},
}

// arpOf lets through whose sender is in the network, and probes.
func arpOf(network netip.Prefix) []bpf.Instruction {
	mask := ^uint32(0) << (32 - network.Bits())
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 14, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: number(network.Addr()), SkipTrue: 1},
		bpf.RetConstant{Val: arpSize},
		bpf.RetConstant{Val: 0},
	}
}

func (w *wire) close() error {
	var errs error
	if w.dhcp != nil {
		errs = errors.Join(errs, w.dhcp.Close())
	}
	if w.ars != nil {
		errs = errors.Join(errs, w.ars.Close())
	}
	if w.port != nil {
		errs = errors.Join(errs, w.port.Close())
	}
	return errs
}

func (w *wire) readMessages(ctx context.Context) error {
	return read(ctx, w.dhcp, maxMessage, messagesASecond, func(from mac, b []byte) {
		m, ok := parseUDP(b)
		if !ok {
			return
		}
		m.from = from
		select {
		case w.messages <- m:
		case <-ctx.Done():
		}
	})
}

func (w *wire) readARP(ctx context.Context) error {
	return read(ctx, w.ars, arpSize, arpASecond, func(_ mac, b []byte) {
		h, ok := parseARP(b)
		if !ok {
			return
		}
		select {
		case w.arp <- h:
		case <-ctx.Done():
		}
	})
}

// read takes no more than so many frames a second from the socket.
func read(ctx context.Context, c *packet.Conn, size, aSecond int, f func(mac, []byte)) error {
	buf := make([]byte, size)
	window, left := time.Now(), aSecond
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if time.Since(window) >= time.Second {
			window, left = time.Now(), aSecond
		}
		if left--; left < 0 && !sleep(ctx, time.Second-time.Since(window)) {
			return nil
		}
		if a, ok := from.(*packet.Addr); ok && len(a.HardwareAddr) == 6 {
			f(mac(a.HardwareAddr), buf[:n])
		}
	}
}

// parseUDP finds the datagram in an IPv4 packet. Its checksum is not looked at:
// where both ends are one machine, it is not made yet.
func parseUDP(b []byte) (message, bool) {
	if len(b) < ipHeader || b[0]>>4 != 4 {
		return message{}, false
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipHeader || total > len(b) || total < header+udpHeader || b[9] != unix.IPPROTO_UDP {
		return message{}, false
	}
	udp := b[header:total]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < udpHeader || size > len(udp) {
		return message{}, false
	}
	return message{source: netip.AddrFrom4([4]byte(b[12:16])), data: append([]byte(nil), udp[udpHeader:size]...)}, true
}

func (w *wire) send(from netip.Addr, r reply) error {
	_, err := w.dhcp.WriteTo(datagram(from, r.addr, r.data), &packet.Addr{HardwareAddr: r.to[:]})
	return err
}

// datagram makes an IPv4 packet (RFC 791, RFC 768) from server to client.
func datagram(from, to netip.Addr, data []byte) []byte {
	total := ipHeader + udpHeader + len(data)
	b := make([]byte, ipHeader+udpHeader, total)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	b[1] = 0xc0 // network control (RFC 2474): a Wi-Fi queue that is not the fullest
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b[:ipHeader]))
	udp := b[ipHeader:]
	binary.BigEndian.PutUint16(udp, dhcpv4.ServerPort)
	binary.BigEndian.PutUint16(udp[2:], dhcpv4.ClientPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(data)))
	b = append(b, data...)
	pseudo := sum(uint32(unix.IPPROTO_UDP)+uint32(udpHeader+len(data)), b[12:ipHeader])
	check := ^sum(uint32(pseudo), b[ipHeader:])
	if check == 0 {
		check = 0xffff // zero says that there is none
	}
	binary.BigEndian.PutUint16(b[ipHeader+6:], check)
	return b
}

// sum is the sum of the internet checksum (RFC 1071).
func sum(s uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func (w *wire) probe(a netip.Addr) error {
	// A bridge has the MAC of another port with each that comes or goes.
	ifi, err := net.InterfaceByIndex(w.under.Index)
	if err != nil {
		return err
	}
	all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	_, err = w.ars.WriteTo(arpProbe(mac(ifi.HardwareAddr), a), &packet.Addr{HardwareAddr: all})
	return err
}

// check returns when the interface under the sockets is not the one any more
// that has its name: of one that was removed nothing is ever heard.
func (w *wire) check(ctx context.Context) error {
	return w.under.Watch(ctx)
}
