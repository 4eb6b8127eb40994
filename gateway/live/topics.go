package live

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"halo.internal/gateway/changes"
	"halo.internal/gateway/events"
	"halo.internal/gateway/registry"
	"halo.internal/model/apitype"
)

// pageSize is how many things are read at once where all are told.
const pageSize = 200

// Sources are what the topics are made of.
type Sources struct {
	Events     *events.Log
	Epoch      func() uint64 // with a restored database it rises: IDs of events begin anew
	Latest     Readings
	Registry   *registry.Registry
	Recoveries *Recoveries
	Topology   Pictures
	Jobs       Jobs
}

// Topics returns all topics.
func Topics(s Sources) []Topic {
	return []Topic{
		{Name: apitype.TopicEvents, Scope: apitype.ScopeEventsRead, Source: eventSource{s.Events, s.Registry.Lineage}, Log: true, Instance: func() string { return fmt.Sprintf("e%d", s.Epoch()) }},
		{Name: apitype.TopicTelemetry, Scope: apitype.ScopeTelemetryRead, Source: readingSource{s.Latest}},
		{Name: apitype.TopicNodes, Scope: apitype.ScopeNodesRead, Source: nodeSource(s.Registry)},
		{Name: apitype.TopicRegistrations, Scope: apitype.ScopeAdmin, Source: registrationSource(s.Registry)},
		{Name: apitype.TopicRecoveries, Scope: apitype.ScopeSystemRead, Source: s.Recoveries},
		{Name: apitype.TopicTopology, Scope: apitype.ScopeSystemRead, Source: pictureSource{s.Topology}},
		{Name: apitype.TopicJobs, Scope: apitype.ScopeNodesRead, Source: jobSource(s.Jobs)},
	}
}

// Jobs are what takes longer than a request.
type Jobs interface {
	News() *changes.Log[string]
	Get(ctx context.Context, id int64) (apitype.Job, error)
	Active(ctx context.Context) ([]apitype.Job, error)
}

// jobSource tells of jobs without what has come of them, which may be much.
func jobSource(j Jobs) Source {
	return keyed[apitype.Job]{
		log: j.News(),
		one: func(ctx context.Context, id string) (apitype.Job, bool, error) {
			n, err := strconv.ParseInt(id, 10, 64)
			if err != nil {
				return apitype.Job{}, false, err
			}
			job, err := j.Get(ctx, n)
			if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Status == http.StatusNotFound {
				return job, false, nil
			}
			job.Result = nil
			return job, err == nil, err
		},
		page: func(ctx context.Context, _ string) ([]apitype.Job, string, error) {
			list, err := j.Active(ctx)
			return list, "", err
		},
		id: func(j apitype.Job) string { return strconv.FormatInt(j.ID, 10) },
	}
}

func nodeSource(r *registry.Registry) Source {
	return keyed[apitype.Node]{
		log: r.NodeNews(),
		one: func(ctx context.Context, id string) (apitype.Node, bool, error) {
			n, err := r.Node(ctx, id)
			if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Status == http.StatusNotFound {
				return n, false, nil
			}
			return n, err == nil && n.ID == id, err
		},
		page: func(ctx context.Context, cursor string) ([]apitype.Node, string, error) {
			l, err := r.Nodes(ctx, cursor, pageSize)
			return l.Items, l.Next, err
		},
		id: func(n apitype.Node) string { return n.ID },
	}
}

func registrationSource(r *registry.Registry) Source {
	return keyed[apitype.Registration]{
		log: r.RegistrationNews(),
		one: r.Registration,
		page: func(ctx context.Context, cursor string) ([]apitype.Registration, string, error) {
			l, err := r.Registrations(ctx, cursor, pageSize)
			return l.Items, l.Next, err
		},
		id: func(g apitype.Registration) string { return g.ID },
	}
}
