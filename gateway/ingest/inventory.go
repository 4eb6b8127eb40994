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
// that by the digest of its heartbeat.
func (c *session) askForInventory(digest string) {
	if digest == "" || digest == c.inventory || c.server.Hardware == nil || c.server.Hardware.Knows(c.node, digest) || !c.allow(&nodeInventories) {
		return
	}
	c.inventory, c.wanted = digest, true // asked for once: it comes, or a later heartbeat names another
	c.send(wire.InventoryWanted{})
}

// tookInventory keeps what was asked for. What is refused is not asked for again in this
// stream, unless the node names another.
func (c *session) tookInventory(ctx context.Context, m wire.InventoryMessage) {
	if !c.wanted {
		return
	}
	c.wanted = false
	if err := c.server.Hardware.Report(ctx, c.node, m.Digest, m.Inventory); err != nil {
		c.server.report("node.inventory.refused", c.node, "what it says of its buses was refused: "+clip(err.Error()), c.remote)
		return
	}
	c.inventory = ""
}
