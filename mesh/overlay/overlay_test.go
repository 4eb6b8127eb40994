//go:build !lab

package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/model/paths"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

const patience = 3 * time.Minute

var (
	underA, underB = netip.MustParseAddr("fd00:1::a"), netip.MustParseAddr("fd00:1::b")
	overA, overB   = netip.MustParseAddr("10.42.0.1"), netip.MustParseAddr("10.42.1.2")
	overA6, overB6 = netip.MustParseAddr("fd00:2::a"), netip.MustParseAddr("fd00:2::b")
)

// config has WireGuard run in this process; the kernel's is for the test machine.
func config(name string, key identity.Key, v4, v6 netip.Addr) Config {
	return Config{Name: name, Key: key.WireGuard(), Port: paths.WireGuardPort, UnderlayMTU: 1500, Userspace: true, Log: slog.New(slog.DiscardHandler),
		Addresses: []netip.Prefix{netip.PrefixFrom(v4, 16), netip.PrefixFrom(v6, 64)}}
}

func peer(key identity.Key, under, v4, v6 netip.Addr, life Incarnation) Peer {
	return Peer{Node: key.ID(), Key: key.WireGuardPublic(), Endpoint: netip.AddrPortFrom(under, paths.WireGuardPort), Incarnation: life,
		Allowed: []netip.Prefix{netip.PrefixFrom(v4, 32), netip.PrefixFrom(v6, 128)}}
}

func underlay(l netlink.Link, a netip.Addr) error {
	return netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD})
}

// open opens a device that ends with the test.
func open(t *testing.T, c Config) (*Device, error) {
	d, err := Open(c)
	if err == nil {
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return d, err
}

// TestPeersTalkAndARestartedOneIsTakenBack has two devices in two namespaces,
// with WireGuard in this process on both ends. The first life of B had a clock
// that ran ahead; B then restarts with an older time.
func TestPeersTalkAndARestartedOneIsTakenBack(t *testing.T) {
	keyA, keyB := identity.New(), identity.New()
	near, far := nstest.Cable(t, "over-a", "over-b")
	if err := underlay(near, underA); err != nil {
		t.Fatal(err)
	}
	a, err := open(t, config("wg-a", keyA, overA, overA6))
	if err != nil {
		t.Fatal(err)
	}
	firstLife := peer(keyB, underB, overB, overB6, Incarnation{Boot: 1})
	if err := a.SetPeers([]Peer{firstLife}); err != nil {
		t.Fatal(err)
	}

	// B's first life, a year ahead of time.
	if err := handshake(keyB, keyA, time.Now().AddDate(1, 0, 0), patience); err != nil {
		t.Fatalf("first life: %v", err)
	}
	if err := handshake(keyB, keyA, time.Now(), time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a handshake from the past got %v, want no answer", err)
	}

	// B's second life.
	var b *Device
	listening := make(chan net.Listener, 1)
	nstest.Away(t, far, func(l netlink.Link) (err error) {
		if err := underlay(l, underB); err != nil {
			return err
		}
		if b, err = open(t, config("wg-b", keyB, overB, overB6)); err != nil {
			return err
		}
		toA := peer(keyA, underA, overA, overA6, Incarnation{})
		toA.Keepalive = 2 * time.Minute
		if err := b.SetPeers([]Peer{toA}); err != nil {
			return err
		}
		l4, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", netip.AddrPortFrom(overB, 80).String())
		listening <- l4
		return err
	})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "from b") })}
	go func() { _ = server.Serve(<-listening) }() // ends when it is closed
	t.Cleanup(func() { _ = server.Close() })

	secondLife := firstLife
	secondLife.Incarnation = Incarnation{Boot: 2}
	if err := a.SetPeers([]Peer{secondLife}); err != nil {
		t.Fatal(err)
	}
	get(t, "http://"+overB.String())

	peers, err := a.Status()
	if err != nil || len(peers) != 1 {
		t.Fatalf("status: %+v, %v", peers, err)
	}
	p := peers[0]
	if p.Node != keyB.ID() || p.LastHandshake == nil || time.Since(*p.LastHandshake).Abs() > patience || p.RxBytes == 0 || p.TxBytes == 0 {
		t.Errorf("status of b: %+v", p)
	}
	if p.Endpoint != netip.AddrPortFrom(underB, paths.WireGuardPort).String() || len(p.Addresses) != 2 {
		t.Errorf("status of b: %+v", p)
	}

	// The same list again disturbs nothing; without b nothing is left.
	if err := a.SetPeers([]Peer{secondLife}); err != nil {
		t.Fatal(err)
	}
	if again, err := a.Status(); err != nil || again[0].LastHandshake == nil {
		t.Errorf("setting the same peers lost the session: %+v, %v", again, err)
	}
	if err := a.SetPeers(nil); err != nil {
		t.Fatal(err)
	}
	if rest, err := a.Status(); err != nil || len(rest) != 0 {
		t.Errorf("after removing all peers: %+v, %v", rest, err)
	}
}

// get fetches a page through the overlay; handshakes are tried every 5 s.
func get(t *testing.T, url string) {
	t.Helper()
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(patience); ; {
		resp, err := client.Get(url)
		if err == nil {
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != "from b" {
				t.Fatalf("got %q, %v", body, err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing came through the overlay: %v", err)
		}
	}
}

// handshake begins one with A at a time of its own choice and waits so long for the
// response.
func handshake(from, to identity.Key, at time.Time, wait time.Duration) error {
	c, err := net.Dial("udp6", netip.AddrPortFrom(underA, paths.WireGuardPort).String())
	if err != nil {
		return err
	}
	defer c.Close()
	return nstest.Initiate(c, from.WireGuard(), to.WireGuardPublic(), at, wait)
}

func TestInterfaceIsAsConfigured(t *testing.T) {
	d, err := open(t, config("wg-c", identity.New(), overA, overA6))
	if err != nil {
		t.Fatal(err)
	}
	link := nstest.Link(t, "wg-c")
	if link.Attrs().MTU != 1420 {
		t.Errorf("MTU: got %d, want 1420", link.Attrs().MTU)
	}
	stale, _ := netlink.ParseAddr("10.42.9.9/16")
	if err := netlink.AddrAdd(link, stale); err != nil {
		t.Fatal(err)
	}
	if err := d.address(); err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 || addrs[0].IPNet.String() != "10.42.0.1/16" {
		t.Errorf("addresses: got %v, %v, want 10.42.0.1/16 alone", addrs, err)
	}
	if d.Kernel() {
		t.Error("the kernel did it: this test is about the process")
	}
	if _, err := Open(config("wg-c", identity.New(), overA, overA6)); err == nil {
		t.Error("a second device took the same interface")
	}
}

// TestGuard has somebody take away, bit by bit, what Open made.
func TestGuard(t *testing.T) {
	c := config("wg-g", identity.New(), overA, overA6)
	c.Routes = []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}
	d, err := open(t, c)
	if err != nil {
		t.Fatal(err)
	}
	guard := func(routes bool) error {
		d.guarded = time.Time{}
		return d.Guard(routes)
	}
	routed := func() bool {
		list, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{LinkIndex: d.index}, netlink.RT_FILTER_OIF)
		return err == nil && slices.ContainsFunc(list, func(r netlink.Route) bool { return r.Dst.String() == "10.43.0.0/16" })
	}
	link := nstest.Link(t, "wg-g")
	if err := netlink.LinkSetDown(link); err != nil { // takes routes along
		t.Fatal(err)
	}
	d.guarded = time.Now()
	if err := d.Guard(true); err != nil || routed() {
		t.Errorf("within %s of the last look: mended %v, %v", guardEvery, routed(), err)
	}
	if err := guard(false); err != nil || routed() {
		t.Errorf("without routes: mended %v, %v", routed(), err)
	}
	if up := nstest.Link(t, "wg-g").Attrs().Flags&net.FlagUp != 0; !up {
		t.Error("it stays down")
	}
	if err := guard(true); err != nil || !routed() {
		t.Errorf("the route was not put back: %v", err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) != 1 {
		t.Fatalf("addresses %v, %v", addrs, err)
	}
	if err := netlink.AddrDel(link, &addrs[0]); err != nil {
		t.Fatal(err)
	}
	if err := guard(true); err != nil {
		t.Error(err)
	}
	if addrs, err = netlink.AddrList(link, netlink.FAMILY_V4); err != nil || len(addrs) != 1 || !routed() {
		t.Errorf("the address was not put back, or its route: %v, %v", addrs, err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	if err := guard(true); !errors.Is(err, ErrLost) {
		t.Errorf("gone: got %v, want ErrLost", err)
	}
}

// TestAKernelWithoutWireGuard says itself that it has none, as to every kind of link that
// it does not know. Then, and only then, this process takes its place.
func TestAKernelWithoutWireGuard(t *testing.T) {
	near, _ := nstest.Cable(t, "none-a", "none-b")
	if err := underlay(near, underA); err != nil {
		t.Fatal(err)
	}
	keyA, keyB := identity.New(), identity.New()
	var logged bytes.Buffer
	c := config("wg-n", keyA, overA, overA6)
	c.Userspace, c.kind, c.Log = false, "halo-none", slog.New(slog.NewTextHandler(&logged, nil))
	d, err := open(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if link := nstest.Link(t, "wg-n"); d.Kernel() || link.Type() != "tuntap" || link.Attrs().MTU != 1420 {
		t.Errorf("the kernel does it: %v, by a link of kind %s with MTU %d", d.Kernel(), link.Type(), link.Attrs().MTU)
	}
	if !strings.Contains(logged.String(), "the kernel has no WireGuard") {
		t.Errorf("nobody is told: %q", logged.String())
	}
	if err := d.SetPeers([]Peer{peer(keyB, underB, overB, overB6, Incarnation{Boot: 1})}); err != nil {
		t.Fatal(err)
	}
	if err := handshake(keyB, keyA, time.Now(), patience); err != nil {
		t.Errorf("it does not answer as WireGuard: %v", err)
	}

	// A kernel that has it and fails is not passed over.
	c.kind, c.Name = "dummy", "a-name-that-is-too-long"
	if _, err := open(t, c); err == nil || errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a link that cannot be made: %v", err)
	}
	c.kind, c.Name = "dummy", "none-a"
	if _, err := open(t, c); err == nil || !strings.Contains(err.Error(), "expected a link of kind dummy, got veth") {
		t.Errorf("a link of another kind in its place: %v", err)
	}
}

// TestOverlayAddressIsNotReachedInTheClear talks to a service on an overlay
// address through the cable under it, as any stranger on the mesh can.
func TestOverlayAddressIsNotReachedInTheClear(t *testing.T) {
	near, far := nstest.Cable(t, "fence-a", "fence-b")
	inside, _ := nstest.Cable(t, "fence-wg", "fence-none") // stands for the overlay
	add := func(l netlink.Link, a string) error {
		addr, err := netlink.ParseAddr(a)
		return errors.Join(err, netlink.AddrAdd(l, addr))
	}
	// A fence stays when its overlay is closed: not an overlay of another test.
	clear, private := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.99.0.1")
	if err := errors.Join(add(near, clear.String()+"/24"), add(inside, private.String()+"/16")); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", ":8080")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	dial := func(a netip.Addr, wait time.Duration) error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(a, 8080).String(), wait)
		if err != nil {
			return err
		}
		return c.Close()
	}
	var open, shut, other error
	nstest.Away(t, far, func(l netlink.Link) error {
		route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: private.AsSlice(), Mask: net.CIDRMask(32, 32)}, Gw: clear.AsSlice()}
		if err := errors.Join(add(l, "192.0.2.2/24"), netlink.RouteAdd(route)); err != nil {
			return err
		}
		open = dial(private, patience)
		fenced := make(chan error)
		go func() {
			fenced <- fence("fence-wg", 51820, nil, []netip.Prefix{netip.PrefixFrom(private, 16), netip.PrefixFrom(netip.MustParseAddr("fd00:9::1"), 64)})
		}() // at home, where new goroutines run
		if err := <-fenced; err != nil {
			return err
		}
		shut, other = dial(private, time.Second), dial(clear, patience)
		return nil
	})
	if open != nil {
		t.Errorf("without the fence: %v: the test proves nothing", open)
	}
	if shut == nil {
		t.Error("with the fence the service was reached in the clear")
	}
	if other != nil {
		t.Errorf("another address of the machine: %v", other)
	}
	if err := dial(private, patience); err != nil {
		t.Errorf("the machine itself: %v", err)
	}
}

func TestMTU(t *testing.T) {
	for under, want := range map[int]int{1500: 1420, 1468: 1388, 1280: 1280, 9000: 8920} {
		if got := MTU(under); got != want {
			t.Errorf("underlay %d: got %d, want %d", under, got, want)
		}
	}
}

func TestLaterLife(t *testing.T) {
	order := []Incarnation{{1, 0}, {1, 1}, {1, 2}, {2, 0}, {3, 0}}
	for i, a := range order {
		for j, b := range order {
			if a.After(b) != (i > j) {
				t.Errorf("%v after %v: got %v", a, b, a.After(b))
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("private_key=00\nlisten_port=51820\npublic_key=0101010101010101010101010101010101010101010101010101010101010101\nendpoint=[fd00::1]:51820\nlast_handshake_time_sec=1\nlast_handshake_time_nsec=2\nrx_bytes=3\ntx_bytes=4\nallowed_ip=10.42.1.2/32\n")
	f.Add("public_key=zz\n")
	f.Fuzz(func(t *testing.T, s string) {
		peers, err := decode(s)
		if err == nil && len(peers) > len(s)/64 {
			t.Fatalf("%d peers from %d octets", len(peers), len(s))
		}
	})
}
