package topology

import (
	"fmt"
	"slices"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// encode makes the octets of a delta.
func (s *sealer) encode(d graph.Delta) ([]byte, error) {
	f, err := frameOf(d)
	if err != nil {
		return nil, err
	}
	return s.seal(f)
}

func frameOf(d graph.Delta) (frame, error) {
	w := frameWriter{ids: map[string]int{}, texts: map[string]int{}, radios: map[radioRow]int{}}
	w.f = frame{Version: frameVersion, Run: d.Run, From: d.From, Seq: d.Seq, At: d.At.UnixMilli(), Score: d.Score}
	w.f.Gateway = w.id(d.Gateway)
	w.f.Reasons = w.reasons(d.Reasons)
	w.f.Nodes = rows(d.Nodes, w.node, w.id)
	w.f.Links = rows(d.Links, w.link, w.linkID)
	w.f.Routes = rows(d.Routes, w.route, w.id)
	w.f.Cuts = rows(d.Cuts, w.cut, w.cutID)
	w.f.Conflicts = rows(d.Conflicts, w.conflict, func(a dot11.MAC) []byte { return a[:] })
	if w.err != nil {
		return frame{}, fmt.Errorf("history: %w", w.err)
	}
	return w.f, nil
}

func rows[T, K, R, Q any](c graph.Changes[T, K], row func(T) R, key func(K) Q) (out changeRows[R, Q]) {
	for _, t := range c.Added {
		out.Added = append(out.Added, row(t))
	}
	for _, t := range c.Changed {
		out.Changed = append(out.Changed, row(t))
	}
	for _, k := range c.Removed {
		out.Removed = append(out.Removed, key(k))
	}
	return out
}

// frameWriter fills the tables while it makes rows.
type frameWriter struct {
	f      frame
	ids    map[string]int
	texts  map[string]int
	radios map[radioRow]int
	err    error
}

// id returns the place of a node in the table, 0 for none.
func (w *frameWriter) id(s string) int {
	if n, ok := w.ids[s]; ok || s == "" {
		return n
	}
	b, err := model.PackNode(nil, s)
	if err != nil {
		a, err := dot11.ParseMAC(s)
		if err != nil {
			w.err = fmt.Errorf("expected a canonical ID or a hardware address, got %.40q", s)
			return 0
		}
		b = a[:]
	}
	w.f.IDs = append(w.f.IDs, b)
	w.ids[s] = len(w.f.IDs)
	return len(w.f.IDs)
}

func (w *frameWriter) idList(list []string) []int {
	out := make([]int, len(list))
	for i, s := range list {
		out[i] = w.id(s)
	}
	return out
}

func (w *frameWriter) text(s string) int {
	if n, ok := w.texts[s]; ok || s == "" {
		return n
	}
	w.f.Texts = append(w.f.Texts, s)
	w.texts[s] = len(w.f.Texts)
	return len(w.f.Texts)
}

func (w *frameWriter) reasons(list []graph.Reason) []reasonRow {
	out := make([]reasonRow, len(list))
	for i, r := range list {
		out[i] = reasonRow{Code: slices.Index(graph.Codes[:], r.Code), Lost: r.Lost, Node: w.id(r.Node), Value: r.Value}
	}
	return out
}

func (w *frameWriter) node(n graph.Node) nodeRow {
	row := nodeRow{ID: w.id(n.ID), Name: w.text(n.Name), Kind: slices.Index(kinds, n.Kind), Report: slices.Index(freshnesses, n.Report),
		Neighbours: n.Neighbours, Overlay: slices.Index(overlays, n.Overlay), Direct: n.Direct, NextHops: n.NextHops, Score: n.Score, Reasons: w.reasons(n.Reasons)}
	if !n.Heard.IsZero() {
		row.Heard = n.Heard.UnixMilli()
	}
	for _, a := range n.Addresses {
		row.Addresses = append(row.Addresses, a[:]...)
	}
	return row
}

func (w *frameWriter) linkID(l graph.LinkID) linkIDRow {
	return linkIDRow{A: w.id(l.A), B: w.id(l.B), Transport: slices.Index(rowTransports, l.Transport)}
}

func (w *frameWriter) link(l graph.Link) linkRow {
	return linkRow{Link: w.linkID(l.LinkID), State: slices.Index(linkStates, l.State), Parallel: l.Parallel, AB: w.direction(l.AB), BA: w.direction(l.BA)}
}

func (w *frameWriter) direction(d graph.Direction) *directionRow {
	if d.Iface == "" {
		return nil
	}
	radio := radioRow{Iface: d.Iface, FreqKHz: d.FreqKHz, WidthKHz: d.WidthKHz}
	at, known := w.radios[radio]
	if !known {
		at = len(w.f.Radios)
		w.f.Radios, w.radios[radio] = append(w.f.Radios, radio), at
	}
	return &directionRow{Radio: at, Quality: d.Quality, Limit: slices.Index(limits, d.Limit), Signal: d.SignalDBm, Tx: d.TxKbps, Rx: d.RxKbps,
		Expected: d.ExpectedKbps, TQ: d.TQ, Retries: d.RetryPermille, Failed: d.FailPermille}
}

func (w *frameWriter) route(r graph.Route) routeRow {
	row := routeRow{Node: w.id(r.Node), State: slices.Index(routeStates, r.State), Next: w.id(r.Next), Transport: slices.Index(rowTransports, r.Transport),
		Hops: r.Hops, Cost: r.Cost, Worst: r.Worst, TQ: r.TQ, Kbps: r.Kbps, End: w.id(r.End), Why: slices.Index(ends, r.Why), Loop: w.idList(r.Loop)}
	if r.Guessed {
		row.Flags |= flagGuessed
	}
	if r.Estimated {
		row.Flags |= flagEstimated
	}
	return row
}

func (w *frameWriter) cutID(c graph.CutID) cutIDRow {
	row := cutIDRow{Node: w.id(c.Node)}
	if c.Node == "" {
		link := w.linkID(c.Link)
		row.Link = &link
	}
	return row
}

func (w *frameWriter) cut(c graph.Cut) cutRow {
	return cutRow{Cut: w.cutID(c.CutID), Count: c.Count, Split: w.idList(c.Split)}
}

func (w *frameWriter) conflict(c graph.Conflict) conflictRow {
	return conflictRow{Address: c.Address[:], Nodes: w.idList(c.Nodes)}
}
