package model

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model/dot11"
)

// TestReportOf has a node with all that can be: a Wi-Fi radio, a HaLow radio, one that
// is not in the mesh, a port under MACsec with a member in the clear, and a client port.
func TestReportOf(t *testing.T) {
	text := func(node, iface int) string { return mac(node, iface).String() }
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	s := MeshStatus{
		Node: nodeID(1), BootCounter: 7, Time: now, Gateway: nodeID(0),
		Interfaces: []Interface{
			{Name: "bat0", Kind: "mesh", MAC: text(1, 9)}, {Name: "eth0", Kind: "ethernet", MAC: text(1, 2)},
			{Name: "eth1", Kind: "ethernet", MAC: text(1, 4)}, {Name: "macsec-eth0", Kind: "macsec", MAC: text(1, 3)},
			{Name: "wg0", Kind: "overlay"},
		},
		Ports: []Port{{Iface: "eth0", Role: "mesh", MACsec: &MACsec{Iface: "macsec-eth0"}}, {Iface: "eth1", Role: "client"}},
		Radios: []Radio{
			{Name: "phy0", Iface: "mesh0", MAC: text(1, 0), FreqMHz: 2412, WidthMHz: 20, Member: true, Peers: []RadioPeer{
				{MAC: text(2, 0), Node: nodeID(2), Linked: true, SignalDBm: -61.6, TxMbps: 65, RxMbps: 58.5, Expected: 30, InactiveMS: 40, TxPackets: 1100, TxRetries: 300, TxFailed: 20},
				{MAC: text(3, 0), Linked: true, TxPackets: 30},
				{MAC: text(4, 0), Failures: 3},
			}},
			{Name: "phy1", Iface: "mesh1", MAC: text(1, 1), FreqMHz: 5180, WidthMHz: 160, HaLow: "S1G channel 44 (924.0 MHz, 8 MHz wide)", HaLowKHz: 924000, HaLowWide: 8000,
				Peers: []RadioPeer{{MAC: text(2, 1), Linked: true, SignalDBm: -88, TxMbps: 0.15}}},
			{Name: "phy2", Detail: "it is in use"},
		},
		Neighbours: []Neighbour{
			{Iface: "mesh0", MAC: text(2, 0), LastSeenMS: 900, TQ: 250},
			{Iface: "macsec-eth0", MAC: text(5, 3), Node: nodeID(5), LastSeenMS: 400, TQ: 255},
			{Iface: "eth0", MAC: text(6, 2), Node: nodeID(6), LastSeenMS: 300, Throughput: 100},
		},
		Overlay: []OverlayPeer{
			{Node: nodeID(8), LastHandshake: ago(time.Hour), Endpoint: "[fd12::8]:51820"},
			{Node: nodeID(2), LastHandshake: ago(100 * time.Second), Endpoint: "[fd12::2]:51820"},
			{Node: nodeID(0), LastHandshake: ago(-30 * time.Second), Endpoint: "[fd12::1]:51820"},
			{Node: nodeID(3)},
		},
	}
	s.NextHop = &ReportNextHop{Node: nodeID(0), Next: mac(5, 3), Iface: "macsec-eth0", TQ: 240}
	before := &MeshStatus{Radios: []Radio{{Iface: "mesh0", Peers: []RadioPeer{
		{MAC: text(2, 0), TxPackets: 1000, TxRetries: 200, TxFailed: 10}, {MAC: text(3, 0), TxPackets: 25},
	}}}}
	want := Report{Node: nodeID(1), Boot: 7, Seq: 3,
		Interfaces: ReportInterfaces{
			{Name: "bat0", Addresses: []dot11.MAC{mac(1, 9)}},
			{Name: "eth0", Addresses: []dot11.MAC{mac(1, 2), mac(1, 3)}, Transport: TransportEthernet, Links: []ReportLink{
				{Peer: mac(6, 2), Node: nodeID(6), ExpectedKbps: 100000, InactiveMS: 300},
				{Peer: mac(5, 3), Node: nodeID(5), TQ: 255, InactiveMS: 400},
			}},
			{Name: "eth1", Addresses: []dot11.MAC{mac(1, 4)}, Transport: TransportEthernet},
			{Name: "mesh0", Addresses: []dot11.MAC{mac(1, 0)}, Transport: TransportWiFi, FreqKHz: 2412000, WidthKHz: 20000, Links: []ReportLink{
				{Peer: mac(2, 0), SignalDBm: -62, TxKbps: 65000, RxKbps: 58500, ExpectedKbps: 30000, TQ: 250, RetryPermille: 500, FailPermille: 100, InactiveMS: 40},
				{Peer: mac(3, 0)},
			}},
			{Name: "mesh1", Addresses: []dot11.MAC{mac(1, 1)}, Transport: TransportHaLow, FreqKHz: 924000, WidthKHz: 8000, Links: []ReportLink{
				{Peer: mac(2, 1), SignalDBm: -88, TxKbps: 150},
			}},
		},
		NextHops: ReportNextHops{{Node: nodeID(0), Next: mac(5, 3), Iface: "eth0", TQ: 240}},
		Overlay:  ReportOverlay{{Node: nodeID(0), HandshakeS: 30, Direct: true}, {Node: nodeID(2), HandshakeS: 100, Direct: true}},
	}
	want.Sort()
	got := ReportOf(s, before)
	got.Seq = 3
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := got.Check(); err != nil {
		t.Error(err)
	}
	alone := ReportOf(MeshStatus{Node: nodeID(1), BootCounter: 1}, nil)
	alone.Seq = 1
	if err := alone.Check(); err != nil || alone.Interfaces == nil || alone.NextHops == nil || alone.Overlay == nil {
		t.Errorf("of a node without anything: got %+v, %v", alone, err)
	}
}

// TestReportOfTooMuch has more than a report may hold.
func TestReportOfTooMuch(t *testing.T) {
	s := MeshStatus{Node: nodeID(1), Role: RoleGateway, BootCounter: 1}
	for n := range 40 {
		s.Ports = append(s.Ports, Port{Iface: "eth" + string(rune('A'+n))})
		s.Interfaces = append(s.Interfaces, Interface{Name: "eth" + string(rune('A'+n)), Kind: "ethernet", MAC: mac(1, n).String()})
	}
	for n := range 300 {
		s.Neighbours = append(s.Neighbours, Neighbour{Iface: "ethA", MAC: mac(n, 1).String()}, Neighbour{Iface: "no such name/", MAC: mac(n, 1).String()})
		now := s.Time
		s.Overlay = append(s.Overlay, OverlayPeer{Node: nodeID(n), LastHandshake: &now})
	}
	got := ReportOf(s, nil)
	got.Seq = 1
	if err := got.Check(); err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, i := range got.Interfaces {
		links += len(i.Links)
	}
	if len(got.Interfaces) != MaxReportInterfaces || links != MaxReportLinks || len(got.Overlay) != MaxReportOverlay {
		t.Errorf("got %d interfaces, %d links, %d peers", len(got.Interfaces), links, len(got.Overlay))
	}
	s.Role = RoleNode
	if got = ReportOf(s, nil); len(got.Overlay) != 1+mostDirect {
		t.Errorf("of a node: got %d peers, want %d", len(got.Overlay), 1+mostDirect)
	}
}

func TestReportOfAWayThatIsNone(t *testing.T) {
	for name, hop := range map[string]*ReportNextHop{
		"none":       nil,
		"to itself":  {Node: nodeID(1), Next: mac(2, 0), Iface: "mesh0"},
		"to nobody":  {Node: "", Next: mac(2, 0), Iface: "mesh0"},
		"to a group": {Node: nodeID(0), Next: dot11.MAC{1}, Iface: "mesh0"},
	} {
		if got := ReportOf(MeshStatus{Node: nodeID(1), BootCounter: 1, NextHop: hop}, nil); len(got.NextHops) != 0 || got.NextHops == nil {
			t.Errorf("%s: got %+v", name, got.NextHops)
		}
	}
}

// Routing remembers a neighbour for minutes after its station is gone.
func TestReportOfANeighbourWithoutAStation(t *testing.T) {
	s := MeshStatus{Node: nodeID(1), BootCounter: 1, Radios: []Radio{{Name: "radio0", Iface: "mesh0", MAC: "02:00:00:00:00:01", Peers: []RadioPeer{{MAC: "02:00:00:00:00:02", Linked: true}}}}}
	for _, peer := range []string{"02:00:00:00:00:02", "02:00:00:00:00:03"} {
		s.Neighbours = append(s.Neighbours, Neighbour{Iface: "mesh0", MAC: peer, TQ: 255, LastSeenMS: 40_000})
	}
	got := ReportOf(s, nil)
	if len(got.Interfaces) != 1 || len(got.Interfaces[0].Links) != 1 || got.Interfaces[0].Links[0].Peer != (dot11.MAC{2, 0, 0, 0, 0, 2}) {
		t.Errorf("got %+v", got.Interfaces)
	}
}
