package topology

import (
	"slices"
	"strings"
	"time"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
	"halo.internal/model/order"
)

// Member is a node that the gateway has admitted. Others have no place in the picture
// but as strangers, however often reports name them.
type Member struct {
	ID        string
	Name      string
	Gateway   bool
	Addresses []dot11.MAC // that it had when it joined; they count where no report has another say
}

// Heard is a node's last whole report, and how long ago it came.
type Heard struct {
	Report model.Report
	Age    time.Duration
}

// Input is what a picture is drawn from.
type Input struct {
	At       time.Time
	Members  []Member       // those beyond MaxNodes, by ID, are left out
	Reports  []Heard        // that have passed Check, of members; one of each
	NextHops map[string]int // changes of the next hop within the last hour, by node
}

// Draw makes the picture of an instant. The same input, in whatever order, always
// gives the same picture.
func Draw(in Input) graph.Picture {
	reports := make(map[string]*prepared, len(in.Reports))
	for _, h := range in.Reports {
		reports[h.Report.Node] = prepare(h.Report, in.At.Add(-h.Age))
	}
	return draw(in.At, in.Members, reports, func(node string) int { return in.NextHops[node] }).picture()
}

// drawing is the work on one picture. Nodes are numbered: members by ID, then
// strangers.
type drawing struct {
	at      time.Time
	members []Member // by ID
	gateway int32    // number of the gateway, or nobody
	index   map[string]int32
	reports []*prepared       // by node, nil where there is none
	fresh   []graph.Freshness // by node

	owners    map[dot11.MAC]owner
	conflicts map[dot11.MAC][]int32
	strangers []stranger

	links   []graph.Link   // in their order
	between []pair         // the numbers of their nodes: A's, B's
	near    map[pair]int32 // best live link between two members
	cuts    cuts
	vital   map[int32]int // by node: how many its loss cuts off
	routes  []drawnRoute  // by member
	visit   []int         // by member: at which of the walks of follow it was come by last
	walks   int

	sessions map[string]int // of the gateway's overlay: seconds since the last handshake, by node
	changes  func(node string) int
}

const nobody = -1

// pair is two nodes.
type pair struct{ a, b int32 }

func pairOf(x, y int32) pair { return pair{min(x, y), max(x, y)} }

func draw(at time.Time, members []Member, reports map[string]*prepared, changes func(node string) int) *drawing {
	d := &drawing{at: at, members: slices.Clone(members), gateway: nobody, vital: map[int32]int{}, sessions: map[string]int{}, changes: changes}
	order.By(d.members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	d.members = slices.CompactFunc(d.members, func(a, b Member) bool { return a.ID == b.ID })
	d.members = d.members[:min(len(d.members), graph.MaxNodes)]
	n := len(d.members)
	d.index, d.reports, d.fresh = make(map[string]int32, n), make([]*prepared, n), make([]graph.Freshness, n)
	for i, m := range d.members {
		d.index[m.ID] = int32(i)
		if m.Gateway && d.gateway == nobody {
			d.gateway = int32(i)
		}
		d.fresh[i] = graph.Never
		if r := reports[m.ID]; r != nil {
			d.reports[i], d.fresh[i] = r, r.freshness(at)
		}
	}
	if d.gateway != nobody && d.reports[d.gateway] != nil {
		for _, p := range d.reports[d.gateway].report.Overlay {
			d.sessions[p.Node] = p.HandshakeS
		}
	}
	d.claim()
	d.join()
	d.cut()
	d.route()
	return d
}

// id returns the name of a node by its number.
func (d *drawing) id(n int32) string {
	if int(n) < len(d.members) {
		return d.members[n].ID
	}
	return d.strangers[int(n)-len(d.members)].id
}

func (d *drawing) isStranger(n int32) bool { return int(n) >= len(d.members) }

// named returns the names of nodes, sorted, MaxNamed at most.
func (d *drawing) named(nodes []int32) []string {
	ids := make([]string, len(nodes))
	for i, n := range nodes {
		ids[i] = d.id(n)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return slices.Clip(ids[:min(len(ids), graph.MaxNamed)])
}

// picture puts what was drawn into the form that goes out.
func (d *drawing) picture() graph.Picture {
	p := graph.Picture{At: stamp(d.at), Nodes: make([]graph.Node, 0, len(d.members)+len(d.strangers)), Links: d.links,
		Routes: make([]graph.Route, 0, len(d.members)), Conflicts: d.conflicted()}
	if d.gateway != nobody {
		p.Gateway = d.id(d.gateway)
	}
	for i := range d.members {
		if n := int32(i); n != d.gateway {
			p.Routes = append(p.Routes, d.routeOut(n))
		}
	}
	p.Cuts = d.cutsOut()
	for i := range d.members {
		p.Nodes = append(p.Nodes, d.node(int32(i)))
	}
	p.Score, p.Reasons = networkScore(p.Nodes)
	for i, s := range d.strangers {
		p.Nodes = append(p.Nodes, graph.Node{ID: s.id, Kind: graph.KindStranger, Report: graph.Never, Overlay: graph.OverlayUnknown,
			Neighbours: d.cuts.neighbours[len(d.members)+i], Addresses: s.addresses, Reasons: []graph.Reason{}})
	}
	order.By(p.Nodes, func(a, b graph.Node) int { return strings.Compare(a.ID, b.ID) })
	return p
}

// stamp is a time as pictures carry it: whole milliseconds in UTC, so that it is the
// same after it was written and read.
func stamp(t time.Time) time.Time { return t.UTC().Round(0).Truncate(time.Millisecond) }

func (d *drawing) node(n int32) graph.Node {
	m, r := d.members[n], d.reports[n]
	out := graph.Node{ID: m.ID, Name: m.Name, Kind: graph.KindNode, Report: d.fresh[n], Addresses: []dot11.MAC{},
		Neighbours: d.cuts.neighbours[n], NextHops: d.changes(m.ID)}
	if n == d.gateway {
		out.Kind = graph.KindGateway
	}
	if r != nil {
		out.Heard = stamp(r.heard)
		for _, i := range r.report.Interfaces {
			out.Addresses = append(out.Addresses, i.Addresses...)
		}
		order.By(out.Addresses, func(a, b dot11.MAC) int { return slices.Compare(a[:], b[:]) })
		out.Addresses = slices.Compact(out.Addresses)
	}
	out.Overlay, out.Direct = d.overlay(n)
	out.Score, out.Reasons = d.score(n, out)
	return out
}
