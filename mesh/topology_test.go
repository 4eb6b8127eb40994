package mesh

import (
	"net"
	"reflect"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/model"
)

func TestTopologyOfWays(t *testing.T) {
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	near, far, liar := identity.New().Public(), identity.New().Public(), identity.New().Public()
	stranger := identity.New().Public()
	clients := []batman.Client{
		{MAC: batman.MAC(near, 2), Originator: mac(1), Best: true},
		{MAC: batman.MAC(far, 0), Originator: mac(2), Best: true},
		{MAC: batman.MAC(far, 1), Originator: mac(3)}, // of two that say so, the other is believed
		{MAC: batman.MAC(liar, 0), Originator: mac(4), Best: true},
		{MAC: batman.MAC(near, 0), Originator: mac(4), Best: true},
		{MAC: batman.MAC(stranger, 0), Originator: mac(5), Best: true},
		{MAC: mac(9)[:3], Originator: mac(5), Best: true},
	}
	nodes := nodesBehind(clients, []identity.PublicKey{near, far, liar})
	if want := map[string]string{mac(1).String(): near.ID(), mac(2).String(): far.ID()}; !reflect.DeepEqual(nodes, want) {
		t.Errorf("nodes: got %v, want %v", nodes, want)
	}
	got := originators(Ways{Nodes: nodes, Known: []batman.Originator{
		{MAC: mac(2), NextHop: mac(4), Iface: "eth0", LastSeen: 9 * time.Second, TQ: 30},
		{MAC: mac(2), NextHop: mac(1), Iface: "mesh0", LastSeen: 2 * time.Second, TQ: 200, Best: true},
		{MAC: mac(1), NextHop: mac(1), Iface: "mesh0", LastSeen: time.Second, Throughput: 6.5, Best: true},
		{MAC: mac(5), NextHop: mac(1), Iface: "mesh0", LastSeen: 70 * time.Second},
		{MAC: mac(5), NextHop: mac(4), Iface: "eth0", LastSeen: 60 * time.Second},
	}})
	want := []model.MeshOriginator{
		{MAC: mac(1).String(), Node: near.ID(), NextHop: mac(1).String(), NextHopNode: near.ID(), Iface: "mesh0", LastSeenMS: 1000, Throughput: 6.5},
		{MAC: mac(2).String(), Node: far.ID(), NextHop: mac(1).String(), NextHopNode: near.ID(), Iface: "mesh0", LastSeenMS: 2000, TQ: 200, Others: 1},
		{MAC: mac(5).String(), LastSeenMS: 60000, Others: 2},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := originators(Ways{}); got == nil || len(got) != 0 {
		t.Errorf("without a mesh interface: got %+v", got)
	}
}
