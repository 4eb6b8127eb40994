package mesh

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/bridge"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// bridgeAsBat is a bridge in the place of bat0: this kernel has no batman-adv, and both are
// links that have ports.
type bridgeAsBat struct {
	link  netlink.Link
	mu    sync.Mutex
	rates map[string]float64
}

func (b *bridgeAsBat) Enslave(iface string) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return err
	}
	if m := link.Attrs().MasterIndex; m != 0 && m != b.link.Attrs().Index {
		return errors.New("it belongs to something else")
	}
	return netlink.LinkSetMaster(link, b.link)
}

func (b *bridgeAsBat) Release(iface string) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return err
	}
	return netlink.LinkSetNoMaster(link)
}

func (b *bridgeAsBat) Rate(iface string, mbit float64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rates[iface] = mbit
	return nil
}

// guarded is a mesh interface whose integrity is kept.
type guarded struct {
	t     *testing.T
	bat   *bridgeAsBat
	held  *carried
	guard *integrity

	mu     sync.Mutex // guards what follows
	aside  bool
	broken error // of mending
	harm   error
	events []model.Event
}

func newGuarded(t *testing.T, name string, own netip.Addr) *guarded {
	t.Helper()
	hub := nstest.Hub(t, name)
	g := &guarded{t: t, bat: &bridgeAsBat{link: hub, rates: map[string]float64{}}}
	g.held = newCarried(g.bat, hub.Attrs().Index)
	mend := func() error { return errors.Join(AddressUnderlay(name, own), addressGateway(name)) }
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	g.guard = &integrity{
		index: hub.Attrs().Index, bat: name, iface: name, ports: g.held, log: slog.New(slog.DiscardHandler),
		addresses: func() []netip.Addr {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.aside {
				return nil
			}
			return []netip.Addr{own, paths.UnderlayGateway}
		},
		mend: func() error {
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.broken != nil {
				return g.broken
			}
			return mend()
		},
		harm:   func(bat, ports error) { g.mu.Lock(); defer g.mu.Unlock(); g.harm = errors.Join(bat, ports) },
		notify: func(e model.Event) { g.mu.Lock(); defer g.mu.Unlock(); g.events = append(g.events, e) },
	}
	return g
}

// glance looks once, as if for the first time.
func glance(g *integrity) (mended []string, err error) {
	g.pace = backOff{}
	is := g.look()
	return is.mended, errors.Join(is.bat, is.ports)
}

func (g *guarded) run() {
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.guard.run(ctx) }()
	g.t.Cleanup(func() { cancel(); <-done })
}

// told returns what was told of as mended.
func (g *guarded) told() (list []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if e.Kind == eventBatMended {
			list = append(list, strings.Split(e.Fields["what"], ", ")...)
		}
	}
	return list
}

func (g *guarded) until(what string, is func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.t.Fatalf("%s: not within 20 s; told %+v, harm %v", what, g.events, g.harm)
		}
	}
}

func (g *guarded) has(a netip.Addr) bool {
	list, err := netlink.AddrList(nstest.Link(g.t, g.guard.iface), netlink.FAMILY_ALL)
	return err == nil && slices.ContainsFunc(list, func(have netlink.Addr) bool {
		ip, _ := netip.AddrFromSlice(have.IP)
		return ip.Unmap() == a
	})
}

func (g *guarded) drop(a netip.Addr) {
	g.t.Helper()
	link := nstest.Link(g.t, g.guard.iface)
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, have := range list {
		if ip, _ := netip.AddrFromSlice(have.IP); ip.Unmap() == a {
			if err := netlink.AddrDel(link, &have); err != nil {
				g.t.Fatal(err)
			}
		}
	}
}

func masterOf(t *testing.T, iface string) int { return nstest.Link(t, iface).Attrs().MasterIndex }

// TestIntegrityOfTheMeshInterface has somebody take from it, bit by bit, what it needs.
func TestIntegrityOfTheMeshInterface(t *testing.T) {
	own := netip.MustParseAddr("fd00:1::5")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		harms func(g *guarded)
		whole func(g *guarded) bool
		told  string
	}{
		{"its address", func(g *guarded) { g.drop(own) }, func(g *guarded) bool { return g.has(own) }, "address " + own.String()},
		{"the gateway's address", func(g *guarded) { g.drop(paths.UnderlayGateway) }, func(g *guarded) bool { return g.has(paths.UnderlayGateway) }, "address 10.41.0.1"},
		{"up", func(g *guarded) { ok(netlink.LinkSetDown(g.bat.link)) }, func(g *guarded) bool {
			return nstest.Link(t, "bat-i").Attrs().OperState != netlink.OperDown && g.has(own)
		}, "bat-i up"},
		{"a port", func(g *guarded) { ok(netlink.LinkSetNoMaster(nstest.Link(t, "port-i"))) },
			func(g *guarded) bool { return masterOf(t, "port-i") == g.held.index }, "port port-i"},
		{"a port that others took", func(g *guarded) {
			ok(netlink.LinkSetNoMaster(nstest.Link(t, "port-i")))
			ok(netlink.LinkSetMaster(nstest.Link(t, "port-i"), nstest.Hub(t, "other-i")))
		}, func(g *guarded) bool { return masterOf(t, "port-i") == g.held.index }, "port port-i"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nstest.Cable(t, "port-i", "far-i")
			g := newGuarded(t, "bat-i", own)
			ok(g.held.Enslave("port-i"))
			ok(g.held.Rate("port-i", 100))
			if list, err := glance(g.guard); len(list) > 0 || err != nil {
				t.Fatalf("it mended %v before anything was wrong, %v", list, err)
			}
			clear(g.bat.rates)
			g.run()
			tc.harms(g)
			g.until("mended", func() bool { return tc.whole(g) && slices.Contains(g.told(), tc.told) })
			if strings.HasPrefix(tc.told, "port") {
				g.bat.mu.Lock()
				defer g.bat.mu.Unlock()
				if g.bat.rates["port-i"] != 100 {
					t.Error("the port's rate is not told again")
				}
			}
		})
	}
}

// TestIntegrityLeavesAloneWhatIsMeantToBeSo: a port that leaves, one that is unplugged and
// comes back as another, and the addresses of a gateway that stands aside.
func TestIntegrityLeavesAloneWhatIsMeantToBeSo(t *testing.T) {
	own := netip.MustParseAddr("fd00:1::6")
	nstest.Cable(t, "port-j", "far-j")
	nstest.Cable(t, "pulled-j", "farther-j")
	nstest.Cable(t, "last-j", "farthest-j")
	g := newGuarded(t, "bat-j", own)
	for _, p := range []string{"port-j", "pulled-j", "last-j"} {
		if err := g.held.Enslave(p); err != nil {
			t.Fatal(err)
		}
	}
	g.run()
	if err := g.held.Release("port-j"); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(nstest.Link(t, "pulled-j")); err != nil {
		t.Fatal(err)
	}
	nstest.Cable(t, "pulled-j", "farther-j")
	g.mu.Lock()
	g.aside = true
	g.mu.Unlock()
	g.drop(own)
	// What is mended last tells that the rest was looked at.
	if err := netlink.LinkSetNoMaster(nstest.Link(t, "last-j")); err != nil {
		t.Fatal(err)
	}
	g.until("mended", func() bool { return slices.Contains(g.told(), "port last-j") })
	if list := g.told(); len(list) != 1 {
		t.Errorf("it mended %v", list)
	}
	if masterOf(t, "port-j") != 0 || masterOf(t, "pulled-j") != 0 || g.has(own) {
		t.Error("it has put back what was meant to go")
	}
	if err := netlink.LinkDel(g.bat.link); err != nil {
		t.Fatal(err)
	}
	if list, err := glance(g.guard); len(list) > 0 || err != nil {
		t.Errorf("of an interface that is gone it mended %v, %v", list, err)
	}
}

// TestIntegrityTakesNoPortFromAnOpenBridge: whoever is behind it is no member.
func TestIntegrityTakesNoPortFromAnOpenBridge(t *testing.T) {
	for _, name := range []string{paths.ClientBridge, paths.MeshBridge} {
		t.Run(name, func(t *testing.T) {
			port, _ := nstest.Cable(t, "port-l", "far-l")
			g := newGuarded(t, "bat-l", netip.MustParseAddr("fd00:1::8"))
			open := nstest.Hub(t, name)
			if err := errors.Join(g.held.Enslave("port-l"), netlink.LinkSetNoMaster(port), netlink.LinkSetMaster(port, open)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if list, err := glance(g.guard); len(list) > 0 || err != nil || masterOf(t, "port-l") == g.held.index {
					t.Errorf("mended %v, %v", list, err)
				}
				if err := netlink.LinkSetNoMaster(port); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestIntegritySaysWhatItCannotMend, once, and mends it when that can be.
func TestIntegritySaysWhatItCannotMend(t *testing.T) {
	own := netip.MustParseAddr("fd00:1::7")
	g := newGuarded(t, "bat-k", own)
	u := &batUnderlay{}
	g.guard.harm = func(bat, ports error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.harm, u.less = bat, ports
	}
	g.broken = errors.New("the kernel says no")
	g.run()
	g.drop(own)
	g.until("it says so", func() bool { return u.Ready() != nil })
	if err := u.Lacking(); err != nil {
		t.Errorf("of the ports: %v", err)
	}
	if err := u.Ready(); !errors.Is(err, g.broken) || !strings.Contains(err.Error(), own.String()) {
		t.Errorf("got %v", err)
	}
	g.mu.Lock()
	g.broken = nil
	g.mu.Unlock()
	g.until("mended", func() bool { return u.Ready() == nil && g.has(own) })
	failed := 0
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if e.Kind == "mesh.bat0.failed" {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("it told %d times that it does not work", failed)
	}
}

// TestIntegrityOfANode is that of a board's underlay, with and without guests of the mesh.
func TestIntegrityOfANode(t *testing.T) {
	for name, ports := range map[string]map[string]string{"bat0 alone": nil, "with guests": {"eth9": bundle.RoleBridge}} {
		t.Run(name, func(t *testing.T) {
			bat, _ := nstest.Cable(t, paths.BatIface, "bat-far")
			u := NewUnderlay(UnderlayConfig{Key: identity.New(), Network: identity.New().Public(), Log: slog.New(slog.DiscardHandler),
				Bundle: bundle.Bundle{Role: model.RoleNode, Ports: ports}}).(*batUnderlay)
			iface := underlayIface(u.Bundle)
			t.Cleanup(func() { _ = bridge.Remove(paths.MeshBridge) })
			g := u.integrity(nil, newCarried(nil, bat.Attrs().Index))
			whole := func(what string, lost bool) {
				t.Helper()
				if list, err := glance(g); err != nil || (len(list) > 0) != lost {
					t.Errorf("%s: mended %v, %v", what, list, err)
				}
				if list, err := glance(g); err != nil || len(list) > 0 {
					t.Errorf("%s: it still was without %v, %v", what, list, err)
				}
			}
			whole("at first", true)
			for what, harm := range map[string]func() error{
				"bat0 is down": func() error { return netlink.LinkSetDown(bat) },
				"an interface without addresses": func() error {
					link := nstest.Link(t, iface)
					list, err := netlink.AddrList(link, netlink.FAMILY_V6)
					for _, a := range list {
						err = errors.Join(err, netlink.AddrDel(link, &a))
					}
					return err
				},
				"no IPv6": func() error {
					return os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, "disable_ipv6"), []byte("1"), 0)
				},
			} {
				if err := harm(); err != nil {
					t.Fatal(err)
				}
				whole(what, true)
			}
			if ports == nil {
				return
			}
			for what, harm := range map[string]func() error{
				"bat0 is out of its bridge": func() error { return netlink.LinkSetNoMaster(bat) },
				"bat0 is in another bridge": func() error {
					other := nstest.Hub(t, "bat-other")
					return errors.Join(netlink.LinkSetNoMaster(bat), netlink.LinkSetMaster(bat, other))
				},
				"the bridge is gone": func() error { return bridge.Remove(iface) },
			} {
				if err := harm(); err != nil {
					t.Fatal(err)
				}
				whole(what, true)
			}
		})
	}
}

// TestIntegrityOfEachByItself: a port that cannot be put back keeps bat0 from nothing, and
// what bat0 cannot be given keeps no port out of it.
func TestIntegrityOfEachByItself(t *testing.T) {
	own := netip.MustParseAddr("fd00:1::9")
	for _, name := range []string{"port-m", "next-m"} {
		nstest.Cable(t, name, "far-"+name)
	}
	g := newGuarded(t, "bat-m", own)
	refuses := errors.New("the driver says no")
	in := false
	err := g.held.put("next-m", func() error {
		if in {
			return refuses
		}
		in = true
		return g.bat.Enslave("next-m")
	})
	take := func(name string) error { return netlink.LinkSetNoMaster(nstest.Link(t, name)) }
	if err := errors.Join(err, g.held.Enslave("port-m"), take("next-m"), take("port-m")); err != nil {
		t.Fatal(err)
	}
	g.broken = errors.New("the kernel says no")
	g.drop(own)
	is := g.guard.look()
	if !errors.Is(is.bat, g.broken) || !errors.Is(is.ports, refuses) || !slices.Equal(is.mended, []string{"port port-m"}) || masterOf(t, "port-m") != g.held.index {
		t.Errorf("got %+v", is)
	}
	g.broken = nil
	if err := g.guard.mend(); err != nil { // by somebody else
		t.Fatal(err)
	}
	if is := g.guard.look(); is.bat != nil || !errors.Is(is.ports, refuses) || len(is.mended) > 0 || is.rest <= 0 || is.rest > integrityPause {
		t.Errorf("while it rests: %+v", is)
	}
}

// TestGuestsOfABridgeMadeAnew: their ports are in it again, and no others.
func TestGuestsOfABridgeMadeAnew(t *testing.T) {
	ports := []model.Port{{Iface: "guest-n", Role: port.Bridged}, {Iface: "failed-n", Role: port.Bridged, Detail: "it failed"}, {Iface: "mesh-n", Role: port.Mesh}}
	for _, p := range ports {
		nstest.Cable(t, p.Iface, "far-"+p.Iface)
	}
	anew := nstest.Hub(t, paths.MeshBridge)
	if err := putGuests(append(ports, model.Port{Iface: "pulled-n", Role: port.Bridged})); err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if in := masterOf(t, p.Iface) == anew.Attrs().Index; in != (p.Iface == "guest-n") {
			t.Errorf("%s is in the bridge: %v", p.Iface, in)
		}
	}
}

func TestIntegrityIsNoFight(t *testing.T) {
	var b backOff
	now, looks := time.Now(), 0
	for began := now; now.Sub(began) < time.Hour; looks++ { // it is taken again at once
		now = now.Add(b.next(now))
	}
	if looks > 70 {
		t.Errorf("%d times in an hour", looks)
	}
	if d := b.next(now.Add(10 * time.Minute)); d != integrityPause {
		t.Errorf("later it waits %s, want %s", d, integrityPause)
	}
}
