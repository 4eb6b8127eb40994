package lan_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/lan"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// TestPeoplesPolicy in the kernel: what is set holds, what does not fit changes
// nothing, and what ceases to fit leaves what it denies.
func TestPeoplesPolicy(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{filepath.Dir(paths.Resolv), paths.State, paths.Run} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	near, _ := nstest.Cable(t, "up0", "upfar0")
	if err := netlink.AddrAdd(near, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 51, 100, 1), Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	key := identity.New()
	l, _ := run(t, lan.Config{Role: model.RoleGateway, Network: key.Public(), Node: key.Public(), Root: root, Underlay: "mesh9"})
	t.Cleanup(func() {
		if br, err := netlink.LinkByName(paths.ClientBridge); err == nil {
			_ = netlink.LinkDel(br)
		}
	})
	l.Set(lan.Wanted{Name: "gw", Clients: paths.ClientsGateway, Uplinks: []string{"up0"}})
	has := func(name string) bool {
		t.Helper()
		s, err := l.Firewall()
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(s.Rules, func(c model.FirewallCount) bool { return c.Name == name })
	}
	eventually(t, "the uplink to be one", func() (string, bool) {
		s, err := l.Firewall()
		if err != nil {
			t.Fatal(err)
		}
		return "", slices.ContainsFunc(s.Zones, func(z model.FirewallZone) bool {
			return z.Zone == model.ZoneUplink && slices.Contains(z.Interfaces, "up0")
		})
	})
	deny := model.FirewallRule{Name: "strangers", Action: model.Deny, From: model.ZoneUplink, To: model.ZoneLocal}
	web := model.PortForward{Name: "web", Proto: "tcp", Port: model.SinglePort(8081), To: netip.MustParseAddr("10.43.0.9")}
	p := model.FirewallPolicy{Rules: []model.FirewallRule{deny}, PortForwards: []model.PortForward{web}, Openings: []model.ZoneOpening{{Zone: model.ZoneUplink, Services: []string{"field"}}}}

	q := model.FirewallQuestion{Policy: p, Remote: netip.MustParseAddr("198.51.100.7"), Local: netip.MustParseAddrPort("198.51.100.1:8443")}
	preview, err := l.Preview(q)
	if err != nil || !strings.HasPrefix(preview.LocksOut, "strangers:") {
		t.Errorf("somebody at the uplink: got %+v, %v", preview, err)
	}
	q.Remote = netip.MustParseAddr("127.0.0.1")
	if preview, err = l.Preview(q); err != nil || preview.LocksOut != "" {
		t.Errorf("the device itself: got %+v, %v", preview, err)
	}
	if err := l.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	if !has("rule/strangers") || !has("port/web") || !has("service/uplink/field/tcp") || l.Unfit() != nil {
		t.Error("the policy is not in force")
	}
	s, err := l.Firewall()
	if err != nil || !slices.ContainsFunc(s.Services, func(f model.FirewallService) bool {
		return f.Name == "field" && slices.Equal(f.Zones, []model.Zone{model.ZoneClients}) && slices.Equal(f.Opened, []model.Zone{model.ZoneUplink})
	}) {
		t.Errorf("services: got %+v, %v", s.Services, err)
	}
	bad := p
	bad.Openings = []model.ZoneOpening{{Zone: model.ZoneUplink, Services: []string{"telnet"}}}
	if err := l.SetPolicy(bad); !errors.Is(err, lan.ErrPolicy) || !has("port/web") {
		t.Errorf("one that does not fit: got %v", err)
	}
	l.BeginWith(bad) // as after an update that knows the service no more
	l.Begin()
	if l.Unfit() == nil || !has("rule/strangers") || has("port/web") {
		t.Errorf("one that ceases to fit: %v", l.Unfit())
	}
	if err := l.SetVisitors(paths.OverlayVisitors); err != nil || !has("rule/halo-visitors") {
		t.Errorf("visitors: %v", err)
	}
	if err := errors.Join(l.SetVisitors(netip.Prefix{}), l.SetPolicy(model.FirewallPolicy{})); err != nil || has("rule/halo-visitors") || has("rule/strangers") || l.Unfit() != nil {
		t.Errorf("nothing again: %v", err)
	}
}
