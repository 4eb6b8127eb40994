package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

func address(t *testing.T, l netlink.Link, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		t.Fatal(err)
	}
}

// echo answers what it reads, or always the same, until ctx ends.
func echo(at At, always string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := at.UDP(ctx, 4711)
		if err != nil {
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = c.Close() })()
		b := make([]byte, 99)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return err
			}
			if always != "" {
				n = copy(b, always)
			}
			if _, err := c.WriteTo(b[:n], from); err != nil {
				return err
			}
		}
	}
}

// far opens sockets with the given sources at the other end of a cable.
func far(t *testing.T, near string, sources ...string) map[string]*net.UDPConn {
	t.Helper()
	_, end := nstest.Cable(t, near, near+"far")
	conns := map[string]*net.UDPConn{}
	nstest.Away(t, end, func(l netlink.Link) error {
		for _, s := range sources {
			a, err := netlink.ParseAddr(s)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
			c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: a.IP})
			if err != nil {
				return err
			}
			conns[s] = c
			t.Cleanup(func() { _ = c.Close() })
		}
		return nil
	})
	return conns
}

// ask sends and waits for what comes back; it sends again, as the address may
// still have to come.
func ask(t *testing.T, c *net.UDPConn, to, text string) {
	t.Helper()
	b := make([]byte, 99)
	for began := time.Now(); time.Since(began) < patience; {
		if _, err := c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, _, err := c.ReadFromUDPAddrPort(b)
		if err == nil && string(b[:n]) == text {
			return
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	t.Fatalf("nothing came back from %s", to)
}

func TestKeep(t *testing.T) {
	at := At{Iface: "port0", Addr: netip.MustParseAddr("10.43.1.1"), From: []netip.Prefix{netip.MustParsePrefix("10.43.1.0/24")}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		at.Keep(ctx, slog.New(slog.DiscardHandler), echo(at, ""))
		close(ended)
	}()
	conns := far(t, "port0", "10.43.1.7/24", "192.0.2.7/24")
	near := nstest.Link(t, "port0")
	address(t, near, "10.43.1.1/24") // after the socket, perhaps
	address(t, near, "192.0.2.1/24")
	friend, stranger := conns["10.43.1.7/24"], conns["192.0.2.7/24"]
	ask(t, friend, "10.43.1.1:4711", "hello")

	// A source that is not allowed gets nothing: what it sent before the friend's
	// question was answered before it, or never.
	if _, err := stranger.WriteToUDPAddrPort([]byte("strange"), netip.MustParseAddrPort("10.43.1.1:4711")); err != nil {
		t.Fatal(err)
	}
	ask(t, friend, "10.43.1.1:4711", "and again")
	_ = stranger.SetReadDeadline(time.Now().Add(-time.Second))
	if n, from, err := stranger.ReadFromUDPAddrPort(make([]byte, 99)); err == nil {
		t.Errorf("the stranger got %d octets from %s", n, from)
	}

	// The interface is made anew.
	if err := netlink.LinkDel(near); err != nil {
		t.Fatal(err)
	}
	conns = far(t, "port0", "10.43.1.8/24")
	address(t, nstest.Link(t, "port0"), "10.43.1.1/24")
	ask(t, conns["10.43.1.8/24"], "10.43.1.1:4711", "hello again")
	cancel()
	<-ended
}

// TestOtherInterface has one address served on two interfaces: each socket hears
// its own, as nobody sees at a packet's destination where it came in.
func TestOtherInterface(t *testing.T) {
	for i, answer := range []string{"one", "two"} {
		at := At{Iface: fmt.Sprint("port", i), Addr: netip.MustParseAddr("10.43.1.1"), From: []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}}
		go at.Keep(t.Context(), slog.New(slog.DiscardHandler), echo(at, answer))
	}
	one := far(t, "port0", "10.43.1.7/24")["10.43.1.7/24"]
	two := far(t, "port1", "10.43.2.7/16")["10.43.2.7/16"]
	address(t, nstest.Link(t, "port0"), "10.43.1.1/24")
	address(t, nstest.Link(t, "port1"), "10.43.2.1/24")
	ask(t, one, "10.43.1.1:4711", "one")
	ask(t, two, "10.43.1.1:4711", "two")
}

func TestTCPBounds(t *testing.T) {
	at := At{Iface: "lo", Addr: netip.MustParseAddr("127.0.0.1"), From: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32"), netip.MustParsePrefix("127.0.0.3/32")}}
	l, err := at.TCP(t.Context(), 4711, Bounds{Most: 3, Client: 2, Write: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 9)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", "127.0.0.1:4711")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	refused := func(from string) {
		t.Helper()
		c := dial(from)
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("from %s: expected to be hung up on, got %v", from, err)
		}
	}
	refused("127.0.0.9")
	dial("127.0.0.2")
	first := <-accepted
	dial("127.0.0.2")
	<-accepted
	refused("127.0.0.2")
	dial("127.0.0.3")
	<-accepted
	refused("127.0.0.3")
	_ = first.Close()
	_ = first.Close() // twice counts once
	dial("127.0.0.3")
	<-accepted
	refused("127.0.0.3")
}

func TestClient(t *testing.T) {
	for from, want := range map[string]string{
		"10.43.1.7": "10.43.1.7", "::ffff:10.43.1.7": "10.43.1.7", "fd00:1:2:3:4:5:6:7": "fd00:1:2:3::", "fe80::1%eth0": "fe80::1",
	} {
		if got := Client(netip.MustParseAddr(from)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: expected %s, got %s", from, want, got)
		}
	}
}

func TestAllowed(t *testing.T) {
	at := At{From: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, Except: []netip.Prefix{netip.MustParsePrefix("10.42.255.0/24")}}
	for text, want := range map[string]bool{"10.42.0.10": true, "::ffff:10.42.0.10": true, "10.42.254.255": true, "10.42.255.0": false, "10.42.255.7": false, "10.43.0.10": false} {
		if got := at.Allowed(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: allowed %v, want %v", text, got, want)
		}
	}
}
