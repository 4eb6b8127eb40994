package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
	"halo.internal/model/order"
)

// Kinds of notices, as kinds of events.
const (
	LinkLost        = "topology.link.lost"
	LinkMade        = "topology.link.made"
	NodeUnreachable = "topology.node.unreachable"
	NodeReachable   = "topology.node.reachable"
	SplitRisk       = "topology.split.risk"
	SplitAverted    = "topology.split.averted"
	AddressTwice    = "topology.address.twice"
	Unsteady        = "topology.unsteady"
)

// How long something has to be so before it is told. What is told again and again
// within an hour has to be so for twice as long each time, and 32 times at most.
const (
	holdLost        = 30 * time.Second
	holdMade        = time.Minute
	holdUnreachable = 20 * time.Second // after quietFor
	holdReachable   = 10 * time.Second
	holdCut         = 2 * time.Minute
	holdTwice       = time.Minute

	quietFor   = 75 * time.Second // of a node that says something every minute
	lostWithIt = 5 * time.Minute  // a link that was lost with its node, and does not come back with it, is told
	within     = time.Hour
	mostLinks  = 60 // notices of links in an hour
	maxLinks   = 8192
)

// Notice is something about the network that people should know.
type Notice struct {
	Kind     string
	Severity model.Severity
	Node     string // canonical ID; empty: of the network
	Message  string
	Fields   map[string]string
}

// damper holds a state back until it has lasted.
type damper struct {
	state bool
	since time.Time   // since when it is otherwise; zero: it is not
	flips []time.Time // within an hour
}

// settle tells whether the state that is told has to change.
func (d *damper) settle(now time.Time, state bool, hold time.Duration) bool {
	d.flips = slices.DeleteFunc(d.flips, func(at time.Time) bool { return !model.Recent(now, at, within) })
	if state == d.state {
		d.since = time.Time{}
		return false
	}
	if d.since.IsZero() {
		d.since = now
	}
	if now.Sub(d.since) < hold<<min(len(d.flips)/2, 5) {
		return false
	}
	d.state, d.since = state, time.Time{}
	d.flips = append(d.flips, now)
	return true
}

// watchedLink is true while the link is live.
type watchedLink struct {
	damper
	last   graph.Link
	lostAt time.Time
	silent bool // it was lost with a node, which was told instead
}

// watchedNode is true while the node cannot be reached.
type watchedNode struct {
	damper
	fresh bool // it has just joined, and says so itself
}

// watchedCut is true while the node cuts others off.
type watchedCut struct {
	damper
	told  graph.Cut
	grown damper
}

func (d *damper) shift(by time.Duration) {
	d.since = shift(d.since, by)
	for i := range d.flips {
		d.flips[i] = shift(d.flips[i], by)
	}
}

// Alarm makes notices of one picture after the other. The first is how things are, and
// is not told. It may be used from one goroutine at a time.
type Alarm struct {
	quiet func(node string) (since, every time.Duration, ok bool)

	begun   bool
	links   map[graph.LinkID]*watchedLink
	nodes   map[string]*watchedNode
	cuts    map[string]*watchedCut
	twice   map[dot11.MAC]*damper
	whole   []graph.Cut // when all that were reachable last were
	notices []time.Time // of links, within an hour
	storm   bool        // there are too many of them
}

// NewAlarm returns one. quiet tells for how long a node has said nothing, and how often
// it usually does; ok is false where it has not said anything yet.
func NewAlarm(quiet func(node string) (since, every time.Duration, ok bool)) *Alarm {
	return &Alarm{quiet: quiet, links: map[graph.LinkID]*watchedLink{}, nodes: map[string]*watchedNode{}, cuts: map[string]*watchedCut{}, twice: map[dot11.MAC]*damper{}}
}

// Observe is to be called with the present picture every few seconds, whether it has
// changed or not, and returns what is to be told.
func (a *Alarm) Observe(now time.Time, p graph.Picture) []Notice {
	v := a.look(p)
	list := a.observeNodes(now, v)
	list = append(list, a.observeLinks(now, v)...)
	list = append(list, a.observeCuts(now, v)...)
	list = append(list, a.observeConflicts(now, v)...)
	a.begun = true
	return list
}

// Shift has all that was seen have been so much later, since the clock was set by that.
func (a *Alarm) Shift(by time.Duration) {
	if by == 0 {
		return
	}
	for _, w := range a.links {
		w.shift(by)
		w.lostAt = shift(w.lostAt, by)
	}
	for _, w := range a.nodes {
		w.shift(by)
	}
	for _, w := range a.cuts {
		w.shift(by)
		w.grown.shift(by)
	}
	for _, d := range a.twice {
		d.shift(by)
	}
	for i := range a.notices {
		a.notices[i] = shift(a.notices[i], by)
	}
}

// Unreachable are the canonical IDs of the nodes that cannot be reached, in order. One that
// has joined and was not there yet is none of them.
func (a *Alarm) Unreachable() (ids []string) {
	for id, n := range a.nodes {
		if n.state && !n.fresh {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// view is a picture as the alarm looks at it.
type view struct {
	graph.Picture
	members   map[string]graph.Node
	connected map[string]bool // by live links to the gateway
}

func (a *Alarm) look(p graph.Picture) view {
	v := view{p, make(map[string]graph.Node, len(p.Nodes)), map[string]bool{}}
	for _, n := range p.Nodes {
		if n.Kind != graph.KindStranger {
			v.members[n.ID] = n
		}
	}
	near := map[string][]string{}
	for _, l := range p.Links {
		if v.holds(l) {
			near[l.A], near[l.B] = append(near[l.A], l.B), append(near[l.B], l.A)
		}
	}
	next := []string{p.Gateway}
	for len(next) > 0 {
		n := next[0]
		next = next[1:]
		if n == "" || v.connected[n] {
			continue
		}
		v.connected[n] = true
		next = append(next, near[n]...)
	}
	return v
}

// holds tells whether a link is a live one between members.
func (v view) holds(l graph.Link) bool {
	_, a := v.members[l.A]
	_, b := v.members[l.B]
	return a && b && l.State == graph.Live
}

func (v view) name(id string) string { return cmp.Or(v.members[id].Name, id) }

// names of nodes for people, some of many.
func (v view) names(ids []string) string {
	const most = 8
	names := make([]string, 0, most)
	for _, id := range ids[:min(len(ids), most)] {
		names = append(names, v.name(id))
	}
	text := strings.Join(names, ", ")
	if more := len(ids) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// reached tells whether a node is connected, or says something all the same.
func (a *Alarm) reached(v view, id string) bool {
	if v.connected[id] {
		return true
	}
	since, every, heard := a.quiet(id)
	return heard && since <= max(quietFor, every*5/4)
}

// observeNodes tells who cannot be reached, and who can again. Those that are lost
// together are one notice.
func (a *Alarm) observeNodes(now time.Time, v view) (list []Notice) {
	var lost, back []string
	all := true
	for _, n := range v.Nodes {
		if n.Kind != graph.KindNode {
			continue
		}
		away := !a.reached(v, n.ID)
		d := a.nodes[n.ID]
		if d == nil {
			d = &watchedNode{damper{state: away}, a.begun && away}
			a.nodes[n.ID] = d
		}
		all = all && (d.state || v.connected[n.ID])
		hold := holdReachable
		if away {
			hold = holdUnreachable
		}
		if !d.settle(now, away, hold) {
			continue
		}
		switch {
		case away:
			lost = append(lost, n.ID)
		case d.fresh:
			d.fresh = false
		default:
			back = append(back, n.ID)
		}
	}
	for id := range a.nodes {
		if _, member := v.members[id]; !member {
			delete(a.nodes, id)
		}
	}
	if len(lost) > 0 {
		list = append(list, a.unreachable(v, lost))
	}
	if len(back) > 0 {
		n := Notice{Kind: NodeReachable, Severity: model.Info, Message: v.names(back) + " can be reached again"}
		n.of(back)
		list = append(list, n)
	}
	if all {
		a.whole = v.Cuts
	}
	return list
}

// of says whom the notice is about: one node, or several.
func (n *Notice) of(nodes []string) {
	if len(nodes) == 1 {
		n.Node = nodes[0]
		return
	}
	n.Fields = map[string]string{"count": fmt.Sprint(len(nodes)), "nodes": strings.Join(nodes[:min(len(nodes), 10)], " ")}
}

func (a *Alarm) unreachable(v view, lost []string) Notice {
	n := Notice{Kind: NodeUnreachable, Severity: model.Error}
	n.of(lost)
	longest := time.Duration(0)
	for _, id := range lost {
		if since, _, ok := a.quiet(id); ok {
			longest = max(longest, since)
		}
	}
	heard := "nothing was ever heard of it"
	if longest > 0 {
		heard = fmt.Sprintf("last heard %v ago", longest.Round(time.Second))
	}
	n.Message = fmt.Sprintf("%s cannot be reached: no live link connects it to the gateway, %s", v.names(lost), heard)
	if len(lost) == 1 {
		return n
	}
	n.Message = fmt.Sprintf("%d nodes cannot be reached: %s; %s", len(lost), v.names(lost), strings.Replace(heard, "of it", "of them", 1))
	for _, c := range a.whole {
		behind := func(id string) bool { return id == c.Node || slices.Contains(c.Split, id) }
		if slices.Contains(lost, c.Node) && !slices.ContainsFunc(lost, func(id string) bool { return !behind(id) }) {
			n.Message += "; all the others are behind " + v.name(c.Node)
			n.Fields["behind"] = c.Node
			break
		}
	}
	return n
}

func (a *Alarm) observeLinks(now time.Time, v view) (list []Notice) {
	live := map[graph.LinkID]graph.Link{}
	for _, l := range v.Links {
		if v.holds(l) {
			live[l.LinkID] = l
			if a.links[l.LinkID] == nil && len(a.links) < maxLinks {
				a.links[l.LinkID] = &watchedLink{damper: damper{state: !a.begun}}
			}
		}
	}
	ids := make([]graph.LinkID, 0, len(a.links))
	for id := range a.links {
		ids = append(ids, id)
	}
	order.By(ids, graph.LinkID.Compare)
	for _, id := range ids {
		w := a.links[id]
		l, is := live[id]
		if is {
			w.last = l
		}
		switch _, a1 := v.members[id.A]; {
		case a.observeLink(now, v, id, w, is):
			list = append(list, a.noticeOf(now, v, w, is))
		case !is && !w.state && !w.silent && w.since.IsZero() && len(w.flips) == 0 || !a1:
			delete(a.links, id)
		}
	}
	return a.bounded(now, list)
}

// observeLink tells whether a link is to be told as it is now.
func (a *Alarm) observeLink(now time.Time, v view, id graph.LinkID, w *watchedLink, is bool) bool {
	told := func(node string) bool { d := a.nodes[node]; return d != nil && d.state }
	switch {
	case is && w.silent: // it is back, as its node is
		w.silent, w.state, w.since = false, true, time.Time{}
		return false
	case is:
		return w.settle(now, true, holdMade)
	case w.silent:
		if told(id.A) || told(id.B) || !v.connected[id.A] || !v.connected[id.B] {
			w.since = time.Time{}
			return false
		}
		if w.since.IsZero() {
			w.since = now
		}
		if now.Sub(w.since) < lostWithIt {
			return false
		}
		w.silent, w.since, w.lostAt = false, time.Time{}, now
		return true
	case w.state && (told(id.A) || told(id.B)):
		w.silent, w.state, w.since = true, false, time.Time{}
		return false
	case w.state && (!v.connected[id.A] || !v.connected[id.B]):
		w.since = time.Time{} // whether its node is lost shows in a moment
		return false
	}
	if !w.settle(now, false, holdLost) {
		return false
	}
	w.lostAt = now
	return true
}

func (a *Alarm) noticeOf(now time.Time, v view, w *watchedLink, is bool) Notice {
	l := w.last
	n := Notice{Kind: LinkLost, Severity: model.Info, Fields: map[string]string{
		"a": l.A, "b": l.B, "transport": string(l.Transport), "quality": fmt.Sprint(l.Quality)}}
	if is {
		n.Kind = LinkMade
		n.Message = fmt.Sprintf("%s and %s have a link over %s, quality %d", v.name(l.A), v.name(l.B), l.Transport, l.Quality)
		if !w.lostAt.IsZero() && model.Recent(now, w.lostAt, 24*time.Hour) {
			n.Message += fmt.Sprintf(", again after %v", now.Sub(w.lostAt).Round(time.Second))
		}
		return n
	}
	n.Message = fmt.Sprintf("the link between %s and %s over %s was lost, quality was %d", v.name(l.A), v.name(l.B), l.Transport, l.Quality)
	for _, id := range []string{l.A, l.B} {
		for _, r := range v.members[id].Reasons {
			switch r.Code {
			case graph.DeadEnd, graph.Loop, graph.SingleLink, graph.Alone:
				n.Severity = model.Warning
				n.Message += fmt.Sprintf("; %s: %s", v.name(id), r.Text(v.name))
			}
		}
	}
	return n
}

// bounded leaves out notices of links that are too many.
func (a *Alarm) bounded(now time.Time, list []Notice) []Notice {
	a.notices = slices.DeleteFunc(a.notices, func(at time.Time) bool { return !model.Recent(now, at, within) })
	if a.storm && len(a.notices) < mostLinks/2 {
		a.storm = false
	}
	out := []Notice{}
	for _, n := range list {
		switch {
		case a.storm:
		case len(a.notices) >= mostLinks:
			a.storm = true
			out = append(out, Notice{Kind: Unsteady, Severity: model.Warning,
				Message: fmt.Sprintf("links come and go: more than %d within an hour; each is told again when it is calmer", mostLinks)})
		default:
			a.notices = append(a.notices, now)
			out = append(out, n)
		}
	}
	return out
}

// observeCuts tells of nodes, but the gateway, whose loss cuts others off. Of a link
// whose loss does so, the node behind it is told.
func (a *Alarm) observeCuts(now time.Time, v view) (list []Notice) {
	there := map[string]graph.Cut{}
	for _, c := range v.Cuts {
		if c.Node == "" || c.Node == v.Gateway {
			continue
		}
		there[c.Node] = c
		if a.cuts[c.Node] == nil {
			a.cuts[c.Node] = &watchedCut{damper: damper{state: !a.begun}, told: c}
		}
	}
	nodes := make([]string, 0, len(a.cuts))
	for id := range a.cuts {
		nodes = append(nodes, id)
	}
	slices.Sort(nodes)
	for _, id := range nodes {
		w := a.cuts[id]
		c, is := there[id]
		if w.settle(now, is, holdCut) {
			switch {
			case is:
				w.told = c
				list = append(list, risk(v, c))
			case a.lost(v, w.told):
			default:
				list = append(list, Notice{Kind: SplitAverted, Severity: model.Info, Node: id,
					Message: fmt.Sprintf("%s cuts nobody off any more when it fails", v.name(id))})
			}
		}
		grown := is && w.state && c.Count >= 2*w.told.Count && c.Count > w.told.Count+1
		if w.grown.settle(now, grown, holdCut) && grown {
			w.told, w.grown = c, damper{}
			list = append(list, risk(v, c))
		}
		if _, member := v.members[id]; !member || !is && !w.state && w.since.IsZero() && len(w.flips) == 0 {
			delete(a.cuts, id)
		}
	}
	return list
}

// lost tells whether what a cut would cut off is lost already, or the node is.
func (a *Alarm) lost(v view, c graph.Cut) bool {
	away := func(id string) bool { return !v.connected[id] }
	return away(c.Node) || len(c.Split) > 0 && !slices.ContainsFunc(c.Split, func(id string) bool { return !away(id) })
}

func risk(v view, c graph.Cut) Notice {
	return Notice{Kind: SplitRisk, Severity: model.Warning, Node: c.Node,
		Message: fmt.Sprintf("when %s fails, %s cut off: %s", v.name(c.Node), are(c.Count), v.names(c.Split)),
		Fields:  map[string]string{"count": fmt.Sprint(c.Count)}}
}

func are(n int) string {
	if n == 1 {
		return "1 node is"
	}
	return fmt.Sprintf("%d nodes are", n)
}

// observeConflicts tells of addresses that two nodes say they have: a radio that moved, a
// card that was copied, or a liar.
func (a *Alarm) observeConflicts(now time.Time, v view) (list []Notice) {
	there := map[dot11.MAC]bool{}
	for _, c := range v.Conflicts {
		there[c.Address] = true
		d := a.twice[c.Address]
		if d == nil {
			if len(a.twice) >= graph.MaxConflicts {
				continue
			}
			d = new(damper)
			a.twice[c.Address] = d
		}
		if d.settle(now, true, holdTwice) {
			list = append(list, Notice{Kind: AddressTwice, Severity: model.Warning,
				Message: fmt.Sprintf("%s are said to have one hardware address, %s, which counts as nobody's until one of them gives it up", v.names(c.Nodes), c.Address),
				Fields:  map[string]string{"address": c.Address.String(), "nodes": strings.Join(c.Nodes[:min(len(c.Nodes), 10)], " ")}})
		}
	}
	for address, d := range a.twice {
		if !there[address] && (d.settle(now, false, holdTwice) || !d.state) && len(d.flips) == 0 {
			delete(a.twice, address)
		}
	}
	return list
}
