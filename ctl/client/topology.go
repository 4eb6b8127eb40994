package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/graph"
)

// atTime is the query for an instant; zero is now.
func atTime(at time.Time) url.Values {
	if at.IsZero() {
		return nil
	}
	return url.Values{"at": {at.UTC().Format(time.RFC3339Nano)}}
}

// Picture is the network's picture, of now or of an instant.
func (c *Client) Picture(ctx context.Context, at time.Time) (graph.Picture, error) {
	return get[graph.Picture](ctx, c, "/v1/topology", atTime(at))
}

// NetJSON is the picture as a NetworkGraph.
func (c *Client) NetJSON(ctx context.Context, at time.Time) (graph.NetJSON, error) {
	return get[graph.NetJSON](ctx, c, "/v1/topology/netjson", atTime(at))
}

// NodeTopology is a node in the picture.
func (c *Client) NodeTopology(ctx context.Context, node string, at time.Time) (apitype.NodeTopology, error) {
	return get[apitype.NodeTopology](ctx, c, nodePath(node)+"/topology", atTime(at))
}

// PictureChanges waits for what changes in the picture after the one of that run and
// number.
func (c *Client) PictureChanges(ctx context.Context, run, seq uint64, wait time.Duration) (apitype.TopologyChanges, error) {
	q := url.Values{"run": {strconv.FormatUint(run, 10)}, "seq": {strconv.FormatUint(seq, 10)}, "wait_s": {strconv.Itoa(int(wait / time.Second))}}
	var a apitype.TopologyChanges
	err := c.call(ctx, request{method: "GET", path: "/v1/topology/changes", query: q, wait: wait + timeout}, &a)
	return a, err
}

// TopologyHistory lists what happened to the network in a time, most at most, oldest
// first; more tells whether there is more after them.
func (c *Client) TopologyHistory(ctx context.Context, from, to time.Time, most int) (list []graph.Moment, more bool, err error) {
	const page = 500
	q := url.Values{}
	for name, at := range map[string]time.Time{"from": from, "to": to} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	for {
		q.Set("limit", strconv.Itoa(min(page, most-len(list))))
		h, err := get[apitype.TopologyHistory](ctx, c, "/v1/topology/history", q)
		if err != nil {
			return nil, false, err
		}
		list = append(list, h.Items...)
		if h.Next == "" || len(list) >= most {
			return list, h.Next != "", nil
		}
		q.Set("cursor", h.Next)
	}
}

// Neighbourhood is what a node reported last of what it sees around it.
func (c *Client) Neighbourhood(ctx context.Context, node string) (apitype.NodeNeighbourhood, error) {
	return get[apitype.NodeNeighbourhood](ctx, c, nodePath(node)+"/neighbourhood", nil)
}
