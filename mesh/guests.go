package mesh

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/bridge"
	"halo.internal/mesh/port"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// A port that is pinned as bridge makes the hosts behind it guests of the mesh: they
// are on it as members' bat0 are, with addresses of 10.41.0.0/16 from the gateway. bat0
// is a port of br-mesh then, which has the addresses, and the hardware address, that
// bat0 has otherwise.

// underlayIface is the interface that has the underlay's addresses.
func underlayIface(b bundle.Bundle) string {
	if b.Bridged() > 0 {
		return paths.MeshBridge
	}
	return paths.BatIface
}

// guestPorts are those behind which guests may be, whether they are there or not.
func guestPorts(b bundle.Bundle) (list []string) {
	for port, role := range b.Ports {
		if role == bundle.RoleBridge {
			list = append(list, port)
		}
	}
	slices.Sort(list)
	return list
}

// BridgeUnderlay makes br-mesh, which is to have that hardware address, and bat0 a port
// of it, where some ports are bridged into the mesh; without any, it removes what an
// earlier run has left.
func BridgeUnderlay(mac net.HardwareAddr, ports int) error {
	if ports == 0 {
		return bridge.Remove(paths.MeshBridge)
	}
	_, err := bridge.Ensure(bridge.Config{
		Name: paths.MeshBridge, MAC: mac,
		// bat0 is no way for a spanning tree, which batman-adv drops: against loops through
		// the mesh there is its own avoidance. Two ports on one switch are a loop without.
		SpanningTree: ports > 1,
	})
	if err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	if err := bare(paths.BatIface); err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	if err := (bridge.Ports(paths.MeshBridge)).Enslave(paths.BatIface); err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	return nil
}

// putGuests puts those of the ports that serve guests into br-mesh, which was made anew:
// they were put into the former one, and wait until their role ends.
func putGuests(ports []model.Port) (err error) {
	for _, p := range ports {
		if p.Role != port.Bridged || p.Detail != "" { // one that does not work yet is tried again
			continue
		}
		putErr := bridge.Ports(paths.MeshBridge).Enslave(p.Iface)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](putErr); !gone {
			err = errors.Join(err, putErr)
		}
	}
	return err
}

// bare takes all addresses from an interface.
func bare(iface string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, "disable_ipv6"), []byte("1"), 0); err != nil {
		return err
	}
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("find %s: %w", iface, err)
	}
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", iface, err)
	}
	for _, a := range list {
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s of %s: %w", a.IPNet, iface, err)
		}
	}
	return nil
}
