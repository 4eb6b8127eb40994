package doctor

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
	"halo.internal/model/paths"
)

// TestLimitsOutliveAnInterfaceThatWasDown: the kernel takes its routes out, and nobody
// makes the interface anew by which the doctor would hear of it.
func TestLimitsOutliveAnInterfaceThatWasDown(t *testing.T) {
	nstest.Cable(t, paths.OverlayIface, "far-wg")
	nstest.Cable(t, paths.BatIface, "far-bat")
	d, _ := newTestDoctor(t, &batman{})
	d.Iface = paths.BatIface
	everything := netip.MustParsePrefix("10.43.0.0/16")
	own := Own{V4: netip.MustParseAddr("10.42.1.2"), Routes: []netip.Prefix{everything}}
	held := Peer{
		Node: "held", Fresh: time.Now(), Underlay: netip.MustParseAddr("fd00:1::7"),
		Nets: []netip.Prefix{everything, netip.MustParsePrefix("10.42.1.7/32"), netip.MustParsePrefix("fd00:2::7/128")},
	}
	free := Peer{Node: "free", Fresh: time.Now(), Underlay: netip.MustParseAddr("fd00:1::8"), Nets: []netip.Prefix{netip.MustParsePrefix("10.42.1.8/32")}}
	d.admit(own, []Peer{held, free}, time.Now())
	l := limits{overlay: 1300, underlay: 1400}
	d.patients["held"].limits = l
	holds := func() (routes int, all bool) {
		t.Helper()
		kept, err := limitRoutes()
		if err != nil {
			t.Fatal(err)
		}
		return len(kept), kept.hold(own, held, l)
	}
	d.holdAgain(own)
	if n, all := holds(); !all || n != 3 {
		t.Fatalf("%d routes, which hold packets to all limits: %v; want 3", n, all)
	}
	for _, name := range []string{paths.OverlayIface, paths.BatIface} {
		link := nstest.Link(t, name)
		if err := netlink.LinkSetDown(link); err != nil {
			t.Fatal(err)
		}
		if _, all := holds(); all {
			t.Fatalf("%s is down, and has its routes: this test proves nothing", name)
		}
		d.holdAgain(own) // there is no way yet
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
		d.holdAgain(own)
		if n, all := holds(); !all || n != 3 {
			t.Errorf("after %s was down: %d routes, which hold packets to all limits: %v; want 3", name, n, all)
		}
	}
}
