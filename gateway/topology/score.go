package topology

import (
	"cmp"
	"slices"

	"halo.internal/model"
	"halo.internal/model/graph"
	"halo.internal/model/order"
)

// What a healthy node has, in points of 100. docs/topology.md publishes them and how
// they are given; a test holds the two together.
const (
	weightLink    = 30 // quality of the link to the next hop, both ways
	weightHops    = 15 // few hops to the gateway
	weightSingle  = 10 // no single link whose loss cuts it off
	weightBehind  = 6  // no single node whose loss cuts it off
	weightVital   = 4  // and none that its own loss cuts off
	weightOverlay = 15 // a session with the gateway
	weightReport  = 10 // reports
	weightSteady  = 10 // the same next hop for an hour

	weightRoute = weightLink + weightHops + weightSingle + weightBehind + weightVital // all that a node without a way lacks
	weightAll   = weightRoute + weightOverlay + weightReport + weightSteady

	hopPercent   = 15 // that each hop after the first takes from weightHops
	hopLeast     = 10 // and what is left of it at least
	doubtful     = 50 // quality at most of a link that one end denies, or that no end reports
	oldPercent   = 50 // of weightOverlay, for a session that was there a moment ago
	latePercent  = 50 // of weightReport, for a report that is late
	freeChanges  = 2  // of the next hop in an hour, as they come with the weather
	changePoints = 1  // that each further one takes
)

// reasons gathers what is lacking.
type reasons []graph.Reason

// lose takes points, percent of a weight.
func (l *reasons) lose(weight, percent int, r graph.Reason) {
	if r.Lost = (weight*percent + 50) / 100; r.Lost > 0 {
		*l = append(*l, r)
	}
}

// sorted has the most points first.
func (l reasons) sorted() []graph.Reason {
	order.By(l, func(a, b graph.Reason) int { return cmp.Compare(b.Lost, a.Lost) })
	return slices.Clip(append([]graph.Reason{}, l...))
}

// score rates a node. The lost points of the reasons and the score are 100.
func (d *drawing) score(n int32, out graph.Node) (int, []graph.Reason) {
	var l reasons
	switch {
	case n == d.gateway:
		d.rateGateway(n, &l)
	case !d.routes[n].settled:
		d.rateLost(n, &l)
	default:
		d.rateWay(n, &l)
	}
	if n != d.gateway {
		gateway := ""
		if d.gateway != nobody {
			gateway = d.id(d.gateway)
		}
		switch out.Overlay {
		case graph.OverlayOld:
			l.lose(weightOverlay, oldPercent, graph.Reason{Code: graph.OverlayIsOld, Node: gateway})
		case graph.OverlayDown:
			l.lose(weightOverlay, 100, graph.Reason{Code: graph.OverlayIsDown, Node: gateway})
		case graph.OverlayUnknown:
			l.lose(weightOverlay, 100, graph.Reason{Code: graph.OverlayUnheard})
		}
	}
	switch out.Report {
	case graph.Silent, graph.Never:
		l.lose(weightReport+weightSteady, 100, graph.Reason{Code: graph.NoReport})
	case graph.Late:
		l.lose(weightReport, latePercent, graph.Reason{Code: graph.LateReport})
		fallthrough
	default:
		if more := out.NextHops - freeChanges; more > 0 {
			l.lose(min(changePoints*more, weightSteady), 100, graph.Reason{Code: graph.NextHopChanges, Value: out.NextHops})
		}
	}
	score := weightAll
	for _, r := range l {
		score -= r.Lost
	}
	return score, l.sorted()
}

// rateLost is of a node without a way to the gateway.
func (d *drawing) rateLost(n int32, l *reasons) {
	r := d.routeOut(n)
	reason := graph.Reason{Code: graph.DeadEnd, Node: r.End}
	if r.State == graph.RouteLoop {
		reason.Code, reason.Value = graph.Loop, len(r.Loop)
	}
	l.lose(weightRoute, 100, reason)
}

// rateWay is of a node with a way to the gateway.
func (d *drawing) rateWay(n int32, l *reasons) {
	r, c := d.routes[n], &d.cuts
	via := d.id(r.next)
	quality, reason := doubtful, graph.Reason{Code: graph.UnknownLink, Node: via}
	if i, ok := d.hop(n, r.next); ok {
		quality, reason.Code = rateLink(d.links[i])
	}
	reason.Value = quality
	l.lose(weightLink, 100-quality, reason)
	l.lose(weightHops, min(hopPercent*(r.hops-1), 100-hopLeast), graph.Reason{Code: graph.ManyHops, Value: r.hops})
	if i := c.behindLink[n]; i != nobody {
		above, _ := d.sides(i)
		l.lose(weightSingle, 100, graph.Reason{Code: graph.SingleLink, Node: d.id(above)})
	}
	if o := c.behindNode[n]; o != nobody {
		l.lose(weightBehind, 100, graph.Reason{Code: graph.BehindNode, Node: d.id(o)})
	}
	if cut := d.vital[n]; cut > 0 {
		l.lose(weightVital, 100, graph.Reason{Code: graph.VitalNode, Value: cut})
	}
	if c.root[n] != d.gateway {
		// Routing has a way that no live link shows: nothing is known of others.
		l.lose(weightSingle+weightBehind, 100, graph.Reason{Code: graph.SingleLink, Node: via})
	}
}

// rateGateway is of the gateway, which has no next hop: its best link counts.
func (d *drawing) rateGateway(n int32, l *reasons) {
	others := len(d.members) - 1
	if others == 0 {
		return
	}
	best := -1
	for i, p := range d.between {
		if d.holds(i) && (p.a == n || p.b == n) && (best < 0 || d.links[i].Quality > d.links[best].Quality) {
			best = i
		}
	}
	if best < 0 {
		l.lose(weightRoute, 100, graph.Reason{Code: graph.Alone})
	} else {
		other := d.between[best].a + d.between[best].b - n
		quality, code := rateLink(d.links[best])
		l.lose(weightLink, 100-quality, graph.Reason{Code: code, Node: d.id(other), Value: quality})
		if d.cuts.neighbours[n] == 1 && d.cuts.isBridge[best] {
			l.lose(weightSingle, 100, graph.Reason{Code: graph.SingleLink, Node: d.id(other)})
		}
	}
	lacking, percent := 0, 0
	for i := range d.members {
		if o := int32(i); o != n {
			switch state, _ := d.overlay(o); state {
			case graph.OverlayUp:
				continue
			case graph.OverlayOld:
				percent += oldPercent
			default:
				percent += 100
			}
			lacking++
		}
	}
	l.lose(weightOverlay, percent/others, graph.Reason{Code: graph.OverlayIsDown, Value: lacking})
}

// rateLink tells how good a link is for who depends on it, and why not better.
func rateLink(l graph.Link) (quality int, why graph.Code) {
	if l.State == graph.OneWay {
		return min(l.Quality, doubtful), graph.OneWayLink
	}
	if l.State == graph.Stale {
		return min(l.Quality, doubtful), graph.UnknownLink
	}
	limit := l.AB.Limit
	if l.AB.Iface == "" || l.BA.Iface != "" && l.BA.Quality < l.AB.Quality {
		limit = l.BA.Limit
	}
	switch limit {
	case graph.LimitSignal:
		return l.Quality, graph.WeakSignal
	case graph.LimitTQ:
		return l.Quality, graph.LowTQ
	case graph.LimitLoss:
		return l.Quality, graph.Losses
	}
	return l.Quality, graph.UnknownLink
}

// overlay tells how a node's session with the gateway stands, as the end says that
// knows of the latest handshake, and with how many others it has sessions directly.
func (d *drawing) overlay(n int32) (state graph.Overlay, direct int) {
	heard, latest := false, -1
	hear := func(s int) {
		if s >= 0 && (latest < 0 || s < latest) {
			latest = s
		}
	}
	if r := d.reports[n]; r != nil && d.fresh[n] == graph.Fresh {
		heard = n != d.gateway
		for _, p := range r.report.Overlay {
			switch {
			case d.gateway != nobody && p.Node == d.id(d.gateway):
				hear(p.HandshakeS)
			case p.Direct && p.HandshakeS >= 0 && p.HandshakeS <= model.SessionUpS:
				direct++
			}
		}
	}
	if n == d.gateway {
		return d.overlayOfGateway(), direct
	}
	if d.gateway != nobody && d.fresh[d.gateway] == graph.Fresh {
		heard = true
		if s, ok := d.sessions[d.id(n)]; ok {
			hear(s)
		}
	}
	switch {
	case !heard:
		return graph.OverlayUnknown, direct
	case latest >= 0 && latest <= model.SessionUpS:
		return graph.OverlayUp, direct
	case latest >= 0 && latest <= model.SessionOldS:
		return graph.OverlayOld, direct
	}
	return graph.OverlayDown, direct
}

func (d *drawing) overlayOfGateway() graph.Overlay {
	up := 0
	for i := range d.members {
		if n := int32(i); n != d.gateway {
			if state, _ := d.overlay(n); state == graph.OverlayUp {
				up++
			}
		}
	}
	if 2*up >= len(d.members)-1 {
		return graph.OverlayUp
	}
	return graph.OverlayDown
}

// networkScore is two thirds of the mean of all nodes' and one of the mean of the worst
// tenth's, so that one lost node of thirty shows.
func networkScore(nodes []graph.Node) (int, []graph.Reason) {
	n := len(nodes)
	if n == 0 {
		return 0, []graph.Reason{}
	}
	scores := make([]int, n)
	sum := 0
	lost, affected := map[graph.Code]int{}, map[graph.Code]int{}
	for i, node := range nodes {
		scores[i] = node.Score
		sum += node.Score
		for _, r := range node.Reasons {
			lost[r.Code] += r.Lost
			affected[r.Code]++
		}
	}
	slices.Sort(scores)
	worst, tenth := 0, max(n/10, 1)
	for _, s := range scores[:tenth] {
		worst += s
	}
	whole := 3 * n * tenth
	var l reasons
	for _, code := range graph.Codes {
		if points := (lost[code] + n/2) / n; points > 0 {
			l = append(l, graph.Reason{Code: code, Lost: points, Value: affected[code]})
		}
	}
	return (2*sum*tenth + worst*n + whole/2) / whole, l.sorted()
}
