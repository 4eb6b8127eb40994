package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func (a *app) eventCommand() *cobra.Command {
	var f client.EventFilter
	var limit int
	var follow bool
	var interval time.Duration
	var direct bool
	ofGateway := func(ctx context.Context, c *client.Client) error {
		events, err := c.Events(ctx, f, limit)
		if err != nil {
			return err
		}
		slices.Reverse(events)
		if follow {
			return a.followEvents(ctx, c, f, events, interval)
		}
		names, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(items[apitype.Event]{events}, func(w io.Writer) error { return eventTable(events, names, true).Write(w) })
	}
	list := &cobra.Command{
		Use: "list", Short: "what happened, newest last", Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		Long: `List shows events as the gateway has them. Those of one node it asks of that
node's door where the gateway does not answer, or with --direct: a node keeps
those of its present start, the newest 512.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 {
				return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
			}
			ask := func() error {
				return a.withDevice(c.Context(), func(from air) error {
					if c2, ok := from.(*client.Client); ok {
						return ofGateway(c.Context(), c2)
					}
					return a.deviceEvents(c.Context(), from.(device), f, limit, follow, interval)
				})
			}
			if direct {
				if f.Node == "" {
					return &usageError{errors.New("--direct: expected --node too")}
				}
				a.node = f.Node
				return ask()
			}
			err := ask()
			if _, away := errors.AsType[*client.UnreachableError](err); away && f.Node != "" {
				fmt.Fprintf(a.env.Stderr, "haloctl: the gateway does not answer; asking %s at its door.\n", table.Clean(f.Node))
				a.node = f.Node
				return ask()
			}
			return err
		},
	}
	list.Flags().StringVar(&f.Node, "node", "", "only of this `node`")
	list.Flags().BoolVar(&direct, "direct", false, "ask the node itself at its door")
	list.Flags().StringVar(&f.Kind, "kind", "", "only kinds that begin with `prefix`, such as join.")
	list.Flags().StringVar(&f.Severity, "severity", "", "only `severity` info, warning or error and worse")
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	list.Flags().BoolVar(&follow, "follow", false, "go on and print what happens")
	list.Flags().DurationVar(&interval, "interval", 0, "least time between two prints of --follow, for a slow link; of a node at its door, how often it is asked (5s)")
	return group("event", "what happened in the network", list, a.call("show ID", "one event", cobra.ExactArgs(1), a.eventShow), a.eventAck(), a.eventRetention())
}

// deviceEvents prints the events that a device still holds, as those of a gateway.
func (a *app) deviceEvents(ctx context.Context, from device, f client.EventFilter, limit int, follow bool, interval time.Duration) error {
	names, err := a.namesOf(ctx, from)
	if err != nil {
		return err
	}
	if f.Node != "" && a.node != "" {
		f.Node = "" // it is the one that is asked
	}
	var boot, seq uint64
	heading := true
	round := func() error {
		list, err := from.Events(ctx, boot, seq)
		if err != nil {
			return err
		}
		events := []apitype.Event{}
		for _, e := range list {
			boot, seq = e.Boot, e.Seq
			if wanted(f, e) {
				events = append(events, apitype.Event{ID: int64(e.Seq), Source: e.Node, Event: e})
			}
		}
		events = events[max(0, len(events)-limit):]
		switch {
		case a.json && follow:
			return lines(a.env.Stdout, events)
		case a.json:
			return a.show(items[apitype.Event]{events}, nil)
		case len(events) == 0 && !heading:
			return nil
		}
		t := eventTable(events, names, heading)
		heading = false
		return t.Write(a.page())
	}
	if !follow {
		return round()
	}
	return a.again(ctx, cmp.Or(interval, pollEvery), round)
}

// wanted tells whether a filter takes an event of a device.
func wanted(f client.EventFilter, e model.Event) bool {
	order := []model.Severity{model.Info, model.Warning, model.Error}
	return strings.HasPrefix(e.Kind, f.Kind) && slices.Index(order, e.Severity) >= slices.Index(order, model.Severity(f.Severity)) &&
		(f.Node == "" || f.Node == e.Node)
}

func eventTable(events []apitype.Event, names map[string]string, heading bool) *table.Table {
	t := table.New().Wide(6)
	if heading {
		t = table.New("TIME", "SEVERITY", "NODE", "SOURCE", "KIND", "MESSAGE", "RECEIVED", "KNOWN TO", "ID").Wide(6)
	}
	for _, e := range events {
		node := ""
		if e.Node != "" {
			node = nameOf(names, e.Node)
		}
		known := ""
		if e.Acknowledged != nil {
			known = e.Acknowledged.By
		}
		t.Row(e.Time, string(e.Severity), node, nameOf(names, e.Source), e.Kind, e.Message, e.Received, known, e.ID)
	}
	return t
}

func (a *app) eventShow(ctx context.Context, c *client.Client, args []string) error {
	id, err := number(args[0])
	if err != nil {
		return err
	}
	e, err := c.Event(ctx, id)
	if err != nil {
		return notFound(err, "haloctl event list -o wide shows the numbers of events")
	}
	names, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	return a.show(e, func(w io.Writer) error {
		t := table.New()
		t.Row("Event", e.ID)
		t.Row("Kind", e.Kind)
		t.Row("Severity", e.Severity)
		t.Row("Node", nameOf(names, e.Node))
		t.Row("Told by", nameOf(names, e.Source))
		t.Row("Message", e.Message)
		t.Row("Time", e.Time)
		t.Row("Clock", e.Clock)
		t.Row("Received", e.Received)
		if k := e.Acknowledged; k != nil {
			t.Row("Known to", k.By)
			t.Row("From", k.Time)
			t.Row("Note", k.Note)
		}
		fields := table.New("FIELD", "VALUE")
		for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
			fields.Row(name, e.Fields[name])
		}
		return writeTables(w, []section{{1, t}, {len(e.Fields), fields}})
	})
}

// followEvents prints the events given and then, until it is interrupted,
// each that comes.
func (a *app) followEvents(ctx context.Context, c *client.Client, f client.EventFilter, events []apitype.Event, interval time.Duration) error {
	last := int64(0)
	for _, e := range events {
		last = max(last, e.ID)
	}
	names, heading := liveNames{app: a, c: c}, true
	write := func(events []apitype.Event) error {
		if a.json {
			return lines(a.env.Stdout, events)
		}
		var ids []string
		for _, e := range events {
			ids = append(ids, e.Node, e.Source)
		}
		known, err := names.of(ctx, ids...)
		if err != nil || len(events) == 0 && !heading {
			return err
		}
		t := eventTable(events, known, heading)
		heading = false
		return t.Write(a.page())
	}
	if err := write(events); err != nil {
		return err
	}
	want := apitype.LiveRequest{Topic: apitype.TopicEvents, Kind: f.Kind, Severity: model.Severity(f.Severity), Since: &last}
	if f.Node != "" {
		want.Nodes = []string{f.Node}
	}
	return a.follow(ctx, c, interval, []apitype.LiveRequest{want}, func(m apitype.LiveMessage) error {
		news, err := decode[apitype.Event](m)
		if err != nil {
			return err
		}
		return write(news)
	})
}
