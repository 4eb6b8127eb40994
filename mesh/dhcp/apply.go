package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// configure puts s on the port in place of what old says (nil: of any IPv4
// address that is there). The kernel drops the address by itself after the
// duration, should this process not live to do so; zero is for ever.
func (c *Client) configure(iface string, old *settings, s settings, d time.Duration) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find port %s: %w", iface, err)
	}
	if err := removeOthers(link, old, s.Address); err != nil {
		return fmt.Errorf("port %s: %w", iface, err)
	}
	// The kernel would add the network's route with metric 0; it is added below
	// with ours.
	addr := &netlink.Addr{IPNet: ipNet(s.Address), Flags: unix.IFA_F_NOPREFIXROUTE, ValidLft: int(d.Seconds()), PreferedLft: int(d.Seconds())}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("port %s: address %s: %w", iface, s.Address, err)
	}
	if old != nil && old.Router.IsValid() && !s.Router.IsValid() {
		if err := gone(netlink.RouteDel(defaultRoute(link, *old))); err != nil {
			return fmt.Errorf("port %s: remove default route: %w", iface, err)
		}
	}
	for _, r := range routes(link, s) {
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("port %s: route %s: %w", iface, r, err)
		}
	}
	return c.resolv.set(iface, s.DNS)
}

// withdraw takes away what configure set. A port that was unplugged took it
// along.
func (c *Client) withdraw(iface string, s settings) error {
	errs := c.resolv.set(iface, nil)
	link, err := netlink.LinkByName(iface)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return errs
	}
	if err != nil {
		return errors.Join(errs, fmt.Errorf("find port %s: %w", iface, err))
	}
	for _, r := range routes(link, s) {
		errs = errors.Join(errs, gone(netlink.RouteDel(r)))
	}
	return errors.Join(errs, gone(netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(s.Address)})))
}

// removeOthers clears the port of addresses that are not to stay: its own, or
// those of an earlier run.
func removeOthers(link netlink.Link, old *settings, stays netip.Prefix) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, _ := netip.AddrFromSlice(a.IP.To4())
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(ip, ones)
		if p == stays || old != nil && p != old.Address {
			continue
		}
		if err := gone(netlink.AddrDel(link, &a)); err != nil {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	return nil
}

func routes(link netlink.Link, s settings) []*netlink.Route {
	list := []*netlink.Route{{
		LinkIndex: link.Attrs().Index, Dst: ipNet(s.Address.Masked()), Src: s.Address.Addr().AsSlice(),
		Scope: netlink.SCOPE_LINK, Priority: metric(link), Protocol: unix.RTPROT_DHCP,
	}}
	if s.Router.IsValid() {
		list = append(list, defaultRoute(link, s))
	}
	return list
}

func defaultRoute(link netlink.Link, s settings) *netlink.Route {
	r := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		Gw: s.Router.AsSlice(), Src: s.Address.Addr().AsSlice(),
		Priority: metric(link), Protocol: unix.RTPROT_DHCP,
	}
	if !s.Address.Contains(s.Router) { // some networks give each host a prefix of its own
		r.SetFlag(netlink.FLAG_ONLINK)
	}
	return r
}

// metric differs between ports: routes that are equal in destination and metric
// replace each other.
func metric(link netlink.Link) int { return Metric + link.Attrs().Index }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

// gone makes no error of what is not there any more.
func gone(err error) error {
	for _, missing := range []error{unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENODEV, unix.ENETDOWN} {
		if errors.Is(err, missing) {
			return nil
		}
	}
	return err
}
