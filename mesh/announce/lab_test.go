//go:build lab

package announce_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/lab/testvm"
	"halo.internal/mesh"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/nstest"
	"halo.internal/model/paths"
)

// This test runs in the test machine, with the images' batman-adv.
func TestMain(m *testing.M) { testvm.Main(m, testvm.Options{Modules: []string{"batman_adv"}}) }

// patience is far beyond what any of this takes.
const patience = 10 * time.Minute

func until(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// member is a device on the mesh, in a namespace of its own.
type member struct {
	*nstest.Host
	t    *testing.T
	key  identity.Key
	addr netip.Addr
	bat  *batman.Mesh
}

// newMember makes one with a cable to the hub.
func newMember(t *testing.T, network identity.PublicKey, key identity.Key, name string, hub netlink.Link) *member {
	t.Helper()
	near, far := nstest.Cable(t, name+"-hub", name)
	if err := errors.Join(netlink.LinkSetMTU(near, 1532), netlink.LinkSetMTU(far, 1532), netlink.LinkSetMaster(near, hub)); err != nil {
		t.Fatal(err)
	}
	m := &member{Host: nstest.NewHost(t, far), t: t, key: key, addr: identity.Underlay(network, key.Public())}
	m.Do(t, func() (err error) {
		c := batman.Config{Name: paths.BatIface, Algorithm: batman.IV, MAC: batman.MAC(key.Public(), 0), Gateway: batman.GatewayClient}
		if m.bat, err = batman.Open(c); err != nil {
			return err
		}
		t.Cleanup(func() { m.bat.Close() })
		return errors.Join(m.bat.Enslave(name), mesh.AddressUnderlay(paths.BatIface, m.addr))
	})
	return m
}

func (m *member) config(network identity.PublicKey) announce.Config {
	start := time.Now()
	return announce.Config{
		Network: network, Key: m.key, Boot: 1, Steps: func() uint32 { return 0 }, Log: slog.New(slog.DiscardHandler),
		Since: func() uint64 { return uint64(time.Since(start).Milliseconds()) },
		Open: func() (s announce.Socket, err error) {
			m.Do(m.t, func() error { s, err = announce.OpenSocket(paths.BatIface); return nil })
			return unchecked{s}, err
		},
	}
}

// unchecked is a socket of another namespace: its interface can't be seen from here.
type unchecked struct{ announce.Socket }

func (unchecked) Watch(ctx context.Context) error { <-ctx.Done(); return nil }

// run runs f until the test ends, or the function that is returned is called.
func run(t *testing.T, f func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = f(ctx); close(done) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return end
}

const namePort = "4999"

// answer has a member say its name to who connects.
func (m *member) answer(name string) {
	var l net.Listener
	m.Do(m.t, func() (err error) { l, err = net.Listen("tcp6", "[::]:"+namePort); return err })
	m.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			c.Close()
		}
	}()
}

// who asks an address for the name of who has it.
func (m *member) who(at netip.Addr) (name string, err error) {
	m.Do(m.t, func() error {
		var c net.Conn
		if c, err = net.DialTimeout("tcp6", net.JoinHostPort(at.String(), namePort), 3*time.Second); err != nil {
			return nil
		}
		defer c.Close()
		var b []byte
		err = errors.Join(c.SetDeadline(time.Now().Add(3*time.Second)), err)
		b, readErr := io.ReadAll(c)
		name, err = string(b), errors.Join(err, readErr)
		return nil
	})
	return name, err
}

// TestTwoGatewaysOnBatman has two gateways with one key, and so with one hardware
// address on bat0, one underlay address and one link-local address, beside a node.
// They have to hear each other even so; what is for the one that stays has to reach it
// when the other has stood down, and the other when it has taken its place.
func TestTwoGatewaysOnBatman(t *testing.T) {
	network := identity.New()
	net := network.Public()
	hub := nstest.Hub(t, "hub")
	gateway := func(name string, standing announce.Standing) (m *member, voice *announce.GatewaySide, end func()) {
		m = newMember(t, net, network, name, hub)
		m.answer(name)
		place := func(aside bool) {
			m.Do(t, func() error {
				return mesh.PlaceGateway(m.bat, paths.BatIface, batman.MAC(m.key.Public(), 0), m.addr, aside)
			})
		}
		place(false)
		voice = announce.NewGatewaySide(m.config(net), func() announce.Gateway {
			return announce.Gateway{WireGuardKey: make([]byte, 32), CASHA256: append(make([]byte, 31), name[0]), TimeMS: time.Now().UnixMilli()}
		}, func(announce.Node, netip.Addr) <-chan struct{} { return nil })
		voice.Standing, voice.Timing.TakeOver = func() announce.Standing { return standing }, 20*time.Second
		voice.Met = func(w announce.Twinned) { place(w.Aside) }
		return m, voice, run(t, voice.Run)
	}
	first, one, endFirst := gateway("a", announce.StandingServes)
	node := newMember(t, net, identity.New(), "n", hub)
	heard := make(chan byte, 1000)
	side := announce.NewNodeSide(node.config(net), make([]byte, 32), 0, func(h announce.Heard) { heard <- h.CASHA256[31] })
	run(t, side.Run)
	reaches := func(want string) {
		t.Helper()
		row := 0
		until(t, "the node reaches "+want+", ten times in a row", func() error {
			name, err := node.who(first.addr)
			if row++; err != nil || name != want {
				row = 0
			}
			if row < 10 {
				return fmt.Errorf("%d times; last %q, %v", row, name, err)
			}
			return nil
		})
	}
	reaches("a")

	_, two, _ := gateway("b", announce.StandingNew)
	until(t, "the second stands down", func() error {
		if w := two.Twinned(); !w.Aside {
			return fmt.Errorf("%+v, it ignored %v", w, two.Counters.Snapshot())
		}
		return nil
	})
	until(t, "the first knows", func() error {
		if w := one.Twinned(); w.Aside || w.Other == nil {
			return fmt.Errorf("%+v, it ignored %v", w, one.Counters.Snapshot())
		}
		return nil
	})
	reaches("a")
	for len(heard) > 0 {
		if ca := <-heard; ca != 'a' {
			t.Errorf("the node believed the gateway with CA %c", ca)
		}
	}

	endFirst()
	first.Do(t, func() error { // its power is gone
		l, err := netlink.LinkByName("a")
		return errors.Join(err, netlink.LinkSetDown(l))
	})
	until(t, "the second takes its place", func() error {
		if w := two.Twinned(); w.Aside {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	reaches("b")
	// Before it has another one without a higher epoch, it asks for two minutes, and the
	// question that begins them may be a minute away.
	deadline := time.After(2 * patience)
	for {
		select {
		case ca := <-heard:
			if ca == 'b' {
				return
			}
		case <-deadline:
			t.Fatalf("the node does not hear the second; it ignored %v", side.Counters.Snapshot())
		}
	}
}
