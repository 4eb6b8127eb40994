package topology

import (
	"fmt"
	"time"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// decodeDelta reads what a sealer encodes.
func decodeDelta(b []byte) (graph.Delta, error) {
	f, err := unseal(b)
	if err != nil {
		return graph.Delta{}, err
	}
	return f.delta()
}

// delta reads the rows. What comes from a card may be anything: a frame with a place or
// a number that is none is refused. Whether the delta fits a picture, Apply finds out.
func (f frame) delta() (graph.Delta, error) {
	r := frameReader{f: f}
	r.table()
	d := graph.Delta{Run: f.Run, From: f.From, Seq: f.Seq, At: unixMilli(f.At), Gateway: r.id(f.Gateway), Score: r.within(f.Score, 0, weightAll), Reasons: r.reasons(f.Reasons)}
	d.Nodes = items(f.Nodes, r.node, r.someID)
	d.Links = items(f.Links, r.link, r.linkID)
	d.Routes = items(f.Routes, r.route, r.someID)
	d.Cuts = items(f.Cuts, r.cut, r.cutID)
	d.Conflicts = items(f.Conflicts, r.conflict, r.mac)
	if r.bad != "" {
		return graph.Delta{}, fmt.Errorf("%w: %s", ErrDamaged, r.bad)
	}
	return d, nil
}

func items[T, K, R, Q any](rows changeRows[R, Q], item func(R) T, key func(Q) K) (out graph.Changes[T, K]) {
	for _, r := range rows.Added {
		out.Added = append(out.Added, item(r))
	}
	for _, r := range rows.Changed {
		out.Changed = append(out.Changed, item(r))
	}
	for _, q := range rows.Removed {
		out.Removed = append(out.Removed, key(q))
	}
	return out
}

// frameReader looks places up. The first that is none is bad.
type frameReader struct {
	f   frame
	ids []string
	bad string
}

func (r *frameReader) wrong(format string, args ...any) {
	if r.bad == "" {
		r.bad = fmt.Sprintf(format, args...)
	}
}

func (r *frameReader) table() {
	for _, b := range r.f.IDs {
		if len(b) == len(dot11.MAC{}) {
			r.ids = append(r.ids, dot11.MAC(b).String())
			continue
		}
		id, err := model.UnpackNode(b)
		if err != nil {
			r.wrong("%v", err)
		}
		r.ids = append(r.ids, id)
	}
}

// pick returns the value of a number.
func pick[T any](r *frameReader, list []T, n int) (v T) {
	if n < 0 || n >= len(list) {
		r.wrong("expected a number below %d, got %d", len(list), n)
		return v
	}
	return list[n]
}

func (r *frameReader) within(n, low, high int) int {
	if n < low || n > high {
		r.wrong("expected %d to %d, got %d", low, high, n)
	}
	return n
}

// id returns the node of a place; of 0 none.
func (r *frameReader) id(place int) string {
	if place == 0 {
		return ""
	}
	return pick(r, r.ids, place-1)
}

// someID is id where there must be one.
func (r *frameReader) someID(place int) string { return pick(r, r.ids, place-1) }

func (r *frameReader) idList(places []int) []string {
	out := make([]string, len(places))
	for i, p := range places {
		out[i] = r.someID(p)
	}
	return out
}

func (r *frameReader) reasons(rows []reasonRow) []graph.Reason {
	out := make([]graph.Reason, len(rows))
	for i, row := range rows {
		out[i] = graph.Reason{Code: pick(r, graph.Codes[:], row.Code), Lost: row.Lost, Node: r.id(row.Node), Value: row.Value}
	}
	return out
}

func (r *frameReader) mac(b []byte) (a dot11.MAC) {
	if len(b) != len(a) {
		r.wrong("expected a hardware address, got %d octets", len(b))
		return a
	}
	return dot11.MAC(b)
}

func (r *frameReader) node(row nodeRow) graph.Node {
	n := graph.Node{ID: r.someID(row.ID), Kind: pick(r, kinds, row.Kind), Report: pick(r, freshnesses, row.Report), Addresses: []dot11.MAC{},
		Neighbours: row.Neighbours, Overlay: pick(r, overlays, row.Overlay), Direct: row.Direct, NextHops: row.NextHops,
		Score: r.within(row.Score, 0, weightAll), Reasons: r.reasons(row.Reasons)}
	if row.Name != 0 {
		n.Name = pick(r, r.f.Texts, row.Name-1)
	}
	if row.Heard != 0 {
		n.Heard = unixMilli(row.Heard)
	}
	b := row.Addresses
	for ; len(b) >= len(dot11.MAC{}); b = b[len(dot11.MAC{}):] {
		n.Addresses = append(n.Addresses, dot11.MAC(b))
	}
	if len(b) != 0 {
		r.wrong("expected whole hardware addresses, got %d octets more", len(b))
	}
	return n
}

func (r *frameReader) linkID(row linkIDRow) graph.LinkID {
	return graph.LinkID{A: r.someID(row.A), B: r.someID(row.B), Transport: pick(r, rowTransports, row.Transport)}
}

func (r *frameReader) link(row linkRow) graph.Link {
	l := graph.Link{LinkID: r.linkID(row.Link), State: pick(r, linkStates, row.State), Parallel: row.Parallel, AB: r.direction(row.AB), BA: r.direction(row.BA)}
	rate(&l)
	return l
}

func (r *frameReader) direction(row *directionRow) graph.Direction {
	if row == nil {
		return graph.Direction{}
	}
	radio := pick(r, r.f.Radios, row.Radio)
	if radio.Iface == "" {
		r.wrong("expected the name of an interface")
	}
	return graph.Direction{Iface: radio.Iface, FreqKHz: radio.FreqKHz, WidthKHz: radio.WidthKHz, Quality: r.within(row.Quality, 0, 100), Limit: pick(r, limits, row.Limit),
		SignalDBm: row.Signal, TxKbps: row.Tx, RxKbps: row.Rx, ExpectedKbps: row.Expected, TQ: row.TQ, RetryPermille: row.Retries, FailPermille: row.Failed}
}

func (r *frameReader) route(row routeRow) graph.Route {
	out := graph.Route{Node: r.someID(row.Node), State: pick(r, routeStates, row.State), Next: r.id(row.Next), Transport: pick(r, rowTransports, row.Transport),
		Guessed: row.Flags&flagGuessed != 0, Estimated: row.Flags&flagEstimated != 0, Hops: row.Hops, Cost: row.Cost, Worst: row.Worst, TQ: row.TQ, Kbps: row.Kbps,
		End: r.id(row.End), Why: pick(r, ends, row.Why)}
	if len(row.Loop) > 0 {
		out.Loop = r.idList(row.Loop)
	}
	return out
}

func (r *frameReader) cutID(row cutIDRow) graph.CutID {
	switch {
	case row.Link != nil && row.Node == 0:
		return graph.CutID{Link: r.linkID(*row.Link)}
	case row.Link != nil:
		r.wrong("expected a node or a link, got both")
	}
	return graph.CutID{Node: r.someID(row.Node)}
}

func (r *frameReader) cut(row cutRow) graph.Cut {
	return graph.Cut{CutID: r.cutID(row.Cut), Count: row.Count, Split: r.idList(row.Split)}
}

func (r *frameReader) conflict(row conflictRow) graph.Conflict {
	return graph.Conflict{Address: r.mac(row.Address), Nodes: r.idList(row.Nodes)}
}

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
