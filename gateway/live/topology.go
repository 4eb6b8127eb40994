package live

import (
	"context"
	"iter"

	"halo.internal/model/apitype"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// Pictures are the network's, one after the other.
type Pictures interface {
	News() (seq uint64, next <-chan struct{})
	Picture() graph.Picture
	Since(run, seq uint64) (d graph.Delta, ok bool)
}

// pictureSource tells of the network's picture, piece by piece: on a slow link a network of
// 250 nodes would be a message that nothing can come before. Its numbers are those of the
// pictures and one more, for 0 is before all.
type pictureSource struct{ of Pictures }

// News implements Source.
func (s pictureSource) News(context.Context) (uint64, <-chan struct{}, error) {
	seq, next := s.of.News()
	return seq + 1, next, nil
}

// Since implements Source.
func (s pictureSource) Since(_ context.Context, _ Filter, after uint64) (uint64, bool, iter.Seq2[Change, error], error) {
	p := s.of.Picture()
	if after <= 1 {
		return p.Seq + 1, true, pieces(graph.Diff(graph.Picture{Run: p.Run}, p)), nil
	}
	d, ok := s.of.Since(p.Run, after-1)
	if !ok {
		return p.Seq + 1, false, nil, nil
	}
	return d.Seq + 1, true, pieces(d), nil
}

// pieces are what a delta tells, what is gone first, and the whole network's score last.
func pieces(d graph.Delta) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if d.Seq == 0 {
			return // there is no picture yet
		}
		_ = each(yield, d.Nodes, func(id string) string { return "node " + id }, func(n *graph.Node) apitype.TopologyPiece { return apitype.TopologyPiece{ID: "node " + n.ID, Node: n} }) &&
			each(yield, d.Links, func(id graph.LinkID) string { return "link " + id.String() }, func(l *graph.Link) apitype.TopologyPiece {
				return apitype.TopologyPiece{ID: "link " + l.LinkID.String(), Link: l}
			}) &&
			each(yield, d.Routes, func(node string) string { return "route " + node }, func(r *graph.Route) apitype.TopologyPiece {
				return apitype.TopologyPiece{ID: "route " + r.Node, Route: r}
			}) &&
			each(yield, d.Cuts, func(id graph.CutID) string { return "cut " + id.String() }, func(c *graph.Cut) apitype.TopologyPiece {
				return apitype.TopologyPiece{ID: "cut " + c.CutID.String(), Cut: c}
			}) &&
			each(yield, d.Conflicts, func(a dot11.MAC) string { return "conflict " + a.String() }, func(c *graph.Conflict) apitype.TopologyPiece {
				return apitype.TopologyPiece{ID: "conflict " + c.Address.String(), Conflict: c}
			}) &&
			yield(Change{Item: apitype.TopologyPiece{ID: "network", Network: &apitype.TopologyNetwork{Run: d.Run, Seq: d.Seq, At: d.At, Gateway: d.Gateway, Score: d.Score, Reasons: d.Reasons}}}, nil)
	}
}

// each yields the changes of a list; false: enough.
func each[T, K any](yield func(Change, error) bool, c graph.Changes[T, K], gone func(K) string, piece func(*T) apitype.TopologyPiece) bool {
	for _, k := range c.Removed {
		if !yield(Change{Gone: gone(k)}, nil) {
			return false
		}
	}
	for _, list := range [][]T{c.Added, c.Changed} {
		for i := range list {
			if !yield(Change{Item: piece(&list[i])}, nil) {
				return false
			}
		}
	}
	return true
}
