package topology

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/graph"
)

var update = flag.Bool("update", false, "write golden files and the worked example of docs/topology.md")

func codesOf(list []graph.Reason) (out []graph.Code) {
	for _, r := range list {
		out = append(out, r.Code)
	}
	return out
}

func TestScores(t *testing.T) {
	ring := func() *world {
		return newWorld(t, "gw", "b", "c", "d").links("gw-b b-c c-d gw-d").via("b>gw c>b d>gw")
	}
	signal := func(w *world, a, b string, dbm int) {
		for _, p := range [][2]string{{a, b}, {b, a}} {
			for k, l := range w.iface(p[0], "mesh0").Links {
				if l.Peer == w.mac(p[1], "mesh0") {
					w.iface(p[0], "mesh0").Links[k].SignalDBm = dbm
				}
			}
		}
	}
	for name, tc := range map[string]struct {
		change func(w *world) *world
		node   string
		score  int
		codes  []graph.Code
	}{
		"nothing is wrong":         {func(w *world) *world { return w }, "b", 100, nil},
		"two hops":                 {func(w *world) *world { return w }, "c", 98, []graph.Code{graph.ManyHops}},
		"the gateway":              {func(w *world) *world { return w }, "gw", 100, nil},
		"weak signal":              {func(w *world) *world { signal(w, "b", "gw", -75); return w }, "b", 82, []graph.Code{graph.WeakSignal}},
		"of one, others' is good":  {func(w *world) *world { signal(w, "b", "gw", -75); return w }, "gw", 100, nil},
		"one direction is lossy":   {func(w *world) *world { w.iface("gw", "mesh0").Links[0].TQ = 51; return w }, "b", 76, []graph.Code{graph.LowTQ}},
		"frames are lost":          {func(w *world) *world { w.iface("b", "mesh0").Links[0].FailPermille = 100; return w }, "b", 85, []graph.Code{graph.Losses}},
		"the other end denies it":  {func(w *world) *world { w.iface("gw", "mesh0").Links = nil; w.half("gw", "d", "mesh0", good); return w }, "b", 69, []graph.Code{graph.OneWayLink, graph.SingleLink, graph.BehindNode}},
		"session was not renewed":  {func(w *world) *world { return w.session("b", 300) }, "b", 92, []graph.Code{graph.OverlayIsOld}},
		"no session":               {func(w *world) *world { return w.session("b", -1) }, "b", 85, []graph.Code{graph.OverlayIsDown}},
		"no session, the gateway":  {func(w *world) *world { return w.session("b", -1) }, "gw", 95, []graph.Code{graph.OverlayIsDown}},
		"a late report":            {func(w *world) *world { w.ages["b"] = 4 * time.Minute; return w }, "b", 95, []graph.Code{graph.LateReport}},
		"no report":                {func(w *world) *world { w.ages["b"] = time.Hour; return w }, "b", 80, []graph.Code{graph.NoReport}},
		"two changes in an hour":   {func(w *world) *world { w.changes["b"] = 2; return w }, "b", 100, nil},
		"seven changes in an hour": {func(w *world) *world { w.changes["b"] = 7; return w }, "b", 95, []graph.Code{graph.NextHopChanges}},
		"very many":                {func(w *world) *world { w.changes["b"] = 64; return w }, "b", 90, []graph.Code{graph.NextHopChanges}},
		"no way":                   {func(w *world) *world { w.reports["b"].NextHops = nil; return w }, "b", 35, []graph.Code{graph.DeadEnd}},
		"behind it":                {func(w *world) *world { w.reports["b"].NextHops = nil; return w }, "c", 35, []graph.Code{graph.DeadEnd}},
		"a loop":                   {func(w *world) *world { return w.via("b>c") }, "b", 35, []graph.Code{graph.Loop}},
		"gone": {func(w *world) *world {
			w.silent["b"] = true
			for _, n := range []string{"gw", "c"} {
				w.iface(n, "mesh0").Links = slices.DeleteFunc(w.iface(n, "mesh0").Links, func(l model.ReportLink) bool { return l.Peer == w.mac("b", "mesh0") })
			}
			return w.session("b", -1)
		}, "b", 0, []graph.Code{graph.DeadEnd, graph.NoReport, graph.OverlayIsDown}},
		"nobody reports": {func(w *world) *world {
			for _, n := range w.names {
				w.silent[n] = true
			}
			return w
		}, "b", 0, []graph.Code{graph.DeadEnd, graph.NoReport, graph.OverlayUnheard}},
		"a chain": {func(w *world) *world {
			return newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b")
		}, "c", 82, []graph.Code{graph.SingleLink, graph.BehindNode, graph.ManyHops}},
		"the middle of a chain": {func(w *world) *world {
			return newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b")
		}, "b", 86, []graph.Code{graph.SingleLink, graph.VitalNode}},
		"the gateway of a chain": {func(w *world) *world {
			return newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b")
		}, "gw", 90, []graph.Code{graph.SingleLink}},
		"ten hops": {func(*world) *world {
			names := strings.Split("gw b c d e f h i j k l", " ")
			w := newWorld(t, names...)
			for i, n := range names[1:] {
				w.link(names[i], n, "mesh0").via(n + ">" + names[i])
			}
			return w
		}, "l", 70, []graph.Code{graph.ManyHops, graph.SingleLink, graph.BehindNode}},
		"a gateway alone": {func(w *world) *world {
			w.iface("gw", "mesh0").Links = nil
			return w
		}, "gw", 35, []graph.Code{graph.Alone}},
		"a gateway without nodes":  {func(w *world) *world { return newWorld(t, "gw") }, "gw", 100, nil},
		"a way without known link": {func(w *world) *world { return newWorld(t, "gw", "b").via("b>gw") }, "b", 69, []graph.Code{graph.SingleLink, graph.UnknownLink}},
	} {
		t.Run(name, func(t *testing.T) {
			p := tc.change(ring()).draw()
			n, _ := p.Node(id(tc.node))
			if n.Score != tc.score || !slices.Equal(codesOf(n.Reasons), tc.codes) {
				t.Errorf("got %d for %v, want %d for %v", n.Score, n.Reasons, tc.score, tc.codes)
			}
		})
	}
}

// TestScoresAddUp holds of whatever network.
func TestScoresAddUp(t *testing.T) {
	noise := rand.New(rand.NewPCG(23, 24))
	seen := map[graph.Code]bool{}
	for range 60 {
		w := field(t, 20, 19+noise.IntN(20), noise)
		for range 40 {
			n := w.change(noise)[0]
			w.ages[n] = time.Duration(noise.IntN(900)) * time.Second
			w.changes[n] = noise.IntN(20)
			if n != w.names[0] {
				w.session(n, noise.IntN(1000)-1)
			}
		}
		w.ages[w.names[0]] = time.Duration(noise.IntN(200)) * time.Second
		p := w.draw()
		for _, n := range p.Nodes {
			lost := 0
			for _, r := range n.Reasons {
				lost += r.Lost
				seen[r.Code] = true
				if text := r.String(); strings.Contains(text, "%!") || text == string(r.Code) {
					t.Errorf("%+v has no words: %s", r, text)
				}
			}
			if n.Kind != graph.KindStranger && n.Score != 100-lost || n.Score < 0 {
				t.Fatalf("%+v", n)
			}
			if !slices.IsSortedFunc(n.Reasons, func(a, b graph.Reason) int { return b.Lost - a.Lost }) {
				t.Fatalf("not the most first: %+v", n.Reasons)
			}
		}
		if p.Score < 0 || p.Score > 100 {
			t.Fatalf("network: %d", p.Score)
		}
	}
	for _, c := range graph.Codes {
		if !seen[c] && c != graph.OneWayLink {
			t.Logf("%s did not come up", c)
		}
	}
}

func TestNetworkScore(t *testing.T) {
	nodes := make([]graph.Node, 30)
	for i := range nodes {
		nodes[i] = graph.Node{Score: 90, Reasons: []graph.Reason{{Code: graph.ManyHops, Lost: 10}}}
	}
	if got, why := networkScore(nodes); got != 90 || len(why) != 1 || why[0] != (graph.Reason{Code: graph.ManyHops, Lost: 10, Value: 30}) {
		t.Errorf("got %d, %+v", got, why)
	}
	nodes[4] = graph.Node{Reasons: []graph.Reason{{Code: graph.DeadEnd, Lost: 65}, {Code: graph.NoReport, Lost: 20}, {Code: graph.OverlayIsDown, Lost: 15}}}
	if got, why := networkScore(nodes); got != 78 || why[1] != (graph.Reason{Code: graph.DeadEnd, Lost: 2, Value: 1}) {
		t.Errorf("one is lost: got %d, %+v", got, why)
	}
}

// example is the network of docs/topology.md.
func example(t testing.TB) *world {
	w := newWorld(t, "gateway", "mast", "hut", "pump", "gate")
	set := func(a, b, iface string, there, back model.ReportLink) {
		w.half(a, b, iface, there)
		w.half(b, a, iface, back)
	}
	set("mast", "gateway", "mesh0", model.ReportLink{SignalDBm: -64, TxKbps: 39000, TQ: 240, RetryPermille: 120}, model.ReportLink{SignalDBm: -62, TxKbps: 52000, TQ: 245})
	set("hut", "gateway", "mesh0", model.ReportLink{SignalDBm: -76, TxKbps: 6500, TQ: 150}, model.ReportLink{SignalDBm: -74, TxKbps: 13000, TQ: 170})
	set("hut", "mast", "mesh0", model.ReportLink{SignalDBm: -66, TxKbps: 26000, TQ: 230}, model.ReportLink{SignalDBm: -67, TxKbps: 26000, TQ: 235})
	set("pump", "hut", "mesh1", model.ReportLink{SignalDBm: -83, TxKbps: 1500, TQ: 190}, model.ReportLink{SignalDBm: -80, TxKbps: 1800, TQ: 200})
	set("gate", "pump", "eth0", model.ReportLink{TQ: 255}, model.ReportLink{TQ: 255})
	hop := func(n, next, iface string) {
		w.reports[n].NextHops = model.ReportNextHops{{Node: id("gateway"), Next: w.mac(next, iface), Iface: iface, TQ: 150}}
	}
	hop("mast", "gateway", "mesh0")
	hop("hut", "mast", "mesh0")
	hop("pump", "hut", "mesh1")
	w.ages["gate"] = 4 * time.Minute // it has said nothing for a while
	w.changes["hut"] = 6
	w.session("pump", 400)
	return w
}

// worked is the example as docs/topology.md has it.
func worked(w *world, p graph.Picture) string {
	var b strings.Builder
	name := func(s string) string {
		for _, n := range w.names {
			if id(n) == s {
				return n
			}
		}
		return s
	}
	fmt.Fprintln(&b, "link                     state   there   back    cost")
	for _, l := range p.Links {
		fmt.Fprintf(&b, "%-24s %-6s %6d %6d %7.3f\n", fmt.Sprintf("%s %s %s", name(l.A), l.Transport, name(l.B)), l.State, l.AB.Quality, l.BA.Quality, float64(l.Cost)/perfect)
	}
	fmt.Fprintln(&b, "\nroute")
	for _, r := range p.Routes {
		var way []string
		for _, n := range p.Path(r.Node) {
			way = append(way, name(n))
		}
		line := strings.Join(way, " > ")
		if r.Estimated {
			line += "  (estimated)"
		}
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintln(&b, "\nloss of                  cuts off")
	for _, c := range p.Cuts {
		what := name(c.Node)
		if c.Node == "" {
			what = fmt.Sprintf("%s %s %s", name(c.Link.A), c.Link.Transport, name(c.Link.B))
		}
		var split []string
		for _, n := range c.Split {
			split = append(split, name(n))
		}
		fmt.Fprintf(&b, "%-24s %d: %s\n", what, c.Count, strings.Join(split, ", "))
	}
	fmt.Fprintln(&b, "\nnode      score  points lacking")
	for _, n := range p.Nodes {
		fmt.Fprintf(&b, "%-9s %5d", n.Name, n.Score)
		for i, r := range n.Reasons {
			if i > 0 {
				fmt.Fprintf(&b, "\n%15s", "")
			}
			fmt.Fprintf(&b, "  %2d %s", r.Lost, r.Text(name))
		}
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "network   %5d\n", p.Score)
	return b.String()
}

// TestDocs holds docs/topology.md to the code: its numbers, and its example.
func TestDocs(t *testing.T) {
	const file = "../../docs/topology.md"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	w := example(t)
	got := worked(w, w.draw())
	const from, to = "<!-- example -->\n```\n", "```\n<!-- /example -->"
	at, end := strings.Index(doc, from), strings.Index(doc, to)
	if at < 0 || end < at {
		t.Fatalf("%s: expected the example between %q and %q", file, from, to)
	}
	if was := doc[at+len(from) : end]; was != got {
		if *update {
			if err := os.WriteFile(file, []byte(doc[:at+len(from)]+got+doc[end:]), 0o644); err != nil {
				t.Fatal(err)
			}
		} else {
			t.Errorf("the example is another (-update writes it):\n%s\nwant\n%s", was, got)
		}
	}
	minutes := func(d time.Duration) string { return fmt.Sprint(d.Minutes()) }
	for _, line := range []string{
		fmt.Sprintf("| link to the next hop, both ways | %d |", weightLink),
		fmt.Sprintf("| hops to the gateway | %d |", weightHops),
		fmt.Sprintf("| no single link that cuts it off | %d |", weightSingle),
		fmt.Sprintf("| no single node that cuts it off | %d |", weightBehind),
		fmt.Sprintf("| it cuts nobody off itself | %d |", weightVital),
		fmt.Sprintf("| session with the gateway | %d |", weightOverlay),
		fmt.Sprintf("| reports | %d |", weightReport),
		fmt.Sprintf("| a steady next hop | %d |", weightSteady),
		fmt.Sprintf("%d %% less for each hop after the first, down to %d %%", hopPercent, hopLeast),
		fmt.Sprintf("at most %d", doubtful),
		fmt.Sprintf("up to %d s ago: all; up to %d s: %d %%", model.SessionUpS, model.SessionOldS, 100-oldPercent),
		fmt.Sprintf("up to %v s old: all; up to %s min: %d %%", graph.FreshFor.Seconds(), minutes(graph.SilentAfter), 100-latePercent),
		fmt.Sprintf("%d changes in an hour are free, each further one takes %d", freeChanges, changePoints),
		fmt.Sprintf("| Wi-Fi | %d dBm | %d dBm |", wifiNone, wifiFull),
		fmt.Sprintf("| HaLow | %d dBm | %d dBm |", halowNone, halowFull),
		fmt.Sprintf("%.1f for each percent of transmissions that are repetitions", float64(retryPer100)/100),
		fmt.Sprintf("%d for each percent of frames that are given up", failPer100/100),
		fmt.Sprintf("TQ × 100 / %d", fullTQ),
		fmt.Sprintf("counts %d", unknownQuality),
		fmt.Sprintf("not heard for %d s", model.DeadLinkMS/1000),
		fmt.Sprintf("| `%s` | info; warning where an end of it now hangs on one link, or has no way | %.0f s |", LinkLost, holdLost.Seconds()),
		fmt.Sprintf("| `%s` | info | %s min |", LinkMade, minutes(holdMade)),
		fmt.Sprintf("| `%s` | error |", NodeUnreachable),
		fmt.Sprintf("said nothing for %.0f s (a quarter more than its interval, if that is longer): %.0f s later", quietFor.Seconds(), holdUnreachable.Seconds()),
		fmt.Sprintf("| `%s` | info | %.0f s |", NodeReachable, holdReachable.Seconds()),
		fmt.Sprintf("| `%s` | warning |", SplitRisk),
		fmt.Sprintf("| `%s` | info | it cuts nobody off any more: %s min |", SplitAverted, minutes(holdCut)),
		fmt.Sprintf("| `%s` | warning | two nodes are said to have one hardware address: %s min |", AddressTwice, minutes(holdTwice)),
		fmt.Sprintf("| `%s` | warning | more than %d links were told within an hour", Unsteady, mostLinks),
		fmt.Sprintf("does not come back with it within %s min", minutes(lostWithIt)),
		fmt.Sprintf("it has run for %s min", minutes(settleWithin)),
		fmt.Sprintf("bounded to %d KiB an hour", HourlyOctets>>10),
	} {
		if !strings.Contains(strings.Join(strings.Fields(doc), " "), line) {
			t.Errorf("%s does not say %q", file, line)
		}
	}
	if weightAll != 100 {
		t.Errorf("the weights add up to %d", weightAll)
	}
	for _, c := range graph.Codes {
		if !strings.Contains(doc, "| `"+string(c)+"` |") {
			t.Errorf("%s does not have the reason %s", file, c)
		}
	}
}
