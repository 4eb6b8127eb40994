package topology

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

func TestRoutes(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "d").links("gw-b b-c c-d gw-d").via("b>gw c>b d>c")
	p := w.draw()
	want := []graph.Route{
		{Node: id("b"), State: graph.RouteOK, Next: id("gw"), Transport: model.TransportWiFi, Hops: 1, Cost: 1000, Worst: 100, TQ: 200},
		{Node: id("c"), State: graph.RouteOK, Next: id("b"), Transport: model.TransportWiFi, Hops: 2, Cost: 2000, Worst: 100, TQ: 200},
		{Node: id("d"), State: graph.RouteOK, Next: id("c"), Transport: model.TransportWiFi, Hops: 3, Cost: 3000, Worst: 100, TQ: 200},
	}
	if d := cmp.Diff(want, p.Routes); d != "" {
		t.Errorf("what routing does counts, not what would be shorter: (-want +got)\n%s", d)
	}
	if got, want := p.Path(id("d")), ids("d", "c", "b", "gw"); !cmp.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestGuessedRoutes(t *testing.T) {
	// c is silent: its way is the best by live links, and so is what d's is reckoned by.
	w := newWorld(t, "gw", "b", "c", "d").links("gw-b b-c c-d").via("b>gw d>c")
	w.half("gw", "c", "mesh1", model.ReportLink{SignalDBm: -94})
	w.ages["c"] = 20 * time.Minute
	p := w.draw()
	c, _ := p.Route(id("c"))
	if want := (graph.Route{Node: id("c"), State: graph.RouteOK, Next: id("b"), Transport: model.TransportWiFi, Guessed: true, Estimated: true, Hops: 2, Cost: 2000, Worst: 100}); !cmp.Equal(c, want) {
		t.Errorf("got %+v", c)
	}
	d, _ := p.Route(id("d"))
	if want := (graph.Route{Node: id("d"), State: graph.RouteOK, Next: id("c"), Transport: model.TransportWiFi, Estimated: true, Hops: 3, Cost: 3000, Worst: 100, TQ: 200}); !cmp.Equal(d, want) {
		t.Errorf("got %+v", d)
	}
	// b goes by c: then c's guess must not go by b.
	w.via("b>c")
	p = w.draw()
	if c, _ := p.Route(id("c")); c.Next != id("gw") || c.Transport != model.TransportHaLow || c.Hops != 1 {
		t.Errorf("got %+v", c)
	}
	if b, _ := p.Route(id("b")); b.State != graph.RouteOK || b.Hops != 2 || b.Guessed || !b.Estimated {
		t.Errorf("got %+v", b)
	}
	// An address that is nobody's.
	w = newWorld(t, "gw", "b").links("gw-b")
	w.reports["b"].NextHops = model.ReportNextHops{{Node: id("gw"), Next: dot11.MAC{2, 7, 7, 7, 7, 7}, Iface: "mesh0", TQ: 99}}
	if b, _ := w.draw().Route(id("b")); b.State != graph.RouteOK || !b.Guessed || b.Next != id("gw") || b.TQ != 99 {
		t.Errorf("got %+v", b)
	}
	// Routing has a way that no link is known of.
	w = newWorld(t, "gw", "b").via("b>gw")
	if b, _ := w.draw().Route(id("b")); b.State != graph.RouteOK || b.Guessed || b.Cost != noLinkCost || b.Worst != 0 {
		t.Errorf("got %+v", b)
	}
}

func TestLoopsAndDeadEnds(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "d", "e", "f", "h").links("gw-b b-c c-d d-e e-f").via("b>gw c>d d>e e>c f>e")
	p := w.draw()
	for name, want := range map[string]graph.Route{
		"c": {State: graph.RouteLoop, Next: id("d"), End: id("c"), Loop: ids("c", "d", "e")},
		"e": {State: graph.RouteLoop, Next: id("c"), End: id("e"), Loop: ids("c", "d", "e")},
		"f": {State: graph.RouteLoop, Next: id("e"), End: id("e"), Loop: ids("c", "d", "e")},
		"h": {State: graph.RouteDeadEnd, End: id("h"), Why: graph.EndNoWay},
	} {
		want.Node = id(name)
		if want.Next != "" {
			want.Transport, want.TQ = model.TransportWiFi, 200
		}
		if got, _ := p.Route(id(name)); !cmp.Equal(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if b, _ := p.Route(id("b")); b.State != graph.RouteOK {
		t.Errorf("got %+v", b)
	}
	if got, want := p.Path(id("f")), ids("f", "e", "c", "d"); !cmp.Equal(got, want) {
		t.Errorf("got %v", got)
	}

	// f leads to a node that has said nothing, and that nobody has a live link to.
	w = newWorld(t, "gw", "b", "f").links("gw-b").via("b>gw f>b")
	w.via("f>gw")
	w.silent["b"] = true
	w.iface("gw", "mesh0").Links = nil
	w.via("f>b")
	p = w.draw()
	if f, _ := p.Route(id("f")); f.State != graph.RouteDeadEnd || f.End != id("b") || f.Why != graph.EndNoReport {
		t.Errorf("got %+v", f)
	}
	w = newWorld(t, "gw", "b").via("b>gw")
	w.reports["b"].NextHops[0].Next = dot11.MAC{2, 7, 7, 7, 7, 7}
	if b, _ := w.draw().Route(id("b")); b.State != graph.RouteDeadEnd || b.End != id("b") || b.Why != graph.EndUnknownHop {
		t.Errorf("got %+v", b)
	}
	members := w.members()
	members[0].Gateway = false
	for _, r := range Draw(Input{At: noon, Members: members, Reports: w.heard()}).Routes {
		if r.State != graph.RouteDeadEnd || r.Why != graph.EndGatewayOff {
			t.Errorf("without a gateway: got %+v", r)
		}
	}
}

// TestRoutesOfAny holds what must be true of all routes, however the next hops are.
func TestRoutesOfAny(t *testing.T) {
	noise := rand.New(rand.NewPCG(9, 10))
	for range 200 {
		w := field(t, 30, 30+noise.IntN(60), noise)
		for _, n := range w.names[1:] {
			switch noise.IntN(4) {
			case 0:
				w.via(n + ">" + w.names[noise.IntN(30)])
			case 1:
				w.ages[n] = 3 * time.Minute
			case 2:
				w.reports[n].NextHops = nil
			}
		}
		p := w.draw()
		for _, r := range p.Routes {
			path := p.Path(r.Node)
			end := path[len(path)-1]
			next, _ := p.Route(r.Next)
			switch r.State {
			case graph.RouteOK:
				if end != p.Gateway || len(path) != r.Hops+1 || next.State != "" && (r.Cost <= next.Cost || next.State != graph.RouteOK || r.Hops != next.Hops+1) {
					t.Fatalf("got %+v by %v", r, path)
				}
			case graph.RouteLoop:
				on, _ := p.Route(end)
				if on.State != graph.RouteLoop || !cmp.Equal(on.Loop, r.Loop) || len(r.Loop) < 1 {
					t.Fatalf("got %+v, %+v", r, on)
				}
				for i, n := range r.Loop {
					if hop, _ := p.Route(n); hop.Next != r.Loop[(i+1)%len(r.Loop)] {
						t.Fatalf("%s is not next in %v", hop.Next, r.Loop)
					}
				}
			case graph.RouteDeadEnd:
				if end != r.End || r.Why == "" {
					t.Fatalf("got %+v by %v", r, path)
				}
			}
		}
	}
}
