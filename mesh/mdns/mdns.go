// Package mdns answers multicast DNS (RFC 6762) on interfaces where people's
// devices are: a phone that asks for halo.local finds the node that it is
// connected to, by the node's own address there.
//
// The name halo is each node's, and a link is to have one: who comes second
// waits, silently, and takes over when the first says goodbye or is gone. A
// node's own name gives way by a number, as hosts do: mast-2.local.
//
// The codec is that of github.com/miekg/dns. Of libraries for the protocol,
// pion/mdns is well kept but answers without probing, sees no conflict and says
// no goodbye, which here is most of the work. Left out of the RFC, as nobody
// needs it for two names: services, reverse names, and waiting for the rest of
// known answers that did not fit into one message (7.2).
package mdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/iface"
	"halo.internal/mesh/listen"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// EventConflict is a name that somebody else on the link has; fields iface,
// name, by (address), new (the name taken instead; empty: it is waited for).
const EventConflict = "mesh.mdns.conflict"

// Config of a responder.
type Config struct {
	Iface  string
	Node   string            // the node's name; empty: only halo
	Notify func(model.Event) // must not block
	Log    *slog.Logger
}

var (
	group4 = netip.AddrPortFrom(netip.MustParseAddr("224.0.0.251"), paths.MDNSPort)
	group6 = netip.AddrPortFrom(netip.MustParseAddr("ff02::fb"), paths.MDNSPort)
)

const (
	addressesEvery = 2 * time.Second // looked at
	queue          = 64              // datagrams received and not yet handled
	maxDatagram    = 9000            // RFC 6762, 17
)

// Run answers on the interface until ctx ends, and then says goodbye. It waits
// for an interface that is not there.
func Run(ctx context.Context, c Config) {
	listen.At{Iface: c.Iface}.Keep(ctx, c.Log.With("service", "mdns"), c.serve)
}

type datagram struct {
	from netip.AddrPort
	data []byte
}

func (c Config) serve(ctx context.Context) error {
	socks, err := open(ctx, c.Iface)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	in := make(chan datagram, queue)
	var readers sync.WaitGroup
	for _, s := range socks {
		readers.Go(func() { cancel(s.receive(in)) })
	}
	c.loop(ctx, socks, in)
	cancel(nil)
	var errs error
	for _, s := range socks {
		errs = errors.Join(errs, s.conn.Close())
	}
	readers.Wait()
	return errors.Join(context.Cause(ctx), errs)
}

// loop is the one goroutine that owns the responder.
func (c Config) loop(ctx context.Context, socks []*socket, in <-chan datagram) {
	r := newResponder(c.Node, c.conflict, rand.N)
	send := func(list []message) {
		for _, m := range list {
			for _, s := range socks {
				s.send(m)
			}
		}
	}
	var changes iface.Changes
	defer changes.Close()
	look := func() {
		if !changes.Any() {
			return
		}
		own, err := addresses(c.Iface)
		if err == nil { // one that is gone is found out by who called
			send(r.addressed(time.Now(), own))
		}
	}
	look()
	addresses := time.NewTicker(addressesEvery)
	defer addresses.Stop()
	for {
		var due <-chan time.Time
		var timer *time.Timer
		if at := r.due(); !at.IsZero() {
			timer = time.NewTimer(time.Until(at))
			due = timer.C
		}
		select {
		case <-ctx.Done():
			send(r.goodbye())
			return
		case <-due:
			send(r.tick(time.Now()))
		case <-addresses.C:
			look()
		case d := <-in:
			send(r.handle(time.Now(), d.data, d.from))
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

func (c Config) conflict(name, by, instead string) {
	message := fmt.Sprintf("%s on %s is the name of %s: it is waited for", name, c.Iface, by)
	if instead != "" {
		message = fmt.Sprintf("%s on %s is the name of %s: this node is %s there", name, c.Iface, by, instead)
	}
	c.Log.Warn("name is taken", "iface", c.Iface, "name", name, "by", by, "new", instead)
	if c.Notify != nil {
		c.Notify(model.Event{Kind: EventConflict, Severity: model.Warning, Message: message,
			Fields: map[string]string{"iface": c.Iface, "name": name, "by": by, "new": instead}})
	}
}

// addresses are the interface's, with their networks.
func addresses(iface string) ([]netip.Prefix, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, err
	}
	list, err := ifi.Addrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Prefix
	for _, a := range list {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && len(own) < maxAddresses {
			own = append(own, p)
		}
	}
	return own, nil
}

// socket is that of one address family.
type socket struct {
	conn *net.UDPConn
	to   netip.AddrPort // the group
	four bool
	zone string
}

// open opens both families' sockets, or that of the one which there is.
func open(ctx context.Context, iface string) ([]*socket, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = errors.Join(unix.BindToDevice(int(fd), iface), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		})
		return errors.Join(err, set)
	}}
	var socks []*socket
	var errs error
	for _, family := range []struct {
		network, any string
		join         func(net.PacketConn) error
		group        netip.AddrPort
	}{
		{"udp4", "0.0.0.0", func(c net.PacketConn) error {
			p := ipv4.NewPacketConn(c)
			return errors.Join(p.JoinGroup(ifi, net.UDPAddrFromAddrPort(group4)), p.SetMulticastInterface(ifi), p.SetMulticastLoopback(false), p.SetMulticastTTL(255), p.SetTTL(255))
		}, group4},
		{"udp6", "::", func(c net.PacketConn) error {
			p := ipv6.NewPacketConn(c)
			return errors.Join(p.JoinGroup(ifi, net.UDPAddrFromAddrPort(group6)), p.SetMulticastInterface(ifi), p.SetMulticastLoopback(false), p.SetMulticastHopLimit(255), p.SetHopLimit(255))
		}, group6},
	} {
		c, err := lc.ListenPacket(ctx, family.network, net.JoinHostPort(family.any, fmt.Sprint(paths.MDNSPort)))
		if err == nil {
			if err = family.join(c); err == nil {
				socks = append(socks, &socket{c.(*net.UDPConn), family.group, family.network == "udp4", fmt.Sprint(ifi.Index)})
				continue
			}
			err = errors.Join(err, c.Close())
		}
		errs = errors.Join(errs, fmt.Errorf("multicast DNS on %s, %s: %w", iface, family.network, err))
	}
	if len(socks) == 0 {
		return nil, errs
	}
	return socks, nil
}

func (s *socket) receive(in chan<- datagram) error {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		select {
		case in <- datagram{from, append([]byte(nil), b[:n]...)}:
		default: // flooded: what does not fit is lost, as on any wire
		}
	}
}

// send sends m if it is for this family. An interface without an address of the
// family sends nothing; it has nobody to hear it.
func (s *socket) send(m message) {
	to := m.to
	if !to.IsValid() && (m.family == both || m.family == familyOf(s.four)) {
		to = s.to
	}
	if !to.IsValid() || to.Addr().Is4() != s.four {
		return
	}
	if to.Addr().IsLinkLocalUnicast() && !s.four || to.Addr().IsLinkLocalMulticast() && !s.four {
		to = netip.AddrPortFrom(to.Addr().WithZone(s.zone), to.Port())
	}
	b, err := m.Pack()
	if err != nil {
		panic("mdns: " + err.Error()) // names and addresses that were checked
	}
	_, _ = s.conn.WriteToUDPAddrPort(b, to)
}

// message is to be sent: to one asker, or to the group.
type message struct {
	*dns.Msg
	to     netip.AddrPort // zero: the group
	family family
}

type family int

const (
	both family = iota
	four
	six
)

func familyOf(isFour bool) family {
	if isFour {
		return four
	}
	return six
}
