package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
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

// eventBatDegraded tells that ports or radios are not in the mesh interface any more, and
// could not be put back.
const eventBatDegraded = "mesh.bat0.degraded"

// Times of the integrity of the mesh interface.
const (
	integritySettle = 100 * time.Millisecond // after a change, for more of them
	// Whoever takes the same again and again is not fought without end. What else is lost
	// meanwhile does not wait.
	integrityPause   = time.Second // from what was mended, or was not, until it is again; doubles
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
	ports      interface {
		mend(now time.Time) (mended []string, rest time.Duration, err error)
	}
	harm   func(bat, ports error) // gets what is wrong and could not be mended, or nil
	notify func(model.Event)
	log    *slog.Logger

	pace  backOff // of what bat0 itself has lost
	lacks error   // that it could not be given, when that was tried last
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
	var again <-chan time.Time
	failed, degraded := "", ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-told:
		case <-again:
		}
		rest(ctx, integritySettle)
		is := g.look()
		if ctx.Err() != nil {
			return
		}
		g.harm(is.bat, is.ports)
		if len(is.mended) > 0 {
			what := strings.Join(is.mended, ", ")
			g.notify(model.Event{Kind: eventBatMended, Severity: model.Warning, Message: "the mesh interface had lost what it needs, and has it again: " + what,
				Fields: map[string]string{"iface": g.iface, "what": what}})
		}
		if text := textOf(is.bat); text != failed {
			if failed = text; text != "" {
				g.notify(model.Event{Kind: "mesh.bat0.failed", Severity: model.Error, Message: "the mesh interface does not work: " + text})
			}
		}
		if text := textOf(is.ports); text != degraded {
			if degraded = text; text != "" {
				g.notify(model.Event{Kind: eventBatDegraded, Severity: model.Warning, Message: "the mesh interface works with less: " + text})
			}
		}
		if again = nil; is.rest > 0 {
			again = time.After(is.rest)
		}
	}
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
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

// left is how much of that is left; 0: it has passed.
func (b *backOff) left(now time.Time) time.Duration {
	return max(0, b.last.Add(b.wait).Sub(now))
}

// looked is what a look has come to.
type looked struct {
	mended []string
	bat    error         // what bat0 itself has lost and was not given back
	ports  error         // which ports and radios could not be put back
	rest   time.Duration // until something is to be looked at, whatever happens; 0: nothing is
}

// look mends what is wrong. Without bat0 itself nothing is: all is made anew then, see
// guardBat.
func (g *integrity) look() (is looked) {
	is.mended, is.bat = g.own()
	ports, rest, err := g.ports.mend(time.Now())
	is.mended, is.ports, is.rest = append(is.mended, ports...), err, sooner(rest, g.pace.left(time.Now()))
	if (is.bat != nil || is.ports != nil) && g.gone() { // it went meanwhile
		return looked{}
	}
	return is
}

// gone tells whether there is no bat0 any more.
func (g *integrity) gone() bool {
	_, err := netlink.LinkByIndex(g.index)
	_, gone := errors.AsType[netlink.LinkNotFoundError](err)
	return gone
}

// sooner returns the shorter of two times, of which 0 is none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// own mends bat0 itself.
func (g *integrity) own() (mended []string, err error) {
	lost, err := g.lost()
	if err != nil {
		lost, err = g.lost() // the kernel may have been short of something for a moment
	}
	if err == nil && len(lost) == 0 {
		g.lacks = nil
		return nil, nil
	}
	if g.pace.left(time.Now()) > 0 {
		return nil, g.lacks
	}
	if err == nil {
		if err = g.mend(); err != nil {
			err = fmt.Errorf("underlay: %s is without %s: %w", g.iface, strings.Join(lost, ", "), err)
			lost = nil
		}
	}
	g.lacks = err
	g.pace.next(time.Now())
	return lost, err
}

// lost returns what the interface does not have.
func (g *integrity) lost() (list []string, err error) {
	bat, err := netlink.LinkByIndex(g.index)
	if err != nil {
		return nil, fmt.Errorf("underlay: find %s: %w", g.bat, err)
	}
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
	wanted := g.addresses()
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return list, nil // that was a change, which is told as well
	}
	if err != nil {
		return nil, fmt.Errorf("underlay: addresses of %s: %w", g.iface, err)
	}
	if !slices.Equal(wanted, g.addresses()) {
		return list, nil // they come or go, which is told as well
	}
	there := map[netip.Addr]bool{}
	for _, a := range have {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			there[ip.Unmap()] = true
		}
	}
	for _, a := range wanted {
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
		harm: func(bat, ports error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.harm, u.less = bat, ports
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
		_, err := netlink.LinkByName(name)
		_, anew := errors.AsType[netlink.LinkNotFoundError](err)
		if err := BridgeUnderlay(bridged, n); err != nil {
			return err
		}
		if anew {
			if err := putGuests(u.Ports()); err != nil {
				u.Log.Warn("a port of guests is not in their bridge, which was made anew; all begins anew", "err", err)
				u.beginAnew()
			}
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

// beginAnew has bat0, ports and radios begin anew.
func (u *batUnderlay) beginAnew() {
	u.mu.Lock()
	again := u.again[partAll]
	u.mu.Unlock()
	if again != nil {
		again()
	}
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
