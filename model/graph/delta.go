package graph

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

// Delta is what makes one picture into a later one of the same run. Its lists are
// sorted by their keys; Added and Changed have items whole.
type Delta struct {
	Run       uint64                       `json:"run"`
	From      uint64                       `json:"from" doc:"number of the picture that it goes on from"`
	Seq       uint64                       `json:"seq" doc:"number of the picture that it leads to"`
	At        time.Time                    `json:"at"`
	Gateway   string                       `json:"gateway"`
	Score     int                          `json:"score"`
	Reasons   []Reason                     `json:"reasons"`
	Nodes     Changes[Node, string]        `json:"nodes,omitzero"`
	Links     Changes[Link, LinkID]        `json:"links,omitzero"`
	Routes    Changes[Route, string]       `json:"routes,omitzero" doc:"by node"`
	Cuts      Changes[Cut, CutID]          `json:"cuts,omitzero"`
	Conflicts Changes[Conflict, dot11.MAC] `json:"conflicts,omitzero" doc:"by address"`
}

// Changes of a list, by the keys of its items.
type Changes[T, K any] struct {
	Added   []T `json:"added,omitempty"`
	Changed []T `json:"changed,omitempty"`
	Removed []K `json:"removed,omitempty"`
}

// Len counts the changes.
func (c Changes[T, K]) Len() int { return len(c.Added) + len(c.Changed) + len(c.Removed) }

// Len counts the changes of all lists. Without any, nothing changed but the time: the
// network's score and its reasons follow from the nodes'.
func (d Delta) Len() int {
	return d.Nodes.Len() + d.Links.Len() + d.Routes.Len() + d.Cuts.Len() + d.Conflicts.Len()
}

// keyed says how the items of a list are named and compared.
type keyed[T, K any] struct {
	key     func(T) K
	compare func(a, b K) int
	equal   func(a, b T) bool
}

var (
	nodeList     = keyed[Node, string]{func(n Node) string { return n.ID }, strings.Compare, Node.Equal}
	linkList     = keyed[Link, LinkID]{func(l Link) LinkID { return l.LinkID }, LinkID.Compare, func(a, b Link) bool { return a == b }}
	routeList    = keyed[Route, string]{func(r Route) string { return r.Node }, strings.Compare, Route.Equal}
	cutList      = keyed[Cut, CutID]{func(c Cut) CutID { return c.CutID }, CutID.Compare, Cut.equal}
	conflictList = keyed[Conflict, dot11.MAC]{func(c Conflict) dot11.MAC { return c.Address },
		func(a, b dot11.MAC) int { return slices.Compare(a[:], b[:]) }, func(a, b Conflict) bool { return slices.Equal(a.Nodes, b.Nodes) }}
)

// Equal tells whether all that is said of the node is the same.
func (n Node) Equal(o Node) bool {
	return n.ID == o.ID && n.Name == o.Name && n.Kind == o.Kind && n.Report == o.Report && n.Heard.Equal(o.Heard) &&
		n.Neighbours == o.Neighbours && n.Overlay == o.Overlay && n.Direct == o.Direct && n.NextHops == o.NextHops && n.Score == o.Score &&
		slices.Equal(n.Addresses, o.Addresses) && slices.Equal(n.Reasons, o.Reasons)
}

// Equal tells whether all that is said of the route is the same.
func (r Route) Equal(o Route) bool {
	return r.Node == o.Node && r.State == o.State && r.Next == o.Next && r.Transport == o.Transport && r.Guessed == o.Guessed &&
		r.Estimated == o.Estimated && r.Hops == o.Hops && r.Cost == o.Cost && r.Worst == o.Worst && r.TQ == o.TQ && r.Kbps == o.Kbps &&
		r.End == o.End && r.Why == o.Why && slices.Equal(r.Loop, o.Loop)
}

func (c Cut) equal(o Cut) bool { return c.Count == o.Count && slices.Equal(c.Split, o.Split) }

// diff compares two sorted lists.
func (l keyed[T, K]) diff(was, now []T) (c Changes[T, K]) {
	for len(was) > 0 || len(now) > 0 {
		order := 0
		switch {
		case len(was) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			order = l.compare(l.key(was[0]), l.key(now[0]))
		}
		switch {
		case order < 0:
			c.Removed = append(c.Removed, l.key(was[0]))
			was = was[1:]
		case order > 0:
			c.Added = append(c.Added, now[0])
			now = now[1:]
		default:
			if !l.equal(was[0], now[0]) {
				c.Changed = append(c.Changed, now[0])
			}
			was, now = was[1:], now[1:]
		}
	}
	return c
}

// apply makes the later list of an earlier one, all sorted. What is added must not be
// there, and what is changed or removed must be.
func (l keyed[T, K]) apply(was []T, c Changes[T, K]) ([]T, error) {
	out := make([]T, 0, len(was)+len(c.Added))
	take := func(t T) error {
		if n := len(out); n > 0 && l.compare(l.key(out[n-1]), l.key(t)) >= 0 {
			return fmt.Errorf("%v: expected to be added where it is not, and in order", l.key(t))
		}
		out = append(out, t)
		return nil
	}
	for _, t := range was {
		for len(c.Added) > 0 && l.compare(l.key(c.Added[0]), l.key(t)) <= 0 {
			if err := take(c.Added[0]); err != nil {
				return nil, err
			}
			c.Added = c.Added[1:]
		}
		switch {
		case len(c.Removed) > 0 && l.compare(c.Removed[0], l.key(t)) == 0:
			c.Removed = c.Removed[1:]
			continue
		case len(c.Changed) > 0 && l.compare(l.key(c.Changed[0]), l.key(t)) == 0:
			t, c.Changed = c.Changed[0], c.Changed[1:]
		}
		if err := take(t); err != nil {
			return nil, err
		}
	}
	for _, t := range c.Added {
		if err := take(t); err != nil {
			return nil, err
		}
	}
	switch {
	case len(c.Changed) > 0:
		return nil, fmt.Errorf("%v: expected to be there before it is changed, and in order", l.key(c.Changed[0]))
	case len(c.Removed) > 0:
		return nil, fmt.Errorf("%v: expected to be there before it is removed, and in order", c.Removed[0])
	}
	return out, nil
}

// then adds later changes to earlier ones.
func (l keyed[T, K]) then(a, b Changes[T, K]) (c Changes[T, K]) {
	const (
		added = iota + 1
		changed
		removed
	)
	type change struct {
		key  K
		item T
		kind int
	}
	var all []change
	for _, c := range []Changes[T, K]{a, b} {
		for _, t := range c.Added {
			all = append(all, change{l.key(t), t, added})
		}
		for _, t := range c.Changed {
			all = append(all, change{l.key(t), t, changed})
		}
		for _, k := range c.Removed {
			all = append(all, change{key: k, kind: removed})
		}
	}
	order.By(all, func(x, y change) int { return l.compare(x.key, y.key) })
	for i := 0; i < len(all); i++ {
		x := all[i]
		if i+1 < len(all) && l.compare(x.key, all[i+1].key) == 0 {
			i++
			later := all[i]
			switch {
			case x.kind == added && later.kind == removed:
				continue
			case x.kind == added:
				x.item = later.item
			case x.kind == removed: // and there again
				x.item, x.kind = later.item, changed
			default:
				x = later
			}
		}
		switch x.kind {
		case added:
			c.Added = append(c.Added, x.item)
		case changed:
			c.Changed = append(c.Changed, x.item)
		case removed:
			c.Removed = append(c.Removed, x.key)
		}
	}
	return c
}

// Diff tells what makes was into now.
func Diff(was, now Picture) Delta {
	return Delta{
		Run: now.Run, From: was.Seq, Seq: now.Seq, At: now.At, Gateway: now.Gateway, Score: now.Score, Reasons: now.Reasons,
		Nodes: nodeList.diff(was.Nodes, now.Nodes), Links: linkList.diff(was.Links, now.Links), Routes: routeList.diff(was.Routes, now.Routes),
		Cuts: cutList.diff(was.Cuts, now.Cuts), Conflicts: conflictList.diff(was.Conflicts, now.Conflicts),
	}
}

// Apply returns the picture that a delta leads to. p stays as it is; the error says
// what does not fit.
func (p Picture) Apply(d Delta) (Picture, error) {
	if p.Run != d.Run || p.Seq != d.From {
		return Picture{}, fmt.Errorf("delta: expected picture %d of run %d to go on from, got %d of %d", d.From, d.Run, p.Seq, p.Run)
	}
	out := Picture{Run: d.Run, Seq: d.Seq, At: d.At, Gateway: d.Gateway, Score: d.Score, Reasons: d.Reasons}
	var err error
	if out.Nodes, err = nodeList.apply(p.Nodes, d.Nodes); err != nil {
		return Picture{}, fmt.Errorf("delta: node %w", err)
	}
	if out.Links, err = linkList.apply(p.Links, d.Links); err != nil {
		return Picture{}, fmt.Errorf("delta: link %w", err)
	}
	if out.Routes, err = routeList.apply(p.Routes, d.Routes); err != nil {
		return Picture{}, fmt.Errorf("delta: route of %w", err)
	}
	if out.Cuts, err = cutList.apply(p.Cuts, d.Cuts); err != nil {
		return Picture{}, fmt.Errorf("delta: cut %w", err)
	}
	if out.Conflicts, err = conflictList.apply(p.Conflicts, d.Conflicts); err != nil {
		return Picture{}, fmt.Errorf("delta: conflict %w", err)
	}
	return out, nil
}

// Then makes one delta of two that follow on each other. What came and went in between
// is in it no more.
func (d Delta) Then(later Delta) (Delta, error) {
	if d.Run != later.Run || d.Seq != later.From {
		return Delta{}, fmt.Errorf("delta: expected one from picture %d of run %d on, got %d of %d", d.Seq, d.Run, later.From, later.Run)
	}
	return Delta{
		Run: d.Run, From: d.From, Seq: later.Seq, At: later.At, Gateway: later.Gateway, Score: later.Score, Reasons: later.Reasons,
		Nodes: nodeList.then(d.Nodes, later.Nodes), Links: linkList.then(d.Links, later.Links), Routes: routeList.then(d.Routes, later.Routes),
		Cuts: cutList.then(d.Cuts, later.Cuts), Conflicts: conflictList.then(d.Conflicts, later.Conflicts),
	}, nil
}
