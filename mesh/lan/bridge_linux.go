package lan

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/bridge"
	"halo.internal/model/paths"
)

// bridge makes br0 with the addresses of the device in the networks of its
// clients, and no others.
func (l *LAN) bridge(w Wanted) error {
	link, err := bridge.Ensure(bridge.Config{Name: paths.ClientBridge, MAC: l.mac(), Snooping: true})
	if err != nil {
		return err
	}
	for key, value := range map[string]string{"disable_ipv6": "0", "accept_ra": "0", "addr_gen_mode": "0"} {
		if err := set("net/ipv6/conf/"+paths.ClientBridge+"/"+key, value); err != nil {
			return err
		}
	}
	if err := address(link, l.addresses(w)); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", paths.ClientBridge, err)
	}
	return nil
}

// mac is the bridge's address, locally administered and the same at each start.
func (l *LAN) mac() net.HardwareAddr {
	h := sha256.Sum256(append([]byte("halo br0 mac 1"), l.Node[:]...))
	h[0] = h[0]&^1 | 2
	return net.HardwareAddr(h[:6])
}

// linkLocal is the IPv6 address that the kernel makes of the bridge's own (RFC 4291,
// appendix A).
func (l *LAN) linkLocal() netip.Addr {
	m := l.mac()
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

func (l *LAN) addresses(w Wanted) []netip.Prefix {
	if !w.Clients.IsValid() {
		return nil
	}
	six := identity.Clients(l.Network, w.Clients)
	return []netip.Prefix{netip.PrefixFrom(w.Clients.Addr().Next(), w.Clients.Bits()), netip.PrefixFrom(six.Addr().Next(), six.Bits())}
}

// address makes the addresses of a link those alone, but for link-local ones.
func address(link netlink.Link, want []netip.Prefix) error {
	name := link.Attrs().Name
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", name, err)
	}
	for _, a := range have {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || ip.Unmap().IsLinkLocalUnicast() || slices.ContainsFunc(want, func(p netip.Prefix) bool { return p.Addr() == ip.Unmap() }) {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s of %s: %w", a.IPNet, name, err)
		}
	}
	for _, p := range want {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD // the gateway has given the network to nobody else
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("address %s on %s: %w", p, name, err)
		}
	}
	return nil
}

// maxConnections is how many connections the kernel tracks, at some 400 octets
// each: those of a few dozen clients.
const maxConnections = "32768"

// sysctls are what the firewall rests on (see its package comment). How many
// connections are tracked is the whole machine's, which a namespace can't set.
func sysctls(log *slog.Logger) error {
	for _, s := range []struct{ key, value string }{
		{"net/ipv4/ip_forward", "1"}, {"net/ipv6/conf/all/forwarding", "1"},
	} {
		if err := set(s.key, s.value); err != nil {
			return err
		}
	}
	for key, value := range map[string]string{
		"net/netfilter/nf_conntrack_max":      maxConnections,
		"net/bridge/bridge-nf-call-iptables":  "0",
		"net/bridge/bridge-nf-call-ip6tables": "0",
		"net/bridge/bridge-nf-call-arptables": "0",
	} {
		if err := set(key, value); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Debug("a setting of the kernel stays as it is", "err", err)
		}
	}
	return nil
}

func set(key, value string) error {
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}
