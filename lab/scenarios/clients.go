package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"halo.internal/lab/host"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Of the pool of a node's DHCP server, which has 245 addresses.
const (
	crowdSize  = 400
	crowdLimit = 10 * time.Minute // several times what it takes at the server's rate
	leaving    = 40
)

// exhausted has forged clients at a node's port take all of its addresses. It is
// told of; who has an address keeps it; and when they go, others are served again.
func exhausted(ctx context.Context, w *World, r *Result) error {
	node := w.nodes()[len(w.nodes())-1]
	if err := w.serving(ctx, node, 2); err != nil {
		return err
	}
	since, err := w.Admin.LastEvent(ctx)
	if err != nil {
		return err
	}
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	client, leave, err := w.plug(node, 0, "client", clientMAC)
	if err != nil {
		return err
	}
	defer leave()
	many, unplug, err := w.plug(node, 1, "crowd", rogueMAC)
	if err != nil {
		return err
	}
	defer unplug()
	limit, cancel := context.WithTimeoutCause(ctx, crowdLimit, fmt.Errorf("not within %s", crowdLimit))
	defer cancel()
	lease, err := client.DHCP(limit)
	if err != nil {
		return err
	}
	asking, enough := context.WithCancel(limit)
	defer enough()
	crowd := many.Crowd(asking, crowdSize, host.AsServed)
	began, told := time.Now(), time.Now()
	if err := w.within(ctx, crowdLimit, "the event mesh.dhcp.exhausted", func() error {
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			w.say("  %5.1f s  %d forged clients have an address", time.Since(began).Seconds(), crowd.Leases())
		}
		list, err := w.Admin.EventsSince(ctx, node.Name(), "mesh.dhcp.exhausted", since)
		if err != nil {
			return err
		}
		return expect(len(list) > 0, "the event, got none; %d have an address", crowd.Leases())
	}); err != nil {
		return err
	}
	r.note("%d forged clients had an address after %.0f s", crowd.Leases(), time.Since(began).Seconds())
	again, err := client.Again(limit, lease)
	if err == nil {
		err = expect(again.Address == lease.Address, "%s as before, got %s", lease.Address, again.Address)
	}
	if err == nil {
		err = client.Ping(limit, lease.Router, lease.Router)
	}
	if err != nil {
		return fmt.Errorf("the client that has an address: %w", err)
	}
	enough()
	if err := crowd.Leave(leaving); err != nil {
		return err
	}
	visitor, away, err := w.plug(node, 0, "visitor", visitorMAC)
	if err != nil {
		return err
	}
	defer away()
	if _, err := visitor.Discover(limit); err != nil {
		return fmt.Errorf("a newcomer, when some have left: %w", err)
	}
	r.Since = "the crowd came"
	return w.Recovered(ctx, o, r)
}

// A flood of the gateway's server of DHCP (mesh/dhcp/server). For the mesh it has the
// addresses 10.41.1.0 to 10.41.254.255, which are 65 024, and keeps 4096 leases at most.
// Of clients that it does not know it takes up five a second, and besides five of those
// that were turned away before and ask again. So it takes a quarter of an hour until
// forged clients have all that there is, which is left to the server's own tests; a
// flood does not hasten it. Here it lasts for as long as a node's restart.
const (
	floodEvery = 100 * time.Millisecond // between questions: twice what is taken up
	floodSize  = 1000                   // of the forged clients: none asks again before it is forgotten
	floodLeast = 40                     // of them have an address before the node restarts

	takenAtOnce, takenASecond = 32, 5
)

// flooded has forged guests at a port that is bridged into the mesh ask the gateway for
// addresses, many times as often as it takes newcomers up. Meanwhile a node restarts,
// which has its address of before, and somebody who is new gets one.
func flooded(ctx context.Context, w *World, r *Result) error {
	node := w.nodes()[0]
	bridge, err := w.needBridge(ctx)
	if err != nil {
		return err
	}
	w = w.among(append(slices.Clone(w.Members), bridge)...)
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	had, err := leaseOn(o.before.views[node.Name()].status)
	if err != nil {
		return err
	}
	many, unplug, err := w.plug(bridge, bridged, "crowd", rogueMAC)
	if err != nil {
		return err
	}
	defer unplug()
	visitor, away, err := w.plug(bridge, bridged, "visitor", visitorMAC)
	if err != nil {
		return err
	}
	defer away()
	asking, enough := context.WithCancel(ctx)
	defer enough()
	crowd, began := many.Crowd(asking, floodSize, floodEvery), time.Now()
	if err := w.eventually(ctx, "forged guests have addresses", func() error {
		return expect(crowd.Leases() >= floodLeast, "%d, got %d", floodLeast, crowd.Leases())
	}); err != nil {
		return err
	}
	w.say("  %d forged guests have an address after %.0f s", crowd.Leases(), time.Since(began).Seconds())
	if err := node.Reset(ctx); err != nil {
		return err
	}
	o.Over()
	o.Restarted, r.Since = []*network.Machine{node}, "the reset"
	limit, cancel := context.WithTimeoutCause(ctx, Limit, fmt.Errorf("not within %s", Limit))
	defer cancel()
	lease, err := visitor.DHCP(limit)
	if err != nil {
		return fmt.Errorf("somebody who is new, in the flood: %w", err)
	}
	r.note("somebody who is new had an address after %.0f s of the flood", time.Since(began).Seconds())
	if err := expect(paths.UnderlayNet.Contains(lease.Address) && lease.Server == paths.UnderlayGateway, "an address of %s, of the gateway's server, got %+v", paths.UnderlayNet, lease); err != nil {
		return err
	}
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	enough()
	took, most := time.Since(began), crowd.Leases()
	r.note("%d forged guests had an address after %.0f s, of %d questions", most, took.Seconds(), int(took/floodEvery))
	if err := expect(most <= takenAtOnce+int(took.Seconds()*takenASecond), "that the server takes up %d at once and %d a second, got %d in %s", takenAtOnce, takenASecond, most, took); err != nil {
		return err
	}
	now, _, err := w.status(ctx, node)
	if err != nil {
		return err
	}
	has, err := leaseOn(now)
	if err := errors.Join(err, expect(has == had, "%s with its address of before, %s, got %s", node.Name(), had, has)); err != nil {
		return err
	}
	return errors.Join(visitor.Release(lease), crowd.Leave(most))
}

// leaseOn is the address of IPv4 that a device has on the mesh.
func leaseOn(s model.MeshStatus) (netip.Addr, error) {
	for _, i := range s.Interfaces {
		if i.Name != underlayOf(s) {
			continue
		}
		for _, p := range i.Addresses {
			if paths.UnderlayNet.Contains(p.Addr()) {
				return p.Addr(), nil
			}
		}
	}
	return netip.Addr{}, fmt.Errorf("expected an address of %s on %s, got %+v", paths.UnderlayNet, underlayOf(s), s.Interfaces)
}
