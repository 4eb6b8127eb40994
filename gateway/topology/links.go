package topology

import (
	"cmp"
	"slices"

	"halo.internal/model/dot11"

	"halo.internal/model/graph"
	"halo.internal/model/order"
)

// end is one end's report of a link, with both nodes known.
type end struct {
	key    uint64 // link, then the side that reports: A's before B's
	from   int32
	to     int32
	remote int8 // index of the interface at the other node, or nobody
	live   bool // it is recent, and so was the peer's last frame
	*half
}

// join finds whom each reported link is to, and merges what both ends say.
func (d *drawing) join() {
	ends := d.ends()
	total := len(d.members) + len(d.strangers)
	// Nodes in the order of their IDs, which links are in too.
	byID := make([]int32, total)
	for i := range byID {
		byID[i] = int32(i)
	}
	if len(d.strangers) > 0 {
		slices.SortFunc(byID, func(a, b int32) int { return cmp.Compare(d.id(a), d.id(b)) })
	}
	place := make([]uint64, total)
	for at, n := range byID {
		place[n] = uint64(at)
	}
	for i := range ends {
		e := &ends[i]
		a, b, side := place[e.from], place[e.to], uint64(0)
		if a > b {
			a, b, side = b, a, 1
		}
		e.key = a<<32 | b<<8 | uint64(e.transport)<<1 | side
	}
	order.By(ends, func(x, y end) int {
		if x.key != y.key { // nearly always
			return cmp.Compare(x.key, y.key)
		}
		return cmp.Or(boolFirst(x.live, y.live), cmp.Compare(y.view.Quality, x.view.Quality),
			cmp.Compare(x.iface, y.iface), slices.Compare(x.peer[:], y.peer[:]), cmp.Compare(x.half.node, y.half.node))
	})
	d.links, d.between = make([]graph.Link, 0, len(ends)/2+1), make([]pair, 0, len(ends)/2+1)
	for from := 0; from < len(ends); {
		to := from + 1
		for to < len(ends) && ends[to].key>>1 == ends[from].key>>1 {
			to++
		}
		split := from
		for split < to && ends[split].key&1 == 0 {
			split++
		}
		d.merge(ends[from:split], ends[split:to])
		from = to
	}
	d.near = make(map[pair]int32, len(d.links))
	for i, p := range d.between {
		if !d.holds(i) {
			continue
		}
		if was, known := d.near[p]; !known || d.links[i].Cost < d.links[was].Cost {
			d.near[p] = int32(i)
		}
	}
}

// holds tells whether the link of that number is a live one between members: what the
// network is held together by.
func (d *drawing) holds(link int) bool {
	p := d.between[link]
	return d.links[link].State == graph.Live && !d.isStranger(p.a) && !d.isStranger(p.b)
}

func boolFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// ends finds out between whom each reported link is. Those to nobody that is known are
// links to a stranger where another member has one to the same.
func (d *drawing) ends() []end {
	var ends, unknown []end
	seen := map[string]*stranger{}
	named := func(h *half) string {
		if h.peer == (dot11.MAC{}) {
			return h.node
		}
		return h.peer.String()
	}
	for i, r := range d.reports {
		if r == nil || d.fresh[i] == graph.Silent {
			continue // a link that nobody has seen for so long is forgotten
		}
		for k := range r.halves {
			h := &r.halves[k]
			e := end{from: int32(i), live: d.fresh[i] == graph.Fresh && !h.dead, half: h}
			o, known := d.whose(h.peer, h.node, true)
			switch {
			case !known:
				s := seen[named(h)]
				if s == nil {
					s = &stranger{id: named(h), addresses: []dot11.MAC{}}
					if h.peer != (dot11.MAC{}) {
						s.addresses = append(s.addresses, h.peer)
					}
					seen[s.id] = s
				}
				s.seen = append(s.seen, e.from)
				unknown = append(unknown, e)
			case o.node != nobody && o.node != e.from:
				e.to, e.remote = o.node, o.iface
				ends = append(ends, e)
			}
		}
	}
	numbers := d.strangersOf(seen)
	for _, e := range unknown {
		if n, ok := numbers[named(e.half)]; ok {
			e.to, e.remote = n, nobody
			ends = append(ends, e)
		}
	}
	return ends
}

// merge adds the link, if it is one, that two ends report, each with the best first;
// either may be empty.
func (d *drawing) merge(as, bs []end) {
	var between pair
	var transport uint8
	if len(as) > 0 {
		between, transport = pair{as[0].from, as[0].to}, as[0].transport
	} else {
		between, transport = pair{bs[0].to, bs[0].from}, bs[0].transport
	}
	state := d.stateOf(between.a, between.b, as, bs)
	if state == "" {
		return
	}
	d.between = append(d.between, between)
	d.links = append(d.links, graph.Link{LinkID: graph.LinkID{A: d.id(between.a), B: d.id(between.b), Transport: transports[transport]}, State: state})
	l := &d.links[len(d.links)-1]
	l.Parallel = max(parallel(as, l.State), parallel(bs, l.State))
	if len(as) > 0 {
		l.AB = as[0].view
	}
	if len(bs) > 0 {
		l.BA = bs[0].view
		if len(as) > 0 {
			l.BA = opposite(as[0], bs).view
		}
	}
	rate(l)
}

// stateOf tells whether a link stands. A recent report that lacks it speaks against it:
// then it is no link, or one way only. Empty: there is no link.
func (d *drawing) stateOf(a, b int32, as, bs []end) graph.LinkState {
	liveA, liveB := len(as) > 0 && as[0].live, len(bs) > 0 && bs[0].live
	lacks := func(n int32, ends []end) bool {
		return len(ends) == 0 && !d.isStranger(n) && d.fresh[n] == graph.Fresh
	}
	switch {
	case liveA && liveB:
		return graph.Live
	case liveA && (lacks(b, bs) || len(bs) > 0 && d.fresh[b] == graph.Fresh), liveB && (lacks(a, as) || len(as) > 0 && d.fresh[a] == graph.Fresh):
		return graph.OneWay
	case liveA || liveB:
		return graph.Live
	case lacks(a, as) || lacks(b, bs):
		return ""
	}
	return graph.Stale
}

// parallel counts the interfaces that an end has the link on; of a live link those that
// are live.
func parallel(ends []end, state graph.LinkState) int {
	n := 0
	for i, e := range ends {
		first := !slices.ContainsFunc(ends[:i], func(o end) bool { return o.iface == e.iface && o.remote == e.remote })
		if first && (state == graph.Stale || e.live) {
			n++
		}
	}
	return n
}

// opposite returns the end that faces the other one: on the interfaces that this says
// it goes from and to. Where that is not known it is the best.
func opposite(e end, others []end) end {
	for _, o := range others {
		if o.remote == e.iface && e.remote == o.iface {
			return o
		}
	}
	return others[0]
}
