package mesh_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// phone is a client: it says something to TAK's group and hears what others say.
type phone struct {
	cable netlink.Link // towards its device
	at    netip.Addr
	ear   *net.UDPConn
	mouth *net.UDPConn
}

var tak = netip.MustParseAddrPort("239.2.3.1:6969")

func newPhone(t *testing.T, name string, at netip.Addr) *phone {
	t.Helper()
	near, far := nstest.Cable(t, name, name+"f")
	h := nstest.NewHost(t, far)
	p := &phone{cable: near, at: at}
	h.Do(t, func() error {
		l, err := netlink.LinkByName(name + "f")
		if err == nil {
			err = netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: at.AsSlice(), Mask: net.CIDRMask(24, 32)}})
		}
		ifi, errI := net.InterfaceByName(name + "f")
		if err := errors.Join(err, errI); err != nil {
			return err
		}
		if p.ear, err = net.ListenMulticastUDP("udp4", ifi, net.UDPAddrFromAddrPort(tak)); err != nil {
			return err
		}
		if p.mouth, err = net.ListenUDP("udp4", &net.UDPAddr{}); err != nil {
			return err
		}
		return ipv4.NewPacketConn(p.mouth).SetMulticastInterface(ifi)
	})
	t.Cleanup(func() { _, _ = p.ear.Close(), p.mouth.Close() })
	return p
}

// plug connects the phone to a device, as a port for clients.
func (p *phone) plug(t *testing.T, d *board) {
	t.Helper()
	if err := netlink.LinkSetNsPid(p.cable, d.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	until(t, "the phone is plugged in", func() error { return d.ask("/client?iface=" + p.cable.Attrs().Name) })
}

// TestPhonesHearEachOther has a client of the gateway and one of a node speak to a group,
// through all that lies between: firewalls, the signed list, WireGuard.
func TestPhonesHearEachOther(t *testing.T) {
	turn(t)
	near, far := newPhone(t, "phone0", netip.MustParseAddr("10.43.0.20")), newPhone(t, "phone1", netip.MustParseAddr("10.43.1.20"))
	gwBundle, nodeBundle, _ := bundles(t)
	gw, node := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle)
	gw.start()
	node.start()
	connect(t, gw, node)
	until(t, "joining", node.healthy)
	near.plug(t, gw)
	far.plug(t, node)
	for _, w := range []struct{ from, to *phone }{{near, far}, {far, near}} {
		try := 0
		until(t, fmt.Sprintf("%s hears %s", w.to.at, w.from.at), func() error {
			try++
			said := fmt.Sprintf("%s %d", w.from.at, try)
			if _, err := w.from.mouth.WriteToUDPAddrPort([]byte(said), tak); err != nil {
				return err
			}
			if err := w.to.ear.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				return err
			}
			for b := make([]byte, 100); ; { // it hears its own words too, and what was late
				n, from, err := w.to.ear.ReadFromUDPAddrPort(b)
				if err != nil {
					return fmt.Errorf("%w; gateway: %+v; node: %+v", err, gw.status().Relay, node.status().Relay)
				}
				if from.Addr().Unmap() == w.from.at && string(b[:n]) == said {
					return nil
				}
			}
		})
	}
	for _, d := range []*board{gw, node} {
		until(t, fmt.Sprintf("the %s tells what it passed on", d.role), func() error { // counted after it was heard
			r := d.status().Relay
			if r == nil || r.Counts.Sent == 0 || r.Counts.Emitted == 0 || len(r.Groups) != 2 || !r.Groups[1].Joined || len(r.Groups[1].Members) != 1 {
				return fmt.Errorf("got %+v", r)
			}
			return nil
		})
	}
}
