package port

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// meshMTU leaves room for batman-adv's header, so that a full frame on bat0
// needs no second one on the wire. wishedMTU leaves it for the header of
// network coding too, which Debian's kernel has built in: below it the kernel
// warns at each start, though nobody uses that header.
const (
	meshMTU   = 1532
	wishedMTU = 1560
)

// physical tells whether a link is an Ethernet port: backed by a device, not
// made of software, and not a radio.
func physical(link netlink.Link) bool {
	a := link.Attrs()
	if link.Type() != "device" || a.EncapType != "ether" || a.Flags&net.FlagLoopback != 0 {
		return false
	}
	sys := filepath.Join("/sys/class/net", a.Name)
	return exists(filepath.Join(sys, "device")) && !exists(filepath.Join(sys, "phy80211"))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func hasCable(a *netlink.LinkAttrs) bool { return a.RawFlags&unix.IFF_LOWER_UP != 0 }

// deaf is what the kernel must not take from the network of others, in force
// before it speaks IPv6 there: whoever sends a router advertisement or a
// redirect would give this device routes and addresses.
var deaf = [...]string{"accept_ra", "autoconf", "accept_redirects"}

// raise brings the port up and says whether the kernel itself may speak IPv6 on
// it: on a stranger's cable it must not give away an address.
func raise(link netlink.Link, ipv6 bool) error {
	a := link.Attrs()
	if ipv6 {
		for _, key := range deaf {
			if err := setIPv6(a.Name, key, "0"); err != nil {
				return err
			}
		}
	}
	disable := "1"
	if ipv6 {
		disable = "0"
	}
	if err := setIPv6(a.Name, "disable_ipv6", disable); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up port %s: %w", a.Name, err)
	}
	return nil
}

func setIPv6(iface, key, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, key), []byte(value), 0o644)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 has none to set
		return fmt.Errorf("IPv6 of port %s: %s: %w", iface, key, err)
	}
	return nil
}

// widen makes room for batman-adv's header, and for what is below it. Adapters
// that can't have all of it work as well: batman-adv then splits frames.
func widen(link netlink.Link, below int) error {
	is := link.Attrs().MTU
	for _, mtu := range [...]int{wishedMTU + below, meshMTU + below, wishedMTU, meshMTU} {
		if is >= mtu || netlink.LinkSetMTU(link, mtu) == nil {
			link.Attrs().MTU = max(is, mtu)
			break
		}
	}
	if a := link.Attrs(); a.MTU < meshMTU+below {
		return fmt.Errorf("MTU of port %s: expected at least %d, stays %d", a.Name, meshMTU+below, a.MTU)
	}
	return nil
}

// rate returns how many Mbit/s the port's link has; 0: its driver does not tell.
func rate(name string) float64 {
	b, err := os.ReadFile(filepath.Join("/sys/class/net", name, "speed"))
	if err != nil {
		return 0 // EINVAL without a link
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return float64(max(n, 0))
}
