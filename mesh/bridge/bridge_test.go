//go:build !lab

package bridge_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/bridge"
	"halo.internal/mesh/nstest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// TestEnsure makes a bridge, changes it, and leaves what is not one alone.
func TestEnsure(t *testing.T) {
	c := bridge.Config{Name: "br9", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}, Snooping: true}
	steps := []struct {
		name   string
		change func()
	}{
		{"made", func() {}},
		{"as it is", func() {}},
		{"another address", func() { c.MAC = net.HardwareAddr{6, 0, 0, 0, 0, 9} }},
		{"with a spanning tree", func() { c.SpanningTree = true }},
		{"as it is, with one", func() {}},
		{"without", func() { c.SpanningTree = false }},
		{"without snooping", func() { c.Snooping = false }},
	}
	index := 0
	for _, s := range steps {
		s.change()
		if _, err := bridge.Ensure(c); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		l := nstest.Link(t, "br9")
		if l.Type() != "bridge" || l.Attrs().HardwareAddr.String() != c.MAC.String() || index != 0 && l.Attrs().Index != index {
			t.Errorf("%s: got %s %s", s.name, l.Type(), l.Attrs().HardwareAddr)
		}
		index = l.Attrs().Index
	}
	a, b := nstest.Cable(t, "a9", "b9")
	ports := bridge.Ports("br9")
	for range 2 {
		if err := ports.Enslave("a9"); err != nil {
			t.Fatal(err)
		}
	}
	if held, err := ports.Holds("a9"); err != nil || !held {
		t.Errorf("got %t, %v", held, err)
	}
	nstest.Hub(t, "other9", b)
	if err := ports.Enslave("b9"); err == nil || !strings.Contains(err.Error(), "belong to nothing") {
		t.Errorf("a port of another bridge: %v", err)
	}
	if err := ports.Release("b9"); err != nil || nstest.Link(t, "b9").Attrs().MasterIndex == 0 {
		t.Errorf("a port of another bridge was released (%v)", err)
	}
	if err := ports.Release("a9"); err != nil || nstest.Link(t, "a9").Attrs().MasterIndex != 0 {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if err := bridge.Remove("br9"); err != nil {
			t.Error(err)
		}
	}
	if held, err := ports.Holds("a9"); err != nil || held {
		t.Errorf("of a bridge that is gone: got %t, %v", held, err)
	}
	if err := ports.Enslave("a9"); err == nil {
		t.Error("a port was put into a bridge that is gone")
	}
	c.Name = a.Attrs().Name
	if _, err := bridge.Ensure(c); err == nil || !strings.Contains(err.Error(), "expected a bridge, got a link of kind veth") {
		t.Errorf("what is no bridge: %v", err)
	}
	if _, err := netlink.LinkByName("a9"); err != nil {
		t.Error(err)
	}
}
