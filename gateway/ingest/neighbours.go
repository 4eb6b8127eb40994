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

// Reports of a node that are taken: some at once, and then one in so long. A node of ours
// sends a few in a minute at most.
const (
	reportsAtOnce  = 10
	reportsRefill  = 2 * time.Second
	mostWholeAsked = 16 // in a stream: a node whose reports never fit is left alone
)

// around is how many reports of a node may come.
type around struct {
	taken int // of reportsAtOnce
	since time.Time
	asked int
}

// take tells whether another report may come.
func (a *around) take(now time.Time) bool {
	if back := int(now.Sub(a.since) / reportsRefill); back > 0 {
		a.taken = max(a.taken-back, 0)
		a.since = now
	}
	if a.taken >= reportsAtOnce {
		return false
	}
	a.taken++
	return true
}

// alive notes that the node has said something.
func (c *session) alive() {
	if c.server.Neighbours != nil {
		c.server.Neighbours.Alive(c.node, cmp.Or(c.every, usualInterval))
	}
}

// neighbours hands a report on, and has the node send a whole one where that could not be
// put together with what is there. Nothing is acknowledged.
func (c *session) neighbours(m wire.NeighboursMessage) {
	if c.server.Neighbours == nil || !c.around.take(time.Now()) {
		return
	}
	err := c.server.Neighbours.Put(m.Of(c.node, c.boot))
	switch {
	case err == nil:
		return
	case errors.Is(err, topology.ErrOld): // of a start that is over
	case errors.Is(err, topology.ErrNotMember) && m.Report.Base == 0 && c.around.asked > 0:
		// It is not known as a member for longer than a moment: there are too many.
	case c.around.asked < mostWholeAsked:
		c.around.asked++
		c.send(wire.NeighboursWanted{})
	}
	c.server.Log.Debug("a report of neighbours was not taken", "node", c.node, "err", err)
}
