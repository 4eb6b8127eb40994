package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"halo.internal/model/apitype"
)

// AlertFilter chooses alerts; empty fields choose all, and State those that are open.
type AlertFilter struct {
	State    string // open, closed, all
	Severity string // that and worse
	Node     string
	Kind     string // prefix
}

// Alerts returns the newest alerts, newest first.
func (c *Client) Alerts(ctx context.Context, f AlertFilter, limit int) ([]apitype.Alert, error) {
	return newest(limit, func(cursor string, n int) ([]apitype.Alert, string, error) {
		q := page(filter(map[string]string{"state": f.State, "severity": f.Severity, "node": f.Node, "kind": f.Kind}), cursor)
		q.Set("limit", strconv.Itoa(n))
		l, err := get[apitype.AlertList](ctx, c, "/v1/alerts", q)
		return l.Items, l.Next, err
	})
}

// AcknowledgeAlert says that an alert is known of.
func (c *Client) AcknowledgeAlert(ctx context.Context, id int64, note string) (apitype.Alert, error) {
	var a apitype.Alert
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/alerts/" + strconv.FormatInt(id, 10) + "/acknowledge", body: apitype.Acknowledge{Note: note}, once: true}, &a)
	return a, err
}

// AcknowledgeEvent says that an event was taken note of.
func (c *Client) AcknowledgeEvent(ctx context.Context, id int64, note string) (apitype.Event, error) {
	var e apitype.Event
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/events/" + strconv.FormatInt(id, 10) + "/acknowledge", body: apitype.Acknowledge{Note: note}, once: true}, &e)
	return e, err
}

// EventRetention returns how long events are kept, and the entity tag of that.
func (c *Client) EventRetention(ctx context.Context) (r apitype.EventRetention, tag string, err error) {
	err = c.call(ctx, request{method: http.MethodGet, path: "/v1/events/retention", tag: &tag}, &r)
	return r, tag, err
}

// SetEventRetention says how long events are kept, where what was said before still has
// that entity tag.
func (c *Client) SetEventRetention(ctx context.Context, r apitype.EventRetention, tag string) error {
	return c.call(ctx, request{method: http.MethodPut, path: "/v1/events/retention", body: r, match: tag}, nil)
}

// Endpoints lists clients, of one node or, when node is empty, of all.
func (c *Client) Endpoints(ctx context.Context, node string) ([]apitype.Endpoint, error) {
	q := filter(map[string]string{"node": node})
	return all(func(cursor string) ([]apitype.Endpoint, string, error) {
		l, err := get[apitype.EndpointList](ctx, c, "/v1/endpoints", page(q, cursor))
		return l.Items, l.Next, err
	})
}

func endpointPath(id string) string { return "/v1/endpoints/" + url.PathEscape(id) }

// Endpoint returns a client and where it was.
func (c *Client) Endpoint(ctx context.Context, id string) (apitype.EndpointDetail, error) {
	return get[apitype.EndpointDetail](ctx, c, endpointPath(id), nil)
}

// UpdateEndpoint gives a client a name or a note.
func (c *Client) UpdateEndpoint(ctx context.Context, id string, u apitype.UpdateEndpoint) error {
	return c.call(ctx, request{method: http.MethodPatch, path: endpointPath(id), body: u}, nil)
}

// ForgetEndpoint forgets a client.
func (c *Client) ForgetEndpoint(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: endpointPath(id)}, nil)
}

// ModelNode returns a node with all that is its own.
func (c *Client) ModelNode(ctx context.Context, node string) (apitype.ModelNode, error) {
	return get[apitype.ModelNode](ctx, c, "/v1/model/nodes/"+url.PathEscape(node), nil)
}

// ModelSummary returns the network in numbers.
func (c *Client) ModelSummary(ctx context.Context) (apitype.ModelSummary, error) {
	return get[apitype.ModelSummary](ctx, c, "/v1/model", nil)
}

// ModelConflicts returns what does not fit.
func (c *Client) ModelConflicts(ctx context.Context) (apitype.ModelConflicts, error) {
	whole := apitype.ModelConflicts{Quarantined: []apitype.Node{}}
	macs, err := all(func(cursor string) ([]apitype.MACConflict, string, error) {
		l, err := get[apitype.ModelConflicts](ctx, c, "/v1/model/conflicts", page(nil, cursor))
		whole.Quarantined = append(whole.Quarantined, l.Quarantined...)
		return l.MACs, l.Next, err
	})
	whole.MACs = macs
	return whole, err
}

// Replacements lists nodes that look like others whose card was written anew.
func (c *Client) Replacements(ctx context.Context) ([]apitype.Replacement, error) {
	return pages[apitype.Replacement](ctx, c, "/v1/model/replacements", nil)
}

// AdoptReplacement has a node take the offered one's place.
func (c *Client) AdoptReplacement(ctx context.Context, id string) (apitype.Node, error) {
	var n apitype.Node
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/model/replacements/" + url.PathEscape(id) + "/adopt", once: true}, &n)
	return n, err
}

// DismissReplacement says that a node does not take the offered one's place.
func (c *Client) DismissReplacement(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/model/replacements/" + url.PathEscape(id) + "/dismiss", once: true}, nil)
}

// ReleaseNode ends a node's quarantine.
func (c *Client) ReleaseNode(ctx context.Context, node string) error {
	return c.call(ctx, request{method: http.MethodPost, path: nodePath(node) + "/release", once: true}, nil)
}

// Alert returns one alert.
func (c *Client) Alert(ctx context.Context, id int64) (apitype.Alert, error) {
	return get[apitype.Alert](ctx, c, "/v1/alerts/"+strconv.FormatInt(id, 10), nil)
}

// Event returns one event.
func (c *Client) Event(ctx context.Context, id int64) (apitype.Event, error) {
	return get[apitype.Event](ctx, c, "/v1/events/"+strconv.FormatInt(id, 10), nil)
}

// NodeEndpoints lists the clients behind a node.
func (c *Client) NodeEndpoints(ctx context.Context, node string) ([]apitype.Endpoint, error) {
	return all(func(cursor string) ([]apitype.Endpoint, string, error) {
		l, err := get[apitype.EndpointList](ctx, c, nodePath(node)+"/endpoints", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// ModelNetworks lists networks, of which a gateway has one.
func (c *Client) ModelNetworks(ctx context.Context) ([]apitype.ModelNetwork, error) {
	l, err := get[apitype.ModelNetworkList](ctx, c, "/v1/model/networks", nil)
	return l.Items, err
}

// ModelMeshes lists the network's meshes.
func (c *Client) ModelMeshes(ctx context.Context) ([]apitype.ModelMesh, error) {
	l, err := get[apitype.ModelMeshList](ctx, c, "/v1/model/meshes", nil)
	return l.Items, err
}

// ModelDomains lists the transports that carry the meshes.
func (c *Client) ModelDomains(ctx context.Context) ([]apitype.UnderlayDomain, error) {
	l, err := get[apitype.UnderlayDomainList](ctx, c, "/v1/model/domains", nil)
	return l.Items, err
}

// ModelInterfaces lists the interfaces of all nodes, and the hardware of each.
func (c *Client) ModelInterfaces(ctx context.Context) ([]apitype.ModelInterface, error) {
	return all(func(cursor string) ([]apitype.ModelInterface, string, error) {
		l, err := get[apitype.ModelInterfaceList](ctx, c, "/v1/model/interfaces", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// ModelSources lists what the readings of all nodes come from.
func (c *Client) ModelSources(ctx context.Context) ([]apitype.TelemetrySource, error) {
	return all(func(cursor string) ([]apitype.TelemetrySource, string, error) {
		l, err := get[apitype.TelemetrySourceList](ctx, c, "/v1/model/sources", page(nil, cursor))
		return l.Items, l.Next, err
	})
}
