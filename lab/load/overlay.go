package load

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"halo.internal/model/paths"
)

// Overlay gives this machine, which has to be a network namespace that nobody else uses, all
// addresses of the overlay: there a gateway and its nodes speak with each other as they do
// over WireGuard.
func Overlay() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	// A prefix on the loopback makes all its addresses this machine's.
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: paths.OverlayGateway.AsSlice(), Mask: net.CIDRMask(paths.OverlayNet.Bits(), paths.OverlayGateway.BitLen())}}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		return fmt.Errorf("add %v: %w", addr, err)
	}
	return netlink.LinkSetUp(lo)
}

// Address is where a gateway answers in the overlay.
func Address() string { return fmt.Sprintf("%s:%d", paths.OverlayGateway, paths.APIPort) }
