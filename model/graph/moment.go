package graph

import (
	"time"
)

// Moment is what one change of the picture was about, in short.
type Moment struct {
	At        time.Time   `json:"at"`
	Anew      bool        `json:"anew,omitempty" doc:"what was before is not known: the gateway began anew, or nobody was writing"`
	Score     int         `json:"score" doc:"health of the network after it"`
	Nodes     int         `json:"nodes" doc:"members"`
	Lost      int         `json:"lost" doc:"members without a way to the gateway"`
	Links     int         `json:"links" doc:"live ones"`
	Cuts      int         `json:"cuts" doc:"nodes and links whose loss splits the network"`
	LinksMade []LinkID    `json:"links_made,omitempty" doc:"that are live now and were not, the first 32"`
	LinksLost []LinkID    `json:"links_lost,omitempty" doc:"likewise"`
	NodesLost []string    `json:"nodes_lost,omitempty" doc:"that have no way to the gateway any more"`
	NodesBack []string    `json:"nodes_back,omitempty" doc:"that have one again"`
	NextHops  []HopChange `json:"next_hops,omitempty" doc:"that are others now"`
}

// HopChange is another next hop of a node.
type HopChange struct {
	Node string `json:"node"`
	From string `json:"from,omitempty" doc:"absent: it had none"`
	To   string `json:"to,omitempty" doc:"absent: it has none"`
}

// MomentScore is by how much the network's health has to change for that alone to be a
// Moment.
const MomentScore = 5

// MomentOf tells in short what makes was into now. It is worth telling where links, ways
// or members changed, or the score by much. Where was has no number, what was before is
// not known.
func MomentOf(was, now Picture) (m Moment, worth bool) {
	m = Moment{At: now.At, Anew: was.Seq == 0 || was.Run != now.Run, Score: now.Score, Cuts: len(now.Cuts)}
	for _, n := range now.Nodes {
		if n.Kind != KindStranger {
			m.Nodes++
		}
	}
	for _, l := range now.Links {
		if l.State == Live {
			m.Links++
		}
	}
	for _, r := range now.Routes {
		if r.State != RouteOK {
			m.Lost++
		}
	}
	if m.Anew {
		return m, true
	}
	m.linksOf(linkList.diff(was.Links, now.Links), was)
	m.routesOf(routeList.diff(was.Routes, now.Routes), was)
	members := 0
	for _, n := range was.Nodes {
		if n.Kind != KindStranger {
			members++
		}
	}
	return m, len(m.LinksMade)+len(m.LinksLost)+len(m.NodesLost)+len(m.NodesBack)+len(m.NextHops) > 0 || members != m.Nodes ||
		max(m.Score-was.Score, was.Score-m.Score) >= MomentScore
}

func (m *Moment) linksOf(c Changes[Link, LinkID], was Picture) {
	live := func(id LinkID) bool {
		l, ok := was.Link(id)
		return ok && l.State == Live
	}
	for _, list := range [][]Link{c.Added, c.Changed} {
		for _, l := range list {
			switch is := l.State == Live; {
			case is && !live(l.LinkID):
				m.LinksMade = some(m.LinksMade, l.LinkID)
			case !is && live(l.LinkID):
				m.LinksLost = some(m.LinksLost, l.LinkID)
			}
		}
	}
	for _, id := range c.Removed {
		if live(id) {
			m.LinksLost = some(m.LinksLost, id)
		}
	}
}

func (m *Moment) routesOf(c Changes[Route, string], was Picture) {
	for _, r := range append(c.Added, c.Changed...) {
		before, known := was.Route(r.Node)
		had, has := known && before.State == RouteOK, r.State == RouteOK
		switch {
		case had && !has:
			m.NodesLost = some(m.NodesLost, r.Node)
		case has && !had && known:
			m.NodesBack = some(m.NodesBack, r.Node)
		}
		if known && before.Next != r.Next {
			m.NextHops = some(m.NextHops, HopChange{r.Node, before.Next, r.Next})
		}
	}
}

// some adds to a list that names MaxNamed at most.
func some[T any](list []T, t T) []T {
	if len(list) < MaxNamed {
		list = append(list, t)
	}
	return list
}
