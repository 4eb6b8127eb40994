//go:build lab

package overlay_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/lab/testvm"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/overlay"
	"halo.internal/model/paths"
)

// These tests run in the test machine, whose kernel has WireGuard as a module, which it
// loads when it is first asked for.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"tun", "veth", "nf_tables"}})
}

const patience = 10 * time.Minute

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

// pair lays a cable between two machines. The test's thread, which is locked for that,
// is at the first.
func pair(t *testing.T) (a, b *end) {
	t.Helper()
	runtime.LockOSThread() // namespaces are threads'
	a = &end{key: identity.New(), under: netip.MustParseAddr("fd00:1::a"), over: netip.MustParseAddr("10.42.0.1")}
	b = &end{key: identity.New(), under: netip.MustParseAddr("fd00:1::b"), over: netip.MustParseAddr("10.42.1.2")}
	for _, e := range []*end{b, a} {
		ns, err := netns.New() // the thread goes there
		ok(t, err)
		e.ns = ns
		t.Cleanup(func() { _ = ns.Close() })
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cable-a"
	ok(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "cable-b"}))
	far, err := netlink.LinkByName("cable-b")
	ok(t, err)
	ok(t, netlink.LinkSetNsFd(far, int(b.ns)))
	a.address(t, "cable-a")
	a.at(t, b, func() { b.address(t, "cable-b") })
	return a, b
}

// at has f done at another machine than this one.
func (e *end) at(t *testing.T, other *end, f func()) {
	t.Helper()
	ok(t, netns.Set(other.ns))
	defer func() { ok(t, netns.Set(e.ns)) }()
	f()
}

func (e *end) address(t *testing.T, iface string) {
	t.Helper()
	link, err := netlink.LinkByName(iface)
	ok(t, err)
	ok(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: e.under.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}))
	ok(t, netlink.LinkSetUp(link))
}

func (e *end) open(t *testing.T) {
	t.Helper()
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

// TestAKernelThatFindsNoModule is one without WireGuard. It has to be the first of these
// tests: later ones load the module.
func TestAKernelThatFindsNoModule(t *testing.T) {
	const modprobe, loaded = "/proc/sys/kernel/modprobe", "/sys/module/wireguard"
	if _, err := os.Stat(loaded); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("expected a kernel that has not loaded WireGuard, got %s, %v", loaded, err)
	}
	before, err := os.ReadFile(modprobe)
	ok(t, err)
	ok(t, os.WriteFile(modprobe, []byte("\n"), 0))
	t.Cleanup(func() { ok(t, os.WriteFile(modprobe, before, 0)) })
	a, b := pair(t)
	open := func(e *end) {
		dev, err := overlay.Open(overlay.Config{
			Name: "wg0", Key: e.key.WireGuard(), Port: paths.WireGuardPort, UnderlayMTU: 1500,
			Addresses: []netip.Prefix{netip.PrefixFrom(e.over, 16)}, Log: slog.New(slog.DiscardHandler),
		})
		ok(t, err)
		t.Cleanup(func() { _ = dev.Close() })
		if dev.Kernel() {
			t.Fatal("the kernel does it, which has no WireGuard")
		}
		e.dev = dev
	}
	open(a)
	a.at(t, b, func() { open(b) })
	ok(t, b.dev.SetPeers([]overlay.Peer{a.peer()}))
	ok(t, a.dev.SetPeers([]overlay.Peer{b.peer()}))
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		c, err := net.Dial("udp", netip.AddrPortFrom(b.over, 9).String()) // what is sent begins a session
		ok(t, err)
		_, _ = c.Write([]byte("x"))
		_ = c.Close()
		s, err := a.dev.Status()
		ok(t, err)
		if len(s) == 1 && s[0].LastHandshake != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no handshake: %+v", s)
		}
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
// change their keys. A gap is a session that is lost, or a handshake that is refused.
func TestTheKernelRotatesAKeyWithoutAGap(t *testing.T) {
	a, b := pair(t)
	shakes := nstest.ListenShakes(t, "cable-a", paths.WireGuardPort)
	a.open(t)
	var server net.Listener
	a.at(t, b, func() {
		b.open(t)
		var err error
		server, err = net.Listen("tcp", netip.AddrPortFrom(b.over, 7).String())
		ok(t, err)
	})
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
	ok(t, a.dev.SetPeers([]overlay.Peer{b.peer()}))
	ok(t, b.dev.SetPeers([]overlay.Peer{a.peer()}))
	var c net.Conn
	var err error
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
		shakes.Clear()
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
		if err := shakes.Once(1); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
}

// greet sends something through the overlay, which nobody takes.
func greet(t *testing.T, to netip.Addr) {
	t.Helper()
	c, err := net.Dial("udp", netip.AddrPortFrom(to, 9).String())
	ok(t, err)
	_, err = c.Write([]byte{0})
	ok(t, errors.Join(err, c.Close()))
}

// shaken waits until both have shaken hands, and tells whether they have.
func (e *end) shaken(t *testing.T, wait time.Duration) bool {
	t.Helper()
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		h, err := e.dev.Handshakes()
		ok(t, err)
		s, err := e.dev.Status()
		ok(t, err)
		if len(h) > 0 && (len(h) != 1 || len(s) != 1 || h[0].Node != s[0].Node || s[0].LastHandshake == nil) {
			t.Fatalf("handshakes %+v, but status %+v", h, s)
		}
		if len(h) == 1 {
			return true
		}
	}
	return false
}

// TestTheKernelBeginsAnew with a peer that has restarted: at once when it is told of
// its life, and not for long before.
func TestTheKernelBeginsAnew(t *testing.T) {
	a, b := pair(t)
	shakes := nstest.ListenShakes(t, "cable-a", paths.WireGuardPort)
	a.open(t)
	life := b.peer()
	life.Incarnation = overlay.Incarnation{Boot: 1}
	ok(t, a.dev.SetPeers([]overlay.Peer{life}))
	a.at(t, b, func() { // a life whose clock was ahead
		c, err := net.DialUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.under, paths.WireGuardPort)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.under, paths.WireGuardPort)))
		ok(t, err)
		ok(t, errors.Join(nstest.Initiate(c, b.key.WireGuard(), a.key.WireGuardPublic(), time.Now().AddDate(1, 0, 0), patience), c.Close()))
	})
	restart := func() {
		t.Helper()
		a.at(t, b, func() {
			if b.dev != nil {
				link, err := netlink.LinkByName("wg0")
				ok(t, err)
				ok(t, errors.Join(b.dev.Close(), netlink.LinkDel(link)))
			}
			b.open(t)
			ok(t, b.dev.SetPeers([]overlay.Peer{a.peer()}))
		})
	}
	again := func() {
		t.Helper()
		life.Incarnation.Boot++
		ok(t, a.dev.SetPeers([]overlay.Peer{life}))
	}

	restart()
	shakes.Clear()
	a.at(t, b, func() { greet(t, a.over) })
	tries := shakes.List()
	for deadline := time.Now().Add(patience); len(tries) < 2; tries = shakes.List() { // the second is five seconds after the first
		if time.Now().After(deadline) {
			t.Fatalf("the peer does not try again: %v", tries)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if tries[0].Answered {
		t.Fatalf("a handshake from the past was taken, this test proves nothing: %v", tries)
	}
	again()
	if !b.shaken(t, patience) { // it tries on by itself
		t.Fatal("the peer is refused in the life that is known by now")
	}

	// There is a session, which the peer does not know any more. By itself WireGuard goes
	// on with it, until nothing has come back for 15 s.
	restart()
	if h, err := a.dev.Handshakes(); err != nil || len(h) != 1 || b.shaken(t, time.Second) {
		t.Fatalf("there is no dead session, this test proves nothing: %+v, %v", h, err)
	}
	shakes.Clear()
	began := time.Now()
	again()
	if h, err := a.dev.Handshakes(); err != nil || len(h) != 0 {
		t.Errorf("the dead session stays: %+v, %v", h, err)
	}
	greet(t, b.over)
	if !b.shaken(t, patience) {
		t.Fatal("no handshake with the peer in the life that is known by now")
	}
	t.Logf("after %s", time.Since(began))
	if err := shakes.Once(1); err != nil {
		t.Error(err)
	}
}
