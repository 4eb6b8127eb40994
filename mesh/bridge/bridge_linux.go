// Package bridge makes the kernel's bridges that HALO puts ports into, and puts them
// there: br0, the network of a device's clients, and br-mesh, which extends the mesh
// to ports that people have bridged into it. What a bridge is called, and who it is
// for, is the caller's.
package bridge

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Config says how a bridge is to be.
type Config struct {
	Name string
	MAC  net.HardwareAddr // does not change with the ports
	// Snooping hands multicast to the ports whose hosts have asked for the group
	// (RFC 4541), and to the device itself, and has the bridge ask them. Without it, all
	// goes to all.
	Snooping bool
	// SpanningTree finds loops among the ports, at the cost of some seconds before a
	// port carries. Without it, a port carries at once.
	SpanningTree bool
}

const (
	// spanningDelay is the least that the kernel takes with a spanning tree, in
	// hundredths of a second (BR_MIN_FORWARD_DELAY).
	spanningDelay = 200
	// respond is within which time hosts answer what groups they want, in hundredths
	// of a second. The default of 10 s keeps links calm that have hundreds of hosts;
	// until it has passed after a start, multicast goes to all.
	respond = 200
)

// Whether a bridge is a multicast router (MDB_RTR_TYPE_…, linux/if_bridge.h).
const (
	routerBySigns = 1
	routerAlways  = 2
)

// Ensure makes the bridge, or corrects the one that is there. It does not bring it
// up.
func Ensure(c Config) (netlink.Link, error) {
	link, err := netlink.LinkByName(c.Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		if err := set(c, nil); err != nil {
			return nil, fmt.Errorf("make %s: %w; is the module bridge missing?", c.Name, err)
		}
		link, err = netlink.LinkByName(c.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", c.Name, err)
	}
	if link.Type() != "bridge" {
		return nil, fmt.Errorf("%s: expected a bridge, got a link of kind %s", c.Name, link.Type())
	}
	if err := set(c, link); err != nil {
		return nil, fmt.Errorf("configure %s: %w", c.Name, err)
	}
	return link, nil
}

// set makes the bridge, or changes the one that is given.
func set(c Config, have netlink.Link) error {
	flags, info := unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, nl.NewIfInfomsg(unix.AF_UNSPEC)
	if have != nil {
		flags, info.Index = unix.NLM_F_ACK, int32(have.Attrs().Index)
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, flags)
	req.AddData(info)
	if have == nil {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(c.Name)))
	}
	if have == nil || have.Attrs().HardwareAddr.String() != c.MAC.String() {
		req.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, c.MAC))
	}
	kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	kind.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := kind.AddRtAttr(unix.IFLA_INFO_DATA, nil)
	delay := uint32(0)
	if c.SpanningTree {
		delay = spanningDelay
	}
	// The kernel takes no delay of 0 while there is a spanning tree, and has ports
	// learn for the delay even without one.
	if !c.SpanningTree && have != nil {
		data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	} else {
		data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(delay))
		data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(flag(c.SpanningTree)))
	}
	data.AddRtAttr(nl.IFLA_BR_MCAST_SNOOPING, nl.Uint8Attr(uint8(flag(c.Snooping))))
	data.AddRtAttr(nl.IFLA_BR_MCAST_QUERY_USE_IFADDR, nl.Uint8Attr(uint8(flag(c.Snooping)))) // hosts may ignore a question from 0.0.0.0
	if c.Snooping {
		data.AddRtAttr(nl.IFLA_BR_MCAST_QUERY_RESPONSE_INTVL, nl.Uint64Attr(respond))
	}
	// The device hears all, as a multicast router does: what it has joined itself the
	// bridge would forget, since the kernel takes the bridge's question under the device's
	// own address for a forgery.
	router := uint8(routerBySigns)
	if c.Snooping {
		router = routerAlways
	}
	data.AddRtAttr(nl.IFLA_BR_MCAST_ROUTER, nl.Uint8Attr(router))
	if have != nil { // the kernel would not look at the time to respond before this, if both came at once
		data.AddRtAttr(nl.IFLA_BR_MCAST_QUERIER, nl.Uint8Attr(uint8(flag(c.Snooping))))
	}
	req.AddData(kind)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func flag(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}

// Remove removes the bridge; its ports are nobody's then. One that is not there is
// no error.
func Remove(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// Ports puts interfaces into the bridge of that name.
type Ports string

// Enslave makes the interface a port of the bridge. One that is it already stays so;
// one that belongs to something else is an error.
func (p Ports) Enslave(iface string) error {
	bridge, err := netlink.LinkByName(string(p))
	if err != nil {
		return fmt.Errorf("find %s: %w", p, err)
	}
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find %s: %w", iface, err)
	}
	switch master := link.Attrs().MasterIndex; master {
	case bridge.Attrs().Index:
		return nil
	case 0:
	default:
		return fmt.Errorf("%s: expected it to belong to nothing, or to %s, got interface %d", iface, p, master)
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("put %s into %s: %w", iface, p, err)
	}
	return nil
}

// Holds tells whether the interface is a port of the bridge.
func (p Ports) Holds(iface string) (bool, error) {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return false, fmt.Errorf("find %s: %w", iface, err)
	}
	bridge, err := netlink.LinkByName(string(p))
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find %s: %w", p, err)
	}
	return link.Attrs().MasterIndex == bridge.Attrs().Index, nil
}

// Release takes the interface out of the bridge. One that is not in it is no error.
func (p Ports) Release(iface string) error {
	bridge, err := netlink.LinkByName(string(p))
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", p, err)
	}
	link, err := netlink.LinkByName(iface)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", iface, err)
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		return nil
	}
	if err := netlink.LinkSetNoMaster(link); err != nil {
		return fmt.Errorf("take %s out of %s: %w", iface, p, err)
	}
	return nil
}
