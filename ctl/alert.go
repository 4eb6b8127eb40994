package ctl

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

const alertLong = `Alerts are conditions that last: a node that is offline, a disk that is nearly
full, a firewall policy that was not confirmed. One opens when its condition has
lasted for a while and closes when that is over. To acknowledge one says that you
know of it; it stays open meanwhile.`

func (a *app) alertCommand() *cobra.Command {
	var f client.AlertFilter
	var limit int
	list := a.call("list", "what is wrong now, newest first", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		return a.alertList(ctx, c, f, limit)
	})
	list.Flags().StringVar(&f.State, "state", "open", "those that are `state` open, closed or all")
	list.Flags().StringVar(&f.Severity, "severity", "", "only `severity` info, warning or error and worse")
	list.Flags().StringVar(&f.Node, "node", "", "only of this `node`")
	list.Flags().StringVar(&f.Kind, "kind", "", "only kinds that begin with `prefix`, such as node.")
	list.Flags().IntVar(&limit, "limit", 100, "how many of the newest")
	var note string
	ack := a.completes(a.call("ack ID", "say that an alert is known of", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		id, err := number(args[0])
		if err != nil {
			return err
		}
		al, err := c.AcknowledgeAlert(ctx, id, note)
		if err != nil {
			return notFound(err, "haloctl alert list shows the alerts")
		}
		return a.show(al, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "Alert %d is acknowledged: %s.\n", al.ID, table.Clean(al.Message))
			return err
		})
	}), func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, func(ctx context.Context) ([]apitype.Alert, error) { return c.Alerts(ctx, client.AlertFilter{}, 100) },
			func(al apitype.Alert) (string, string) { return strconv.FormatInt(al.ID, 10), al.Message })
	})
	ack.Flags().StringVar(&note, "note", "", "what to remember, in `words`")
	g := group("alert", "conditions that last", list, ack)
	g.Aliases, g.Long = []string{"alerts"}, alertLong
	return g
}

// number reads an ID.
func number(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, &usageError{fmt.Errorf("ID: expected a number from 1, got %q", text)}
	}
	return id, nil
}

func (a *app) alertList(ctx context.Context, c *client.Client, f client.AlertFilter, limit int) error {
	list, err := c.Alerts(ctx, f, limit)
	if err != nil {
		return err
	}
	nodes, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	return a.show(items[apitype.Alert]{list}, func(w io.Writer) error {
		if len(list) == 0 {
			_, err := fmt.Fprintln(w, "There are none.")
			return err
		}
		t := table.New("ID", "SEVERITY", "SINCE", "UNTIL", "NODE", "KIND", "MESSAGE", "KNOWN TO")
		for _, al := range list {
			node, known := "", ""
			var until table.Cell
			if al.Node != "" {
				node = nameOf(nodes, al.Node)
			}
			if al.Closed != nil {
				until = table.Time(*al.Closed)
			}
			if al.Acknowledged != nil {
				known = al.Acknowledged.By
				if al.Acknowledged.Note != "" {
					known += ": " + al.Acknowledged.Note
				}
			}
			t.Row(strconv.FormatInt(al.ID, 10), string(al.Severity), al.Opened, until, node, al.Kind, al.Message, known)
		}
		return t.Write(w)
	})
}

// eventAck and eventRetention are about events of the gateway.
func (a *app) eventAck() *cobra.Command {
	var note string
	c := a.call("ack ID", "say that an event was taken note of", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		id, err := number(args[0])
		if err != nil {
			return err
		}
		e, err := c.AcknowledgeEvent(ctx, id, note)
		if err != nil {
			return notFound(err, "haloctl event list --json shows the numbers of events")
		}
		return a.show(e, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "Event %d is acknowledged: %s.\n", e.ID, table.Clean(e.Message))
			return err
		})
	})
	c.Flags().StringVar(&note, "note", "", "what to remember, in `words`")
	return c
}

func (a *app) eventRetention() *cobra.Command {
	var days, counts map[string]int
	c := a.call("retention", "how long events are kept, by severity", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		r, tag, err := c.EventRetention(ctx)
		if err != nil {
			return err
		}
		rules := map[string]*apitype.RetentionRule{"info": &r.Info, "warning": &r.Warning, "error": &r.Error}
		for what, list := range map[string]map[string]int{"--days": days, "--count": counts} {
			for severity, n := range list {
				rule := rules[severity]
				if rule == nil {
					return &usageError{fmt.Errorf("%s: expected info, warning or error, got %q", what, severity)}
				}
				if what == "--days" {
					rule.Days = n
				} else {
					rule.Count = n
				}
			}
		}
		if len(days)+len(counts) > 0 {
			if err := c.SetEventRetention(ctx, r, tag); err != nil {
				return err
			}
		}
		return a.show(r, func(w io.Writer) error {
			t := table.New("SEVERITY", "DAYS", "EVENTS")
			for _, s := range []string{"info", "warning", "error"} {
				t.Row(s, strconv.Itoa(rules[s].Days), strconv.Itoa(rules[s].Count))
			}
			return t.Write(w)
		})
	})
	c.Flags().StringToIntVar(&days, "days", nil, "keep them for so many `days`, such as info=30,error=730")
	c.Flags().StringToIntVar(&counts, "count", nil, "keep so many of the `newest`, such as info=10000")
	return c
}
