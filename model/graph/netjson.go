package graph

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"halo.internal/model"
)

// NetJSON is a NetworkGraph (draft-capoano-kaplan-netjson-00 and its schema
// network-graph.json, netjson.org). Members that they do not have are in properties.
type NetJSON struct {
	Type       string        `json:"type" enum:"NetworkGraph"`
	Protocol   string        `json:"protocol"`
	Version    string        `json:"version" doc:"of HALO"`
	Metric     string        `json:"metric"`
	RouterID   string        `json:"router_id,omitempty" doc:"canonical ID of the gateway"`
	TopologyID string        `json:"topology_id,omitempty" doc:"which network it is"`
	Label      string        `json:"label,omitempty" doc:"name of the network"`
	Time       time.Time     `json:"time"`
	Nodes      []NetJSONNode `json:"nodes"`
	Links      []NetJSONLink `json:"links"`
}

// NetJSONNode is a node of the graph.
type NetJSONNode struct {
	ID             string                `json:"id"`
	Label          string                `json:"label,omitempty"`
	LocalAddresses []string              `json:"local_addresses,omitempty" doc:"hardware addresses"`
	Properties     NetJSONNodeProperties `json:"properties"`
}

// NetJSONNodeProperties is what HALO knows besides.
type NetJSONNodeProperties struct {
	Kind      Kind       `json:"kind"`
	Report    Freshness  `json:"report"`
	Heard     *time.Time `json:"heard,omitempty"`
	Score     *int       `json:"score,omitempty" doc:"of a member"`
	Overlay   Overlay    `json:"overlay"`
	Route     RouteState `json:"route,omitempty"`
	NextHop   string     `json:"next_hop,omitempty"`
	Hops      int        `json:"hops,omitempty"`
	Estimated bool       `json:"estimated,omitempty"`
	CutsOff   int        `json:"cuts_off,omitempty" doc:"nodes that its loss cuts off"`
}

// NetJSONLink is what two nodes have between them: one, since readers of the format
// take a second between the same nodes for the same.
type NetJSONLink struct {
	Source     string                `json:"source"`
	Target     string                `json:"target"`
	Cost       float64               `json:"cost" doc:"of the best, a live one before others: 1 is perfect"`
	CostText   string                `json:"cost_text"`
	Properties NetJSONLinkProperties `json:"properties"`
}

// NetJSONLinkProperties has the best link, and all that there are.
type NetJSONLinkProperties struct {
	State     LinkState       `json:"state"`
	Transport model.Transport `json:"transport"`
	LQ        *float64        `json:"lq,omitempty" doc:"quality from source to target, 0 to 1; absent where it is not reported"`
	NLQ       *float64        `json:"nlq,omitempty" doc:"the other way"`
	CutsOff   int             `json:"cuts_off,omitempty" doc:"nodes that its loss cuts off"`
	Links     []Link          `json:"links" doc:"over each transport"`
}

// NetJSON makes the graph of a picture. network and topology name it; version is that
// of HALO.
func (p Picture) NetJSON(network, topology, version string) NetJSON {
	out := NetJSON{Type: "NetworkGraph", Protocol: "batman-adv", Version: version, Metric: "ETX", RouterID: p.Gateway,
		TopologyID: topology, Label: network, Time: p.At, Nodes: make([]NetJSONNode, 0, len(p.Nodes)), Links: []NetJSONLink{}}
	cuts := make(map[CutID]int, len(p.Cuts))
	for _, c := range p.Cuts {
		cuts[c.CutID] = c.Count
	}
	for _, n := range p.Nodes {
		node := NetJSONNode{ID: n.ID, Label: n.Name, Properties: NetJSONNodeProperties{
			Kind: n.Kind, Report: n.Report, Overlay: n.Overlay, CutsOff: cuts[CutID{Node: n.ID}]}}
		if n.Kind != KindStranger {
			node.Properties.Score = &n.Score
		}
		if !n.Heard.IsZero() {
			node.Properties.Heard = &n.Heard
		}
		for _, a := range n.Addresses {
			node.LocalAddresses = append(node.LocalAddresses, a.String())
		}
		if r, ok := p.Route(n.ID); ok {
			q := &node.Properties
			q.Route, q.NextHop, q.Hops, q.Estimated = r.State, r.Next, r.Hops, r.Estimated
		}
		out.Nodes = append(out.Nodes, node)
	}
	for from := 0; from < len(p.Links); {
		to := from + 1
		for to < len(p.Links) && p.Links[to].A == p.Links[from].A && p.Links[to].B == p.Links[from].B {
			to++
		}
		out.Links = append(out.Links, netJSONLink(p.Links[from:to], cuts))
		from = to
	}
	return out
}

func netJSONLink(links []Link, cuts map[CutID]int) NetJSONLink {
	best := links[0]
	for _, l := range links[1:] {
		if (l.State == Live) != (best.State == Live) && l.State == Live || l.State == best.State && l.Cost < best.Cost {
			best = l
		}
	}
	cost := float64(best.Cost) / PerfectCost
	out := NetJSONLink{Source: best.A, Target: best.B, Cost: cost, CostText: fmt.Sprintf("%s, quality %d %%", best.Transport, best.Quality),
		Properties: NetJSONLinkProperties{State: best.State, Transport: best.Transport, CutsOff: cuts[CutID{Link: best.LinkID}], Links: links}}
	share := func(d Direction) *float64 {
		if d.Iface == "" {
			return nil
		}
		q := float64(d.Quality) / 100
		return &q
	}
	out.Properties.LQ, out.Properties.NLQ = share(best.AB), share(best.BA)
	return out
}

// WriteNetJSON writes the graph of a picture as indented JSON.
func (p Picture) WriteNetJSON(w io.Writer, network, topology, version string) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(p.NetJSON(network, topology, version))
}
