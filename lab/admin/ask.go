package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/graph"
)

// most entries of one page.
const most = "500"

func get[T any](ctx context.Context, a *Admin, path string, query url.Values) (v T, err error) {
	err = a.do(ctx, http.MethodGet, path, query, nil, &v)
	return v, err
}

// Nodes lists the nodes: the lab has fewer than a page.
func (a *Admin) Nodes(ctx context.Context) ([]apitype.Node, error) {
	l, err := get[apitype.NodeList](ctx, a, "/v1/nodes", url.Values{"limit": {most}})
	return l.Items, err
}

// Node returns a node by its name.
func (a *Admin) Node(ctx context.Context, name string) (apitype.NodeDetail, error) {
	return get[apitype.NodeDetail](ctx, a, "/v1/nodes/"+url.PathEscape(name), nil)
}

// Revoke expels a node.
func (a *Admin) Revoke(ctx context.Context, name string) error {
	return a.do(ctx, http.MethodDelete, "/v1/nodes/"+url.PathEscape(name), nil, nil, nil)
}

// Replacements returns the cards that seem to be written anew, and of which node.
func (a *Admin) Replacements(ctx context.Context) ([]apitype.Replacement, error) {
	l, err := get[apitype.ReplacementList](ctx, a, "/v1/model/replacements", nil)
	return l.Items, err
}

// Adopt has a card that was written anew take the place of the node that it was.
func (a *Admin) Adopt(ctx context.Context, id string) error {
	return a.do(ctx, http.MethodPost, "/v1/model/replacements/"+url.PathEscape(id)+"/adopt", nil, nil, nil)
}

// Mesh is what the gateway's halo-mesh sees.
func (a *Admin) Mesh(ctx context.Context) (model.MeshStatus, error) {
	return get[model.MeshStatus](ctx, a, "/v1/mesh/status", nil)
}

// Health is what the gateway's API lacks.
func (a *Admin) Health(ctx context.Context) (health.Report, error) {
	return get[health.Report](ctx, a, "/health", nil)
}

// Coverage says which of a node's batches the gateway has.
func (a *Admin) Coverage(ctx context.Context, node string) (apitype.Coverage, error) {
	return get[apitype.Coverage](ctx, a, "/v1/nodes/"+url.PathEscape(node)+"/telemetry/sequences", nil)
}

// System describes the gateway.
func (a *Admin) System(ctx context.Context) (apitype.SystemInfo, error) {
	return get[apitype.SystemInfo](ctx, a, "/v1/system/info", nil)
}

// Latest returns a node's latest readings whose metric begins with prefix.
func (a *Admin) Latest(ctx context.Context, node, prefix string) ([]apitype.Reading, error) {
	l, err := get[apitype.ReadingList](ctx, a, "/v1/telemetry/latest", url.Values{"node": {node}, "metric": {prefix}, "limit": {most}})
	return l.Items, err
}

// Range returns a node's series of a metric since then, in buckets of that width.
func (a *Admin) Range(ctx context.Context, node, metric string, from time.Time, step time.Duration) ([]apitype.Series, error) {
	l, err := get[apitype.SeriesList](ctx, a, "/v1/telemetry/range", url.Values{"node": {node}, "metric": {metric}, "from": {from.UTC().Format(time.RFC3339)}, "step_s": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}})
	return l.Items, err
}

// LastEvent returns the number of the newest event, 0 without any.
func (a *Admin) LastEvent(ctx context.Context) (int64, error) {
	l, err := get[apitype.EventList](ctx, a, "/v1/events", url.Values{"limit": {"1"}})
	if err != nil || len(l.Items) == 0 {
		return 0, err
	}
	return l.Items[0].ID, nil
}

// EventsSince returns events after the one of that number, whose kind begins so.
func (a *Admin) EventsSince(ctx context.Context, node, kind string, id int64) ([]apitype.Event, error) {
	q := url.Values{"since": {strconv.FormatInt(id, 10)}, "limit": {most}}
	for name, v := range map[string]string{"node": node, "kind": kind} {
		if v != "" {
			q.Set(name, v)
		}
	}
	l, err := get[apitype.EventList](ctx, a, "/v1/events", q)
	return l.Items, err
}

// Channel is where the mesh is, and how far a change of its profile is.
type Channel struct {
	Channel int    `json:"channel"`
	Serial  uint64 `json:"serial"` // of the profile document
	Phase   string `json:"phase"`
	Secret  bool   `json:"secret"`  // another mesh secret is on its way, or due
	Outcome string `json:"outcome"` // of the last change
}

// Channel returns it.
func (a *Admin) Channel(ctx context.Context) (Channel, error) {
	return get[Channel](ctx, a, "/v1/mesh/profile", nil)
}

// MoveTo moves the mesh to another channel.
func (a *Admin) MoveTo(ctx context.Context, channel int) error {
	return a.do(ctx, http.MethodPut, "/v1/mesh/channel", nil, map[string]int{"channel": channel}, nil)
}

// Picture returns the network's picture, as it was at an instant; zero is now.
func (a *Admin) Picture(ctx context.Context, at time.Time) (graph.Picture, error) {
	q := url.Values{}
	if !at.IsZero() {
		q.Set("at", at.UTC().Format(time.RFC3339Nano))
	}
	return get[graph.Picture](ctx, a, "/v1/topology", q)
}

// PictureChanges waits some seconds for what changes after the picture of that run and
// number.
func (a *Admin) PictureChanges(ctx context.Context, run, seq uint64) (apitype.TopologyChanges, error) {
	return get[apitype.TopologyChanges](ctx, a, "/v1/topology/changes", url.Values{"run": {fmt.Sprint(run)}, "seq": {fmt.Sprint(seq)}, "wait_s": {"5"}})
}

// PictureHistory returns what happened to the network within the last hour.
func (a *Admin) PictureHistory(ctx context.Context) ([]graph.Moment, error) {
	h, err := get[apitype.TopologyHistory](ctx, a, "/v1/topology/history", url.Values{"limit": {most}})
	return h.Items, err
}
