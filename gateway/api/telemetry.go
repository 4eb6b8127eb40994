package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/telemetry"
	"halo.internal/model/apitype"
)

// MetricFilter selects metrics.
type MetricFilter struct {
	Metric string `query:"metric" maxLength:"96" doc:"prefix, e.g. system.cpu."`
}

func (a *API) telemetryRoutes() {
	read, tags := scope(apitype.ScopeTelemetryRead), []string{"telemetry"}
	register(a, read, huma.Operation{
		OperationID: "get-node-telemetry", Method: http.MethodGet, Path: "/v1/nodes/{id}/telemetry", Tags: tags,
		Summary: "A node's latest values",
	}, func(ctx context.Context, i *struct {
		NodePath
		MetricFilter
	}) (*body[apitype.ReadingList], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		return answer(apitype.ReadingList{Items: a.Telemetry.Latest().Node(n.ID, i.Metric)}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-latest-telemetry", Method: http.MethodGet, Path: "/v1/telemetry/latest", Tags: tags,
		Summary: "Latest values of all nodes, or of one", Description: "A page holds whole nodes: limit counts nodes.",
	}, func(ctx context.Context, i *struct {
		Page
		MetricFilter
		Node string `query:"node" maxLength:"64" doc:"canonical ID or name"`
	}) (*body[apitype.ReadingList], error) {
		list := apitype.ReadingList{Items: []apitype.Reading{}}
		if i.Node != "" {
			n, err := a.Registry.Node(ctx, i.Node)
			list.Items = a.Telemetry.Latest().Node(n.ID, i.Metric)
			return answer(list, err)
		}
		nodes, err := a.Registry.Nodes(ctx, i.Cursor, i.Limit)
		for _, n := range nodes.Items {
			list.Items = append(list.Items, a.Telemetry.Latest().Node(n.ID, i.Metric)...)
		}
		list.Next = nodes.Next
		return answer(list, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-node-telemetry-sequences", Method: http.MethodGet, Path: "/v1/nodes/{id}/telemetry/sequences", Tags: tags,
		Summary: "Which batches of a node came, and which are missing",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.Coverage], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		return answer(a.Telemetry.Coverage(n.ID), nil)
	})
	register(a, read, huma.Operation{
		OperationID: "get-node-telemetry-range", Method: http.MethodGet, Path: "/v1/nodes/{id}/telemetry/range", Tags: tags,
		Summary: "A node's samples in a range of time", Description: "As it made them, in the order of time. What was thinned is not among them.",
	}, func(ctx context.Context, i *struct {
		NodePath
		MetricFilter
		From   time.Time `query:"from" doc:"first instant; an hour ago when left out"`
		To     time.Time `query:"to" doc:"last instant; now when left out"`
		Limit  int       `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"samples on a page, rounded up to whole instants"`
		Cursor string    `query:"cursor" maxLength:"64" doc:"next of the page before"`
	}) (*body[apitype.SampleList], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		if i.To.IsZero() {
			i.To = a.Clock.Now()
		}
		if i.From.IsZero() {
			i.From = i.To.Add(-time.Hour)
		}
		return answer(a.Telemetry.Samples(ctx, telemetry.SampleQuery{Node: n.ID, From: i.From, To: i.To, Metrics: []string{i.Metric + "*"}, Cursor: i.Cursor, Limit: i.Limit}))
	})
}
