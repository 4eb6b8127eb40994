package ingest

import (
	"context"
	"errors"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Hardware is what is known of nodes' buses. Its methods may be called from any goroutine.
type Hardware interface {
	// Knows tells whether a node's inventory is known by that digest.
	Knows(node, digest string) bool
	// Report keeps what a node tells. The error says what is wrong with it, or wraps
	// store.ErrUnavailable or store.ErrCorrupt where it could not be kept.
	Report(ctx context.Context, node, digest string, v model.Inventory) error
}

// askForInventory has the node tell what is on its buses, where the gateway does not know
// that by the digest of its heartbeat.
func (c *session) askForInventory(digest string) {
	if digest == "" || digest == c.inventory || c.server.Hardware == nil || c.server.Hardware.Knows(c.node, digest) || !c.allow(&nodeInventories) {
		return
	}
	c.inventory, c.wanted = digest, true // asked for once: it comes, or a later heartbeat names another
	c.send(wire.InventoryWanted{})
}

// tookInventory keeps what was asked for. What is refused is not asked for again in this
// stream, unless the node names another; what could not be kept is.
func (c *session) tookInventory(ctx context.Context, m wire.InventoryMessage) {
	if !c.wanted {
		return
	}
	c.wanted = false
	err := c.server.Hardware.Report(ctx, c.node, m.Digest, m.Inventory)
	ours := ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrCorrupt)
	if err != nil && !ours {
		c.server.report("node.inventory.refused", c.node, "what it says of its buses was refused: "+clip(err.Error()), c.remote)
		return
	}
	c.inventory = ""
}
