//go:build lab

package batman_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"halo.internal/lab/testvm"
	"halo.internal/mesh/batman"
)

// These tests run in the test machine, whose kernel is that of the images.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"batman_adv"}})
}

// patience is far beyond what any of this takes.
const patience = 3 * time.Minute

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// TestTheKernel makes two nodes, each in a namespace of its own and joined by a
// cable, and has the kernel say what it was told, and what it heard.
func TestTheKernel(t *testing.T) {
	for _, algorithm := range []string{batman.IV, batman.V} {
		t.Run(algorithm, func(t *testing.T) {
			runtime.LockOSThread() // namespaces are threads'
			defer runtime.UnlockOSThread()
			here, err := netns.Get()
			ok(t, err)
			t.Cleanup(func() { here.Close() })
			enter := func(ns netns.NsHandle) { t.Helper(); ok(t, netns.Set(ns)) }
			var nodes []*batman.Mesh
			var spaces []netns.NsHandle
			ok(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0"}, PeerName: "port1"}))
			for i := range 2 {
				ns, err := netns.New() // and there
				ok(t, err)
				spaces = append(spaces, ns)
				t.Cleanup(func() { ns.Close() })
				enter(here)
				name := fmt.Sprintf("port%d", i)
				link, err := netlink.LinkByName(name)
				ok(t, err)
				ok(t, netlink.LinkSetNsFd(link, int(ns)))
				enter(ns)
				if link, err = netlink.LinkByName(name); err == nil {
					err = netlink.LinkSetUp(link)
				}
				ok(t, err)
				c := batman.Config{
					Name: "bat0", Algorithm: algorithm, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}, OGMInterval: 700 * time.Millisecond, HopPenalty: 20,
					Gateway: batman.GatewayServer,
				}
				if i == 1 {
					c.Gateway, c.Bridged = batman.GatewayClient, true
				}
				m, err := batman.Open(c)
				ok(t, err)
				t.Cleanup(func() { m.Close() })
				ok(t, m.Enslave(name))
				info, err := m.Info()
				ok(t, err)
				want := batman.Info{
					Version: info.Version, Algorithm: algorithm, MAC: c.MAC, BLA: c.Bridged, DAT: true, ForceFlood: true,
					GatewayMode: c.Gateway, HopPenalty: 20, OGMInterval: c.OGMInterval,
				}
				if diff := cmp.Diff(want, info); diff != "" {
					t.Errorf("node %d (-expected +got):\n%s", i, diff)
				}
				ok(t, m.SetOGMInterval(800*time.Millisecond))
				ok(t, m.SetHopPenalty(21))
				want.OGMInterval, want.HopPenalty = 800*time.Millisecond, 21
				if info, err = m.Info(); err != nil || !cmp.Equal(want, info) {
					t.Errorf("node %d after a change of the interval and the penalty: got %+v, %v", i, info, err)
				}
				p := batman.Port{HopPenalty: 9, ELPInterval: 300 * time.Millisecond, Throughput: 1.2}
				if algorithm == batman.IV {
					p = batman.Port{HopPenalty: 9}
				}
				ok(t, m.SetPort(name, p))
				if got, err := m.Port(name); err != nil || got != p && algorithm == batman.V || got.HopPenalty != p.HopPenalty {
					t.Errorf("port of node %d: got %+v, %v, want %+v", i, got, err, p)
				}
				if _, err := m.Port("lo"); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a port that carries no mesh: %v", err)
				}
				nodes = append(nodes, m)
				enter(here)
			}
			enter(spaces[1])
			defer enter(here)
			until(t, "the client knows the other, what is behind it, and its way out", func() error {
				m := nodes[1]
				ways, err1 := m.Originators()
				clients, err2 := m.Clients()
				gateways, err3 := m.Gateways()
				own, err4 := m.OwnClients()
				if err := errors.Join(err1, err2, err3, err4); err != nil {
					return err
				}
				found := false
				for _, c := range clients {
					found = found || c.MAC.String() == "02:00:00:00:00:01" && c.Best
				}
				mine := false
				for _, c := range own {
					mine = mine || c.MAC.String() == "02:00:00:00:00:02"
				}
				if len(ways) != 1 || ways[0].Iface != "port1" || !found || !mine || len(gateways) != 1 || gateways[0].DownMbit != 10 || gateways[0].UpMbit != 2 {
					return fmt.Errorf("ways %+v, clients %+v, own %+v, gateways %+v", ways, clients, own, gateways)
				}
				neighbours, err := m.Neighbours()
				if algorithm == batman.V && (len(neighbours) != 1 || neighbours[0].Throughput != 1.2) {
					return fmt.Errorf("throughput of the neighbour: %+v, %v", neighbours, err)
				}
				return err
			})
		})
	}
}
