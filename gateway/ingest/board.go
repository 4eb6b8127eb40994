package ingest

import (
	"context"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// asking is how far it is with a node's description of its board.
type asking int

const (
	boardUnasked asking = iota
	boardAsked
	boardWrong // what came was refused: in this stream it is asked for no more
)

// askForBoard has the node describe its board where the gateway has no such description.
// People may change the file while the stream lasts.
func (c *session) askForBoard() {
	if c.board == boardUnasked && !c.server.Registry.KnowsBoard(c.node) && c.allow(&nodeBoards) {
		c.board = boardAsked
		c.send(wire.BoardWanted{})
	}
}

// described takes a description that was asked for.
func (c *session) described(ctx context.Context, b model.Board) {
	if c.board != boardAsked {
		return
	}
	c.board = boardUnasked
	if err := c.server.Registry.PutBoard(ctx, c.node, b); err != nil {
		c.board = boardWrong
		c.server.report("node.board.refused", c.node, "the description of its board was refused: "+clip(err.Error()), c.remote)
	}
}
