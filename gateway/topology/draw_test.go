package topology

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

func wifi(a, b string) graph.LinkID {
	return graph.LinkID{A: id(a), B: id(b), Transport: model.TransportWiFi}
}

func TestNodesAndLinks(t *testing.T) {
	w := newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b").link("gw", "c", "eth0").link("gw", "c", "mesh1")
	w.reports["b"].Overlay = append(w.reports["b"].Overlay, model.ReportOverlayPeer{Node: id("c"), HandshakeS: 9, Direct: true})
	p := w.draw()
	if len(p.Nodes) != 3 || len(p.Links) != 4 || len(p.Routes) != 2 || len(p.Conflicts) != 0 || p.Gateway != id("gw") {
		t.Fatalf("got %+v", p)
	}
	b, _ := p.Node(id("b"))
	if b.Name != "b" || b.Kind != graph.KindNode || b.Report != graph.Fresh || !b.Heard.Equal(noon) || b.Neighbours != 2 || b.Overlay != graph.OverlayUp || b.Direct != 1 || len(b.Addresses) != 4 {
		t.Errorf("got %+v", b)
	}
	if g, _ := p.Node(id("gw")); g.Kind != graph.KindGateway || g.Neighbours != 2 {
		t.Errorf("got %+v", g)
	}
	halow, ok := p.Link(graph.LinkID{A: id("c"), B: id("gw"), Transport: model.TransportHaLow})
	if !ok || halow.State != graph.Live || halow.AB.FreqKHz != 924000 || halow.AB.Iface != "mesh1" || halow.BA.Quality != 100 || halow.Cost != perfect || halow.Parallel != 1 {
		t.Errorf("got %+v", halow)
	}
	if _, ok := p.Link(wifi("c", "gw")); ok {
		t.Error("a link that nobody has reported")
	}
}

func TestLinkQualityBothWays(t *testing.T) {
	w := newWorld(t, "gw", "b")
	w.half("gw", "b", "mesh0", model.ReportLink{SignalDBm: -70, TQ: 250}) // 60
	w.half("b", "gw", "mesh0", model.ReportLink{SignalDBm: -65, RetryPermille: 400, FailPermille: 100})
	l, _ := w.draw().Link(wifi("b", "gw"))
	if l.Quality != 30 || l.AB.Quality != 30 || l.AB.Limit != graph.LimitLoss || l.BA.Quality != 60 || l.BA.Limit != graph.LimitSignal || l.Cost != 5555 {
		t.Errorf("got %+v", l)
	}
}

func TestQuality(t *testing.T) {
	for name, tc := range map[string]struct {
		transport model.Transport
		link      model.ReportLink
		quality   int
		limit     graph.Limit
	}{
		"strong":                 {model.TransportWiFi, model.ReportLink{SignalDBm: -40}, 100, ""},
		"weak Wi-Fi":             {model.TransportWiFi, model.ReportLink{SignalDBm: -85}, 0, graph.LimitSignal},
		"weaker still":           {model.TransportWiFi, model.ReportLink{SignalDBm: -99}, 0, graph.LimitSignal},
		"the same by HaLow":      {model.TransportHaLow, model.ReportLink{SignalDBm: -85}, 40, graph.LimitSignal},
		"TQ":                     {model.TransportWiFi, model.ReportLink{SignalDBm: -50, TQ: 128}, 50, graph.LimitTQ},
		"every second repeated":  {model.TransportWiFi, model.ReportLink{SignalDBm: -50, RetryPermille: 500}, 75, graph.LimitLoss},
		"a fifth given up":       {model.TransportWiFi, model.ReportLink{SignalDBm: -50, FailPermille: 200}, 0, graph.LimitLoss},
		"the worst counts":       {model.TransportWiFi, model.ReportLink{SignalDBm: -70, TQ: 127, RetryPermille: 999}, 49, graph.LimitTQ},
		"nothing is known":       {model.TransportHaLow, model.ReportLink{}, 50, graph.LimitUnknown},
		"a cable":                {model.TransportEthernet, model.ReportLink{}, 100, ""},
		"a cable that is broken": {model.TransportEthernet, model.ReportLink{TQ: 51}, 20, graph.LimitTQ},
	} {
		if q, limit := qualityOf(tc.transport, tc.link); q != tc.quality || limit != tc.limit {
			t.Errorf("%s: got %d (%s), want %d (%s)", name, q, limit, tc.quality, tc.limit)
		}
	}
	if got := costOf(0, 0); got != worstCost {
		t.Errorf("cost of nothing: got %d", got)
	}
}

// TestLinkStates has what each of two ends says, and when.
func TestLinkStates(t *testing.T) {
	dead := good
	dead.InactiveMS = model.DeadLinkMS + 1
	for name, tc := range map[string]struct {
		a, b         time.Duration // ages of the reports
		sayA, sayB   bool
		deadA, deadB bool
		never        bool // b has never reported
		want         graph.LinkState
	}{
		"both":                            {sayA: true, sayB: true, want: graph.Live},
		"one, the other knows better":     {sayA: true, want: graph.OneWay},
		"one, the other is late":          {b: 5 * time.Minute, sayA: true, want: graph.Live},
		"one, the other is silent":        {b: time.Hour, sayA: true, want: graph.Live},
		"one, the other never reported":   {never: true, sayA: true, want: graph.Live},
		"one, and the other long ago":     {b: 5 * time.Minute, sayA: true, sayB: true, want: graph.Live},
		"both, but not heard for long":    {sayA: true, sayB: true, deadA: true, deadB: true, want: graph.Stale},
		"both, one not heard for long":    {sayA: true, sayB: true, deadB: true, want: graph.OneWay},
		"both, late":                      {a: 4 * time.Minute, b: 5 * time.Minute, sayA: true, sayB: true, want: graph.Stale},
		"one, late, and denied":           {a: 4 * time.Minute, sayA: true, want: ""},
		"one, late, and the other silent": {a: 4 * time.Minute, b: time.Hour, sayA: true, want: graph.Stale},
		"both, forgotten":                 {a: time.Hour, b: time.Hour, sayA: true, sayB: true, want: ""},
		"none":                            {want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "gw", "b")
			w.ages["gw"], w.ages["b"], w.silent["b"] = tc.a, tc.b, tc.never
			for _, e := range []struct {
				of, to    string
				say, dead bool
			}{{"gw", "b", tc.sayA, tc.deadA}, {"b", "gw", tc.sayB, tc.deadB}} {
				l := good
				if e.dead {
					l = dead
				}
				if e.say {
					w.half(e.of, e.to, "mesh0", l)
				}
			}
			l, _ := w.draw().Link(wifi("b", "gw"))
			if l.State != tc.want {
				t.Errorf("got %q, want %q: %+v", l.State, tc.want, l)
			}
		})
	}
}

// TestParallelLinks are one link with the best of them described, the ends of which
// belong together.
func TestParallelLinks(t *testing.T) {
	w := newWorld(t, "gw", "b")
	for _, n := range w.names {
		w.iface(n, "mesh1").Transport = model.TransportWiFi
		w.iface(n, "mesh1").FreqKHz = 5180000
	}
	w.half("gw", "b", "mesh0", model.ReportLink{SignalDBm: -70}) // 60
	w.half("b", "gw", "mesh0", model.ReportLink{SignalDBm: -61}) // 96
	w.half("gw", "b", "mesh1", model.ReportLink{SignalDBm: -65}) // 80
	w.half("b", "gw", "mesh1", model.ReportLink{SignalDBm: -62}) // 92
	p := w.draw()
	l, _ := p.Link(wifi("b", "gw"))
	if len(p.Links) != 1 || l.Parallel != 2 || l.AB.Iface != "mesh0" || l.BA.Iface != "mesh0" || l.Quality != 60 {
		t.Errorf("got %+v", p.Links)
	}
	if len(p.Cuts) != 0 {
		t.Errorf("two radios each are no single link: got %+v", p.Cuts)
	}
}

func TestConflictingAddresses(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "d").links("gw-b b-c c-d gw-d").via("b>gw c>b d>gw")
	taken := w.mac("b", "mesh0")
	w.iface("d", "mesh0").Addresses = append(w.iface("d", "mesh0").Addresses, taken)
	p := w.draw()
	if want := []graph.Conflict{{Address: taken, Nodes: ids("b", "d")}}; !cmp.Equal(p.Conflicts, want) {
		t.Errorf("got %+v", p.Conflicts)
	}
	if l, _ := p.Link(wifi("b", "gw")); l.State != graph.OneWay || l.BA.Iface != "" {
		t.Errorf("the gateway's link to the address was believed: %+v", l)
	}
	if len(p.Nodes) != 4 {
		t.Errorf("an address in dispute became somebody: %+v", p.Nodes)
	}
	if r, _ := p.Route(id("c")); !r.Guessed {
		t.Errorf("a next hop in dispute was believed: %+v", r)
	}
	// The last that b said is old: the radio was plugged into d.
	w.ages["b"] = 3 * time.Minute
	if p := w.draw(); len(p.Conflicts) != 0 {
		t.Errorf("got %+v", p.Conflicts)
	}
}

// TestALiarAboutAnother says that c's address is b's: nobody's word but his own counts
// less for that.
func TestALiarAboutAnother(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "liar").links("gw-b gw-c c-liar")
	w.iface("liar", "mesh0").Links[0].Node = id("b")
	p := w.draw()
	if l, _ := p.Link(wifi("c", "gw")); l.State != graph.Live {
		t.Errorf("got %+v", l)
	}
	if l, _ := p.Link(wifi("c", "liar")); l.State != graph.OneWay {
		t.Errorf("got %+v", l)
	}
	if want := []graph.Conflict{{Address: w.mac("c", "mesh0"), Nodes: ids("b", "c")}}; !cmp.Equal(p.Conflicts, want) {
		t.Errorf("got %+v", p.Conflicts)
	}
}

func TestProvenNeighbourWithoutReport(t *testing.T) {
	w := newWorld(t, "gw", "b")
	w.silent["b"] = true
	w.half("gw", "b", "eth0", model.ReportLink{Node: id("b")})
	if l, ok := w.draw().Link(graph.LinkID{A: id("b"), B: id("gw"), Transport: model.TransportEthernet}); !ok || l.State != graph.Live {
		t.Errorf("got %+v", l)
	}
}

// TestNextHopByHearsay: who a next hop is said to be counts where nobody says it himself.
func TestNextHopByHearsay(t *testing.T) {
	w := newWorld(t, "gw", "b", "c").links("gw-b gw-c b-c").via("b>gw c>b")
	w.reports["c"].NextHops[0].NextNode = id("gw") // wrongly
	p := w.draw()
	if c, _ := p.Route(id("c")); c.Next != id("b") || len(p.Conflicts) != 0 {
		t.Errorf("got %+v, %+v", c, p.Conflicts)
	}
	w.reports["c"].NextHops[0].Next = dot11.MAC{2, 7, 7, 7, 7, 7}
	if c, _ := w.draw().Route(id("c")); c.Next != id("gw") || c.Guessed {
		t.Errorf("got %+v", c)
	}
}

func TestStrangers(t *testing.T) {
	w := newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b")
	far, near := dot11.MAC{2, 9, 9, 9, 9, 1}, dot11.MAC{2, 9, 9, 9, 9, 2}
	add := func(n string, l model.ReportLink) {
		w.iface(n, "mesh0").Links = append(w.iface(n, "mesh0").Links, l)
	}
	add("b", model.ReportLink{Peer: far, SignalDBm: -60})
	add("b", model.ReportLink{Peer: near, SignalDBm: -60})
	add("c", model.ReportLink{Peer: near, SignalDBm: -60})
	add("b", model.ReportLink{Node: id("revoked")})
	add("c", model.ReportLink{Node: id("revoked")})
	p := w.draw()
	if len(p.Nodes) != 5 {
		t.Fatalf("got %+v", p.Nodes)
	}
	for _, want := range []string{near.String(), id("revoked")} {
		if n, ok := p.Node(want); !ok || n.Kind != graph.KindStranger || n.Neighbours != 2 || n.Score != 0 {
			t.Errorf("%s: got %+v", want, n)
		}
		l, ok := p.Link(graph.LinkID{A: min(want, id("b")), B: max(want, id("b")), Transport: model.TransportWiFi})
		if !ok || l.State != graph.Live || l.Parallel != 1 {
			t.Errorf("link to %s: got %+v", want, l)
		}
	}
	if !slices.IsSortedFunc(p.Links, func(a, b graph.Link) int { return a.Compare(b.LinkID) }) {
		t.Errorf("not in order: %+v", p.Links)
	}
	// Strangers do not hold the network together.
	if c, _ := p.Route(id("c")); c.Next != id("b") || len(p.Cuts) == 0 {
		t.Errorf("got %+v, %+v", c, p.Cuts)
	}
}

// TestTheOrderOfTheInputDoesNotMatter draws the same from shuffled input.
func TestTheOrderOfTheInputDoesNotMatter(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	w := field(t, 40, 90, noise)
	w.iface(w.names[3], "mesh0").Addresses[0] = w.mac(w.names[7], "mesh0")
	want := Draw(Input{At: noon, Members: w.members(), Reports: w.heard()})
	for range 20 {
		in := Input{At: noon, Members: w.members(), Reports: w.heard()}
		noise.Shuffle(len(in.Members), func(i, j int) { in.Members[i], in.Members[j] = in.Members[j], in.Members[i] })
		noise.Shuffle(len(in.Reports), func(i, j int) { in.Reports[i], in.Reports[j] = in.Reports[j], in.Reports[i] })
		if d := cmp.Diff(want, Draw(in)); d != "" {
			t.Fatal(d)
		}
	}
}

// TestALotOfNonsense stays within the bounds, whatever 300 liars report.
func TestALotOfNonsense(t *testing.T) {
	noise := rand.New(rand.NewPCG(3, 4))
	w := field(t, 300, 300, noise)
	for _, n := range w.names {
		var links []model.ReportLink
		for k := range model.MaxReportLinks {
			links = append(links, model.ReportLink{Peer: dot11.MAC{6, byte(noise.IntN(4)), byte(k), byte(noise.IntN(2)), 0, 0}})
		}
		*w.iface(n, "mesh0") = model.ReportInterface{Name: "mesh0", Transport: model.TransportWiFi, Links: links, Addresses: []dot11.MAC{w.mac(w.names[noise.IntN(300)], "mesh0")}}
	}
	p := w.draw()
	if len(p.Nodes) > 300+graph.MaxStrangers || len(p.Conflicts) > graph.MaxConflicts {
		t.Errorf("%d nodes, %d conflicts", len(p.Nodes), len(p.Conflicts))
	}
	for _, c := range p.Conflicts {
		if len(c.Nodes) > graph.MaxNamed {
			t.Errorf("%d nodes of a conflict", len(c.Nodes))
		}
	}
	if p := Draw(Input{At: noon}); len(p.Nodes) != 0 || p.Score != 0 {
		t.Errorf("of nothing: got %+v", p)
	}
}
