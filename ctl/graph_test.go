package ctl_test

import (
	"net/http"
	"net/url"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// hut is a node that no list of nodes has.
const hut = "n-cccccccccccccccccccc"

// picture is of a gateway, a node, and a hut behind it that has fallen silent.
func picture() graph.Picture {
	way := func(quality, dbm int) graph.Direction {
		return graph.Direction{Iface: "mesh0", FreqKHz: 2412000, WidthKHz: 20000, Quality: quality, SignalDBm: dbm, TxKbps: 65000, TQ: 240, RetryPermille: 125, Limit: graph.LimitSignal}
	}
	return graph.Picture{
		Run: 7, Seq: 41, At: standInNow, Gateway: gatewayID, Score: 64, Reasons: []graph.Reason{{Code: graph.DeadEnd, Lost: 22, Value: 1}},
		Nodes: []graph.Node{
			{ID: "02:09:09:09:09:09", Kind: graph.KindStranger, Report: graph.Never, Overlay: graph.OverlayUnknown, Neighbours: 2, Addresses: []dot11.MAC{}, Reasons: []graph.Reason{}},
			{ID: gatewayID, Name: "gw", Kind: graph.KindGateway, Report: graph.Fresh, Heard: standInNow, Addresses: []dot11.MAC{{2, 0, 0, 0, 0, 1}}, Neighbours: 1, Overlay: graph.OverlayUp, Score: 95, Reasons: []graph.Reason{}},
			{ID: nodeID, Name: "n01", Kind: graph.KindNode, Report: graph.Fresh, Heard: standInNow, Addresses: []dot11.MAC{{2, 0, 0, 0, 0, 2}}, Neighbours: 2, Overlay: graph.OverlayUp, Direct: 1, NextHops: 3, Score: 81,
				Reasons: []graph.Reason{{Code: graph.WeakSignal, Lost: 5, Node: gatewayID, Value: 84}, {Code: graph.VitalNode, Lost: 4, Value: 1}}},
			{ID: hut, Name: "hut\x1b[31m", Kind: graph.KindNode, Report: graph.Late, Heard: standInNow.Add(-5 * time.Minute), Addresses: []dot11.MAC{}, Overlay: graph.OverlayDown, Score: 16,
				Reasons: []graph.Reason{{Code: graph.DeadEnd, Lost: 65, Node: hut}, {Code: graph.OverlayIsDown, Lost: 15, Node: gatewayID}, {Code: graph.LateReport, Lost: 5}}},
		},
		Links: []graph.Link{
			{LinkID: graph.LinkID{A: gatewayID, B: nodeID, Transport: model.TransportWiFi}, State: graph.Live, Parallel: 1, Quality: 84, Cost: 1293, AB: way(92, -62), BA: way(84, -64)},
			{LinkID: graph.LinkID{A: nodeID, B: hut, Transport: model.TransportHaLow}, State: graph.OneWay, Parallel: 1, Quality: 40, Cost: 6250, AB: way(40, -85)},
		},
		Routes: []graph.Route{
			{Node: nodeID, State: graph.RouteOK, Next: gatewayID, Transport: model.TransportWiFi, Hops: 1, Cost: 1293, Worst: 84, TQ: 240},
			{Node: hut, State: graph.RouteDeadEnd, End: hut, Why: graph.EndNoReport},
		},
		Cuts:      []graph.Cut{{CutID: graph.CutID{Node: nodeID}, Count: 1, Split: []string{hut}}},
		Conflicts: []graph.Conflict{{Address: dot11.MAC{2, 0, 0, 0, 0, 9}, Nodes: []string{nodeID, hut}}},
	}
}

// changes of the picture: the hut comes back, and then nothing more.
func changes() func(*http.Request) any {
	return func(r *http.Request) any {
		p := picture()
		if r.URL.Query().Get("seq") != "41" {
			return apitype.Problem{Status: http.StatusServiceUnavailable, Title: "Service Unavailable", Detail: "that is all"}
		}
		now := p
		now.Seq, now.At = 42, p.At.Add(time.Minute)
		now.Links = append([]graph.Link{}, p.Links...)
		now.Links[1].State = graph.Live
		now.Routes = append([]graph.Route{}, p.Routes...)
		now.Routes[1] = graph.Route{Node: hut, State: graph.RouteOK, Next: nodeID, Hops: 2}
		d := graph.Diff(p, now)
		return apitype.TopologyChanges{Run: 7, Seq: 42, Delta: &d}
	}
}

// pictureAt knows the network of the last hour.
func pictureAt(r *http.Request) any {
	p := picture()
	if at := r.URL.Query().Get("at"); at != "" {
		t, err := time.Parse(time.RFC3339Nano, at)
		if err != nil || t.Before(standInNow.Add(-time.Hour)) {
			return apitype.Problem{Type: apitype.ProblemNotRecorded, Status: http.StatusNotFound, Title: "Not Found", Detail: "there is no history of that time"}
		}
		p.At = t
	}
	return p
}

func nodePicture(*http.Request) any {
	p := picture()
	n, _ := p.Node(nodeID)
	route, _ := p.Route(nodeID)
	return apitype.NodeTopology{At: p.At, Node: n, Route: &route, Path: p.Path(nodeID), Links: p.Links, Cut: &p.Cuts[0]}
}

// happened answers page by page.
func happened(r *http.Request) any {
	list := []graph.Moment{
		{At: standInNow.Add(-time.Hour), Anew: true, Score: 90, Nodes: 3, Links: 2},
		{At: standInNow.Add(-40 * time.Minute), Score: 64, Nodes: 3, Lost: 1, Links: 1, LinksLost: []graph.LinkID{{A: nodeID, B: hut, Transport: model.TransportHaLow}}, NodesLost: []string{hut}, NextHops: []graph.HopChange{{Node: hut, From: nodeID}}},
		{At: standInNow.Add(-39 * time.Minute), Score: 64, Nodes: 3, Lost: 1, Links: 1, NextHops: []graph.HopChange{{Node: nodeID, From: hut, To: gatewayID}}},
	}
	q, _ := url.ParseQuery(r.URL.RawQuery)
	h := apitype.TopologyHistory{Items: list[:2], Next: "2026-11-23T11:20:00Z"}
	if q.Get("cursor") == h.Next {
		h = apitype.TopologyHistory{Items: list[2:]}
	}
	return h
}
