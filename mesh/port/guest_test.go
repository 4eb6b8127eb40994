package port

import (
	"net"
	"strings"
	"testing"

	"halo.internal/mesh/bridge"
	"halo.internal/mesh/nstest"
	"halo.internal/model/paths"
)

// guests gives a device a bridge into the mesh.
func guests(t *testing.T) option {
	nstest.Hub(t, paths.MeshBridge)
	return func(c *Config) { c.Guests = bridge.Ports(paths.MeshBridge) }
}

// TestABridgedPort is in the bridge into the mesh, whoever is behind it, and in no other
// when it is pinned otherwise.
func TestABridgedPort(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	clients, guests := clients(t), guests(t)
	holds := func() bool {
		held, err := bridge.Ports(paths.MeshBridge).Holds("a0")
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	first := start(t, 1, []string{"a0"}, clients, guests, pin("a0", Client))
	first.await(EventRole, "role", Client)
	eventually(t, "the port serves clients", func() bool { return inBridge(t, "a0") })
	first.stop()

	second := start(t, 1, []string{"a0"}, clients, guests, pin("a0", Bridged))
	second.await(EventRole, "role", Bridged)
	if inBridge(t, "a0") || !holds() {
		t.Error("expected the port out of the bridge of clients, and in that into the mesh")
	}
	if !admitted(t, paths.MeshBridge, "b0", net.HardwareAddr{2, 9, 9, 9, 9, 9}, "a guest's") {
		t.Error("expected the port open to guests")
	}
	start(t, 2, []string{"b0"}).await(EventFound) // a member there proves itself to nobody
	second.stop()
	if !holds() {
		t.Error("expected the port left in the bridge when the process ends")
	}

	third := start(t, 1, []string{"a0"}, clients, guests)
	eventually(t, "the port is out of the bridge into the mesh", func() bool { return !holds() })
	third.await(EventRole, "role", Mesh, "was", Searching)
	third.stop()
}

func TestABridgedPortNeedsABridge(t *testing.T) {
	if _, err := New(Config{Pins: map[string]string{"eth0": Bridged}}); err == nil || !strings.Contains(err.Error(), "pinned as bridge") {
		t.Errorf("got %v", err)
	}
}
