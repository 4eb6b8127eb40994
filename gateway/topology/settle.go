package topology

import (
	"slices"
	"time"
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
func Settle(was, now Picture) Picture {
	out := now
	out.Nodes = hold(nodeList, was.Nodes, now.Nodes, func(n Node) Node {
		if n.Report == Fresh {
			n.Heard = time.Time{}
		}
		return n
	}, Node.much)
	out.Links = hold(linkList, was.Links, now.Links, nil, Link.much)
	out.Routes = hold(routeList, was.Routes, now.Routes, nil, Route.much)
	return out
}

// hold makes a list of the later items, after each was given to as, or of the earlier
// ones where the two are much the same.
func hold[T, K any](l keyed[T, K], was, now []T, as func(T) T, much func(a, b T) bool) []T {
	out := make([]T, len(now))
	for i, t := range now {
		if as != nil {
			t = as(t)
		}
		for len(was) > 0 && l.compare(l.key(was[0]), l.key(t)) < 0 {
			was = was[1:]
		}
		if len(was) > 0 && l.compare(l.key(was[0]), l.key(t)) == 0 && much(was[0], t) {
			t = was[0]
		}
		out[i] = t
	}
	return out
}

func (n Node) much(o Node) bool {
	sameCause := func(a, b Reason) bool { return a.Code == b.Code && a.Node == b.Node }
	return near(n.Score, o.Score, settleScore) && slices.EqualFunc(n.Reasons, o.Reasons, sameCause) &&
		n.equal(Node{ID: o.ID, Name: o.Name, Kind: o.Kind, Report: o.Report, Heard: o.Heard, Addresses: o.Addresses, Neighbours: o.Neighbours,
			Overlay: o.Overlay, Direct: o.Direct, NextHops: o.NextHops, Score: n.Score, Reasons: n.Reasons})
}

func (l Link) much(o Link) bool {
	return l.State == o.State && l.Parallel == o.Parallel && l.AB.much(o.AB) && l.BA.much(o.BA)
}

func (d Direction) much(o Direction) bool {
	known := func(a, b int) bool { return (a == 0) == (b == 0) }
	return d.Iface == o.Iface && d.FreqKHz == o.FreqKHz && d.WidthKHz == o.WidthKHz &&
		near(d.Quality, o.Quality, settleQuality) && (d.Limit == LimitUnknown) == (o.Limit == LimitUnknown) &&
		known(d.SignalDBm, o.SignalDBm) && near(d.SignalDBm, o.SignalDBm, settleSignal) &&
		known(d.TQ, o.TQ) && near(d.TQ, o.TQ, settleTQ) &&
		near(d.RetryPermille, o.RetryPermille, settlePermille) && near(d.FailPermille, o.FailPermille, settlePermille) &&
		nearly(d.TxKbps, o.TxKbps) && nearly(d.RxKbps, o.RxKbps) && nearly(d.ExpectedKbps, o.ExpectedKbps)
}

func (r Route) much(o Route) bool {
	if !nearly(r.Cost, o.Cost) || !nearly(r.Kbps, o.Kbps) || !near(r.TQ, o.TQ, settleTQ) || !near(r.Worst, o.Worst, settleQuality) {
		return false
	}
	o.Cost, o.Kbps, o.TQ, o.Worst = r.Cost, r.Kbps, r.TQ, r.Worst
	return r.equal(o)
}

func near(a, b, by int) bool { return max(a-b, b-a) < by }

// nearly is near for what has no scale of its own.
func nearly(a, b int) bool {
	return (a == 0) == (b == 0) && 100*max(a-b, b-a) <= settlePercent*max(a, b)
}
