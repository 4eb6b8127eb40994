package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/batman"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Kinds of events about another gateway with the network's key.
const (
	eventTwin     = "gateway.twin"      // fields epoch and stands_down of this one; of a node: peer and epoch
	eventTwinGone = "gateway.twin-gone" // field stands_down: whether this one had stood down
)

// twinAdvice is what to do about two cards that are in use at once.
const twinAdvice = "Two cards of this network's gateway are in use: switch one of the two off"

// rank is what speaks for this gateway where there is another with its key.
func (g *gateway) rank() announce.Standing {
	g.mu.Lock()
	known, wg := len(g.known.Peers) > 0, g.wg
	ids := make([]string, len(g.known.Peers)) // of nodes: that somebody visits says nothing
	for i, p := range g.known.Peers {
		ids[i] = p.Node
	}
	g.mu.Unlock()
	if wg != nil {
		if status, err := wg.Handshakes(); err == nil && len(lately(ids, status, handshakeStale)) > 0 {
			return announce.StandingServes
		}
	}
	if known {
		return announce.StandingKnown
	}
	return announce.StandingNew
}

// met is told when another gateway is found or gone, and when this one stands down or
// serves again.
func (g *gateway) met(t announce.Twinned) {
	wake(g.placeNow)
	wake(g.serveNow)
	if t.Other == nil {
		g.events.Add(eventTwinGone, model.Warning, "the other gateway with this one's key is not on the air any more; this one serves the network")
		return
	}
	message := fmt.Sprintf("another gateway with this one's key is on the air, with epoch %d, and stands down for this one. %s", t.Other.Epoch, twinAdvice)
	if t.Aside {
		message = g.standsDown(t)
	}
	g.events.Add(eventTwin, model.Error, message, "epoch", fmt.Sprint(t.Other.Epoch), "stands_down", fmt.Sprint(t.Aside))
}

func (g *gateway) standsDown(t announce.Twinned) string {
	return fmt.Sprintf("another gateway with this one's key is on the air, with epoch %d, and serves the network; this one stands down. %s. "+
		"If this one is to replace the other, switch the other off: this one serves by itself when the other has been silent for %s", t.Other.Epoch, twinAdvice, g.AnnounceTiming.WithDefaults().TakeOver)
}

// watchTwin is what health says of another gateway; empty: nothing.
func (g *gateway) watchTwin() string {
	t := g.voice.Twinned()
	if t.Other == nil || !t.Aside { // the one that serves lacks nothing
		return ""
	}
	return g.standsDown(t)
}

func (g *gateway) twinStatus() *model.GatewayTwin {
	t := g.voice.Twinned()
	if t.Other == nil {
		return nil
	}
	return &model.GatewayTwin{StandsDown: t.Aside, Epoch: t.Other.Epoch, Heard: t.Other.Heard.UTC()}
}

// stoodDown is the file "stood-down": this gateway has stood down for another one. It
// is there as long as that holds, so that it still does after a start of both, when
// nothing else would tell which of the two the nodes are with.
type stoodDown struct {
	Epoch uint64 `json:"epoch"` // of the other one
}

// loadStanding has the gateway begin as one that has stood down, if it had.
func (g *gateway) loadStanding() {
	var s stoodDown
	_, err := g.store.Get(paths.StoodDown, paths.VaultStoodDown, func(b []byte) error {
		s = stoodDown{}
		return json.Unmarshal(b, &s)
	})
	switch {
	case err == nil:
		g.voice.StandDown(s.Epoch)
		g.asideKept = true
		g.Log.Info("this gateway had stood down for another one, and looks for that first", "epoch", s.Epoch)
	case !errors.Is(err, fs.ErrNotExist):
		g.Log.Warn("whether this gateway had stood down for another one is damaged", "err", err)
	}
}

// keepStanding has the card hear of it when the gateway stands down, or serves again.
func (g *gateway) keepStanding(t announce.Twinned) error {
	if t.Aside == g.asideKept {
		return nil
	}
	if t.Aside {
		b, err := json.Marshal(stoodDown{t.Other.Epoch})
		if err != nil {
			panic("mesh: stood down: " + err.Error()) // a text and a number
		}
		kept, err := g.store.Put(paths.StoodDown, paths.VaultStoodDown, b)
		g.asideKept = kept
		return err
	}
	err := g.store.Remove(paths.StoodDown, paths.VaultStoodDown)
	g.asideKept = err != nil
	return err
}

// keepPlace has the gateway's addresses on the mesh while it serves, and the card know
// whether it does, until ctx ends.
func (g *gateway) keepPlace(ctx context.Context) error {
	for {
		var again <-chan time.Time
		t := g.voice.Twinned()
		if err := g.under.Aside(t.Aside); err != nil {
			g.Log.Error("the gateway's addresses on the mesh are not as they should be", "err", err)
			again = time.After(retryUnderlay)
		}
		if err := g.keepStanding(t); err != nil {
			g.Log.Error("whether this gateway has stood down is not kept in both places", "err", err)
			again = time.After(retryUnderlay)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.placeNow:
		case <-again:
		}
	}
}

// mostTwins bounds how many other gateways a node tells of in one run.
const mostTwins = 16

// twin tells, once, of a living gateway beside the one that the node has.
func (n *node) twin(other announce.Gateway) {
	n.mu.Lock()
	told := n.twins[other.Instance] || len(n.twins) >= mostTwins
	if !told {
		if n.twins == nil {
			n.twins = map[uint64]bool{}
		}
		n.twins[other.Instance] = true
	}
	n.mu.Unlock()
	if !told {
		n.events.Add(eventTwin, model.Warning, "another gateway of this network answers as well; this node stays with the one that it has. "+twinAdvice,
			"peer", n.net.ID(), "epoch", fmt.Sprint(other.Stamp.Epoch))
	}
}

// Aside of a board: bat0 gets another hardware address too, or routing would send to
// whichever of two gateways is nearer what is for the other.
func (u *batUnderlay) Aside(aside bool) error {
	u.mu.Lock()
	due := (u.aside != aside || u.amiss) && u.bat != nil // without it, it is done when there is one
	u.aside, u.amiss = aside, due
	u.mu.Unlock()
	if !due {
		return nil
	}
	err := u.place()
	u.mu.Lock()
	u.amiss = err != nil
	u.mu.Unlock()
	return err
}

func (u *batUnderlay) isAside() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.aside
}

// place makes the gateway's addresses come or go.
func (u *batUnderlay) place() error {
	u.placing.Lock()
	defer u.placing.Unlock()
	u.mu.Lock()
	aside, bat := u.aside, u.bat
	u.mu.Unlock()
	if bat == nil || u.Bundle.Role != model.RoleGateway {
		return nil
	}
	return PlaceGateway(bat, underlayIface(u.Bundle), batman.MAC(u.Key.Public(), u.Turn), identity.Underlay(u.Network, u.Key.Public()), aside)
}

// PlaceGateway gives the interface the gateway's addresses on the mesh, or takes them
// from it, where another gateway has them. In either case it can be heard.
func PlaceGateway(bat *batman.Mesh, iface string, mac net.HardwareAddr, addr netip.Addr, aside bool) error {
	if aside {
		return errors.Join(LeaveUnderlay(iface, addr), bat.SetGateway(batman.GatewayClient), readdress(iface, batman.Aside(mac)))
	}
	return errors.Join(bat.SetGateway(batman.GatewayServer), readdress(iface, mac), AddressUnderlay(iface, addr), addressGateway(iface))
}

// LeaveUnderlay takes a gateway's addresses off the interface. What is left is
// link-local, and enough to be heard by.
func LeaveUnderlay(iface string, addr netip.Addr) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("underlay: find %s: %w", iface, err)
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("underlay: addresses of %s: %w", iface, err)
	}
	for _, a := range list {
		if ip, _ := netip.AddrFromSlice(a.IP); ip.Unmap() == addr || ip.Unmap() == paths.UnderlayGateway {
			if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("underlay: remove address %s of %s: %w", a.IPNet, iface, err)
			}
		}
	}
	return nil
}

// readdress gives bat0, and the bridge above it if there is one, a hardware address,
// and the link-local address that goes with it: the kernel keeps that of before.
func readdress(iface string, mac net.HardwareAddr) error {
	for _, name := range []string{paths.BatIface, iface} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("underlay: find %s: %w", name, err)
		}
		if link.Attrs().HardwareAddr.String() == mac.String() {
			continue
		}
		if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("underlay: give %s the address %s: %w", name, mac, err)
		}
	}
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("underlay: find %s: %w", iface, err)
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_V6)
	if err != nil {
		return fmt.Errorf("underlay: addresses of %s: %w", iface, err)
	}
	// RFC 4291, appendix A. Nobody else on the mesh has this hardware address.
	want := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
	own := &netlink.Addr{IPNet: &net.IPNet{IP: want.AsSlice(), Mask: net.CIDRMask(64, 128)}, Scope: unix.RT_SCOPE_LINK, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrReplace(link, own); err != nil {
		return fmt.Errorf("underlay: address %s on %s: %w", want, iface, err)
	}
	for _, a := range list {
		if ip, _ := netip.AddrFromSlice(a.IP); ip.IsLinkLocalUnicast() && ip != want {
			if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
				return fmt.Errorf("underlay: remove address %s of %s: %w", a.IPNet, iface, err)
			}
		}
	}
	return nil
}
