package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// intervalFlag is that of commands which go on and print what is new.
func intervalFlag(c *cobra.Command, interval *time.Duration, of string) {
	c.Flags().DurationVar(interval, "interval", 0, "least time between two prints of "+of+", for a slow link; what changes more often is printed once")
}

// follow prints what changes until it is interrupted. Each subscription's ID is its topic.
func (a *app) follow(ctx context.Context, c *client.Client, pace time.Duration, subscriptions []apitype.LiveRequest, tell func(apitype.LiveMessage) error) error {
	for i := range subscriptions {
		subscriptions[i].ID = subscriptions[i].Topic
	}
	return c.Live(ctx, pace, subscriptions, func(m apitype.LiveMessage) error {
		switch {
		case m.Type != apitype.LiveGap:
			return tell(m)
		case m.ID == apitype.TopicEvents: // of the rest all follows that there is now
			fmt.Fprintln(a.env.Stderr, "haloctl: some events are missing here: haloctl event list has them, if they are kept.")
		}
		return nil
	}, func(err error) {
		fmt.Fprintln(a.env.Stderr, "haloctl:", table.Clean(err.Error())+"; trying again.")
	})
}

// decode reads the items of a message.
func decode[T any](m apitype.LiveMessage) ([]T, error) {
	list := make([]T, len(m.Items))
	for i, b := range m.Items {
		if err := json.Unmarshal(b, &list[i]); err != nil {
			return nil, fmt.Errorf("/v1/live: expected the gateway's %s: %w", m.ID, err)
		}
	}
	return list, nil
}

// liveNames are the nodes' names, asked for when one is not among them.
type liveNames struct {
	app   *app
	c     *client.Client
	names map[string]string
}

func (l *liveNames) of(ctx context.Context, ids ...string) (map[string]string, error) {
	if l.names == nil || slices.ContainsFunc(ids, func(id string) bool { return strings.HasPrefix(id, "n-") && l.names[id] == "" }) {
		names, err := l.app.nodeNames(ctx, l.c)
		if err != nil {
			return nil, err
		}
		l.names = names
	}
	return l.names, nil
}

// readings are those of a message, each by itself.
func readings(groups []apitype.LiveReadings) (list []apitype.Reading) {
	for _, g := range groups {
		for _, v := range g.Values {
			list = append(list, apitype.Reading{Node: g.Node, Metric: v.Metric, Unit: v.Unit, Value: v.Value, Time: g.Time, Clock: g.Clock, Boot: g.Boot, Seq: g.Seq, Urgent: g.Urgent})
		}
	}
	return list
}

const watchLong = `Watch prints, until it is interrupted, what happens in the network as it happens:
events, nodes that come, go or change their state, nodes that ask to join (for an
admin), how the gateway recovers, and how far jobs are. --telemetry adds readings. Over a connection
that breaks it goes on where it was.

With --json each line is {"topic": …, "item": …}, or {"topic": …, "gone": ID}.`

func (a *app) watchCommand() *cobra.Command {
	var node, metric string
	var telemetry bool
	var interval time.Duration
	c := a.call("watch", "what happens in the network, as it happens", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		return a.watch(ctx, c, node, metric, telemetry || metric != "", interval)
	})
	c.Long = watchLong
	c.Flags().StringVar(&node, "node", "", "only of this `node`")
	c.Flags().BoolVar(&telemetry, "telemetry", false, "readings too")
	c.Flags().StringVar(&metric, "metric", "", "readings of metrics that begin with `prefix`, such as power.")
	intervalFlag(c, &interval, "one kind")
	return c
}

func (a *app) watch(ctx context.Context, c *client.Client, node, metric string, telemetry bool, interval time.Duration) error {
	me, err := c.Me(ctx)
	if err != nil {
		return err
	}
	may := func(scope string) bool {
		return slices.Contains(me.Scopes, scope) || slices.Contains(me.Scopes, apitype.ScopeAdmin)
	}
	var nodes []string
	if node != "" {
		nodes = []string{node}
	}
	var subscriptions []apitype.LiveRequest
	for _, s := range []struct {
		wanted bool
		scope  string
		apitype.LiveRequest
	}{
		{true, apitype.ScopeEventsRead, apitype.LiveRequest{Topic: apitype.TopicEvents, Nodes: nodes}},
		{true, apitype.ScopeNodesRead, apitype.LiveRequest{Topic: apitype.TopicNodes, Nodes: nodes}},
		{node == "", apitype.ScopeAdmin, apitype.LiveRequest{Topic: apitype.TopicRegistrations}},
		{node == "", apitype.ScopeSystemRead, apitype.LiveRequest{Topic: apitype.TopicRecoveries}},
		{node == "", apitype.ScopeNodesRead, apitype.LiveRequest{Topic: apitype.TopicJobs}},
		{telemetry, apitype.ScopeTelemetryRead, apitype.LiveRequest{Topic: apitype.TopicTelemetry, Nodes: nodes, Metrics: prefixes(metric)}},
	} {
		if s.wanted && may(s.scope) {
			subscriptions = append(subscriptions, s.LiveRequest)
		}
	}
	w := &watcher{app: a, names: liveNames{app: a, c: c}, now: c.Now}
	return notFound(a.follow(ctx, c, interval, subscriptions, func(m apitype.LiveMessage) error { return w.tell(ctx, m) }), "haloctl node list shows the nodes")
}

func prefixes(metric string) []string {
	if metric == "" {
		return nil
	}
	return []string{metric}
}

// watcher prints a line for each thing that changes.
type watcher struct {
	app   *app
	names liveNames
	now   func() time.Time
}

// change is a line of --json.
type change struct {
	Topic string          `json:"topic"`
	Item  json.RawMessage `json:"item,omitempty"`
	Gone  string          `json:"gone,omitempty"`
}

func (w *watcher) tell(ctx context.Context, m apitype.LiveMessage) error {
	if w.app.json {
		var list []change
		for _, i := range m.Items {
			list = append(list, change{Topic: m.ID, Item: i})
		}
		for _, g := range m.Gone {
			list = append(list, change{Topic: m.ID, Gone: g})
		}
		return lines(w.app.env.Stdout, list)
	}
	out := w.app.env.Stdout
	switch m.ID {
	case apitype.TopicEvents:
		return print(m, func(e apitype.Event) error {
			names, err := w.names.of(ctx, e.Node, e.Source)
			if err != nil {
				return err
			}
			return w.line(e.Time, string(e.Severity), nameOf(names, e.Node), e.Kind+" "+e.Message)
		})
	case apitype.TopicNodes:
		return print(m, func(n apitype.Node) error { return w.line(w.now(), "node", n.Name, nodeState(n)) })
	case apitype.TopicRegistrations:
		for _, id := range m.Gone {
			if err := w.line(w.now(), "registration", id, "is over"); err != nil {
				return err
			}
		}
		return print(m, func(g apitype.Registration) error {
			return w.line(g.LastTry, "registration", g.ID, strings.TrimSpace(g.State+" "+g.Name+" "+g.Reason))
		})
	case apitype.TopicRecoveries:
		return print(m, func(r model.Recovery) error {
			return w.line(r.Began, "recovery", string(r.Cause), recoveryText(r))
		})
	case apitype.TopicJobs:
		return print(m, func(j apitype.Job) error {
			names, err := w.names.of(ctx, j.Node)
			if err != nil {
				return err
			}
			return w.line(w.now(), "job", nameOf(names, j.Node), strings.TrimSpace(fmt.Sprintf("%d %s %s %s", j.ID, j.Kind, jobState(j), jobDetail(j))))
		})
	case apitype.TopicTelemetry:
		groups, err := decode[apitype.LiveReadings](m)
		if err != nil {
			return err
		}
		for _, r := range readings(groups) {
			names, err := w.names.of(ctx, r.Node)
			if err != nil {
				return err
			}
			if err := w.line(r.Time, "reading", nameOf(names, r.Node), strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Metric, table.Value(r.Value), r.Unit))); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := fmt.Fprintln(out, m.ID)
	return err
}

func print[T any](m apitype.LiveMessage, one func(T) error) error {
	list, err := decode[T](m)
	for _, v := range list {
		if err == nil {
			err = one(v)
		}
	}
	return err
}

func (w *watcher) line(at time.Time, what, who, text string) error {
	t := table.New()
	t.Row(at, fmt.Sprintf("%-12s", what), who, text)
	return t.Write(w.app.page())
}

// recoveryText says in a line how a recovery went.
func recoveryText(r model.Recovery) string {
	switch {
	case r.TotalMS > 0:
		return fmt.Sprintf("%s after %s", r.State, table.Span(time.Duration(r.TotalMS)*time.Millisecond))
	case r.Missing != "":
		return fmt.Sprintf("%s, %s is missing", r.State, r.Missing)
	}
	return string(r.State)
}

// watchList prints all things of a topic, and then those that change.
func watchList[T any](ctx context.Context, a *app, c *client.Client, interval time.Duration, topic string, rows func(*table.Table, T), heading []string, wide int) error {
	out := changing[T]{app: a, heading: heading, wide: wide, row: rows}
	return a.follow(ctx, c, interval, []apitype.LiveRequest{{Topic: topic}}, func(m apitype.LiveMessage) error {
		list, err := decode[T](m)
		if err != nil {
			return err
		}
		return out.print(list, m.Gone)
	})
}

// changing prints things as they change: as rows of a table, or one JSON object a line.
type changing[T any] struct {
	app     *app
	heading []string
	wide    int // see table.Table.Wide
	row     func(*table.Table, T)
	begun   bool
}

// print tells of things that are new or others than before, and of those that are gone.
func (c *changing[T]) print(list []T, gone []string) error {
	if c.app.json {
		return lines(c.app.env.Stdout, list)
	}
	t := table.New()
	if !c.begun {
		t, c.begun = table.New(c.heading...), true
	}
	t.Wide(c.wide)
	for _, v := range list {
		c.row(t, v)
	}
	if err := t.Write(c.app.page()); err != nil {
		return err
	}
	for _, id := range gone {
		if _, err := fmt.Fprintln(c.app.page(), table.Clean(id), "is no more there"); err != nil {
			return err
		}
	}
	return nil
}
