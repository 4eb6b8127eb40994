package topology

import (
	"math"
	"slices"

	"halo.internal/model"
	"halo.internal/model/graph"
)

// drawnRoute is a node's next hop, and how far the gateway is by it.
type drawnRoute struct {
	next      int32 // nobody where there is none
	transport model.Transport
	guessed   bool
	settled   bool // the way reaches the gateway
	noWay     bool // its recent report names no way
	unknown   bool // it names one by an address that is nobody's
	cost      int
	hops      int
	worst     int
	estimated bool
	tq, kbps  int
}

// route finds each node's way. A next hop that a recent report names is the node's,
// whatever else there is. A node without one gets the first hop of the best path by
// live links, which is a guess. So all ways are one tree, grown from the gateway by
// the cheapest first (Dijkstra): into a node with a next hop it grows from there only.
// What it does not reach goes in a circle, or ends somewhere.
func (d *drawing) route() {
	d.routes = make([]drawnRoute, len(d.members))
	if d.gateway == nobody {
		for i := range d.routes {
			d.routes[i].next = nobody
		}
		return
	}
	for i := range d.members {
		d.routes[i] = d.reported(int32(i))
	}
	free := make([]bool, len(d.members)) // to be guessed
	for i, r := range d.routes {
		free[i] = r.next == nobody && !r.noWay && int32(i) != d.gateway
	}
	// Who names whom, so that a node that is reached hands on to those behind it.
	first, following := make([]int32, len(d.members)), make([]int32, len(d.members))
	for i := range first {
		first[i] = nobody
	}
	for i, r := range d.routes {
		if r.next != nobody {
			following[i], first[r.next] = first[r.next], int32(i)
		}
	}
	linked := d.linked()
	for i := range d.routes {
		d.routes[i].cost = math.MaxInt
	}
	at := &d.routes[d.gateway]
	at.cost, at.hops, at.worst, at.next = 0, 0, 100, nobody
	for {
		n := int32(nobody)
		for i := range d.routes {
			if r := &d.routes[i]; !r.settled && r.cost < math.MaxInt && (n == nobody || r.cost < d.routes[n].cost) {
				n = int32(i)
			}
		}
		if n == nobody {
			return
		}
		d.routes[n].settled = true
		for m := first[n]; m != nobody; m = following[m] {
			d.reach(m, n)
		}
		for _, m := range linked[n] {
			if free[m] && !d.routes[m].settled {
				if l := &d.links[d.near[pairOf(n, m)]]; d.routes[n].cost+l.Cost < d.routes[m].cost {
					d.routes[m].next, d.routes[m].guessed, d.routes[m].transport = n, true, l.Transport
					d.reach(m, n)
				}
			}
		}
	}
}

// reported takes the next hop from a node's report.
func (d *drawing) reported(n int32) drawnRoute {
	r := drawnRoute{next: nobody}
	if n == d.gateway || d.fresh[n] != graph.Fresh {
		return r
	}
	h, ok := d.reports[n].nextHop(d.id(d.gateway))
	if !ok {
		r.noWay = true
		return r
	}
	o, _ := d.whose(h.Next, h.NextNode, false)
	r.tq, r.kbps, r.transport = h.TQ, h.Kbps, d.reports[n].transport(h.Iface)
	if o.node == nobody || o.node == n {
		r.unknown, r.transport = true, ""
		return r
	}
	r.next = o.node
	return r
}

// reach makes n's way one by its next hop.
func (d *drawing) reach(n, next int32) {
	r, via := &d.routes[n], d.routes[next]
	cost, quality := noLinkCost, 0
	if i, ok := d.hop(n, next); ok {
		cost, quality = d.links[i].Cost, d.links[i].Quality
	}
	r.cost, r.hops, r.worst = via.cost+cost, via.hops+1, min(via.worst, quality)
	r.estimated = r.guessed || via.estimated
}

// hop returns the link that a node's frames take to its next hop.
func (d *drawing) hop(n, next int32) (link int32, ok bool) {
	id := graph.LinkID{A: d.id(min(n, next)), B: d.id(max(n, next)), Transport: d.routes[n].transport}
	if id.Transport != "" {
		if i, ok := slices.BinarySearchFunc(d.links, id, func(l graph.Link, id graph.LinkID) int { return l.Compare(id) }); ok {
			return int32(i), true
		}
	}
	link, ok = d.near[pairOf(n, next)]
	return link, ok
}

// linked lists the members that each has a live link to, in the order of their IDs.
func (d *drawing) linked() [][]int32 {
	list := make([][]int32, len(d.members))
	for p := range d.near {
		list[p.a] = append(list[p.a], p.b)
		list[p.b] = append(list[p.b], p.a)
	}
	for _, l := range list {
		slices.Sort(l)
	}
	return list
}

// routeOut is a node's route as it goes out: where it does not reach the gateway, with
// the reason.
func (d *drawing) routeOut(n int32) graph.Route {
	r := d.routes[n]
	out := graph.Route{Node: d.id(n), State: graph.RouteOK, Transport: r.transport, Guessed: r.guessed, TQ: r.tq, Kbps: r.kbps}
	if r.next != nobody {
		out.Next = d.id(r.next)
	}
	if r.settled {
		out.Hops, out.Cost, out.Worst, out.Estimated = r.hops, r.cost, r.worst, r.estimated
		return out
	}
	path := d.follow(n)
	at := path[len(path)-1]
	if next := d.routes[at].next; next != nobody {
		out.State, out.End, out.Loop = graph.RouteLoop, d.id(next), d.loop(path[slices.Index(path, next):])
		return out
	}
	end := d.routes[at]
	out.State, out.End = graph.RouteDeadEnd, d.id(at)
	switch {
	case d.gateway == nobody:
		out.Why = graph.EndGatewayOff
	case end.noWay:
		out.Why = graph.EndNoWay
	case end.unknown:
		out.Why = graph.EndUnknownHop
	default:
		out.Why = graph.EndNoReport
	}
	return out
}

// follow returns the nodes that a node's next hops lead to, itself first, each once.
func (d *drawing) follow(n int32) (path []int32) {
	if d.visit == nil {
		d.visit = make([]int, len(d.members))
	}
	d.walks++
	for at := n; at != nobody && d.visit[at] != d.walks; at = d.routes[at].next {
		d.visit[at] = d.walks
		path = append(path, at)
	}
	return path
}

// loop names the nodes of a loop from the one with the lowest ID on.
func (d *drawing) loop(nodes []int32) []string {
	lowest := slices.Index(nodes, slices.Min(nodes))
	ids := make([]string, 0, min(len(nodes), graph.MaxNamed))
	for i := range nodes {
		if len(ids) == graph.MaxNamed {
			break
		}
		ids = append(ids, d.id(nodes[(lowest+i)%len(nodes)]))
	}
	return ids
}

// nextHopOf tells who a node's recent report says is its next hop to the gateway; nobody
// where it does not, or that is nobody's address.
func (d *drawing) nextHopOf(n int32) int32 {
	if d.gateway == nobody || d.routes[n].guessed {
		return nobody
	}
	return d.routes[n].next
}
