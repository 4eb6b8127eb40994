package advert

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

const patience = 2 * time.Minute

func config() Config {
	return Config{
		Iface: "br0", Prefix: netip.MustParsePrefix("fd12:3456:789a:7::/64"), DNS: []netip.Addr{netip.MustParseAddr("fd12:3456:789a:7::1")},
		Search: []string{"halo"}, MTU: 1400, Routes: []netip.Prefix{netip.MustParsePrefix("fd12:3456:789a::/48")}, Log: slog.New(slog.DiscardHandler),
	}
}

func TestMessage(t *testing.T) {
	hw := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for _, test := range []struct {
		name     string
		final    bool
		services time.Duration
	}{
		{"here", false, 30 * time.Minute},
		{"goodbye", true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, err := ndp.MarshalMessage(config().message(test.final, hw))
			if err != nil {
				t.Fatal(err)
			}
			got, err := ndp.ParseMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			want := &ndp.RouterAdvertisement{CurrentHopLimit: 64, Options: []ndp.Option{
				&ndp.PrefixInformation{PrefixLength: 64, OnLink: true, AutonomousAddressConfiguration: true, ValidLifetime: 90 * time.Minute, PreferredLifetime: 45 * time.Minute, Prefix: netip.MustParseAddr("fd12:3456:789a:7::")},
				&ndp.MTU{MTU: 1400},
				&ndp.RouteInformation{PrefixLength: 48, RouteLifetime: test.services, Prefix: netip.MustParseAddr("fd12:3456:789a::")},
				&ndp.RecursiveDNSServer{Lifetime: test.services, Servers: []netip.Addr{netip.MustParseAddr("fd12:3456:789a:7::1")}},
				&ndp.DNSSearchList{Lifetime: test.services, DomainNames: []string{"halo"}},
				&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: hw},
			}}
			if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"64 bits":                        func(c *Config) { c.Prefix = netip.MustParsePrefix("fd12::/48") },
		"expected an IPv6 network of 64": func(c *Config) { c.Prefix = netip.MustParsePrefix("10.43.7.0/24") },
		"name server":                    func(c *Config) { c.DNS = []netip.Addr{netip.MustParseAddr("10.43.7.1")} },
		"route":                          func(c *Config) { c.Routes = []netip.Prefix{netip.MustParsePrefix("::/0")} },
		"MTU":                            func(c *Config) { c.MTU = 1000 },
		"at most 3 name servers":         func(c *Config) { c.DNS = make([]netip.Addr, 4) },
		"domains: expected 232":          func(c *Config) { c.Search = []string{strings.Repeat("a.", 115) + "a"} },
		"got \"halo.\"":                  func(c *Config) { c.Search = []string{"halo."} },
	} {
		c := config()
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected an error with %q, got %v", want, err)
		}
	}
}

func TestTheLargestIsOnePacket(t *testing.T) {
	c := config()
	c.Search = []string{strings.Repeat("a.", 57) + "a", strings.Repeat("a.", 56) + "a"}
	c.Routes = make([]netip.Prefix, maxRoutes)
	for i := range c.Routes {
		c.Routes[i] = netip.PrefixFrom(c.Prefix.Addr(), 128)
	}
	c.DNS = []netip.Addr{c.DNS[0], c.DNS[0], c.DNS[0]}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	b, err := ndp.MarshalMessage(c.message(false, make(net.HardwareAddr, 6)))
	if err != nil || len(b) > minMTU-40 {
		t.Errorf("expected at most %d octets, got %d, %v", minMTU-40, len(b), err)
	}
}

func TestSchedule(t *testing.T) {
	start := time.Now()
	s := newSchedule(start)
	host := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fe80::%x", i+1)) }
	// run solicits every millisecond for a second and counts what is sent.
	run := func(from func(i int) netip.Addr, forHow time.Duration) (one, all int) {
		for i := range int(forHow / time.Millisecond) {
			now := start.Add(time.Duration(i) * time.Millisecond)
			if from != nil {
				s.solicit(now, from(i))
			}
			for _, to := range s.take(now) {
				if to == allNodes {
					all++
				} else {
					one++
				}
			}
		}
		start = start.Add(forHow)
		return one, all
	}
	if _, all := run(nil, time.Hour); all < 7 || all > 20 {
		t.Errorf("expected an hour's advertisements, got %d", all)
	}
	if one, all := run(func(int) netip.Addr { return host(0) }, 10*time.Second); one < 10 || one > 60 || all > 1 {
		t.Errorf("one host: expected answers to it alone, a few a second, got %d and %d to all", one, all)
	}
	if one, all := run(host, 60*time.Second); one > 60*80 || all < 10 || all > 21 {
		t.Errorf("forged hosts: expected bounded answers, got %d and %d to all", one, all)
	}
	s = newSchedule(start)
	if _, all := run(nil, 60*time.Second); all < 3 || all > 5 {
		t.Errorf("the beginning: expected three advertisements soon, got %d", all)
	}
}

func TestValid(t *testing.T) {
	lla := &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	for _, test := range []struct {
		from    string
		options []ndp.Option
		valid   bool
		answer  bool // to it alone
	}{
		{"fe80::1%br0", []ndp.Option{lla}, true, true},
		{"::", nil, true, false},
		{"::", []ndp.Option{lla}, false, false},
		{"2001:db8::1", nil, true, false},
		{"ff02::1", nil, false, false},
	} {
		from := netip.MustParseAddr(test.from)
		if got := valid(&ndp.RouterSolicitation{Options: test.options}, from); got != test.valid {
			t.Errorf("%s: valid: got %t", from, got)
		}
		if got := answerTo(from).IsValid(); got != test.answer {
			t.Errorf("%s: to it alone: got %t", from, got)
		}
	}
}

// eventually asks until the answer has the text, or, with not, has it no more.
func eventually(t *testing.T, h *nstest.Host, not bool, text string, name string, args ...string) string {
	t.Helper()
	var out string
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(100 * time.Millisecond) {
		out, _ = h.Run(t, name, args...) // a program that fails is asked again
		if strings.Contains(out, text) != not {
			return out
		}
	}
	t.Fatalf("%s %s: %q: not: %t, got %s", name, args, text, not, out)
	return ""
}

func bridge(t *testing.T, ports ...netlink.Link) netlink.Link {
	t.Helper()
	br := nstest.Hub(t, "br0", ports...)
	a := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fd12:3456:789a:7::1"), Mask: net.CIDRMask(64, 128)}}
	if err := netlink.AddrAdd(br, a); err != nil {
		t.Fatal(err)
	}
	return br
}

func TestHostsAddressThemselves(t *testing.T) {
	near, far := nstest.Cable(t, "port1", "eth1")
	br := bridge(t, near)
	h := nstest.NewHost(t, far)
	a, err := New(config())
	if err != nil {
		t.Fatal(err)
	}
	// The kernel is a router on a board; routers say so in neighbour discovery, and
	// hosts forget routers that do not.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Debian's kernel takes routes of RFC 4191 when it is told to.
	if out, err := h.Run(t, "sh", "-c", "echo 128 > /proc/sys/net/ipv6/conf/eth1/accept_ra_rt_info_max_plen"); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stop := func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
			ended <- nil
		case <-time.After(patience):
			t.Error("Run did not end")
		}
	}
	defer stop()

	eventually(t, h, false, "inet6 fd12:3456:789a:7:", "ip", "-6", "addr", "show", "dev", "eth1", "-tentative")
	eventually(t, h, false, " 0% packet loss", "ping", "-6", "-c", "1", "-w", "5", "fd12:3456:789a:7::1")
	if out, err := h.Run(t, "ip", "-6", "route", "show", "default"); err != nil || out != "" {
		t.Errorf("without a way out: expected no default route, got %q, %v", out, err)
	}
	if out, err := h.Run(t, "cat", "/proc/sys/net/ipv6/conf/eth1/mtu"); err != nil || strings.TrimSpace(out) != "1400" {
		t.Errorf("expected an MTU of 1400, got %q, %v", out, err)
	}
	// rdisc6 asks as hosts do, from its link-local address.
	out := eventually(t, h, false, "Recursive DNS server", "rdisc6", "-1", "eth1")
	for _, want := range []string{"Prefix                   : fd12:3456:789a:7::/64", "Recursive DNS server     : fd12:3456:789a:7::1", "halo", "1400", "Router lifetime           :            0", "fd12:3456:789a::/48"} {
		if !strings.Contains(out, want) {
			t.Errorf("expected %q in what rdisc6 heard, got %s", want, out)
		}
	}

	route := func(not bool) {
		t.Helper()
		eventually(t, h, not, "via fe80:", "ip", "-6", "route", "show", "fd12:3456:789a::/48")
	}
	route(false)

	// The bridge is made anew, and the hosts hear of it.
	if err := netlink.LinkDel(br); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Run(t, "ip", "-6", "route", "flush", "dev", "eth1", "fd12:3456:789a::/48"); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	bridge(t, near)
	route(false)
	stop()
	route(true)
	if out, err := h.Run(t, "ip", "-6", "addr", "show", "dev", "eth1"); err != nil || !strings.Contains(out, "inet6 fd12:3456:789a:7:") {
		t.Errorf("expected the address kept, got %q, %v", out, err)
	}
}
