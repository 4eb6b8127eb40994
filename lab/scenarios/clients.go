package scenarios

import (
	"context"
	"fmt"
	"time"

	"halo.internal/lab/host"
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
