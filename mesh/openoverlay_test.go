package mesh

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// grounded is an underlay that may carry an overlay, or not.
type grounded struct {
	*quiet
	err error
}

func (u *grounded) Ready() error { return u.err }

// groundedNode is a node with a bat0 on which nobody is, and no wg0 yet.
func groundedNode(t *testing.T) (*node, *grounded, model.Membership) {
	t.Helper()
	nstest.Cable(t, paths.BatIface, "far-bat")
	s := newSite(t, 1, 0)
	c := s.core()
	under := &grounded{quiet: s.under}
	c.id.Key, c.Role, c.under, c.Userspace = s.nodes[0], model.RoleNode, under, true
	c.keys = &overlayKey{private: s.nodes[0].WireGuard()}
	gateway := s.key.WireGuardPublic()
	m := model.Membership{
		OverlayV4: netip.MustParseAddr("10.42.1.2"), OverlayV6: identity.Overlay(c.net, s.nodes[0].Public()),
		GatewayWireGuardKey: base64.StdEncoding.EncodeToString(gateway[:]),
	}
	return &node{core: c}, under, m
}

// TestTheOverlayIsOpenedWhileItsKeyChanges: a device that was opened with the former key,
// and is not there yet for who changes it, would keep that.
func TestTheOverlayIsOpenedWhileItsKeyChanges(t *testing.T) {
	n, _, m := groundedNode(t)
	next := identity.New().WireGuard()
	n.keys.next = &next
	changed := make(chan *overlay.Device, 1)
	dev, err := n.openOverlay(m.OverlayV4, m.OverlayV6, func(dev *overlay.Device) {
		var given *overlay.Device
		go func() {
			if err := n.applyKey(next, func() *overlay.Device { given = n.overlayDevice(); return given }); err != nil {
				t.Error(err)
			}
			changed <- given
		}()
		select {
		case <-changed:
			t.Error("the key has changed, and the device that was opened with the former one was not there")
		case <-time.After(100 * time.Millisecond): // for it to do so
		}
		n.publishOverlay(dev)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if given := <-changed; given != dev || n.keys.secret() != next {
		t.Errorf("the device was given the next key: %v; it is in use: %v", given == dev, n.keys.secret() == next)
	}
}

// TestAnOverlayThatIsLost is nobody's any more, also while no other one can be opened.
func TestAnOverlayThatIsLost(t *testing.T) {
	n, under, m := groundedNode(t)
	o, err := n.follow(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	if n.overlayDevice() != o.dev {
		t.Error("it is open, and nobody has it")
	}
	if err := netlink.LinkDel(nstest.Link(t, paths.OverlayIface)); err != nil {
		t.Fatal(err)
	}
	under.err = errors.New("bat0 is made anew")
	if o, err = n.follow(o, m); o != nil || !errors.Is(err, under.err) {
		t.Fatalf("opened %v, %v", o, err)
	}
	if n.overlayDevice() != nil {
		t.Error("what was closed is in use")
	}
	under.err = nil
	if o, err = n.follow(o, m); err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if n.overlayDevice() != o.dev {
		t.Error("it is open again, and nobody has it")
	}
}
