package host

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"halo.internal/lab/ether"
)

const limit = 20 * time.Second

// pair are two hosts on one switch.
func pair(t *testing.T) (a, b *Host) {
	t.Helper()
	s := ether.New(slog.New(slog.DiscardHandler), 1)
	t.Cleanup(s.Close)
	a, ca := New(MAC{2, 0, 0, 0, 0, 1})
	b, cb := New(MAC{2, 0, 0, 0, 0, 2})
	if err := errors.Join(s.Plug("a", ca), s.Plug("b", cb)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// serve answers DHCP and pings as b.
func serve(t *testing.T, b *Host, at, offered netip.Addr, kind func(dhcpv4.MessageType) (dhcpv4.MessageType, bool)) {
	t.Helper()
	out := make(chan Frame, 64)
	b.SetAddress(at)
	t.Cleanup(b.Hear(func(f Frame) {
		if m, ok := dhcp(f, dhcpServer); ok {
			if _, wanted := kind(m.MessageType()); !wanted {
				return
			}
		}
		if a, ok := b.Answers(f, at, offered); ok {
			out <- a
		}
		from, to, proto, p, ok := ipv4(f.Payload())
		if f.Kind() == TypeIPv4 && ok && proto == protoICMP && to == at && p[0] == 8 {
			reply := append([]byte{0}, p[1:]...)
			out <- Ether(f.From(), b.MAC, TypeIPv4, IPv4(at, from, protoICMP, reply))
		}
	}))
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case f := <-out:
				if b.Send(f) != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()
}

func always(k dhcpv4.MessageType) (dhcpv4.MessageType, bool) { return k, true }

func TestALease(t *testing.T) {
	a, b := pair(t)
	at, offered := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.7")
	serve(t, b, at, offered, always)
	l, err := a.DHCP(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if l.Address != offered || l.Server != at || l.Router != at || l.From != b.MAC || a.Address() != offered {
		t.Errorf("got %+v, want %s from %s", l, offered, at)
	}
	if err := a.Ping(soon(t), at, at); err != nil {
		t.Error(err)
	}
	if again, err := a.Again(soon(t), l); err != nil || again.Address != offered {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	released := make(chan struct{}, 1)
	defer b.Hear(func(f Frame) {
		if m, ok := dhcp(f, dhcpServer); ok && m.MessageType() == dhcpv4.MessageTypeRelease {
			released <- struct{}{}
		}
	})()
	if err := a.Release(l); err != nil {
		t.Fatal(err)
	}
	<-released
}

func TestNobodyAnswers(t *testing.T) {
	a, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Discover(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := a.Ping(t.Context(), netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.1")); err == nil {
		t.Error("a host without an address pings")
	}
}

func TestACrowd(t *testing.T) {
	a, b := pair(t)
	serve(t, b, netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.7"), always)
	ctx, cancel := context.WithCancel(soon(t))
	c := a.Crowd(ctx, 3, AsServed)
	for c.Leases() < 3 {
		if ctx.Err() != nil {
			t.Fatalf("%d have an address", c.Leases())
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := c.Leave(2); err != nil || c.Leases() != 1 {
		t.Errorf("%d are left, %v", c.Leases(), err)
	}
}

func TestRouterAdvertisement(t *testing.T) {
	a, b := pair(t)
	got := make(chan netip.Addr, 1)
	defer b.Hear(func(f Frame) {
		if from, ok := AdvertisedBy(f); ok {
			got <- from
		}
	})()
	if err := a.Send(a.RouterAdvert(netip.MustParsePrefix("2001:db8::/64"))); err != nil {
		t.Fatal(err)
	}
	if from := <-got; from != netip.MustParseAddr("fe80::ff:fe00:1") {
		t.Errorf("from %s", from)
	}
}

// TestWhatComesIsBounded: a length that cannot be ends a host's hearing.
func TestWhatComesIsBounded(t *testing.T) {
	h, far := New(MAC{2, 0, 0, 0, 0, 1})
	defer h.Close()
	go func() { _, _ = far.Write([]byte{0xff, 0xff, 0xff, 0xff}) }()
	h.wg.Wait()
	if err := far.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err == nil || errors.Is(err, net.ErrClosed) && errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func FuzzFrames(f *testing.F) {
	at := netip.MustParseAddr("10.9.0.1")
	f.Add([]byte(Ether(Broadcast, MAC{2}, TypeIPv4, UDP4(netip.AddrPortFrom(at, 67), netip.AddrPortFrom(at, 68), []byte("x")))))
	f.Add([]byte(Ether(Broadcast, MAC{2}, TypeARP, arp(arpRequest, MAC{2}, at, MAC{}, at))))
	f.Add([]byte(Ether(Broadcast, MAC{2}, TypeIPv6, IPv6(netip.IPv6Loopback(), AllNodes, protoICMPv6, []byte{routerAdvert}))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < header {
			return
		}
		h := &Host{}
		fr := Frame(b)
		_, _ = h.Answers(fr, at, at)
		_, _ = dhcp(fr, dhcpClient)
		_, _ = AdvertisedBy(fr)
		_, _, _, _, _ = ipv4(fr.Payload())
	})
}
