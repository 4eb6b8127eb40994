package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"halo.internal/model/paths"
)

func ack(t testing.TB, modifiers ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 50)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithLeaseTime(3600),
	}, modifiers...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReadLease(t *testing.T) {
	renewal := func(seconds byte) dhcpv4.Modifier {
		return dhcpv4.WithGeneric(dhcpv4.OptionRenewTimeValue, []byte{0, 0, 0, seconds})
	}
	for _, test := range []struct {
		name   string
		change []dhcpv4.Modifier
		want   string // "address router dns duration renewal", or the error's text
	}{
		{"plain", nil, "192.0.2.50/24 invalid IP [] 1h0m0s 30m0s"},
		{"router and name servers", []dhcpv4.Modifier{
			dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2))),
			dhcpv4.WithDNS(net.IPv4(127, 0, 0, 1), net.IPv4(192, 0, 2, 3), net.IPv4(224, 0, 0, 1), net.IPv4(9, 9, 9, 9), net.IPv4(8, 8, 8, 8), net.IPv4(1, 1, 1, 1)),
		}, "192.0.2.50/24 192.0.2.1 [192.0.2.3 9.9.9.9 8.8.8.8] 1h0m0s 30m0s"},
		{"server's own renewal time", []dhcpv4.Modifier{renewal(90)}, "192.0.2.50/24 invalid IP [] 1h0m0s 1m30s"},
		{"renewal at once", []dhcpv4.Modifier{renewal(0)}, "192.0.2.50/24 invalid IP [] 1h0m0s 30m0s"},
		{"renewal after the end", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(60), renewal(61)}, "192.0.2.50/24 invalid IP [] 1m0s 30s"},
		{"for ever", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(0xffffffff)}, "192.0.2.50/24 invalid IP [] 168h0m0s 84h0m0s"},
		{"no time", []dhcpv4.Modifier{dhcpv4.WithLeaseTime(0)}, "lease time: expected at least 4s, got 0s"},
		{"no mask", []dhcpv4.Modifier{dhcpv4.WithoutOption(dhcpv4.OptionSubnetMask)}, "expected a subnet mask"},
		{"mask with holes", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.IPv4Mask(255, 0, 255, 0))}, "expected a subnet mask"},
		{"the whole internet on link", []dhcpv4.Modifier{dhcpv4.WithNetmask(net.CIDRMask(0, 32))}, "prefix of 8 to 32 bits"},
		{"around HALO's networks", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5)), dhcpv4.WithNetmask(net.CIDRMask(8, 32))}, "HALO's own network"},
		{"in the overlay", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 42, 0, 1))}, "HALO's own network"},
		{"loopback", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 5))}, "for a single host"},
		{"multicast", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 5))}, "for a single host"},
		{"none", []dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4zero)}, "for a single host"},
		{"router is itself", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 0, 2, 50)))}, "address of another host"},
		{"router is multicast", []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(239, 0, 0, 1)))}, "address of another host"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := readLease(ack(t, test.change...), netip.Prefix{})
			got := fmt.Sprintf("%s %s %v %s %s", l.Address, l.Router, l.DNS, l.duration, l.renewal)
			if err != nil {
				got = err.Error()
			}
			if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
				t.Errorf("expected %q, got %q", test.want, got)
			}
		})
	}
}

// FuzzReadLease holds that nothing which a server can send leads to settings
// that New would refuse.
func FuzzReadLease(f *testing.F) {
	f.Add(ack(f).ToBytes())
	f.Add(ack(f, dhcpv4.WithDNS(net.IPv4(9, 9, 9, 9)), dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 0, 2, 1)))).ToBytes())
	f.Add(ack(f, dhcpv4.WithGeneric(dhcpv4.OptionSubnetMask, []byte{255})).ToBytes())
	f.Add(ack(f, dhcpv4.WithGeneric(dhcpv4.OptionRouter, []byte{1, 2, 3})).ToBytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		for _, own := range []netip.Prefix{{}, paths.UnderlayNet} {
			checkLease(t, m, own)
		}
	})
}

func checkLease(t *testing.T, m *dhcpv4.DHCPv4, own netip.Prefix) {
	t.Helper()
	l, err := readLease(m, own)
	if err != nil {
		return
	}
	if err := l.check(own); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if own.IsValid() && (l.Router.IsValid() || l.DNS != nil || l.Address.Masked() != own) {
		t.Errorf("taken from the mesh: %+v", l)
	}
	if l.duration < shortestLease || l.duration > longestLease || l.renewal <= 0 || l.renewal >= l.duration || len(l.DNS) > maxDNS {
		t.Errorf("out of bounds: %+v", l)
	}
}

func TestReadLeaseOfTheMesh(t *testing.T) {
	gives := func(a string, bits int) []dhcpv4.Modifier {
		return []dhcpv4.Modifier{
			dhcpv4.WithYourIP(net.ParseIP(a)), dhcpv4.WithNetmask(net.CIDRMask(bits, 32)), dhcpv4.WithDNS(net.IPv4(10, 41, 0, 1)),
			dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(10, 41, 0, 1))),
		}
	}
	for _, test := range []struct {
		address string
		bits    int
		want    string
	}{
		{"10.41.3.4", 16, "10.41.3.4/16 invalid IP []"},
		{"10.41.3.4", 8, "expected one in 10.41.0.0/16"},
		{"10.41.3.4", 24, "expected one in 10.41.0.0/16"},
		{"10.42.3.4", 16, "expected one in 10.41.0.0/16"},
		{"192.0.2.4", 16, "expected one in 10.41.0.0/16"},
	} {
		l, err := readLease(ack(t, gives(test.address, test.bits)...), paths.UnderlayNet)
		got := fmt.Sprintf("%s %s %v", l.Address, l.Router, l.DNS)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s/%d: expected %q, got %q", test.address, test.bits, test.want, got)
		}
	}
}

func TestUnicast(t *testing.T) {
	for text, want := range map[string]bool{
		"192.0.2.1": true, "10.0.0.1": true, "0.1.2.3": false, "255.255.255.255": false, "224.0.0.1": false,
		"127.0.0.1": false, "169.254.1.1": false, "2001:db8::1": false,
	} {
		if got := unicast(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: expected %t, got %t", text, want, got)
		}
	}
}
