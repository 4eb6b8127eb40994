package topology

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model/graph"
)

func TestCuts(t *testing.T) {
	node := func(name string, split ...string) graph.Cut {
		return graph.Cut{CutID: graph.CutID{Node: id(name)}, Count: len(split), Split: ids(split...)}
	}
	link := func(a, b string, split ...string) graph.Cut {
		return graph.Cut{CutID: graph.CutID{Link: wifi(a, b)}, Count: len(split), Split: ids(split...)}
	}
	for name, tc := range map[string]struct {
		names []string
		links string
		want  []graph.Cut
	}{
		"alone": {[]string{"gw"}, "", nil},
		"two":   {[]string{"gw", "b"}, "gw-b", []graph.Cut{link("b", "gw", "b")}},
		"ring":  {[]string{"gw", "b", "c", "d"}, "gw-b b-c c-d gw-d", nil},
		"chain": {[]string{"gw", "b", "c", "d"}, "gw-b b-c c-d",
			[]graph.Cut{node("b", "c", "d"), node("c", "d"), link("b", "c", "c", "d"), link("b", "gw", "b", "c", "d"), link("c", "d", "d")}},
		// The gateway's loss leaves the three of the ring; the other is cut off.
		"gateway between": {[]string{"gw", "b", "c", "d", "x"}, "gw-b b-c c-d gw-d gw-x", []graph.Cut{node("gw", "x"), link("gw", "x", "x")}},
		"two rings by a node": {[]string{"gw", "b", "c", "d", "x", "y"}, "gw-b b-c gw-c c-x x-y c-y",
			[]graph.Cut{node("c", "x", "y")}},
		"two rings by a link": {[]string{"gw", "b", "c", "x", "y", "z"}, "gw-b b-c gw-c c-x x-y y-z x-z",
			[]graph.Cut{node("c", "x", "y", "z"), node("x", "y", "z"), link("c", "x", "x", "y", "z")}},
		// An island without the gateway: what is cut off is the smaller part.
		"an island": {[]string{"gw", "b", "c", "d", "x"}, "b-c c-d d-b d-x", []graph.Cut{node("d", "x"), link("d", "x", "x")}},
	} {
		t.Run(name, func(t *testing.T) {
			got := newWorld(t, tc.names...).links(tc.links).draw().Cuts
			if d := cmp.Diff(append([]graph.Cut{}, tc.want...), got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	p := newWorld(t, "gw", "b", "c").links("gw-b b-c").link("b", "c", "eth0").draw()
	if want := []graph.Cut{node("b", "c"), link("b", "gw", "b", "c")}; !cmp.Equal(p.Cuts, want) {
		t.Errorf("two transports: got %+v", p.Cuts)
	}
	w := newWorld(t, "gw", "b", "c").links("gw-b b-c")
	w.half("gw", "c", "mesh0", good)
	if p := w.draw(); len(p.Cuts) != 3 {
		t.Errorf("a link that one end denies holds nothing together: got %+v", p.Cuts)
	}
}

// TestCutsOfAny compares with taking each node and each link out and looking.
func TestCutsOfAny(t *testing.T) {
	noise := rand.New(rand.NewPCG(5, 6))
	for round := range 300 {
		var names []string
		for n := range 2 + noise.IntN(24) {
			names = append(names, fmt.Sprintf("%c", 'b'+n))
		}
		w := newWorld(t, names...)
		type edge struct{ a, b int }
		edges := map[edge]bool{}
		for range noise.IntN(2 * len(names)) {
			if a, b := noise.IntN(len(names)), noise.IntN(len(names)); a < b && !edges[edge{a, b}] {
				edges[edge{a, b}] = true
				w.link(names[a], names[b], "mesh0")
			}
		}
		// parts of the network that a stays in, without a node and a link
		parts := func(among []int, without int, cut edge) (list [][]int) {
			seen := map[int]bool{without: true}
			for _, from := range among {
				if seen[from] {
					continue
				}
				part := []int{from}
				seen[from] = true
				for i := 0; i < len(part); i++ {
					for e := range edges {
						for _, d := range []edge{e, {e.b, e.a}} {
							if e != cut && d.a == part[i] && !seen[d.b] {
								seen[d.b] = true
								part = append(part, d.b)
							}
						}
					}
				}
				list = append(list, part)
			}
			return list
		}
		all := make([]int, len(names))
		for i := range all {
			all[i] = i
		}
		none := edge{-1, -1}
		p := w.draw()
		got := map[graph.CutID]graph.Cut{}
		for _, c := range p.Cuts {
			got[c.CutID] = c
		}
		check := func(key graph.CutID, whole []int, left [][]int, gone int) {
			c, is := got[key]
			if is != (len(left) > 1) {
				t.Fatalf("%d: %v of %v: got %v with %d parts left", round, key, edges, is, len(left))
			}
			if !is {
				return
			}
			largest := 0
			for _, part := range left {
				largest = max(largest, len(part))
			}
			total := len(whole)
			if gone >= 0 {
				total--
			}
			cut := total - largest
			for _, part := range left {
				if slices.Contains(part, 0) { // the gateway's part stays
					cut = total - len(part)
				}
			}
			if c.Count != cut || len(c.Split) != min(cut, graph.MaxNamed) {
				t.Fatalf("%d: %v of %v: got %+v, want %d", round, key, edges, c, cut)
			}
			// What is named is whole parts.
			for _, part := range left {
				in := 0
				for _, n := range part {
					if slices.Contains(c.Split, id(names[n])) {
						in++
					}
				}
				if in != 0 && in != len(part) {
					t.Fatalf("%d: %v of %v splits %v", round, key, edges, part)
				}
			}
		}
		for _, whole := range parts(all, -1, none) {
			for _, n := range whole {
				check(graph.CutID{Node: id(names[n])}, whole, parts(slices.DeleteFunc(slices.Clone(whole), func(o int) bool { return o == n }), n, none), n)
			}
			for e := range edges {
				if slices.Contains(whole, e.a) {
					check(graph.CutID{Link: wifi(names[e.a], names[e.b])}, whole, parts(whole, -1, e), -1)
				}
			}
		}
	}
}

// TestALongChain needs no stack.
func TestALongChain(t *testing.T) {
	w := field(t, graph.MaxNodes, 0, rand.New(rand.NewPCG(7, 8)))
	for _, n := range w.names {
		w.iface(n, "mesh0").Links = nil
	}
	for i, n := range w.names[1:] {
		w.link(w.names[i], n, "mesh0").via(n + ">" + w.names[i])
	}
	p := w.draw()
	if len(p.Cuts) != 2*graph.MaxNodes-3 {
		t.Errorf("got %d cuts", len(p.Cuts))
	}
	last := w.names[graph.MaxNodes-1]
	if r, _ := p.Route(id(last)); r.Hops != graph.MaxNodes-1 || r.State != graph.RouteOK || len(p.Path(id(last))) != graph.MaxNodes {
		t.Errorf("got %+v", r)
	}
	if c, _ := p.Cut(graph.CutID{Node: id(w.names[1])}); c.Count != graph.MaxNodes-2 || len(c.Split) != graph.MaxNamed {
		t.Errorf("got %+v", c)
	}
}
