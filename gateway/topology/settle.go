package topology

import (
	"slices"
	"strings"
	"time"

	"halo.internal/model/graph"
)

// By less than that, what is written down for later may differ from what was: signals
// waver all the time, and a card wears.
const (
	settleScore    = 5   // of a node
	settleQuality  = 10  // of a link, or the worst of a route
	settleSignal   = 6   // dB
	settleTQ       = 26  // of 255
	settlePermille = 100 // of retries and failures
	settlePercent  = 50  // of rates and costs
)

// Settle returns the later picture with each item as the earlier one has it, where the
// two are much the same. When a node was heard last is left out while its reports come.
func Settle(was, now graph.Picture) graph.Picture {
	out := now
	out.Nodes = hold(was.Nodes, now.Nodes, func(a, b graph.Node) int { return strings.Compare(a.ID, b.ID) }, func(n graph.Node) graph.Node {
		if n.Report == graph.Fresh {
			n.Heard = time.Time{}
		}
		return n
	}, muchNode)
	out.Links = hold(was.Links, now.Links, func(a, b graph.Link) int { return a.LinkID.Compare(b.LinkID) }, nil, muchLink)
	out.Routes = hold(was.Routes, now.Routes, func(a, b graph.Route) int { return strings.Compare(a.Node, b.Node) }, nil, muchRoute)
	return out
}

// hold makes a list of the later items, after each was given to as, or of the earlier
// ones where the two are much the same.
func hold[T any](was, now []T, compare func(a, b T) int, as func(T) T, much func(a, b T) bool) []T {
	out := make([]T, len(now))
	for i, t := range now {
		if as != nil {
			t = as(t)
		}
		for len(was) > 0 && compare(was[0], t) < 0 {
			was = was[1:]
		}
		if len(was) > 0 && compare(was[0], t) == 0 && much(was[0], t) {
			t = was[0]
		}
		out[i] = t
	}
	return out
}

func muchNode(n, o graph.Node) bool {
	sameCause := func(a, b graph.Reason) bool { return a.Code == b.Code && a.Node == b.Node }
	return near(n.Score, o.Score, settleScore) && slices.EqualFunc(n.Reasons, o.Reasons, sameCause) &&
		n.Equal(graph.Node{ID: o.ID, Name: o.Name, Kind: o.Kind, Report: o.Report, Heard: o.Heard, Addresses: o.Addresses, Neighbours: o.Neighbours,
			Overlay: o.Overlay, Direct: o.Direct, NextHops: o.NextHops, Score: n.Score, Reasons: n.Reasons})
}

func muchLink(l, o graph.Link) bool {
	return l.State == o.State && l.Parallel == o.Parallel && muchDirection(l.AB, o.AB) && muchDirection(l.BA, o.BA)
}

func muchDirection(d, o graph.Direction) bool {
	known := func(a, b int) bool { return (a == 0) == (b == 0) }
	return d.Iface == o.Iface && d.FreqKHz == o.FreqKHz && d.WidthKHz == o.WidthKHz &&
		near(d.Quality, o.Quality, settleQuality) && (d.Limit == graph.LimitUnknown) == (o.Limit == graph.LimitUnknown) &&
		known(d.SignalDBm, o.SignalDBm) && near(d.SignalDBm, o.SignalDBm, settleSignal) &&
		known(d.TQ, o.TQ) && near(d.TQ, o.TQ, settleTQ) &&
		near(d.RetryPermille, o.RetryPermille, settlePermille) && near(d.FailPermille, o.FailPermille, settlePermille) &&
		nearly(d.TxKbps, o.TxKbps) && nearly(d.RxKbps, o.RxKbps) && nearly(d.ExpectedKbps, o.ExpectedKbps)
}

func muchRoute(r, o graph.Route) bool {
	if !nearly(r.Cost, o.Cost) || !nearly(r.Kbps, o.Kbps) || !near(r.TQ, o.TQ, settleTQ) || !near(r.Worst, o.Worst, settleQuality) {
		return false
	}
	o.Cost, o.Kbps, o.TQ, o.Worst = r.Cost, r.Kbps, r.TQ, r.Worst
	return r.Equal(o)
}

func near(a, b, by int) bool { return max(a-b, b-a) < by }

// nearly is near for what has no scale of its own.
func nearly(a, b int) bool {
	return (a == 0) == (b == 0) && 100*max(a-b, b-a) <= settlePercent*max(a, b)
}
