package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/alerts"
	"halo.internal/gateway/etag"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// NumberPath names an alert or an event in a path.
type NumberPath struct {
	ID int64 `path:"id" minimum:"1" example:"42"`
}

func (a *API) alertRoutes() {
	tags, read, write := []string{"alerts"}, scope(apitype.ScopeEventsRead), scope(apitype.ScopeNodesWrite)
	register(a, read, huma.Operation{
		OperationID: "list-alerts", Method: http.MethodGet, Path: "/v1/alerts", Tags: tags,
		Summary: "Conditions that last, newest first: nodes that are offline, disks that are nearly full, policies that came back", Description: "With state=closed, those that are over.",
	}, func(ctx context.Context, i *struct {
		Page
		State    string         `query:"state" enum:"open,closed,all" default:"open"`
		Severity model.Severity `query:"severity" enum:"info,warning,error" default:"info" doc:"that and worse"`
		Node     string         `query:"node" maxLength:"64" doc:"canonical ID or name"`
		Kind     string         `query:"kind" maxLength:"64" doc:"prefix, e.g. node."`
	}) (*body[apitype.AlertList], error) {
		q := alerts.Query{State: i.State, Severity: i.Severity, Kind: i.Kind, Cursor: i.Cursor, Limit: i.Limit}
		var err error
		if q.Nodes, err = a.withPast(ctx, i.Node); err != nil {
			return nil, err
		}
		return answer(a.Alerts.List(ctx, q))
	})
	register(a, read, huma.Operation{
		OperationID: "get-alert", Method: http.MethodGet, Path: "/v1/alerts/{id}", Tags: tags, Summary: "An alert",
	}, func(ctx context.Context, i *NumberPath) (*body[apitype.Alert], error) {
		return answer(a.Alerts.Get(ctx, i.ID))
	})
	register(a, write, huma.Operation{
		OperationID: "acknowledge-alert", Method: http.MethodPost, Path: "/v1/alerts/{id}/acknowledge", Tags: tags,
		Summary: "Say that an alert is known of", Description: "It stays open as long as its condition lasts. One that becomes worse has to be acknowledged again.",
	}, func(ctx context.Context, i *struct {
		NumberPath
		In[apitype.Acknowledge]
	}) (*body[apitype.Alert], error) {
		c := callerOf(ctx)
		c.target = strconv.FormatInt(i.ID, 10)
		return answer(a.Alerts.Acknowledge(ctx, i.ID, c.Actor(), i.Body.Note))
	})
	register(a, read, huma.Operation{
		OperationID: "get-event", Method: http.MethodGet, Path: "/v1/events/{id}", Tags: []string{"events"}, Summary: "An event",
	}, func(ctx context.Context, i *NumberPath) (*body[apitype.Event], error) {
		return answer(a.Events.Get(ctx, i.ID))
	})
	register(a, write, huma.Operation{
		OperationID: "acknowledge-event", Method: http.MethodPost, Path: "/v1/events/{id}/acknowledge", Tags: []string{"events"},
		Summary: "Say that an event was taken note of",
	}, func(ctx context.Context, i *struct {
		NumberPath
		In[apitype.Acknowledge]
	}) (*body[apitype.Event], error) {
		c := callerOf(ctx)
		c.target = strconv.FormatInt(i.ID, 10)
		return answer(a.Events.Acknowledge(ctx, i.ID, c.Actor(), i.Body.Note))
	})
	register(a, read, huma.Operation{
		OperationID: "get-event-retention", Method: http.MethodGet, Path: "/v1/events/retention", Tags: []string{"events"},
		Summary: "How long events are kept, by severity",
	}, func(ctx context.Context, _ *nothing) (*tagged[apitype.EventRetention], error) {
		r, err := a.Events.Retention(ctx)
		return tag(r, etag.Of(r), err)
	})
	register(a, admin, huma.Operation{
		OperationID: "set-event-retention", Method: http.MethodPut, Path: "/v1/events/retention", Tags: []string{"events"},
		Summary: "Say how long events are kept, by severity", Description: "What is older, or more, goes: at most an eighth at once for its age, and none while the gateway's clock is a guess.",
	}, func(ctx context.Context, i *struct {
		MustMatch
		In[apitype.EventRetention]
	}) (*tagged[apitype.EventRetention], error) {
		callerOf(ctx).target = "retention"
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		if err := a.Events.SetRetention(ctx, m, i.Body); err != nil {
			return nil, err
		}
		a.changed()
		return tag(i.Body, etag.Of(i.Body), nil)
	})
}

// Conditions are all that is so in the network, for the alerts.
func (a *API) Conditions(ctx context.Context, open func(alerts.Key) bool) ([]alerts.Condition, error) {
	s := alerts.Snapshot{Now: a.Clock.Now(), Readings: map[string][]apitype.Reading{}, Health: a.Health.Report(), Conflicts: a.Registry.Conflicts()}
	err := a.everyNode(ctx, func(n apitype.Node) {
		s.Nodes = append(s.Nodes, n)
		for _, prefix := range alerts.MetricsOf {
			s.Readings[n.ID] = append(s.Readings[n.ID], a.readings(n.ID, prefix)...)
		}
	})
	if err != nil {
		return nil, err
	}
	if m, ok := a.Mesh.Last(); ok {
		s.Mesh = &m
		// halo-mesh answers from memory; where it does not, its check says so.
		s.Timeline, _ = a.Radios.Timeline(ctx)
	}
	if s.Firewall, err = a.Firewall.State(ctx); err != nil {
		return nil, err
	}
	s.Unreachable, s.Mapped = a.Topology.Unreachable()
	if s.Replacements, err = a.Registry.Replacements(ctx); err != nil {
		return nil, err
	}
	return alerts.Conditions(s, open), nil
}
