package mesh

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

var addrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func hw(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	mac, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

func link(name string, index, master int) netlink.Link {
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index, MasterIndex: master, MTU: 1500, RawFlags: unix.IFF_LOWER_UP, Statistics: &netlink.LinkStatistics{RxErrors: 3, TxPackets: 9}}}
}

func TestInterfaceDetails(t *testing.T) {
	sysfs := t.TempDir()
	for file, text := range map[string]string{"eth0/speed": "1000\n", "eth0/duplex": "full\n", "eth0/carrier_changes": "7\n", "bat0/speed": "-1\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sysfs, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sysfs, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := details([]model.Interface{{Name: "eth0", Kind: "ethernet"}, {Name: "bat0", Kind: "mesh"}, {Name: "gone"}}, []netlink.Link{link("br0", 1, 0), link("eth0", 2, 1), link("bat0", 3, 0)}, sysfs)
	want := []model.InterfaceDetail{
		{Interface: model.Interface{Name: "eth0", Kind: "ethernet"}, Detail: &model.InterfaceCounters{Index: 2, MTU: 1500, Master: "br0", Carrier: true, SpeedMbps: 1000, Duplex: "full", CarrierChanges: 7, RxErrors: 3, TxPackets: 9}},
		{Interface: model.Interface{Name: "bat0", Kind: "mesh"}, Detail: &model.InterfaceCounters{Index: 3, MTU: 1500, Carrier: true, RxErrors: 3, TxPackets: 9}},
	}
	if d := cmp.Diff(want, got, addrs); d != "" {
		t.Error(d)
	}
}

func TestNeighbourEntries(t *testing.T) {
	links := []netlink.Link{link("lo", 1, 0), link("br0", 2, 0)}
	n := func(index, state int, ip, mac string) netlink.Neigh {
		e := netlink.Neigh{LinkIndex: index, State: state, IP: net.ParseIP(ip)}
		if mac != "" {
			e.HardwareAddr = hw(t, mac)
		}
		return e
	}
	router := n(2, netlink.NUD_STALE, "fe80::7", "02:00:00:00:00:07")
	router.Flags = netlink.NTF_ROUTER
	got := entries([]netlink.Neigh{
		n(2, netlink.NUD_REACHABLE, "10.43.7.20", "02:00:00:00:00:09"),
		router,
		n(2, netlink.NUD_INCOMPLETE, "10.43.7.3", "00:00:00:00:00:00"),
		n(2, netlink.NUD_NOARP, "ff02::1", "33:33:00:00:00:01"),
		n(1, netlink.NUD_NOARP, "127.0.0.1", ""),
		n(9, netlink.NUD_STALE, "10.43.7.4", "02:00:00:00:00:04"), // of an interface that is gone
	}, links)
	want := []model.NeighbourEntry{
		{Address: netip.MustParseAddr("10.43.7.3"), Iface: "br0", State: "incomplete"},
		{Address: netip.MustParseAddr("10.43.7.20"), MAC: "02:00:00:00:00:09", Iface: "br0", State: "reachable"},
		{Address: netip.MustParseAddr("fe80::7"), MAC: "02:00:00:00:00:07", Iface: "br0", State: "stale", Router: true},
	}
	if d := cmp.Diff(want, got, addrs); d != "" {
		t.Error(d)
	}
}

func TestClientsOfALeaseAnAnswerAndTheMesh(t *testing.T) {
	member := identity.New().Public()
	bat := batman.MAC(member, 0)
	at := hw(t, "02:00:00:00:01:01") // a member's radio
	lease := func(mac, address, name string, heard bool) model.Lease {
		return model.Lease{MAC: mac, Address: netip.MustParseAddr(address), Hostname: name, Name: name, Heard: heard}
	}
	s := clientsSeen{
		leases: map[string][]model.Lease{
			"br0":  {lease("02:00:00:00:00:07", "10.43.0.7", "phone", true), lease("02:00:00:00:00:08", "10.43.0.8", "camera", false)},
			"bat0": {lease(bat.String(), "10.41.0.9", "", true), lease("02:00:00:00:00:0a", "10.41.0.10", "guest", true)},
		},
		neighbours: []model.NeighbourEntry{
			{MAC: "02:00:00:00:00:07", Address: netip.MustParseAddr("fd00::7"), Iface: "br0", State: "reachable"},
			{MAC: "02:00:00:00:00:0b", Address: netip.MustParseAddr("10.43.0.11"), Iface: "br0", State: "stale"}, // with an address of its own choice
			{MAC: "02:00:00:00:00:0c", Address: netip.MustParseAddr("10.43.0.12"), Iface: "br0", State: "failed"},
			{MAC: "02:00:00:00:00:0d", Address: netip.MustParseAddr("192.0.2.1"), Iface: "eth0", State: "reachable"}, // a router upstream
		},
		local:   []batman.Client{{MAC: hw(t, "02:00:00:00:00:0e")}, {MAC: hw(t, "01:00:5e:00:00:01")}},
		global:  []batman.Client{{MAC: hw(t, "02:00:00:00:00:0a"), Originator: hw(t, "02:00:00:00:02:02")}, {MAC: hw(t, "02:00:00:00:00:0a"), Originator: at, Best: true}, {MAC: bat, Originator: at, Best: true}},
		members: map[dot11.MAC]bool{dot11.MAC(bat): true}, nodes: map[string]string{at.String(): member.ID()}, underlay: "bat0",
	}
	ip := netip.MustParseAddr
	want := []model.Client{
		{MAC: "02:00:00:00:00:07", Addresses: []netip.Addr{ip("10.43.0.7"), ip("fd00::7")}, Hostname: "phone", Name: "phone", Iface: "br0", Present: true},
		{MAC: "02:00:00:00:00:08", Addresses: []netip.Addr{ip("10.43.0.8")}, Hostname: "camera", Name: "camera", Iface: "br0"},
		{MAC: "02:00:00:00:00:0a", Addresses: []netip.Addr{ip("10.41.0.10")}, Hostname: "guest", Name: "guest", Iface: "bat0", Guest: true, Behind: at.String(), Node: member.ID(), Present: true},
		{MAC: "02:00:00:00:00:0b", Addresses: []netip.Addr{ip("10.43.0.11")}, Iface: "br0", Present: true},
		{MAC: "02:00:00:00:00:0e", Iface: "bat0", Guest: true, Present: true},
	}
	if d := cmp.Diff(want, s.clients(), addrs); d != "" {
		t.Error(d)
	}
	// A stranger who makes up addresses fills it to its bound and no further.
	s.global = nil
	for i := range 2 * model.MaxClients {
		s.local = append(s.local, batman.Client{MAC: net.HardwareAddr{2, 1, 0, 0, byte(i >> 8), byte(i)}})
	}
	if n := len(s.clients()); n != model.MaxClients {
		t.Errorf("a flood of clients: got %d, want %d", n, model.MaxClients)
	}
}

func TestBatmanTables(t *testing.T) {
	member := identity.New().Public()
	at, hop := hw(t, "02:00:00:00:01:01"), hw(t, "02:00:00:00:02:02")
	tables := Tables{
		Name: "bat0", Info: batman.Info{Version: "2024.2", Algorithm: batman.IV, MAC: hop, DAT: true, GatewayMode: batman.GatewayServer, HopPenalty: 30},
		Originators: []batman.Originator{{MAC: at, NextHop: hop, Iface: "mesh0", TQ: 100}, {MAC: at, NextHop: at, Iface: "mesh0", TQ: 255, Best: true}},
		Local:       []batman.Client{{MAC: batman.MAC(member, 1)}},
		Global:      []batman.Client{{MAC: batman.MAC(member, 0), Originator: at, Best: true}},
		Gateways:    []batman.Gateway{{MAC: at, NextHop: hop, Best: true, DownMbit: 10}},
	}
	all := []identity.PublicKey{member}
	got := model.BatmanTables{}
	for _, table := range []string{"config", "interfaces", "originators", "local", "global", "gateways"} {
		tables.into(&got, table, nodesBehind(tables.Global, all), ofMembers(all))
	}
	id := member.ID()
	want := model.BatmanTables{
		Config:      &model.BatmanConfig{Iface: "bat0", MAC: hop.String(), Version: "2024.2", Routing: "BATMAN_IV", HopPenalty: 30, GatewayMode: "server", DistributedARP: true},
		Originators: []model.BatmanOriginator{{MAC: at.String(), Node: id, NextHop: at.String(), NextHopNode: id, Iface: "mesh0", Best: true, TQ: 255}, {MAC: at.String(), Node: id, NextHop: hop.String(), Iface: "mesh0", TQ: 100}},
		Local:       []model.BatmanClient{{MAC: batman.MAC(member, 1).String(), Member: id}},
		Global:      []model.BatmanClient{{MAC: batman.MAC(member, 0).String(), Member: id, Originator: at.String(), Node: id, Best: true}},
		Gateways:    []model.BatmanGateway{{MAC: at.String(), Node: id, NextHop: hop.String(), Best: true, DownMbps: 10}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestVisitors(t *testing.T) {
	good := model.Visitor{ID: "w-1", WireGuardKey: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", Overlay: netip.MustParseAddr("10.42.255.7")}
	if _, err := checkVisitor(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*model.Visitor){
		"a node's address":  func(v *model.Visitor) { v.Overlay = netip.MustParseAddr("10.42.0.10") },
		"the network's own": func(v *model.Visitor) { v.Overlay = netip.MustParseAddr("10.42.255.0") },
		"the broadcast's":   func(v *model.Visitor) { v.Overlay = netip.MustParseAddr("10.42.255.255") },
		"no key":            func(v *model.Visitor) { v.WireGuardKey = "" },
		"a key of zeros":    func(v *model.Visitor) { v.WireGuardKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" },
		"nobody":            func(v *model.Visitor) { v.ID = "" },
	} {
		v := good
		if change(&v); v != good {
			if _, err := checkVisitor(v); err == nil {
				t.Errorf("%s: it is taken", name)
			}
		}
	}
}
