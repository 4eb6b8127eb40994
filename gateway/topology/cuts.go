package topology

import (
	"slices"

	"halo.internal/model/graph"
	"halo.internal/model/order"
)

// cuts is what a search in depth finds out about the live links between members:
// articulation points and bridges (Tarjan, Depth-First Search and Linear Graph
// Algorithms, SIAM J. Comput. 1972), as loops over arrays, since a chain of 500 nodes
// must not be a stack of 500 calls.
//
// A node's subtree in the order of discovery is one range of that order: what is cut
// off is told by ranges.
type cuts struct {
	order  []int32 // nodes as they were discovered, one part of the network after another
	found  []int32 // place of a node in order
	size   []int32 // of its subtree
	root   []int32 // of its part
	parent []int32 // nobody at the root
	by     []int32 // link to the parent
	low    []int32 // earliest place that its subtree has a link to
	apart  [][]int32

	isBridge   []bool  // by link
	behindNode []int32 // the nearest node whose loss cuts it off from the gateway, or nobody
	behindLink []int32 // likewise the nearest link
	neighbours []int   // by node, strangers too: nodes with live links to it
}

// edges is who is linked to whom, as one array that each node has a range of.
type edges struct {
	start []int32
	to    []int32
	link  []int32
}

// cut searches the network, from the gateway first.
func (d *drawing) cut() {
	n := len(d.members)
	g := d.edges()
	c := &d.cuts
	numbers := make([]int32, 8*n)
	take := func() (part []int32) { part, numbers = numbers[:n:n], numbers[n:]; return part }
	c.found, c.size, c.root, c.parent, c.by, c.low, c.behindNode, c.behindLink = take(), take(), take(), take(), take(), take(), take(), take()
	c.order = make([]int32, 0, n)
	c.apart = make([][]int32, n)
	c.isBridge = make([]bool, len(d.links))
	for i := range n {
		c.found[i], c.behindNode[i], c.behindLink[i] = nobody, nobody, nobody
	}
	next := slices.Clone(g.start)
	if d.gateway != nobody {
		d.search(g, d.gateway, next)
	}
	for i := range int32(n) {
		if c.found[i] == nobody {
			d.search(g, i, next)
		}
	}
	if d.gateway != nobody {
		d.behind()
	}
}

// edges lists the live links between members, and counts everybody's neighbours.
func (d *drawing) edges() edges {
	n := len(d.members)
	d.cuts.neighbours = make([]int, n+len(d.strangers))
	g := edges{start: make([]int32, n+1)}
	counts := make([]int32, n)
	last := pair{nobody, nobody} // links of a pair are next to each other
	for i, p := range d.between {
		if d.links[i].State != graph.Live {
			continue
		}
		if p != last {
			d.cuts.neighbours[p.a]++
			d.cuts.neighbours[p.b]++
			last = p
		}
		if d.holds(i) {
			counts[p.a]++
			counts[p.b]++
		}
	}
	for i, k := range counts {
		g.start[i+1] = g.start[i] + k
	}
	g.to, g.link = make([]int32, g.start[n]), make([]int32, g.start[n])
	at := slices.Clone(g.start)
	for i, p := range d.between {
		if !d.holds(i) {
			continue
		}
		g.to[at[p.a]], g.link[at[p.a]] = p.b, int32(i)
		g.to[at[p.b]], g.link[at[p.b]] = p.a, int32(i)
		at[p.a]++
		at[p.b]++
	}
	return g
}

// search visits all that root reaches. next has each node's next edge to look at.
func (d *drawing) search(g edges, root int32, next []int32) {
	c := &d.cuts
	discover := func(n, from, link int32) {
		c.found[n], c.low[n] = int32(len(c.order)), int32(len(c.order))
		c.order = append(c.order, n)
		c.root[n], c.parent[n], c.by[n], c.size[n] = root, from, link, 1
	}
	discover(root, nobody, nobody)
	for n := root; n != nobody; {
		if next[n] < g.start[n+1] {
			to, link := g.to[next[n]], g.link[next[n]]
			next[n]++
			switch {
			case c.found[to] == nobody:
				discover(to, n, link)
				n = to
			case link != c.by[n] || d.links[link].Parallel > 1:
				c.low[n] = min(c.low[n], c.found[to])
			}
			continue
		}
		up := c.parent[n]
		if up != nobody {
			c.low[up] = min(c.low[up], c.low[n])
			c.size[up] += c.size[n]
			if c.low[n] > c.found[up] {
				c.isBridge[c.by[n]] = true
			}
			if c.low[n] >= c.found[up] {
				c.apart[up] = append(c.apart[up], n)
			}
		}
		n = up
	}
}

// behind finds for each node of the gateway's part what is nearest on all its ways.
func (d *drawing) behind() {
	c := &d.cuts
	for _, n := range c.part(d.gateway) {
		up := c.parent[n]
		if up == nobody {
			continue
		}
		c.behindNode[n], c.behindLink[n] = c.behindNode[up], c.behindLink[up]
		if up != d.gateway && c.low[n] >= c.found[up] {
			c.behindNode[n] = up
		}
		if c.low[n] > c.found[up] {
			c.behindLink[n] = c.by[n]
		}
	}
}

// subtree is a node and those below it; of a root the whole part.
func (c *cuts) subtree(n int32) []int32 { return c.order[c.found[n] : c.found[n]+c.size[n]] }

func (c *cuts) part(n int32) []int32 { return c.subtree(c.root[n]) }

// cutsOut names what is cut off by whose loss.
func (d *drawing) cutsOut() []graph.Cut {
	out := []graph.Cut{}
	c := &d.cuts
	for i := range d.members {
		n := int32(i)
		if c.parent[n] == nobody && len(c.apart[n]) > 1 || c.parent[n] != nobody && len(c.apart[n]) > 0 {
			cut := d.cutNode(n)
			cut.Node = d.id(n)
			d.vital[n] = cut.Count
			out = append(out, cut)
		}
	}
	for i, is := range c.isBridge {
		if is {
			_, below := d.sides(int32(i))
			cut := d.cutLink(below)
			cut.Link = d.links[i].LinkID
			out = append(out, cut)
		}
	}
	order.By(out, func(a, b graph.Cut) int { return a.Compare(b.CutID) })
	return out
}

// sides returns the nodes of a bridge: that on the side where the search began, and the
// other.
func (d *drawing) sides(bridge int32) (above, below int32) {
	p := d.between[bridge]
	if d.cuts.by[p.a] == bridge {
		return p.b, p.a
	}
	return p.a, p.b
}

// cutNode tells what is cut off without a node: all parts of what is left but the
// gateway's, or else the largest.
func (d *drawing) cutNode(n int32) graph.Cut {
	c := &d.cuts
	whole := c.part(n)
	rest := int32(len(whole)) - 1 // without n and the subtrees that hang on it
	largest := int32(nobody)
	for _, child := range c.apart[n] {
		rest -= c.size[child]
		if largest == nobody || c.size[child] > c.size[largest] {
			largest = child
		}
	}
	keepRest := rest > 0 && (c.root[n] == d.gateway || rest >= c.size[largest])
	var split []int32
	if keepRest {
		for _, child := range c.apart[n] {
			split = append(split, c.subtree(child)...)
		}
	} else {
		kept := c.subtree(largest)
		before, after := c.found[largest]-c.found[c.root[n]], c.found[largest]-c.found[c.root[n]]+int32(len(kept))
		split = append(split, whole[:before]...)
		split = append(split, whole[after:]...)
		split = slices.DeleteFunc(split, func(o int32) bool { return o == n })
	}
	return graph.Cut{Count: len(split), Split: d.named(split)}
}

// cutLink tells what is cut off without the link above a node.
func (d *drawing) cutLink(below int32) graph.Cut {
	c := &d.cuts
	whole, under := c.part(below), c.subtree(below)
	split := under
	if c.root[below] != d.gateway && 2*len(under) > len(whole) {
		at := c.found[below] - c.found[c.root[below]]
		split = slices.Concat(whole[:at], whole[int(at)+len(under):])
	}
	return graph.Cut{Count: len(split), Split: d.named(split)}
}
