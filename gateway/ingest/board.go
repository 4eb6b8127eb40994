package ingest

import (
	"context"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// mostBoardsAsked in a stream: people may change the file while it lasts.
const mostBoardsAsked = 8

// askForBoard has the node describe its board where the gateway has no such description.
func (c *session) askForBoard(f *model.BoardRef) {
	if f == nil || f.Digest == "" || c.boards >= mostBoardsAsked || c.server.Registry.KnowsBoard(f.Digest) {
		return
	}
	c.boards++
	c.send(wire.BoardWanted{})
}

// board takes a description that was asked for. What is wrong with it is told once in a
// while, and the node is asked no more.
func (c *session) board(ctx context.Context, b model.Board) {
	if c.boards == 0 {
		return // nobody asked
	}
	if err := c.server.Registry.PutBoard(ctx, c.node, b); err != nil {
		c.boards = mostBoardsAsked
		c.server.report("node.board.refused", c.node, "the description of its board was refused: "+clip(err.Error()), c.remote)
	}
}
