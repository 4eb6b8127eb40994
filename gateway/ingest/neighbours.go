package ingest

import (
	"cmp"
	"errors"
	"time"

	"halo.internal/gateway/topology"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// Neighbours makes the network's picture of what nodes see around them.
type Neighbours interface {
	// Put takes a report of a node that has proven who it is. The error wraps
	// topology.ErrBase or topology.ErrNotMember where a whole one may be taken.
	Put(model.Report) error
	// Alive notes that a node said something, as it does so often.
	Alive(node string, every time.Duration)
}

var _ Neighbours = (*topology.Engine)(nil)

const mostWholeAsked = 16 // in a stream: a node whose reports never fit is left alone

// alive notes that the node has said something.
func (c *session) alive() {
	if c.server.Neighbours != nil {
		c.server.Neighbours.Alive(c.node, cmp.Or(c.every, usualInterval))
	}
}

// neighbours hands a report on, and has the node send a whole one where that could not be
// put together with what is there. Nothing is acknowledged.
func (c *session) neighbours(m wire.NeighboursMessage) {
	if c.server.Neighbours == nil || !c.allow(&nodeReports) {
		return
	}
	err := c.server.Neighbours.Put(m.Of(c.node, c.boot))
	switch {
	case err == nil:
		return
	case errors.Is(err, topology.ErrOld): // of a start that is over
	case errors.Is(err, topology.ErrNotMember) && m.Report.Base == 0 && c.asked > 0:
		// It is not known as a member for longer than a moment: there are too many.
	case c.asked < mostWholeAsked:
		c.asked++
		c.send(wire.NeighboursWanted{})
	}
	c.server.Log.Debug("a report of neighbours was not taken", "node", c.node, "err", err)
}
