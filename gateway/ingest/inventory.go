package ingest

import (
	"context"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// Hardware is what is known of nodes' buses. Its methods may be called from any goroutine.
type Hardware interface {
	// Knows tells whether a node's inventory is known by that digest.
	Knows(node, digest string) bool
	// Report keeps what a node tells; the error says what is wrong with it.
	Report(ctx context.Context, node, digest string, v model.Inventory) error
}

// askForInventory has the node tell what is on its buses, where the gateway does not know
// that. It costs the node's allowance for news of itself, as the heartbeat does.
func (c *session) askForInventory(digest string) {
	if digest == "" || c.server.Hardware == nil || digest == c.inventory || c.server.Hardware.Knows(c.node, digest) {
		return
	}
	c.inventory = digest // asked for once: it comes, or the next heartbeat names another
	c.send(wire.InventoryWanted{})
}

// tookInventory keeps what was asked for.
func (c *session) tookInventory(ctx context.Context, m wire.InventoryMessage) {
	if c.inventory == "" || c.server.Hardware == nil {
		return // nobody asked
	}
	c.inventory = ""
	if err := c.server.Hardware.Report(ctx, c.node, m.Digest, m.Inventory); err != nil {
		c.server.report("node.inventory.refused", c.node, "what it says of its buses was refused: "+clip(err.Error()), c.remote)
	}
}
