package dhcp

import (
	"errors"
	"net"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// conn is the client's socket on a port, whatever is configured there. The port may
// belong to a bridge, which takes what comes in before sockets for one protocol see
// it, but not before those for all.
type conn struct {
	net.PacketConn
	out net.PacketConn
}

// answers takes IPv4 packets that came in (packet(7), PACKET_OUTGOING).
var answers = sync.OnceValue(func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 3},
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic("dhcp: filter: " + err.Error()) // it is constant
	}
	return raw
})

// open opens the socket of the client port.
func open(iface *net.Interface) (net.PacketConn, error) {
	in, err := packet.Listen(iface, packet.Datagram, unix.ETH_P_ALL, &packet.Config{Filter: answers()})
	if err != nil {
		return nil, err
	}
	out, err := packet.Listen(iface, packet.Datagram, unix.ETH_P_IP, &packet.Config{Filter: nothing()})
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return nclient4.NewBroadcastUDPConn(conn{in, out}, &net.UDPAddr{Port: dhcpv4.ClientPort}), nil
}

// nothing takes no packet at all: what is only written to must not fill up.
var nothing = sync.OnceValue(func() []bpf.RawInstruction {
	raw, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	if err != nil {
		panic("dhcp: filter: " + err.Error()) // it is constant
	}
	return raw
})

// WriteTo sends a packet.
func (c conn) WriteTo(b []byte, to net.Addr) (int, error) { return c.out.WriteTo(b, to) }

// Close closes both ways.
func (c conn) Close() error { return errors.Join(c.PacketConn.Close(), c.out.Close()) }
