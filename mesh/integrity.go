package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/iface"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// eventBatMended tells that the mesh interface has again what somebody had taken from it:
// fields iface and what.
const eventBatMended = "mesh.bat0.mended"

// Times of the integrity of the mesh interface.
const (
	integritySettle = 100 * time.Millisecond // after a change, for more of them
	// Whoever takes the same again and again is not fought without end.
	integrityPause   = time.Second // from what was mended, or was not, to the next look; doubles
	integrityLongest = time.Minute // and is the least again after so long
)

// integrity keeps what the mesh interface needs beside being there: it is up, has the
// device's addresses and all ports that carry the mesh. Somebody's mistake takes them, or a
// driver's, and whoever uses them would see no more than that nobody answers.
type integrity struct {
	index      int                 // of bat0
	bat, iface string              // bat0, and what has its addresses
	addresses  func() []netip.Addr // that it has to have now
	mend       func() error        // has it be up, with its addresses
	ports      interface{ mend() ([]string, error) }
	harm       func(error) // gets what is wrong and could not be mended, or nil
	notify     func(model.Event)
	log        *slog.Logger
}

// run goes by what the kernel tells of changes, until ctx ends.
func (g *integrity) run(ctx context.Context) {
	told := make(chan struct{}, 1)
	follows := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer func() { cancel(); <-follows }()
	go func() {
		defer close(follows)
		for ctx.Err() == nil {
			if err := iface.Told(ctx, func() { wake(told) }); err != nil {
				g.log.Warn("changes of the mesh interface are not heard", "iface", g.iface, "err", err)
			}
			rest(ctx, retryUnderlay)
		}
	}()
	var pace backOff
	var again <-chan time.Time
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-again:
		}
		rest(ctx, integritySettle)
		again = nil
		mended, err := g.look()
		if ctx.Err() != nil {
			return
		}
		g.harm(err)
		if len(mended) > 0 {
			what := strings.Join(mended, ", ")
			g.notify(model.Event{Kind: eventBatMended, Severity: model.Warning, Message: "the mesh interface had lost what it needs, and has it again: " + what,
				Fields: map[string]string{"iface": g.iface, "what": what}})
		}
		text := ""
		if err != nil {
			text = err.Error()
			if text != failed {
				g.notify(model.Event{Kind: "mesh.bat0.failed", Severity: model.Error, Message: "the mesh interface does not work: " + text})
			}
		}
		if failed = text; err != nil || len(mended) > 0 {
			rest(ctx, pace.next(time.Now()))
		}
		if err != nil {
			again = time.After(0)
		}
	}
}

// rest waits for so long, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// backOff is how long to wait after something was mended.
type backOff struct {
	last time.Time
	wait time.Duration
}

func (b *backOff) next(now time.Time) time.Duration {
	long := b.wait == 0 || now.Sub(b.last) > b.wait+integrityLongest
	if b.wait = min(2*b.wait, integrityLongest); long {
		b.wait = integrityPause
	}
	b.last = now
	return b.wait
}

// look mends what is wrong, and returns what that was. Without bat0 itself nothing is: all
// is made anew then, see guardBat.
func (g *integrity) look() (mended []string, err error) {
	bat, err := netlink.LinkByIndex(g.index)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("underlay: find %s: %w", g.bat, err)
	}
	lost, err := g.lost(bat)
	if err != nil {
		return nil, err
	}
	if len(lost) > 0 {
		if err := g.mend(); err != nil {
			return nil, fmt.Errorf("underlay: %s is without %s: %w", g.iface, strings.Join(lost, ", "), err)
		}
	}
	ports, err := g.ports.mend()
	return append(lost, ports...), err
}

// lost returns what the interface does not have.
func (g *integrity) lost(bat netlink.Link) (list []string, err error) {
	link := bat
	if g.iface != g.bat {
		link, err = netlink.LinkByName(g.iface)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			return []string{g.iface}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("underlay: find %s: %w", g.iface, err)
		}
		if bat.Attrs().MasterIndex != link.Attrs().Index {
			list = append(list, g.bat+" in "+g.iface)
		}
		if bat.Attrs().Flags&net.FlagUp == 0 {
			list = append(list, g.bat+" up")
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		list = append(list, g.iface+" up")
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return list, nil // that was a change, which is told as well
	}
	if err != nil {
		return nil, fmt.Errorf("underlay: addresses of %s: %w", g.iface, err)
	}
	there := map[netip.Addr]bool{}
	for _, a := range have {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			there[ip.Unmap()] = true
		}
	}
	for _, a := range g.addresses() {
		if !there[a] {
			list = append(list, "address "+a.String())
		}
	}
	return list, nil
}

// integrity is that of a board's mesh interface.
func (u *batUnderlay) integrity(bat *batman.Mesh, ports *carried) *integrity {
	return &integrity{
		index: ports.index, bat: paths.BatIface, iface: underlayIface(u.Bundle), addresses: u.addresses, ports: ports,
		mend: func() error { return u.restoreAddresses(bat) },
		harm: func(err error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.harm = err
		},
		notify: u.Notify, log: u.Log,
	}
}

// addresses are those that the mesh interface has to have now; none while they come or go.
func (u *batUnderlay) addresses() []netip.Addr {
	u.mu.Lock()
	defer u.mu.Unlock()
	own := identity.Underlay(u.Network, u.Key.Public())
	switch {
	case u.Bundle.Role != model.RoleGateway:
		return []netip.Addr{own}
	case u.aside || u.amiss:
		return nil
	}
	return []netip.Addr{own, paths.UnderlayGateway}
}

// restoreAddresses has the mesh interface be up, in its bridge if there is one, with the
// addresses that it has to have.
func (u *batUnderlay) restoreAddresses(bat *batman.Mesh) error {
	u.placing.Lock()
	defer u.placing.Unlock()
	aside, name, mac := u.isAside(), underlayIface(u.Bundle), batman.MAC(u.Key.Public(), u.Turn)
	own := identity.Underlay(u.Network, u.Key.Public())
	link, err := netlink.LinkByName(paths.BatIface)
	if err != nil {
		return fmt.Errorf("underlay: find %s: %w", paths.BatIface, err)
	}
	if n := u.Bundle.Bridged(); n > 0 {
		bridged := mac
		if aside {
			bridged = batman.Aside(mac)
		}
		if err := freed(link, name); err != nil {
			return err
		}
		if err := BridgeUnderlay(bridged, n); err != nil {
			return err
		}
	}
	for _, name := range []string{paths.BatIface, name} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("underlay: bring up %s: %w", name, err)
		}
	}
	if u.Bundle.Role == model.RoleGateway {
		return PlaceGateway(bat, name, mac, own, aside)
	}
	return AddressUnderlay(name, own)
}

// freed takes a link out of whatever it is in, but for the interface of that name.
func freed(link netlink.Link, but string) error {
	master := link.Attrs().MasterIndex
	if master == 0 {
		return nil
	}
	if is, err := netlink.LinkByName(but); err == nil && is.Attrs().Index == master {
		return nil
	}
	if err := netlink.LinkSetNoMaster(link); err != nil {
		return fmt.Errorf("underlay: take %s out of interface %d: %w", link.Attrs().Name, master, err)
	}
	return nil
}
