//go:build lab

package overlay_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/lab/testvm"
	"halo.internal/mesh/overlay"
	"halo.internal/model/paths"
)

// These tests run in the test machine, whose kernel has WireGuard.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"wireguard", "tun", "veth", "nf_tables"}})
}

const patience = 3 * time.Minute

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// end is one of two machines that a cable joins.
type end struct {
	ns    netns.NsHandle
	key   identity.Key
	under netip.Addr
	over  netip.Addr
	dev   *overlay.Device
}

func (e *end) open(t *testing.T, link netlink.Link) {
	t.Helper()
	ok(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: e.under.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}))
	ok(t, netlink.LinkSetUp(link))
	dev, err := overlay.Open(overlay.Config{
		Name: "wg0", Key: e.key.WireGuard(), Port: paths.WireGuardPort, UnderlayMTU: 1500,
		Addresses: []netip.Prefix{netip.PrefixFrom(e.over, 16)}, Log: slog.New(slog.DiscardHandler),
	})
	ok(t, err)
	if !dev.Kernel() {
		t.Fatal("the kernel does not do it: this test is about the kernel")
	}
	e.dev = dev
	t.Cleanup(func() { _ = dev.Close() })
}

func (e *end) peer() overlay.Peer {
	return overlay.Peer{
		Node: e.key.ID(), Key: e.key.WireGuardPublic(), Endpoint: netip.AddrPortFrom(e.under, paths.WireGuardPort),
		Allowed: []netip.Prefix{netip.PrefixFrom(e.over, 32)},
	}
}

// TestTheProcessDoesItWhereItIsToldTo is what tests of WireGuard in the process rest
// on, on a host whose kernel has it.
func TestTheProcessDoesItWhereItIsToldTo(t *testing.T) {
	dev, err := overlay.Open(overlay.Config{
		Name: "wg-process", Key: identity.New().WireGuard(), Port: paths.WireGuardPort + 1, UnderlayMTU: 1500, Userspace: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.97.0.1/16")}, Log: slog.New(slog.DiscardHandler),
	})
	ok(t, err)
	defer dev.Close()
	link, err := netlink.LinkByName("wg-process")
	ok(t, err)
	if dev.Kernel() || link.Type() == "wireguard" {
		t.Errorf("the kernel does it: a link of kind %s", link.Type())
	}
}

// TestTheKernelRotatesAKeyWithoutAGap has one connection go on while both ends
// change their keys.
func TestTheKernelRotatesAKeyWithoutAGap(t *testing.T) {
	runtime.LockOSThread() // namespaces are threads'
	here, err := netns.Get()
	ok(t, err)
	a := &end{key: identity.New(), under: netip.MustParseAddr("fd00:1::a"), over: netip.MustParseAddr("10.42.0.1")}
	b := &end{key: identity.New(), under: netip.MustParseAddr("fd00:1::b"), over: netip.MustParseAddr("10.42.1.2")}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cable-a"
	ok(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "cable-b"}))
	far, err := netlink.LinkByName("cable-b")
	ok(t, err)
	b.ns, err = netns.New()
	ok(t, err)
	a.ns = here
	ok(t, netns.Set(here))
	ok(t, netlink.LinkSetNsFd(far, int(b.ns)))
	near, err := netlink.LinkByName("cable-a")
	ok(t, err)
	a.open(t, near)
	ok(t, netns.Set(b.ns))
	far, err = netlink.LinkByName("cable-b")
	ok(t, err)
	b.open(t, far)
	server, err := net.Listen("tcp", netip.AddrPortFrom(b.over, 7).String())
	ok(t, err)
	t.Cleanup(func() { server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	ok(t, netns.Set(here))
	ok(t, a.dev.SetPeers([]overlay.Peer{b.peer()}))
	ok(t, b.dev.SetPeers([]overlay.Peer{a.peer()}))
	var c net.Conn
	for deadline := time.Now().Add(patience); ; {
		if c, err = net.DialTimeout("tcp", netip.AddrPortFrom(b.over, 7).String(), 3*time.Second); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { c.Close() })
	lines := bufio.NewReader(c)
	ping := func() time.Duration {
		t.Helper()
		began := time.Now()
		ok(t, c.SetDeadline(began.Add(patience)))
		_, err := fmt.Fprintln(c, "still here")
		ok(t, err)
		if s, err := lines.ReadString('\n'); err != nil || s != "still here\n" {
			t.Fatalf("got %q, %v", s, err)
		}
		return time.Since(began)
	}
	ping()
	for round, turn := range []struct{ self, other *end }{{b, a}, {a, b}, {b, a}} {
		next := identity.New()
		known := turn.self.peer()
		known.Next = next.WireGuardPublic()
		ok(t, turn.other.dev.SetPeers([]overlay.Peer{known}))
		done := make(chan error, 1)
		go func() {
			for turn.other.dev.Rekeying() {
				time.Sleep(100 * time.Millisecond) // as halo-mesh looks
				if err := turn.other.dev.Promote(); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		longest := ping()
		ok(t, turn.self.dev.SetKey(next.WireGuard()))
		for moved := 0; moved < 3; {
			longest = max(longest, ping())
			if !turn.other.dev.Rekeying() {
				moved++
			}
		}
		ok(t, <-done)
		turn.self.key = next
		known.Key, known.Next = known.Next, [32]byte{}
		ok(t, turn.other.dev.SetPeers([]overlay.Peer{known}))
		longest = max(longest, ping())
		t.Logf("round %d: longest gap %s", round, longest)
		if longest > time.Second {
			t.Errorf("round %d: nothing came for %s, want less than a second", round, longest)
		}
	}
}
