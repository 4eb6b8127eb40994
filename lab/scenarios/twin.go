package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"halo.internal/health"
	"halo.internal/lab/admin"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// double is the name of the machine with the gateway's second card.
const double = network.Gateway + "-double"

// secondGateway switches on a machine with another card from the gateway's bundle,
// as somebody does who has lost the first and finds it again. It proves the same key,
// and has the same epoch or a lower one. It must not come between the nodes and
// their gateway: it stands down, and says so, as the first does.
func secondGateway(ctx context.Context, w *World, r *Result) (err error) {
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	since, err := w.Admin.LastEvent(ctx)
	if err != nil {
		return err
	}
	m, err := w.Net.AddGateway(ctx, double)
	if err != nil {
		return err
	}
	if err := w.Net.PowerOn(m); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.PowerCut())
		}
	}()
	if err := w.answers(ctx, m); err != nil {
		return err
	}
	other, err := w.claim(ctx, m)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := w.eventually(ctx, "the second gateway is on the air", func() error {
		s, err := other.Mesh(ctx)
		if err != nil {
			return err
		}
		return peered(s, 1)
	}); err != nil {
		return err
	}
	if err := w.eventually(ctx, "the second gateway stands down", func() error { return stoodDown(ctx, other) }); err != nil {
		return err
	}
	if err := w.eventually(ctx, "the first tells of the second", func() error {
		list, err := w.Admin.EventsSince(ctx, "", twinEvent, since)
		return errors.Join(err, expect(len(list) > 0, "an event %s of the first gateway, got none", twinEvent))
	}); err != nil {
		return err
	}
	// Longer than nodes take to ask a gateway that they hear.
	if err := w.pass(ctx, doubleFor); err != nil {
		return err
	}
	if err := w.eventually(ctx, "the second gateway stands aside and the nodes are with the first", func() error {
		return errors.Join(stoodDown(ctx, other), w.withTheFirst(ctx, other, o))
	}); err != nil {
		return err
	}
	r.Since = "the second gateway came on the air"
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	return m.PowerCut()
}

// twinEvent is the kind of the event that tells of another gateway with the same key.
const twinEvent = "gateway.twin"

// stoodDown is nil when a gateway has stood down for another, and says so to whoever
// asks it how it is.
func stoodDown(ctx context.Context, g *admin.Admin) error {
	s, err := g.Mesh(ctx)
	if err != nil {
		return err
	}
	if s.Twin == nil || !s.Twin.StandsDown {
		return fmt.Errorf("expected that it stands down, it says %+v of another gateway", s.Twin)
	}
	for _, i := range s.Interfaces {
		if i.Name == paths.BatIface && slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr().String() == s.Underlay || p.Addr() == paths.UnderlayGateway }) {
			return fmt.Errorf("expected that it leaves the gateway's addresses, it has %v", i.Addresses)
		}
	}
	h, err := g.Health(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(h.Checks, func(c health.Check) bool {
		return c.State == health.Degraded && strings.Contains(c.Detail, "stands down") && strings.Contains(c.Detail, "switch one of the two off")
	}) {
		return fmt.Errorf("expected that its health says what to do, got %+v", h.Checks)
	}
	list, err := g.EventsSince(ctx, "", twinEvent, 0)
	return errors.Join(err, expect(len(list) > 0, "an event %s of it, got none", twinEvent))
}

// withTheFirst is nil while all nodes are with the gateway that they had, and the other
// one has neither nodes nor outbid it.
func (w *World) withTheFirst(ctx context.Context, other *admin.Admin, o *Outage) error {
	nodes, err := other.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Name != network.Gateway {
			return fmt.Errorf("expected the second gateway without nodes, got %s: %+v", n.Name, n)
		}
	}
	raised, err := other.EventsSince(ctx, "", "gateway.epoch-raised", 0)
	if err := errors.Join(err, expect(len(raised) == 0, "that the second gateway leaves its epoch, it says %+v", raised)); err != nil {
		return err
	}
	first, err := w.Admin.Mesh(ctx)
	if err != nil {
		return err
	}
	if first.Twin == nil || first.Twin.StandsDown {
		return fmt.Errorf("expected that the first gateway knows of the second and serves, it says %+v", first.Twin)
	}
	for _, m := range w.nodes() {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		before, now := keyOf(o.before.views[m.Name()].status, s.Gateway), keyOf(s, s.Gateway)
		if now == "" || now != before {
			return fmt.Errorf("expected %s with the gateway whose overlay key is %q, it has %q", m.Name(), before, now)
		}
	}
	return nil
}

// keyOf is the overlay key by which a machine knows a peer.
func keyOf(s model.MeshStatus, peer string) string {
	for _, p := range s.Overlay {
		if p.Node == peer {
			return p.PublicKey
		}
	}
	return ""
}
