package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) eventCommand() *cobra.Command {
	var f client.EventFilter
	var limit int
	var follow bool
	var interval time.Duration
	list := a.call("list", "what happened, newest last", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		events, err := c.Events(ctx, f, limit)
		if err != nil {
			return err
		}
		slices.Reverse(events)
		if follow {
			return a.followEvents(ctx, c, f, events, interval)
		}
		names, err := nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(items[apitype.Event]{events}, func(w io.Writer) error { return eventTable(events, names, true).Write(w) })
	})
	list.Flags().StringVar(&f.Node, "node", "", "only of this `node`")
	list.Flags().StringVar(&f.Kind, "kind", "", "only kinds that begin with `prefix`, such as join.")
	list.Flags().StringVar(&f.Severity, "severity", "", "only `severity` info, warning or error and worse")
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	list.Flags().BoolVar(&follow, "follow", false, "go on and print what happens")
	list.Flags().DurationVar(&interval, "interval", 2*time.Second, "how often --follow asks")
	return group("event", "what happened in the network", list)
}

func eventTable(events []apitype.Event, names map[string]string, heading bool) *table.Table {
	t := table.New()
	if heading {
		t = table.New("TIME", "SEVERITY", "NODE", "SOURCE", "KIND", "MESSAGE")
	}
	for _, e := range events {
		node := ""
		if e.Node != "" {
			node = nameOf(names, e.Node)
		}
		t.Row(e.Time.UTC().Format(time.DateTime), string(e.Severity), node, nameOf(names, e.Source), e.Kind, e.Message)
	}
	return t
}

// followEvents prints the events given and then, until it is interrupted,
// each that comes.
func (a *app) followEvents(ctx context.Context, c *client.Client, f client.EventFilter, events []apitype.Event, interval time.Duration) error {
	heading, last := true, int64(0)
	return every(ctx, interval, func() error {
		if !heading {
			var err error
			if events, err = c.EventsSince(ctx, f, last); err != nil {
				return err
			}
		}
		for _, e := range events {
			last = max(last, e.ID)
		}
		if a.json {
			heading = false
			return lines(a.env.Stdout, events)
		}
		if len(events) == 0 && !heading {
			return nil
		}
		names, err := nodeNames(ctx, c)
		if err != nil {
			return err
		}
		t := eventTable(events, names, heading)
		heading = false
		return t.Write(a.env.Stdout)
	})
}
