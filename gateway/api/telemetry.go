package api

import (
	"cmp"
	"context"
	"errors"
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

// Span is a time; an hour until now where it is left out.
type Span struct {
	From time.Time `query:"from" doc:"first instant; an hour before to when left out"`
	To   time.Time `query:"to" doc:"last instant; now when left out"`
}

func (s *Span) settle(now time.Time) {
	if s.To.IsZero() {
		s.To = now
	}
	if s.From.IsZero() {
		s.From = s.To.Add(-time.Hour)
	}
}

// Selection is series of nodes.
type Selection struct {
	Node   []string `query:"node,explode" maxItems:"100" doc:"canonical IDs or names, each a parameter of its own; all when left out"`
	Metric []string `query:"metric,explode" maxItems:"100" doc:"names, or their beginnings followed by *, each a parameter of its own; all when left out"`
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
		Span
		Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"samples on a page, rounded up to whole instants"`
		Cursor string `query:"cursor" maxLength:"64" doc:"next of the page before"`
	}) (*body[apitype.SampleList], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		i.settle(a.Clock.Now())
		q := telemetry.SampleQuery{Node: n.ID, From: i.From, To: i.To, Metrics: []string{i.Metric + "*"}, Cursor: i.Cursor, Limit: i.Limit}
		var list apitype.SampleList
		err = a.look(ctx, a.Telemetry.CostOfSamples(q), func(ctx context.Context) (err error) {
			if err := a.makeRoom(ctx, sampleOctets*i.Limit, roomPatience); err != nil {
				return err
			}
			list, err = a.Telemetry.Samples(ctx, q)
			return err
		})
		return answer(list, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-node-telemetry-marks", Method: http.MethodGet, Path: "/v1/nodes/{id}/telemetry/marks", Tags: tags,
		Summary: "A node's starts, corrections of its clock, and gaps in what came of it",
	}, func(ctx context.Context, i *struct {
		NodePath
		Page
		Span
	}) (*body[apitype.MarkList], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		i.settle(a.Clock.Now())
		var list apitype.MarkList
		err = a.look(ctx, a.Telemetry.CostOfWeeks(i.From, i.To), func(ctx context.Context) (err error) {
			list, err = a.Telemetry.Marks(ctx, telemetry.MarkQuery{Node: n.ID, From: i.From, To: i.To.Add(time.Millisecond), Cursor: i.Cursor, Limit: i.Limit})
			return err
		})
		return answer(list, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-telemetry-metrics", Method: http.MethodGet, Path: "/v1/telemetry/metrics", Tags: tags,
		Summary: "Metrics of which there may be readings, by name",
	}, func(ctx context.Context, i *struct {
		Page
		MetricFilter
		Span
	}) (*body[apitype.MetricList], error) {
		i.settle(a.Clock.Now())
		return answer(a.metrics(ctx, i.Span, i.Metric, i.Page))
	})
	register(a, read, huma.Operation{
		OperationID: "query-telemetry", Method: http.MethodGet, Path: "/v1/telemetry/range", Tags: tags,
		Summary: "Series at any step, of nodes or across them",
		Description: "Readings are put together in buckets of step_s seconds, or of the narrowest usual width that makes at most points of them. " +
			"Steps that are multiples of 900 s are answered from rollups; what takes too many readings to be put together across nodes is refused (422). Large questions take turns: 429 and 503 say when to come again. " +
			"With across, series of one metric become one. A page holds whole series: limit counts them, and it ends earlier where they are long, or where much has to be read for them, also if there are none on it yet.",
	}, func(ctx context.Context, i *struct {
		Selection
		Span
		Page
		StepS  float64        `query:"step_s" minimum:"0.001" maximum:"31622400" example:"60" doc:"width of a bucket, in seconds"`
		Points int            `query:"points" minimum:"1" maximum:"20000" default:"300" example:"300" doc:"buckets at most, where step_s is left out"`
		Func   telemetry.Func `query:"func" enum:"mean,min,max,sum,count,first,last,rate" default:"mean" doc:"what value is; rate: of a counter, per second"`
		Across telemetry.Func `query:"across" enum:"mean,min,max,sum,count" doc:"one series of each metric, of what func gives for each node"`
	}) (*body[apitype.SeriesList], error) {
		i.settle(a.Clock.Now())
		nodes, err := a.nodeIDs(ctx, i.Node)
		if err != nil {
			return nil, err
		}
		q := telemetry.Query{Nodes: nodes, Metrics: i.Metric, From: i.From, To: i.To, Step: time.Duration(i.StepS * float64(time.Second)), Points: i.Points, Func: i.Func, Across: i.Across}
		return answer(a.series(ctx, q, i.Page))
	})
}

// nodeIDs returns the canonical IDs of nodes that are named; none: all.
func (a *API) nodeIDs(ctx context.Context, refs []string) (ids []string, err error) {
	for _, ref := range refs {
		n, err := a.Registry.Node(ctx, ref)
		if err != nil {
			return nil, err
		}
		ids = append(ids, n.ID)
	}
	return ids, nil
}

func (a *API) metrics(ctx context.Context, span Span, prefix string, p Page) (list apitype.MetricList, err error) {
	var all []apitype.Metric
	err = a.look(ctx, a.Telemetry.CostOfWeeks(span.From, span.To), func(ctx context.Context) (err error) {
		all, err = a.Telemetry.Metrics(ctx, span.From, span.To, []string{prefix + "*"})
		return err
	})
	list.Items = []apitype.Metric{}
	after, err2 := keyOf(p.Cursor, 2)
	if err = cmp.Or(err, err2); err != nil {
		return list, err
	}
	for _, m := range all {
		if after != nil && cmp.Or(cmp.Compare(m.Metric, after[0]), cmp.Compare(m.Unit, after[1])) <= 0 {
			continue
		}
		if len(list.Items) == p.Limit {
			last := list.Items[len(list.Items)-1]
			list.Next = cursorOf(last.Metric, last.Unit)
			break
		}
		list.Items = append(list.Items, m)
	}
	return list, nil
}

// pagePoints is how many points there are on a page of series, of which there is one at
// least: some 6 MB of JSON.
const pagePoints = 40_000

// errPageFull ends a query whose page is full.
var errPageFull = errors.New("the page is full")

func (a *API) series(ctx context.Context, q telemetry.Query, p Page) (apitype.SeriesList, error) {
	list := apitype.SeriesList{Items: []apitype.Series{}}
	after, err := keyOf(p.Cursor, 3)
	if err != nil {
		return list, err
	}
	if after != nil {
		q.After = &telemetry.SeriesKey{Node: after[0], Metric: after[1], Unit: after[2]}
	}
	points := 0
	err = a.look(ctx, a.Telemetry.Cost(q), func(ctx context.Context) error {
		if err := a.makeRoom(ctx, roomOf(q, p.Limit), roomPatience); err != nil {
			return err
		}
		step, err := a.Telemetry.Range(ctx, q, func(s telemetry.Series) error {
			if len(list.Items) == p.Limit || len(list.Items) > 0 && points+len(s.Points) > pagePoints {
				last := list.Items[len(list.Items)-1]
				list.Next = cursorOf(last.Node, last.Metric, last.Unit)
				return errPageFull
			}
			points += len(s.Points)
			list.Items = append(list.Items, apitype.Series{Node: s.Node, Metric: s.Metric, Unit: s.Unit, Points: s.Points})
			return nil
		})
		list.StepS = step.Seconds()
		return err
	})
	more, ok := errors.AsType[*telemetry.More](err)
	switch {
	case errors.Is(err, errPageFull):
		err = nil
	case ok:
		list.Next, err = cursorOf(more.After.Node, more.After.Metric, more.After.Unit), nil
	case errors.Is(err, telemetry.ErrQuery), errors.Is(err, telemetry.ErrTooMuch):
		err = apitype.Refuse(http.StatusUnprocessableEntity, "", "%v", err)
	}
	return list, err
}
