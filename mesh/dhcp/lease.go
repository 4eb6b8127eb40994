package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"halo.internal/model/paths"
)

// Bounds of what a server may say.
const (
	shortestLease = 4 * time.Second
	longestLease  = 7 * 24 * time.Hour
	maxDNS        = 3 // what a resolver reads
)

// settings of a port, whoever gave them.
type settings Static

// lease is settings for a time.
type lease struct {
	settings
	duration time.Duration
	renewal  time.Duration
}

// check refuses what must not be set on any port, or, with a network of HALO's
// own, on the interface that is in it.
func (s settings) check(own netip.Prefix) error {
	a := s.Address
	if !a.IsValid() || !a.Addr().Is4() || a.Bits() < 8 {
		return fmt.Errorf("address: expected IPv4 with a prefix of 8 to 32 bits, got %s", a)
	}
	if !unicast(a.Addr()) {
		return fmt.Errorf("address: expected one for a single host, got %s", a.Addr())
	}
	if own.IsValid() {
		if a.Masked() != own {
			return fmt.Errorf("address: expected one in %s, got %s: is there another DHCP server in the mesh?", own, a)
		}
	} else {
		for _, halo := range []netip.Prefix{paths.UnderlayNet, paths.OverlayNet, paths.ClientsNet} {
			if halo.Overlaps(a) {
				return fmt.Errorf("address: %s lies in HALO's own network %s: change the upstream network", a, halo)
			}
		}
	}
	if s.Router.IsValid() && (!unicast(s.Router) || s.Router == a.Addr()) {
		return fmt.Errorf("router: expected the address of another host, got %s", s.Router)
	}
	for _, d := range s.DNS {
		if !d.IsValid() || d.IsUnspecified() || d.IsMulticast() || d.IsLoopback() {
			return fmt.Errorf("name server: expected a host's address, got %s", d)
		}
	}
	return nil
}

func (s settings) equal(o settings) bool {
	return s.Address == o.Address && s.Router == o.Router && slices.Equal(s.DNS, o.DNS)
}

func unicast(a netip.Addr) bool {
	return a.Is4() && a.IsGlobalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && a.As4()[0] != 0
}

// readLease returns what an offer or acknowledgement gives; in a network of
// HALO's own, that is the address alone. Name servers that make no sense are left
// out; any other nonsense is an error.
func readLease(m *dhcpv4.DHCPv4, own netip.Prefix) (lease, error) {
	var l lease
	ip, ok := netip.AddrFromSlice(m.YourIPAddr.To4())
	if !ok {
		return lease{}, errors.New("DHCP: expected an address, got none")
	}
	ones, bits := net.IPMask(m.SubnetMask()).Size()
	if bits != 32 {
		return lease{}, fmt.Errorf("DHCP: expected a subnet mask, got %v", m.SubnetMask())
	}
	l.Address = netip.PrefixFrom(ip, ones)
	if !own.IsValid() {
		l.readWayOut(m)
	}
	if err := l.check(own); err != nil {
		return lease{}, fmt.Errorf("DHCP: %w", err)
	}
	l.duration = m.IPAddressLeaseTime(0)
	if l.duration < shortestLease {
		return lease{}, fmt.Errorf("DHCP: lease time: expected at least %s, got %s", shortestLease, l.duration)
	}
	l.duration = min(l.duration, longestLease)
	l.renewal = m.IPAddressRenewalTime(0)
	if l.renewal < shortestLease/2 || l.renewal >= l.duration {
		l.renewal = l.duration / 2
	}
	return l, nil
}

func (l *lease) readWayOut(m *dhcpv4.DHCPv4) {
	if routers := m.Router(); len(routers) > 0 {
		l.Router, _ = netip.AddrFromSlice(routers[0].To4())
	}
	for _, d := range m.DNS() {
		a, _ := netip.AddrFromSlice(d.To4())
		if unicast(a) && len(l.DNS) < maxDNS {
			l.DNS = append(l.DNS, a)
		}
	}
}
