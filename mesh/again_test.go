package mesh

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// listed has a node know those members, in their first life.
func listed(t *testing.T, network identity.Key, n *node, members ...identity.Key) {
	t.Helper()
	l := peerlist.List{Epoch: 1, Version: 1, Issued: time.Now(), Expires: time.Now().Add(peerlist.Validity)}
	for i, k := range members {
		l.Peers = append(l.Peers, peerlist.Peer{Key: k.Public(), WireGuard: k.WireGuardPublic(), Overlay: netip.AddrFrom4([4]byte{10, 42, 1, byte(2 + i)}), Boot: 5, Steps: 1})
	}
	raw, err := peerlist.Sign(network, l)
	if err == nil {
		err = n.takeList(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// woken tells whether the overlay is to look again, once.
func (n *node) woken() bool {
	select {
	case <-n.overlayNow:
		return true
	default:
		return false
	}
}

func TestWhatOthersSayOfTheirLives(t *testing.T) {
	network, own, a, stranger := identity.New(), identity.New(), identity.New(), identity.New()
	for _, tc := range []struct {
		name        string
		who         identity.Key
		boot        uint64
		steps       uint32
		news        bool
		wantBoot    uint64
		wantSteps   uint32
		withoutList bool
	}{
		{name: "the life that is known", who: a, boot: 5, steps: 1, wantBoot: 5, wantSteps: 1},
		{name: "an earlier one, recorded", who: a, boot: 4, steps: 9, wantBoot: 5, wantSteps: 1},
		{name: "an earlier step, recorded", who: a, boot: 5, wantBoot: 5, wantSteps: 1},
		{name: "a restart", who: a, boot: 6, news: true, wantBoot: 6},
		{name: "a clock that went back", who: a, boot: 5, steps: 2, news: true, wantBoot: 5, wantSteps: 2},
		{name: "somebody who is no member", who: stranger, boot: 6, wantBoot: 5, wantSteps: 1},
		{name: "a member that nobody has told of", who: a, boot: 6, withoutList: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(bareCore(t, network.Public(), own))
			if !tc.withoutList {
				listed(t, network, n, own, a)
			}
			n.woken()
			before := n.list
			public := tc.who.Public()
			n.hearOther(announce.Node{Key: public[:], Stamp: announce.Stamp{Boot: tc.boot}, Steps: tc.steps})
			if n.woken() != tc.news {
				t.Errorf("the overlay looks again: want %v", tc.news)
			}
			for _, p := range n.directPeers() {
				if want := (overlay.Incarnation{Boot: tc.wantBoot, Steps: tc.wantSteps}); p.Incarnation != want {
					t.Errorf("got life %+v, want %+v", p.Incarnation, want)
				}
			}
			if p, ok := before.Find(a.Public()); ok && (p.Boot != 5 || p.Steps != 1) {
				t.Error("what others have of the list was changed under them")
			}
			if !before.Members(n.list) || !before.Keys(n.list) || n.list.Version != before.Version {
				t.Errorf("more than a life has changed: %+v, was %+v", n.list, before)
			}
		})
	}
}

// TestLivesOfOneMemberAreBounded: who claims another each second has the others begin
// anew with him once a minute, and nobody else waits for that.
func TestLivesOfOneMemberAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, own, a, b := identity.New(), identity.New(), identity.New(), identity.New()
		n := newNode(bareCore(t, network.Public(), own))
		listed(t, network, n, own, a, b)
		says := func(k identity.Key, boot uint64) bool {
			n.woken()
			public := k.Public()
			n.hearOther(announce.Node{Key: public[:], Stamp: announce.Stamp{Boot: boot}})
			return n.woken()
		}
		taken := 0
		for i := range 3600 {
			if says(a, uint64(6+i)) {
				taken++
			}
			time.Sleep(time.Second)
		}
		if taken < 60 || taken > 60+lifeBurst {
			t.Errorf("%d lives in an hour, want one a minute, and %d", taken, lifeBurst)
		}
		if !says(b, 6) {
			t.Error("another's life is not believed")
		}
		if len(n.lives) > 2 {
			t.Errorf("%d members are counted", len(n.lives))
		}
		time.Sleep(time.Hour)
		if !says(a, 1<<20) || len(n.lives) != 1 {
			t.Errorf("after an hour: %d members are counted", len(n.lives))
		}
	})
}

func TestGreetingsAreSpread(t *testing.T) {
	for members, want := range map[int]time.Duration{0: 0, 10: 560 * time.Millisecond, 50: 2800 * time.Millisecond, 250: 14 * time.Second} {
		if got := greetSpread(members); got != want {
			t.Errorf("%d members: %s, want %s", members, got, want)
		}
	}
	n := newNode(bareCore(t, identity.New().Public(), identity.New()))
	p := func(name string) overlay.Peer {
		return overlay.Peer{Node: name, Allowed: []netip.Prefix{netip.MustParsePrefix("10.42.1.2/32")}}
	}
	n.greetLater([]overlay.Peer{p("a"), p("b")})
	n.greetLater([]overlay.Peer{p("b"), p("a"), p("c")})
	if len(n.greets) != 3 {
		t.Errorf("%d wait to be greeted, want three", len(n.greets))
	}
}

// stretch is an underlay that is there.
type stretch struct{ quiet }

func (*stretch) Ready() error { return nil }

// TestAPeerThatHasRestartedIsGreeted: it does not know the session any more that this
// end has with it, and nobody sends anything that would begin another.
func TestAPeerThatHasRestartedIsGreeted(t *testing.T) {
	network, own, other := identity.New(), identity.New(), identity.New()
	near, far := nstest.Cable(t, "again-a", "again-b")
	under := func(k identity.Key) netip.Addr { return identity.Underlay(network.Public(), k.Public()) }
	prepare := func(l string, k identity.Key) error {
		link, err := netlink.LinkByName(l)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: under(k).AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD})
	}
	open := func(k identity.Key, v4 string) (*overlay.Device, error) {
		return overlay.Open(overlay.Config{
			Name: paths.OverlayIface, Key: k.WireGuard(), Port: paths.WireGuardPort, UnderlayMTU: 1500, Userspace: true, Log: slog.New(slog.DiscardHandler),
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(v4), 16), netip.PrefixFrom(identity.Overlay(network.Public(), k.Public()), 64)},
		})
	}
	hereHost, thereHost := nstest.NewHost(t, near), nstest.NewHost(t, far)
	var here, there *overlay.Device
	hereHost.Do(t, func() (err error) {
		if err = prepare("again-a", own); err == nil {
			here, err = open(own, "10.42.1.2")
		}
		return err
	})
	t.Cleanup(func() { _ = here.Close() })
	restart := func() {
		t.Helper()
		thereHost.Do(t, func() (err error) {
			if there != nil {
				err = there.Close()
			} else {
				err = prepare("again-b", other)
			}
			if err == nil {
				there, err = open(other, "10.42.1.3")
			}
			if err != nil {
				return err
			}
			return there.SetPeers([]overlay.Peer{{
				Node: own.ID(), Key: own.WireGuardPublic(), Endpoint: netip.AddrPortFrom(under(own), paths.WireGuardPort),
				Allowed: []netip.Prefix{netip.MustParsePrefix("10.42.1.2/32")},
			}})
		})
	}
	restart()
	t.Cleanup(func() { _ = there.Close() })
	eventually := func(what string, f func() error) {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			err := f()
			if err == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	shaken := func() error {
		s, err := there.Status()
		if err == nil && !inSession(s, own.ID()) {
			err = fmt.Errorf("it has %+v", s)
		}
		return err
	}

	n := newNode(bareCore(t, network.Public(), own))
	n.under = &stretch{}
	listed(t, network, n, own, other)
	wg := network.WireGuardPublic()
	m := model.Membership{
		OverlayV4: netip.MustParseAddr("10.42.1.2"), OverlayV6: identity.Overlay(network.Public(), own.Public()),
		GatewayWireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
	}
	o := &overlayOf{dev: here, v4: m.OverlayV4, v6: m.OverlayV6}
	n.publishOverlay(here)
	follow := func() {
		t.Helper()
		hereHost.Do(t, func() (err error) {
			o, err = n.follow(o, m)
			return err
		})
	}
	follow()
	if len(n.greets) != 0 {
		t.Fatal("peers that are new are greeted")
	}
	hereHost.Do(t, func() error {
		greetPeers(netip.MustParseAddr("10.42.1.3"))
		return nil
	})
	eventually("a session", shaken)

	restart()
	public := other.Public()
	n.hearOther(announce.Node{Key: public[:], Stamp: announce.Stamp{Boot: 6}})
	follow()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		hereHost.Do(t, func() error { return n.keepGreeting(ctx) })
	}()
	defer func() { stop(); <-ended }()
	eventually("another session", shaken)
}
