package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/nstest"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// inside is the board's namespace, as the test may reach into it.
func (d *board) inside() (netns.NsHandle, *netlink.Handle) {
	d.t.Helper()
	ns, err := netns.GetFromPid(d.cmd.Process.Pid)
	if err != nil {
		d.t.Fatal(err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { h.Close(); ns.Close() })
	return ns, h
}

// examined has the board's doctor look, until check is content with what it says.
func (d *board) examined(t *testing.T, what string, check func(model.DoctorReport) error) {
	t.Helper()
	until(t, what, func() error {
		r, err := d.mesh.Examine(context.Background())
		if err == nil {
			if err = check(r); err != nil {
				err = fmt.Errorf("%w in %+v", err, r)
			}
		}
		return err
	})
}

func pathTo(r model.DoctorReport, gateway bool) (model.DoctorPeer, error) {
	i := slices.IndexFunc(r.Peers, func(p model.DoctorPeer) bool { return p.Gateway == gateway })
	if i < 0 {
		return model.DoctorPeer{}, errors.New("no such peer")
	}
	return r.Peers[i], nil
}

func finding(r model.DoctorReport, fault, detail string) (model.DoctorFinding, error) {
	for _, f := range r.Findings {
		if f.Fault == fault && strings.Contains(f.Detail, detail) {
			return f, nil
		}
	}
	return model.DoctorFinding{}, fmt.Errorf("no finding of %s: …%s…", fault, detail)
}

// patients are a gateway and a node on a hub, whose names of ports are returned too, and
// are well.
func patients(t *testing.T) (gw, node *board, ports []string) {
	t.Helper()
	gwBundle, nodeBundle, _ := bundles(t)
	gw, node = newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle)
	gw.start()
	node.start()
	ports = hub(t, gw, node)
	until(t, "page through the overlay", node.fetch)
	node.examined(t, "the node's path is well", well(true))
	gw.examined(t, "the gateway's path is well", well(false))
	return gw, node, ports
}

// well tells what is wrong with the path to the gateway, or to a node.
func well(gateway bool) func(model.DoctorReport) error {
	return func(r model.DoctorReport) error {
		p, err := pathTo(r, gateway)
		if err != nil {
			return err
		}
		if !p.Answers || p.OverlayMTU != 1420 || p.UnderlayMTU != 1500 || p.Limit != 0 || p.Fragment != 0 || p.LatencyMS <= 0 || p.Multicast != "yes" {
			return errors.New("not well")
		}
		return nil
	}
}

// TestLargePacketsVanish at a switch that takes no large frames, until the path doctor of
// either end holds to what passes.
func TestLargePacketsVanish(t *testing.T) {
	t.Parallel()
	gw, node, ports := patients(t)
	for _, port := range ports {
		if err := netlink.LinkSetMTU(nstest.Link(t, port), 1400); err != nil {
			t.Fatal(err)
		}
	}
	mended := func(gateway bool) func(model.DoctorReport) error {
		return func(r model.DoctorReport) error {
			p, err := pathTo(r, gateway)
			f, errFinding := finding(r, model.FaultMTU, "vanish")
			if err := errors.Join(err, errFinding); err != nil {
				return err
			}
			// What WireGuard pads to 16 octets and adds 80 to has to fit.
			if f.Mended == nil || f.Treatment == "" || p.Limit != 1312 || p.OverlayMTU != 1312 || p.Fragment != 1392 || p.UnderlayMTU != 1392 {
				return errors.New("not mended")
			}
			return nil
		}
	}
	var other sync.WaitGroup
	other.Go(func() { _, _ = gw.mesh.Examine(context.Background()) }) // at the same time
	node.examined(t, "the node mends its direction", mended(true))
	other.Wait()
	gw.examined(t, "the gateway mends its direction", mended(false))
	until(t, "a large page over the mended path", func() error { return node.ask("/fetch?octets=300000") })
	for _, d := range []*board{gw, node} {
		if err := errors.Join(d.hasEvent("doctor.found"), d.hasEvent("doctor.mended")); err != nil {
			t.Error(err)
		}
	}
	_, inside := node.inside()
	if r, err := routesTo(inside, "0.0.0.0/0"); err != nil || len(r) != 1 || r[0].MTU != 1312 || r[0].Priority != overlay.Metric {
		t.Errorf("the node's default route: %+v, %v", r, err)
	}

	for _, port := range ports {
		if err := netlink.LinkSetMTU(nstest.Link(t, port), 1500); err != nil {
			t.Fatal(err)
		}
	}
	node.examined(t, "the node's path is well again", well(true))
	gw.examined(t, "the gateway's path is well again", well(false))
	node.examined(t, "the finding has ended", func(r model.DoctorReport) error {
		f, err := finding(r, model.FaultMTU, "vanish")
		if err == nil && f.Ended == nil {
			err = errors.New("not ended")
		}
		return err
	})
	if r, err := routesTo(inside, "0.0.0.0/0"); err != nil || len(r) != 1 || r[0].MTU != 0 {
		t.Errorf("the node's default route: %+v, %v", r, err)
	}
	if r, err := routesTo(inside, "10.42.0.1/32"); err != nil || len(r) != 0 {
		t.Errorf("a route to the gateway alone is left: %+v, %v", r, err)
	}
}

// TestPathDoctor seeds faults into a network of a gateway and a node: somebody else's
// routes and rules, and a rule that drops what goes to all.
func TestPathDoctor(t *testing.T) {
	t.Parallel()
	gw, node, _ := patients(t)
	node.examined(t, "the node's traffic for outside follows", func(r model.DoctorReport) error {
		if r.Route == nil || !r.Route.Follows || !r.Route.Answers || r.Route.Iface != paths.OverlayIface || r.Route.Detail != "" {
			return errors.New("route")
		}
		return nil
	})

	t.Run("default route does not follow", func(t *testing.T) {
		_, inside := node.inside()
		bat, err := inside.LinkByName(paths.BatIface)
		if err != nil {
			t.Fatal(err)
		}
		wg, err := inside.LinkByName(paths.OverlayIface)
		if err != nil {
			t.Fatal(err)
		}
		everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
		mended := func(detail string) {
			t.Helper()
			until(t, "it is mended: "+detail, func() error {
				r, err := node.mesh.Doctor(context.Background())
				if err != nil {
					return err
				}
				f, err := finding(r, model.FaultRoute, detail)
				if err == nil && (f.Mended == nil || r.Route == nil || !r.Route.Follows) {
					err = fmt.Errorf("got %+v, %+v", f, r.Route)
				}
				return err
			})
			got, err := routesTo(inside, "0.0.0.0/0")
			if err != nil || len(got) != 1 || got[0].LinkIndex != wg.Attrs().Index {
				t.Errorf("default routes: %+v, %v", got, err)
			}
		}
		if err := inside.RouteDel(&netlink.Route{LinkIndex: wg.Attrs().Index, Dst: everywhere, Priority: overlay.Metric}); err != nil {
			t.Fatal(err)
		}
		mended("the route to everywhere through the overlay is gone")
		if err := inside.RouteAdd(&netlink.Route{LinkIndex: bat.Attrs().Index, Dst: everywhere, Priority: 10}); err != nil {
			t.Fatal(err)
		}
		mended("a route to everywhere through bat0, of metric 10")

		// By a rule about the network's own addresses, to a table of its own.
		if err := inside.RouteAdd(&netlink.Route{LinkIndex: bat.Attrs().Index, Dst: everywhere, Table: 100}); err != nil {
			t.Fatal(err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Priority, rule.Table = unix.AF_INET, 1000, 100
		rule.Src = &net.IPNet{IP: paths.OverlayNet.Addr().AsSlice(), Mask: net.CIDRMask(16, 32)}
		if err := inside.RuleAdd(rule); err != nil {
			t.Fatal(err)
		}
		mended("a rule takes traffic away")

		// On an interface that is none of HALO's, it is only told of.
		vpn := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "vpn0"}, PeerName: "vpn1"}
		if err := errors.Join(inside.LinkAdd(vpn), inside.LinkSetUp(vpn)); err != nil {
			t.Fatal(err)
		}
		there, err := inside.LinkByName("vpn0")
		if err == nil {
			err = inside.RouteAdd(&netlink.Route{LinkIndex: there.Attrs().Index, Dst: everywhere, Priority: 5})
		}
		if err != nil {
			t.Fatal(err)
		}
		until(t, "somebody else's route is told of", func() error {
			r, err := node.mesh.Doctor(context.Background())
			if err != nil {
				return err
			}
			f, err := finding(r, model.FaultRoute, "through vpn0")
			if err == nil && (f.Mended != nil || r.Route.Follows || r.Route.Detail == "") {
				err = fmt.Errorf("got %+v, %+v", f, r.Route)
			}
			return err
		})
		if got, err := routesTo(inside, "0.0.0.0/0"); err != nil || len(got) != 2 {
			t.Errorf("default routes: %+v, %v", got, err)
		}
		if err := inside.LinkDel(there); err != nil {
			t.Fatal(err)
		}
		until(t, "and that it is gone", func() error {
			r, err := node.mesh.Doctor(context.Background())
			if err != nil {
				return err
			}
			if f, err := finding(r, model.FaultRoute, "through vpn0"); err != nil || f.Ended == nil || !r.Route.Follows {
				return fmt.Errorf("got %+v, %+v, %w", f, r.Route, err)
			}
			return nil
		})
	})

	t.Run("multicast is dropped", func(t *testing.T) {
		ns, _ := gw.inside()
		c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
		if err != nil {
			t.Fatal(err)
		}
		table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv6, Name: "trap"})
		chain := c.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFirst})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: paths.DoctorGroup.AsSlice()},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		node.examined(t, "what the gateway's kernel drops", func(r model.DoctorReport) error {
			p, err := pathTo(r, true)
			if err == nil && p.Multicast != "filtered" {
				err = errors.New("not filtered")
			}
			f, errFinding := finding(r, model.FaultMulticast, "did not help")
			if errFinding == nil && f.Mended != nil {
				errFinding = errors.New("mended?")
			}
			return errors.Join(err, errFinding)
		})
		c.DelTable(table)
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		node.examined(t, "it arrives again", func(r model.DoctorReport) error {
			f, err := finding(r, model.FaultMulticast, "")
			if err == nil && f.Ended == nil && f.Mended == nil {
				err = errors.New("not ended")
			}
			return errors.Join(err, well(true)(r))
		})
	})
}

func routesTo(h *netlink.Handle, dst string) ([]netlink.Route, error) {
	list, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	return slices.DeleteFunc(list, func(r netlink.Route) bool {
		return r.Dst == nil && dst != "0.0.0.0/0" || r.Dst != nil && r.Dst.String() != dst
	}), err
}
