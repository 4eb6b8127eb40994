package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/overlay"
	"halo.internal/model/paths"
)

// protocol marks the routes that hold packets to limits, so that those of an earlier
// process can be told from others (rtnetlink(7); iproute2 knows no such number).
const protocol = 72

// outside is an address that nobody has (TEST-NET-1, RFC 5737): the kernel is asked
// for its way there, and nothing is sent.
var outside = net.IPv4(192, 0, 2, 1)

// readOutlook asks the kernel where traffic for outside goes.
func readOutlook(own Own) (outlook, error) {
	o := outlook{
		overlay: paths.OverlayIface, metric: overlay.Metric, wanted: own.Routes,
		halo: []string{paths.OverlayIface, paths.BatIface, paths.MeshBridge, paths.ClientBridge},
		nets: []netip.Prefix{paths.OverlayNet, paths.UnderlayNet, paths.ClientsNet},
	}
	links, err := netlink.LinkList()
	if err != nil {
		return o, fmt.Errorf("interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	ours := len(o.halo)
	for _, l := range links { // what carries the mesh or leads to clients is HALO's too
		if m := names[l.Attrs().MasterIndex]; slices.Contains(o.halo[:ours], m) {
			o.halo = append(o.halo, l.Attrs().Name)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return o, fmt.Errorf("routes: %w", err)
		}
		for _, r := range list {
			o.routes = append(o.routes, entryOf(r, family, names))
		}
	}
	rules, err := netlink.RuleList(netlink.FAMILY_V4)
	if err != nil {
		return o, fmt.Errorf("rules: %w", err)
	}
	for _, r := range rules {
		e := ruleEntry{priority: r.Priority, table: r.Table, iif: r.IifName, words: r.String(), raw: r}
		if e.priority < 0 {
			e.priority = 0 // the kernel leaves it out
		}
		if r.Src != nil {
			e.from, _ = prefixOf(r.Src)
		}
		o.rules = append(o.rules, e)
	}
	leads := leadsTo(&netlink.RouteGetOptions{SrcAddr: own.V4.AsSlice()}, names)
	o.leads = &leads
	if own.Clients.IsValid() {
		if _, err := net.InterfaceByName(paths.ClientBridge); err == nil {
			// Nowhere is no answer here: a bridge without a port is down.
			if way := leadsTo(&netlink.RouteGetOptions{SrcAddr: own.Clients.Addr().Next().Next().AsSlice(), Iif: paths.ClientBridge}, names); way != "" {
				o.clients = &way
			}
		}
	}
	return o, nil
}

// leadsTo returns the interface through which the kernel sends what is for outside.
func leadsTo(q *netlink.RouteGetOptions, names map[int]string) string {
	list, err := netlink.RouteGetWithOptions(outside, q)
	if err != nil || len(list) == 0 {
		return ""
	}
	return names[list[0].LinkIndex]
}

func entryOf(r netlink.Route, family int, names map[int]string) routeEntry {
	e := routeEntry{iface: names[r.LinkIndex], metric: r.Priority, mtu: r.MTU, raw: r}
	switch r.Type {
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
		e.dead = true
	}
	e.dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if family == netlink.FAMILY_V6 {
		e.dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if r.Dst != nil {
		if p, ok := prefixOf(r.Dst); ok {
			e.dst = p
		}
	}
	return e
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, false
	}
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, ones), true
}

func netOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// mend does what a fault needs. mtu is to what packets of the route that is put back
// are held, 0 for none.
func mend(f routeFault, mtu int) error {
	switch f.remedy {
	case remedyPut:
		return putRoute(paths.OverlayIface, f.dst, mtu, unix.RTPROT_STATIC)
	case remedyRoute:
		r := f.raw.(netlink.Route)
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("take out route to %s: %w", f.dst, err)
		}
	case remedyRule:
		r := f.raw.(netlink.Rule)
		if err := netlink.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("take out rule: %w", err)
		}
	}
	return nil
}

// putRoute makes or changes a route.
func putRoute(iface string, dst netip.Prefix, mtu, protocol int) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find %s: %w", iface, err)
	}
	r := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: netOf(dst), Priority: overlay.Metric,
		Protocol: netlink.RouteProtocol(protocol), MTU: mtu, MTULock: mtu > 0,
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("route to %s through %s: %w", dst, iface, err)
	}
	return nil
}

func dropRoute(iface string, dst netip.Prefix) error {
	link, err := netlink.LinkByName(iface)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil // and its routes with it
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", iface, err)
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: netOf(dst), Priority: overlay.Metric, Protocol: protocol}
	if err := netlink.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("take out route to %s through %s: %w", dst, iface, err)
	}
	return nil
}

// apply holds packets to a peer to limits, or ends that: by routes of its own for
// the networks behind it, and for the address by which the overlay reaches it at the
// interface underlay. Those networks that the overlay has a route to anyway keep it,
// with the limit.
func apply(own Own, p Peer, underlay string, l limits) error {
	var errs error
	for _, n := range p.Nets {
		switch base := slices.Contains(own.Routes, n); {
		case base:
			errs = errors.Join(errs, putRoute(paths.OverlayIface, n, l.overlay, unix.RTPROT_STATIC))
		case l.overlay > 0:
			errs = errors.Join(errs, putRoute(paths.OverlayIface, n, l.overlay, protocol))
		default:
			errs = errors.Join(errs, dropRoute(paths.OverlayIface, n))
		}
	}
	under := netip.PrefixFrom(p.Underlay, p.Underlay.BitLen())
	if l.underlay > 0 {
		return errors.Join(errs, putRoute(underlay, under, l.underlay, protocol))
	}
	return errors.Join(errs, dropRoute(underlay, under))
}

// limitsKept are the limits that the doctor's routes have, by the networks that they lead to.
type limitsKept map[netip.Prefix]int

// limitRoutes reads them.
func limitRoutes() (limitsKept, error) {
	kept := limitsKept{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range list {
			e := entryOf(r, family, nil)
			kept[e.dst] = e.mtu
		}
	}
	return kept, nil
}

// hold tells whether they hold packets to a peer to limits. Of networks that the overlay
// has a route to anyway lookAtRoutes sees that it has its limit.
func (k limitsKept) hold(own Own, p Peer, l limits) bool {
	for _, n := range p.Nets {
		if l.overlay > 0 && !slices.Contains(own.Routes, n) && k[n.Masked()] != l.overlay {
			return false
		}
	}
	return l.underlay == 0 || k[netip.PrefixFrom(p.Underlay, p.Underlay.BitLen())] == l.underlay
}

// sweep takes out what an earlier process held packets to: this one does not know
// why.
func sweep() error {
	var errs error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return fmt.Errorf("routes: %w", err)
		}
		for _, r := range list {
			if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = errors.Join(errs, fmt.Errorf("take out route to %s: %w", r.Dst, err))
			}
		}
	}
	return errs
}

// mtuOf returns an interface's MTU.
func mtuOf(iface string) (int, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return 0, fmt.Errorf("interface %s: %w", iface, err)
	}
	return ifi.MTU, nil
}
