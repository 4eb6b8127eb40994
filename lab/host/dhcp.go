package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Ports of DHCP.
const (
	dhcpServer = 67
	dhcpClient = 68
)

// Lease is what a server of DHCP gave.
type Lease struct {
	Address netip.Addr
	Server  netip.Addr // its identifier
	Router  netip.Addr
	From    MAC // who sent it

	ack *dhcpv4.DHCPv4
}

// ErrRefused is wrapped where a server said no.
var ErrRefused = errors.New("refused by the server of DHCP")

// Discover asks for an offer and returns the first that comes.
func (h *Host) Discover(ctx context.Context) (Lease, error) {
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr(h.MAC[:]), dhcpv4.WithBroadcast(true))
	if err != nil {
		return Lease{}, err
	}
	return h.exchange(ctx, m, dhcpv4.MessageTypeOffer)
}

// DHCP asks for an address and has it then.
func (h *Host) DHCP(ctx context.Context) (Lease, error) {
	offer, err := h.Discover(ctx)
	if err != nil {
		return Lease{}, err
	}
	m, err := dhcpv4.NewRequestFromOffer(offer.ack, dhcpv4.WithBroadcast(true))
	if err != nil {
		return Lease{}, err
	}
	l, err := h.exchange(ctx, m, dhcpv4.MessageTypeAck)
	if err == nil {
		h.SetAddress(l.Address)
	}
	return l, err
}

// Again asks for a lease's address once more, as after a restart.
func (h *Host) Again(ctx context.Context, l Lease) (Lease, error) {
	m, err := dhcpv4.NewRequestFromOffer(l.ack, dhcpv4.WithBroadcast(true), dhcpv4.WithoutOption(dhcpv4.OptionServerIdentifier))
	if err != nil {
		return Lease{}, err
	}
	return h.exchange(ctx, m, dhcpv4.MessageTypeAck)
}

// Release gives a lease back.
func (h *Host) Release(l Lease) error {
	m, err := dhcpv4.NewReleaseFromACK(l.ack)
	if err != nil {
		return err
	}
	return h.Send(Ether(l.From, h.MAC, TypeIPv4, UDP4(netip.AddrPortFrom(l.Address, dhcpClient), netip.AddrPortFrom(l.Server, dhcpServer), m.ToBytes())))
}

// exchange sends m until a server answers with a message of that kind, or a refusal.
func (h *Host) exchange(ctx context.Context, m *dhcpv4.DHCPv4, want dhcpv4.MessageType) (Lease, error) {
	answers := make(chan Lease, 1)
	zero, all := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})
	out := Ether(Broadcast, h.MAC, TypeIPv4, UDP4(netip.AddrPortFrom(zero, dhcpClient), netip.AddrPortFrom(all, dhcpServer), m.ToBytes()))
	err := h.ask(ctx, "DHCP "+m.MessageType().String(), 2*time.Second, func() Frame { return out }, func(f Frame) bool {
		a, ok := dhcp(f, dhcpClient)
		if !ok || a.TransactionID != m.TransactionID || a.ClientHWAddr.String() != h.MAC.String() {
			return false
		}
		if k := a.MessageType(); k != want && k != dhcpv4.MessageTypeNak {
			return false
		}
		select {
		case answers <- leaseOf(a, f.From()):
		default:
		}
		return true
	})
	if err != nil {
		return Lease{}, err
	}
	l := <-answers
	if l.ack.MessageType() == dhcpv4.MessageTypeNak {
		return Lease{}, fmt.Errorf("%w %s", ErrRefused, l.Server)
	}
	return l, nil
}

func leaseOf(m *dhcpv4.DHCPv4, from MAC) Lease {
	l := Lease{ack: m, From: from}
	l.Address, _ = netip.AddrFromSlice(m.YourIPAddr.To4())
	l.Server, _ = netip.AddrFromSlice(m.ServerIdentifier().To4())
	if r := m.Router(); len(r) > 0 {
		l.Router, _ = netip.AddrFromSlice(r[0].To4())
	}
	return l
}

// dhcp reads a message of DHCP to that port.
func dhcp(f Frame, port uint16) (*dhcpv4.DHCPv4, bool) {
	if f.Kind() != TypeIPv4 {
		return nil, false
	}
	_, _, proto, p, ok := ipv4(f.Payload())
	if !ok || proto != protoUDP || len(p) < 8 || uint16(p[2])<<8|uint16(p[3]) != port {
		return nil, false
	}
	m, err := dhcpv4.FromBytes(p[8:])
	return m, err == nil
}

// Answers is the message that was asked by the frame, if it was asked for an address
// by DHCP, with another as answer from a server at address at, which nobody wants:
// it offers, or acknowledges, an address of its own network.
func (h *Host) Answers(f Frame, at, offered netip.Addr) (Frame, bool) {
	m, ok := dhcp(f, dhcpServer)
	if !ok {
		return nil, false
	}
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	a, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(offered.AsSlice()), dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(at.AsSlice())), dhcpv4.WithRouter(at.AsSlice()), dhcpv4.WithDNS(at.AsSlice()), dhcpv4.WithNetmask(net.CIDRMask(24, 32)))
	if err != nil {
		return nil, false
	}
	all := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return Ether(Broadcast, h.MAC, TypeIPv4, UDP4(netip.AddrPortFrom(at, dhcpServer), netip.AddrPortFrom(all, dhcpClient), a.ToBytes())), true
}
