package port

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

func TestUplinkIsFound(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	a := start(t, 1, []string{"a0"}, gateway(u))
	a.await(EventFound)
	if role := a.List()[0].Role; role != Searching {
		t.Errorf("before a server answers: expected %s, got %s", Searching, role)
	}
	u.answer <- struct{}{}
	a.await(EventRole, "role", Uplink)
	expect(t, u.runs, "a0")
	if !admitted(t, "a0", "b0", net.HardwareAddr{2, 9, 9, 9, 9, 9}, "open") {
		t.Error("an uplink is the firewall's to filter, but the port did")
	}
	u.lost <- errors.New("the lease ended")
	a.await(EventRole, "role", Searching)
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh)
	select {
	case u.answer <- struct{}{}:
		t.Error("the port carries the mesh and still looks for servers")
	case <-time.After(50 * time.Millisecond):
	}
}

func TestNodesDoNotLookForUplinks(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	u := newUpstream()
	close(u.answer)
	a := start(t, 1, []string{"a0"}, func(c *Config) { c.Upstream = u })
	start(t, 2, []string{"b0"})
	a.await(EventRole, "role", Mesh, "was", Searching)
	if len(u.runs) != 0 {
		t.Error("a node's port became uplink")
	}
}

func TestUplinkLosesItsCable(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("pinned %t", pinned), func(t *testing.T) {
			_, lb := nstest.Cable(t, "a0", "b0")
			u := newUpstream()
			close(u.answer)
			options := []option{gateway(u)}
			if pinned {
				options = append(options, pin("a0", Uplink))
			}
			start(t, 1, []string{"a0"}, options...)
			expect(t, u.runs, "a0")
			if err := netlink.LinkSetDown(lb); err != nil {
				t.Fatal(err)
			}
			expect(t, u.ended, errUnplugged)
			if err := netlink.LinkSetUp(lb); err != nil {
				t.Fatal(err)
			}
			expect(t, u.runs, "a0")
		})
	}
}

func TestPins(t *testing.T) {
	t.Run("unused", func(t *testing.T) {
		nstest.Cable(t, "a0", "b0")
		a := start(t, 1, []string{"a0"}, pin("a0", Unused))
		a.await(EventRole, "role", Unused)
		if nstest.Link(t, "a0").Attrs().Flags&net.FlagUp != 0 {
			t.Error("expected the port down")
		}
	})
	t.Run("client", func(t *testing.T) {
		nstest.Cable(t, "a0", "b0")
		a := start(t, 1, []string{"a0"}, pin("a0", Client))
		a.await(EventRole, "role", Client)
		if !admitted(t, "a0", "b0", net.HardwareAddr{2, 9, 9, 9, 9, 9}, "open") {
			t.Error("expected a client port open")
		}
	})
	t.Run("unknown", func(t *testing.T) {
		_, err := New(Config{Pins: map[string]string{"eth0": "wan"}})
		if err == nil || !strings.Contains(err.Error(), `got "wan"`) {
			t.Errorf("expected an error that names the value, got %v", err)
		}
	})
	t.Run("uplink where none can be", func(t *testing.T) {
		if _, err := New(Config{Pins: map[string]string{"eth0": Uplink}}); err == nil {
			t.Error("expected an error")
		}
	})
}

// An earlier run of halo-mesh left the port in the mesh.
func TestAdoption(t *testing.T) {
	la, lb := nstest.Cable(t, "a0", "b0")
	nstest.Hub(t, "bat", la)
	adopt := func(c *Config) { c.Carrier.(*carrier).held["a0"] = true }
	a := start(t, 1, []string{"a0"}, adopt)
	a.await(EventRole, "role", Mesh, "was", Searching)
	if admitted(t, "a0", "b0", lb.Attrs().HardwareAddr, "unproven") {
		t.Error("a batman frame came in before anyone proved itself")
	}
	if err := netlink.LinkSetNoMaster(la); err != nil { // what releasing does
		t.Fatal(err)
	}
	expect(t, a.carrier.log, "release a0")
}

// Somebody has taken the port out of the mesh, and the carrier would put it back.
func TestAPortThatWasTakenOutIsForgotten(t *testing.T) {
	nstest.Cable(t, "a0", "b0")
	a := start(t, 1, []string{"a0"}, func(c *Config) { c.Carrier.(*carrier).held["a0"] = true })
	expect(t, a.carrier.log, "release a0")
}

func TestForeignMaster(t *testing.T) {
	la, _ := nstest.Cable(t, "a0", "b0")
	nstest.Hub(t, "br", la)
	a := start(t, 1, []string{"a0"}, func(c *Config) { c.Carrier.(*carrier).fail = errors.New("belongs to br") })
	e := a.await(EventFailed)
	if !strings.Contains(e.Message, "belongs to br") || e.Severity != model.Error {
		t.Errorf("expected the reason in the event, got %+v", e)
	}
	if got := a.List()[0]; got.Role != Searching || !strings.Contains(got.Detail, "belongs to br") {
		t.Errorf("expected the reason in the status, got %+v", got)
	}
}
