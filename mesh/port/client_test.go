package port

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/bridge"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// clients gives a device a bridge for clients.
func clients(t *testing.T) option {
	nstest.Hub(t, paths.ClientBridge)
	return func(c *Config) { c.Clients = bridge.Ports(paths.ClientBridge) }
}

func inBridge(t *testing.T, iface string) bool {
	t.Helper()
	held, err := bridge.Ports(paths.ClientBridge).Holds(iface)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// TestALonelyPortServesClients until a member is plugged in.
func TestALonelyPortServesClients(t *testing.T) {
	_, far := nstest.Cable(t, "a0", "b0")
	a := start(t, 1, []string{"a0"}, clients(t))
	a.await(EventRole, "role", Client, "was", Searching)
	if !inBridge(t, "a0") {
		t.Error("expected the port in the bridge of clients")
	}
	if !admitted(t, paths.ClientBridge, "b0", far.Attrs().HardwareAddr, "a client's") {
		t.Error("expected the port open to clients")
	}
	// The far end is another member from now on: it is heard through the bridge.
	start(t, 2, []string{"b0"})
	a.await(EventProven, "peer", key(2).ID())
	a.await(EventRole, "role", Searching, "was", Client)
	a.await(EventRole, "role", Mesh)
	expect(t, a.carrier.log, "enslave a0")
	if inBridge(t, "a0") {
		t.Error("expected the port out of the bridge of clients")
	}
	if admitted(t, "a0", "b0", net.HardwareAddr{2, 9, 9, 9, 9, 9}, "stranger") {
		t.Error("a batman frame from a foreign address came in")
	}
}

// TestAServerThatComesLateMakesAnUplink of a port that served clients meanwhile.
func TestAServerThatComesLateMakesAnUplink(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	a := start(t, 1, []string{"a0"}, clients(t), gateway(u))
	a.await(EventRole, "role", Client, "was", Searching)
	close(u.answer)
	a.await(EventRole, "role", Uplink, "was", Client)
	if inBridge(t, "a0") {
		t.Error("expected the uplink out of the bridge of clients")
	}
}

// TestARestartKeepsClients connected, and another cable begins a new search.
func TestARestartKeepsClients(t *testing.T) {
	_, far := nstest.Cable(t, "a0", "b0")
	bridge := clients(t)
	first := start(t, 1, []string{"a0"}, bridge)
	first.await(EventRole, "role", Client)
	first.stop()
	if !inBridge(t, "a0") {
		t.Fatal("expected the port left in the bridge of clients")
	}
	again := start(t, 1, []string{"a0"}, bridge)
	again.await(EventRole, "role", Client, "was", Searching)
	if !inBridge(t, "a0") {
		t.Error("expected the port still in the bridge of clients")
	}
	if err := netlink.LinkSetDown(far); err != nil { // the cable is out
		t.Fatal(err)
	}
	again.await(EventRole, "role", Searching, "was", Client)
	time.Sleep(2 * again.timing.client) // nothing is to happen meanwhile
	if inBridge(t, "a0") {
		t.Error("a port without a cable serves clients")
	}
	if err := netlink.LinkSetUp(far); err != nil {
		t.Fatal(err)
	}
	again.await(EventRole, "role", Client, "was", Searching)
}

// TestAPinnedClientPort is one at once, and is not when it is pinned otherwise.
func TestAPinnedClientPort(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	bridge := clients(t)
	first := start(t, 1, []string{"a0"}, bridge, pin("a0", Client))
	first.await(EventRole, "role", Client)
	eventually(t, "the port is in the bridge", func() bool { return inBridge(t, "a0") })
	first.stop()
	second := start(t, 1, []string{"a0"}, bridge, pin("a0", Mesh))
	eventually(t, "the port is out of the bridge", func() bool { return !inBridge(t, "a0") })
	if got := second.List()[0]; got.Role != Searching {
		t.Errorf("expected it to search for members, got %+v", got)
	}
	second.stop()
	third := start(t, 1, []string{"a0"}, bridge, pin("a0", Unused))
	third.await(EventRole, "role", Unused)
}

// TestTwoPortsOfOneNetwork are not both put into the bridge: frames would go round
// for ever.
func TestTwoPortsOfOneNetwork(t *testing.T) {
	ports := hub(t, 2)
	a := start(t, 1, ports, clients(t))
	a.await(EventRole, "role", Client)
	eventually(t, "the other port says why it does not serve clients", func() bool {
		list := a.List()
		one := slices.IndexFunc(list, func(p model.Port) bool { return p.Role == Client })
		return one >= 0 && list[1-one].Role == Searching && strings.Contains(list[1-one].Detail, list[one].Iface)
	})
	time.Sleep(3 * a.timing.client) // nothing is to happen meanwhile
	held := 0
	for _, p := range ports {
		if inBridge(t, p) {
			held++
		}
	}
	if held != 1 {
		t.Errorf("expected one of the ports in the bridge, got %d", held)
	}
}
