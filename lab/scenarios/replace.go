package scenarios

import (
	"context"
	"slices"
	"time"

	"halo.internal/model/apitype"
)

// replacedNode loses a node's card, and has one that was written anew take its place: the
// board has another key, joins by the token in its bundle, and is offered as the node that
// it was. Once an admin has adopted it, it is that node, with its name and what is known of
// it, and whoever has the old card is a stranger.
func replacedNode(ctx context.Context, w *World, r *Result) error {
	node := w.nodes()[0]
	before, err := w.Admin.Node(ctx, node.Name())
	if err != nil {
		return err
	}
	if err := node.PowerCut(); err != nil {
		return err
	}
	if err := w.eventually(ctx, "the gateway misses the node", func() error {
		n, err := w.Admin.Node(ctx, before.ID)
		if err == nil {
			err = expect(!n.Online, "%s to be offline", n.Name)
		}
		return err
	}); err != nil {
		return err
	}
	if err := w.Net.NewCard(ctx, node); err != nil {
		return err
	}
	if err := w.Net.PowerOn(node); err != nil {
		return err
	}
	on := time.Now()
	var offered apitype.Replacement
	if err := w.eventually(ctx, "the new card is offered in the place of the old one", func() error {
		list, err := w.Admin.Replacements(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(o apitype.Replacement) bool { return o.Old == before.ID })
		if i < 0 {
			return expect(false, "one for %s, got %+v", before.ID, list)
		}
		offered = list[i]
		return nil
	}); err != nil {
		return err
	}
	r.note("it was %s, and is offered for it by %s", offered.NodeName, offered.Reasons)
	if err := w.Admin.Adopt(ctx, offered.Node); err != nil {
		return err
	}
	if err := w.eventually(ctx, "the new card is the node", func() error {
		n, err := w.Admin.Node(ctx, node.Name())
		if err != nil {
			return err
		}
		s, _, err := w.status(ctx, node)
		if err != nil {
			return err
		}
		return expect(n.ID == offered.Node && n.Online && s.Node == offered.Node && s.Name == node.Name(), "%s to be %s and online, got %s, online %v, and the device says %s, %s", node.Name(), offered.Node, n.ID, n.Online, s.Node, s.Name)
	}); err != nil {
		return err
	}
	r.note("with that name and online %d s after its power came on", int(time.Since(on).Seconds()))
	// As one of the members again, it is as complete as the others.
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	r.Since = "it was adopted and well"
	return w.Recovered(ctx, o, r)
}
