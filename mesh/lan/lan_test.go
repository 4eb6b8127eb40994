package lan_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/bridge"
	dhcp "halo.internal/mesh/dhcp/server"
	"halo.internal/mesh/dns"
	"halo.internal/mesh/lan"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/ntp"
	"halo.internal/model"
	"halo.internal/model/paths"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

func eventually(t *testing.T, what string, f func() (string, bool)) {
	t.Helper()
	var last string
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(200 * time.Millisecond) {
		var ok bool
		if last, ok = f(); ok {
			return
		}
	}
	t.Fatalf("%s: not within %s; last: %s", what, patience, last)
}

// node runs the LAN of a node until the test ends or it is stopped.
func node(t *testing.T, network, key identity.Key, root string) (l *lan.LAN, stop func()) {
	t.Helper()
	return run(t, lan.Config{Role: model.RoleNode, Network: network.Public(), Node: key.Public(), Root: root})
}

func run(t *testing.T, c lan.Config) (l *lan.LAN, stop func()) {
	t.Helper()
	l = lan.New(lan.Config{
		Role: c.Role, Network: c.Network, Node: c.Node, Root: c.Root, Underlay: c.Underlay,
		Clock:  func() ntp.Reading { return ntp.Reading{Now: time.Now(), Quality: model.ClockRTC, Set: time.Now()} },
		Notify: func(e model.Event) { t.Logf("event: %+v", e) }, Log: slog.New(slog.DiscardHandler),
	})
	l.Begin()
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return l, stop
}

// configure is what the phone's DHCP client runs.
const configure = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "lease $ip $router $dns $domain $ntpsrv"
`

// TestAGuest of the mesh, on a bridged port, gets the address that the gateway keeps for
// it, and the gateway's clients get theirs.
func TestAGuest(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{filepath.Dir(paths.Resolv), paths.State, paths.Run} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mesh, far := nstest.Cable(t, "mesh0", "guest0")
	if err := netlink.AddrAdd(mesh, &netlink.Addr{IPNet: &net.IPNet{IP: paths.UnderlayGateway.AsSlice(), Mask: net.CIDRMask(16, 32)}}); err != nil {
		t.Fatal(err)
	}
	guest := nstest.NewHost(t, far)
	key := identity.New()
	l, _ := run(t, lan.Config{Role: model.RoleGateway, Network: key.Public(), Node: key.Public(), Root: root, Underlay: "mesh0"})
	t.Cleanup(func() { // the namespace is all tests'
		if br, err := netlink.LinkByName(paths.ClientBridge); err == nil {
			_ = netlink.LinkDel(br)
		}
	})
	script := filepath.Join(t.TempDir(), "configure")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] || exit 0\necho \"lease $ip/$mask\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	asks := func(args ...string) string {
		t.Helper()
		return guest.Start(t, "udhcpc", append([]string{"-f", "-q", "-i", "guest0", "-s", script, "-t", "100", "-T", "1"}, args...)...).Await("lease", patience)
	}
	pooled, ok := strings.CutSuffix(strings.TrimSpace(asks()), "/16")
	if !ok || !strings.HasPrefix(pooled, "10.41.") {
		t.Fatalf("lease: got %q", pooled)
	}

	mac, other := far.Attrs().HardwareAddr, net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	l.Set(lan.Wanted{Name: "gw", Clients: paths.ClientsGateway})
	camera := dhcp.Reservation{MAC: other, Address: netip.MustParseAddr("10.43.0.20"), Name: "camera"}
	if err := l.Reserve([]dhcp.Reservation{camera, {MAC: other, Address: netip.MustParseAddr(pooled)}}); !errors.Is(err, dhcp.ErrInUse) {
		t.Errorf("the guest's address for another: %v", err)
	}
	kept := dhcp.Reservation{MAC: mac, Address: netip.MustParseAddr("10.41.0.20")}
	if err := l.Reserve([]dhcp.Reservation{camera, kept}); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(asks("-r", pooled)); got != "10.41.0.20/16" {
		t.Errorf("after an address was kept for it: got %q", got)
	}
	eventually(t, "the lease is shown as kept", func() (string, bool) {
		list := l.Leases()["mesh0"]
		return fmt.Sprint(list), slices.ContainsFunc(list, func(a model.Lease) bool { return a.Address == kept.Address && a.Reserved })
	})
}

// TestAGuess of a gateway's, that a port is for clients, costs them two minutes where it
// is wrong; a port that is pinned is no guess.
func TestAGuess(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{filepath.Dir(paths.Resolv), paths.State, paths.Run} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, far := nstest.Cable(t, "eth7", "camera0")
	camera := nstest.NewHost(t, far)
	key := identity.New()
	l, _ := run(t, lan.Config{Role: model.RoleGateway, Network: key.Public(), Node: key.Public(), Root: root, Underlay: "mesh7"})
	t.Cleanup(func() { // the namespace is all tests'
		if br, err := netlink.LinkByName(paths.ClientBridge); err == nil {
			_ = netlink.LinkDel(br)
		}
	})
	if err := bridge.Ports(paths.ClientBridge).Enslave("eth7"); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "configure")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = bound ] || exit 0\necho \"lease $lease\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	asks := func() string {
		t.Helper()
		return strings.TrimSpace(camera.Start(t, "udhcpc", "-f", "-q", "-i", "camera0", "-s", script, "-t", "100", "-T", "1").Await("lease", patience))
	}
	w := lan.Wanted{Name: "gw", Clients: paths.ClientsGateway, Ports: []string{"eth7"}}
	l.Set(w)
	if got := asks(); got != "43200" {
		t.Errorf("at a port that is pinned: a lease of %s s, want 43200", got)
	}
	w.Trial = w.Ports
	l.Set(w)
	eventually(t, "a lease of 120 s at a port that nobody has pinned", func() (string, bool) {
		got := asks()
		return got, got == "120"
	})
}

// TestAPhone is served by a node that no gateway is in reach of: it gets addresses,
// finds the node by name, and reaches nothing that it is not meant to.
func TestAPhone(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{filepath.Dir(paths.Resolv), paths.State, paths.Run} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	network, key := identity.New(), identity.New()
	_, far := nstest.Cable(t, "eth0", "phone0")
	phone := nstest.NewHost(t, far)
	l, stop := node(t, network, key, root)
	t.Cleanup(func() { // the namespace is all tests'
		if br, err := netlink.LinkByName(paths.ClientBridge); err == nil {
			_ = netlink.LinkDel(br)
		}
	})
	if err := bridge.Ports(paths.ClientBridge).Enslave("eth0"); err != nil {
		t.Fatal(err)
	}
	gateway := dns.Host{Name: "gateway", Addresses: []netip.Addr{paths.OverlayGateway}}
	wanted := lan.Wanted{Name: "mast", Clients: netip.MustParsePrefix("10.43.7.0/24"), Ports: []string{"eth0"}, Hosts: []dns.Host{gateway}}
	l.Set(wanted)

	script := filepath.Join(t.TempDir(), "configure")
	if err := os.WriteFile(script, []byte(configure), 0o755); err != nil {
		t.Fatal(err)
	}
	lease := phone.Start(t, "udhcpc", "-f", "-i", "phone0", "-s", script, "-x", "hostname:Anns-Phone", "-O", "ntpsrv", "-t", "100", "-T", "1").Await("lease", patience)
	f := strings.Fields(lease)
	if len(f) != 5 || !strings.HasPrefix(f[0], "10.43.7.") || !slices.Equal(f[1:], []string{"10.43.7.1", "10.43.7.1", "halo", "10.43.7.1"}) {
		t.Fatalf("lease: got %q", lease)
	}
	for _, q := range []struct {
		what, want string
		args       []string
	}{
		{"the gateway's name", "10.42.0.1", []string{"+short", "@10.43.7.1", "gateway.halo"}},
		{"its own name", f[0], []string{"+short", "@10.43.7.1", "anns-phone.mast.halo"}},
		{"the node by multicast DNS", "10.43.7.1", []string{"+short", "-p", "5353", "+norecurse", "@10.43.7.1", "halo.local"}},
	} {
		eventually(t, q.what, func() (string, bool) {
			out, err := phone.Run(t, "dig", append([]string{"+time=1", "+tries=1"}, q.args...)...)
			return out, err == nil && strings.TrimSpace(out) == q.want
		})
	}
	six := identity.Clients(network.Public(), wanted.Clients)
	eventually(t, "an address of the network's ULA, and the node behind it", func() (string, bool) {
		out, err := phone.Run(t, "ping", "-6", "-c", "1", "-W", "1", six.Addr().Next().String())
		addrs, _ := phone.Run(t, "ip", "-6", "-o", "address", "show", "dev", "phone0", "scope", "global")
		return out + addrs, err == nil && strings.Contains(addrs, strings.TrimSuffix(six.Masked().Addr().String(), "::"))
	})
	if out, err := phone.Run(t, "ping", "-c", "1", "-W", "5", "10.43.7.1"); err != nil {
		t.Errorf("ping of the node: %v\n%s", err, out)
	}

	// A service that is nobody's business.
	server, err := net.Listen("tcp4", "0.0.0.0:7777")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if out, err := phone.Run(t, "busybox", "nc", "-w", "2", "10.43.7.1", "7777"); err == nil {
		t.Errorf("a port that is not opened was reached: %s", out)
	}
	status, err := l.Firewall()
	if err != nil || !slices.ContainsFunc(status.Zones, func(z model.FirewallZone) bool {
		return z.Zone == model.ZoneClients && slices.ContainsFunc(z.Drops, func(c model.FirewallCount) bool { return c.Packets > 0 })
	}) {
		t.Errorf("expected the refusal counted, got %+v, %v", status, err)
	}
	names := l.DNS()
	if len(names.Names) != 2 || names.Counts.Local < 2 {
		t.Errorf("names: got %+v", names)
	}

	// Another address is kept for the phone, and it moves there; the one that it has
	// can't be kept for others meanwhile.
	mac, other := far.Attrs().HardwareAddr, net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	taken := []dhcp.Reservation{{MAC: other, Address: netip.MustParseAddr(f[0])}}
	if err := l.Reserve(taken); !errors.Is(err, dhcp.ErrInUse) {
		t.Errorf("the phone's address for another: %v", err)
	}
	kept := []dhcp.Reservation{{MAC: mac, Address: netip.MustParseAddr("10.43.7.3"), Name: "anns"}, {MAC: other, Address: netip.MustParseAddr("10.43.9.3")}}
	if err := l.Reserve(kept); err != nil {
		t.Fatal(err)
	}
	again := phone.Start(t, "udhcpc", "-f", "-q", "-i", "phone0", "-s", script, "-r", f[0], "-t", "100", "-T", "1").Await("lease", patience)
	if f = strings.Fields(again); len(f) != 5 || f[0] != "10.43.7.3" {
		t.Fatalf("lease after an address was kept for it: got %q", again)
	}
	eventually(t, "the name that goes with it", func() (string, bool) {
		out, err := phone.Run(t, "dig", "+time=1", "+tries=1", "+short", "@10.43.7.1", "anns.mast.halo")
		return out, err == nil && strings.TrimSpace(out) == "10.43.7.3"
	})

	// After a restart the phone keeps its address, and another network takes its place
	// when the gateway gives the node one.
	stop()
	l, _ = node(t, network, key, root)
	if err := l.Reserve(kept); err != nil {
		t.Fatal(err)
	}
	l.Set(wanted)
	eventually(t, "the lease is known after a restart", func() (string, bool) {
		list := l.Leases()[paths.ClientBridge]
		return "", len(list) == 1 && list[0].Address.String() == f[0]
	})
	wanted.Clients = netip.MustParsePrefix("10.43.8.0/24")
	l.Set(wanted)
	eventually(t, "the other network's address alone", func() (string, bool) {
		br, err := netlink.LinkByName(paths.ClientBridge)
		if err != nil {
			return err.Error(), false
		}
		list, err := netlink.AddrList(br, netlink.FAMILY_V4)
		return "", err == nil && len(list) == 1 && list[0].IP.String() == "10.43.8.1"
	})
}
