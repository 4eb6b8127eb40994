package topology

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// noon is when pictures of tests are drawn.
var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// id is the canonical ID of the node of that name.
func id(name string) string { return "n-" + name + strings.Repeat("a", 20-len(name)) }

// ids are those of names.
func ids(names ...string) []string {
	list := []string{}
	for _, n := range names {
		list = append(list, id(n))
	}
	return list
}

// world is a network as it is, from which follows what its nodes report. The first node
// is the gateway.
type world struct {
	t       testing.TB
	names   []string
	reports map[string]*model.Report
	ages    map[string]time.Duration
	silent  map[string]bool // they never report
	changes map[string]int
}

func newWorld(t testing.TB, names ...string) *world {
	w := &world{t: t, names: names, reports: map[string]*model.Report{}, ages: map[string]time.Duration{}, silent: map[string]bool{}, changes: map[string]int{}}
	for _, n := range names {
		w.reports[n] = &model.Report{Node: id(n), Boot: 1, Seq: 1,
			Interfaces: model.ReportInterfaces{
				{Name: "bat0", Addresses: []dot11.MAC{w.mac(n, "bat0")}},
				{Name: "eth0", Addresses: []dot11.MAC{w.mac(n, "eth0")}, Transport: model.TransportEthernet},
				{Name: "mesh0", Addresses: []dot11.MAC{w.mac(n, "mesh0")}, Transport: model.TransportWiFi, FreqKHz: 2412000, WidthKHz: 20000},
				{Name: "mesh1", Addresses: []dot11.MAC{w.mac(n, "mesh1")}, Transport: model.TransportHaLow, FreqKHz: 924000, WidthKHz: 8000},
			}}
		if n != names[0] {
			w.session(n, 60)
		}
	}
	return w
}

// ifaces are those of each node, and what they go over.
var ifaces = []string{"bat0", "eth0", "mesh0", "mesh1"}

func (w *world) mac(name, iface string) dot11.MAC {
	n := slices.Index(w.names, name)
	if n < 0 {
		w.t.Helper()
		w.t.Fatalf("no node %s", name)
	}
	return dot11.MAC{2, 0, 0, byte(slices.Index(ifaces, iface)), byte(n >> 8), byte(n)}
}

func (w *world) iface(name, iface string) *model.ReportInterface {
	return &w.reports[name].Interfaces[slices.Index(ifaces, iface)]
}

// good is a link without fault.
var good = model.ReportLink{SignalDBm: -50, TxKbps: 65000, RxKbps: 58500, TQ: 255}

// half has a report a link to b.
func (w *world) half(a, b, iface string, l model.ReportLink) {
	if iface == "eth0" {
		l.SignalDBm, l.TxKbps, l.RxKbps = 0, 0, 0
	}
	l.Peer = w.mac(b, iface)
	i := w.iface(a, iface)
	i.Links = append(i.Links, l)
}

// link joins a and b by good links over an interface.
func (w *world) link(a, b, iface string) *world {
	w.half(a, b, iface, good)
	w.half(b, a, iface, good)
	return w
}

// links joins pairs such as "gw-a a-b" by Wi-Fi.
func (w *world) links(pairs string) *world {
	for p := range strings.FieldsSeq(pairs) {
		a, b, _ := strings.Cut(p, "-")
		w.link(a, b, "mesh0")
	}
	return w
}

// via has nodes name their next hops, such as "a>gw b>a".
func (w *world) via(hops string) *world {
	for h := range strings.FieldsSeq(hops) {
		n, next, _ := strings.Cut(h, ">")
		w.reports[n].NextHops = model.ReportNextHops{{Node: id(w.names[0]), Next: w.mac(next, "mesh0"), Iface: "mesh0", TQ: 200}}
	}
	return w
}

// session has gateway and node shake hands so many seconds ago.
func (w *world) session(n string, ago int) *world {
	set := func(of, with string) {
		r := w.reports[of]
		r.Overlay = slices.DeleteFunc(r.Overlay, func(p model.ReportOverlayPeer) bool { return p.Node == id(with) })
		r.Overlay = append(r.Overlay, model.ReportOverlayPeer{Node: id(with), HandshakeS: ago, Direct: ago >= 0})
	}
	if len(w.reports[w.names[0]].Overlay) < model.MaxReportOverlay {
		set(w.names[0], n)
	}
	set(n, w.names[0])
	return w
}

func (w *world) members() (list []Member) {
	for i, n := range w.names {
		list = append(list, Member{ID: id(n), Name: n, Gateway: i == 0, Addresses: []dot11.MAC{w.mac(n, "eth0"), w.mac(n, "mesh0")}})
	}
	return list
}

func (w *world) heard() (list []Heard) {
	for _, n := range w.names {
		if !w.silent[n] {
			w.reports[n].Sort()
			if err := w.reports[n].Check(); err != nil {
				w.t.Helper()
				w.t.Fatal(err)
			}
			list = append(list, Heard{*w.reports[n], w.ages[n]})
		}
	}
	return list
}

func (w *world) draw() graph.Picture {
	w.t.Helper()
	changes := map[string]int{}
	for n, k := range w.changes {
		changes[id(n)] = k
	}
	return Draw(Input{At: noon, Members: w.members(), Reports: w.heard(), NextHops: changes})
}

// field is a network of that many nodes somewhere on a plain, each linked by Wi-Fi to
// those near it, so that there are about that many links.
func field(t testing.TB, nodes, links int, noise *rand.Rand) *world {
	var names []string
	for n := range nodes {
		names = append(names, fmt.Sprintf("%c%c%c", 'b'+n%25, 'b'+n/25%25, 'b'+n/625))
	}
	w := newWorld(t, names...)
	type place struct{ x, y float64 }
	places := make([]place, nodes)
	for n := range places {
		places[n] = place{noise.Float64(), noise.Float64()}
	}
	type near struct {
		a, b int
		far  float64
	}
	var pairs []near
	for a := range nodes {
		for b := range a {
			dx, dy := places[a].x-places[b].x, places[a].y-places[b].y
			pairs = append(pairs, near{a, b, dx*dx + dy*dy})
		}
	}
	slices.SortFunc(pairs, func(p, q near) int {
		if p.far < q.far {
			return -1
		}
		return 1
	})
	// Each has a way to one before it, so that the network is whole.
	joined := map[[2]int]bool{}
	join := func(a, b int) {
		if !joined[[2]int{a, b}] {
			joined[[2]int{a, b}] = true
			for _, h := range [][2]int{{a, b}, {b, a}} {
				l := good
				l.SignalDBm, l.TQ, l.RetryPermille, l.InactiveMS = -40-noise.IntN(50), 120+noise.IntN(136), noise.IntN(400), noise.IntN(2000)
				l.TxKbps, l.RxKbps = 6500*(1+noise.IntN(10)), 6500*(1+noise.IntN(10))
				w.half(names[h[0]], names[h[1]], "mesh0", l)
			}
		}
	}
	next := make([]int, nodes)
	for n := 1; n < nodes; n++ {
		for _, p := range pairs {
			if p.a == n {
				join(p.a, p.b)
				next[n] = p.b
				break
			}
		}
	}
	for _, p := range pairs {
		if len(joined) >= links {
			break
		}
		join(p.a, p.b)
	}
	for n := 1; n < nodes; n++ {
		w.via(names[n] + ">" + names[next[n]])
	}
	return w
}
