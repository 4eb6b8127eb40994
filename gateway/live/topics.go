package live

import (
	"context"
	"errors"
	"fmt"
	"net/http"

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
	// Topology tells of the network's picture: each Change a delta, all that there is one
	// that makes the picture of nothing. nil: there is no such topic.
	Topology Source
}

// Topics returns all topics.
func Topics(s Sources) []Topic {
	topics := []Topic{
		{Name: apitype.TopicEvents, Scope: apitype.ScopeEventsRead, Source: eventSource{s.Events}, Log: true, Instance: func() string { return fmt.Sprintf("e%d", s.Epoch()) }},
		{Name: apitype.TopicTelemetry, Scope: apitype.ScopeTelemetryRead, Source: readingSource{s.Latest}},
		{Name: apitype.TopicNodes, Scope: apitype.ScopeNodesRead, Source: nodeSource(s.Registry)},
		{Name: apitype.TopicRegistrations, Scope: apitype.ScopeAdmin, Source: registrationSource(s.Registry)},
		{Name: apitype.TopicRecoveries, Scope: apitype.ScopeSystemRead, Source: s.Recoveries},
	}
	if s.Topology != nil {
		topics = append(topics, Topic{Name: apitype.TopicTopology, Scope: apitype.ScopeSystemRead, Source: s.Topology})
	}
	return topics
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
