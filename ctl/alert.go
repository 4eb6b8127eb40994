package ctl

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

const alertLong = `Alerts are conditions that last: a node that is offline, a disk that is nearly
full, a firewall policy that was not confirmed. One opens when its condition has
lasted for a while and closes when that is over: a node that starts anew is none, one
that stays away is after some minutes (haloctl node list shows it at once). To acknowledge one says that you
know of it; it stays open meanwhile.`

func (a *app) alertCommand() *cobra.Command {
	var f client.AlertFilter
	var limit int
	var w watchFlags
	list := a.call("list", "what is wrong now, newest first", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		if w.on {
			return a.alertWatch(ctx, c, f, limit, w.interval)
		}
		return a.alertList(ctx, c, f, limit)
	})
	list.Flags().StringVar(&f.State, "state", "open", "those that are `state` open, closed or all")
	list.Flags().StringVar(&f.Severity, "severity", "", "only `severity` info, warning or error and worse")
	list.Flags().StringVar(&f.Node, "node", "", "only of this `node`")
	list.Flags().StringVar(&f.Kind, "kind", "", "only kinds that begin with `prefix`, such as node.")
	list.Flags().IntVar(&limit, "limit", 100, "how many of the newest")
	w.add(list, "go on and print those that open, change or close")
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
	}), a.alertWords)
	ack.Flags().StringVar(&note, "note", "", "what to remember, in `words`")
	show := a.completes(a.call("show ID", "one alert", cobra.ExactArgs(1), a.alertShow), a.alertWords)
	g := group("alert", "conditions that last", list, show, ack)
	g.Aliases, g.Long = []string{"alerts"}, alertLong
	return g
}

// alertWords are open alerts for the shell.
func (a *app) alertWords(ctx context.Context, c *client.Client) ([]string, error) {
	return names(ctx, func(ctx context.Context) ([]apitype.Alert, error) { return c.Alerts(ctx, client.AlertFilter{}, 100) },
		func(al apitype.Alert) (string, string) { return strconv.FormatInt(al.ID, 10), al.Message })
}

func (a *app) alertShow(ctx context.Context, c *client.Client, args []string) error {
	id, err := number(args[0])
	if err != nil {
		return err
	}
	al, err := c.Alert(ctx, id)
	if err != nil {
		return notFound(err, "haloctl alert list shows the alerts")
	}
	nodes, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	return a.show(al, func(w io.Writer) error {
		t := table.New()
		t.Row("Alert", al.ID)
		t.Row("Kind", al.Kind)
		t.Row("Severity", al.Severity)
		t.Row("Node", nameOf(nodes, al.Node))
		t.Row("Message", al.Message)
		t.Row("Since", al.Opened)
		if al.Closed != nil {
			t.Row("Until", *al.Closed)
		}
		if k := al.Acknowledged; k != nil {
			t.Row("Known to", k.By)
			t.Row("From", k.Time)
			t.Row("Note", k.Note)
		}
		return t.Write(w)
	})
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
		t := table.New(alertHeading...)
		for _, al := range list {
			alertRow(t, nodes, al)
		}
		return t.Write(w)
	})
}

var alertHeading = []string{"ID", "SEVERITY", "SINCE", "UNTIL", "NODE", "KIND", "MESSAGE", "KNOWN TO"}

func alertRow(t *table.Table, nodes map[string]string, al apitype.Alert) {
	var until table.Cell
	if al.Closed != nil {
		until = table.Time(*al.Closed)
	}
	known := ""
	if al.Acknowledged != nil {
		known = al.Acknowledged.By
		if al.Acknowledged.Note != "" {
			known += ": " + al.Acknowledged.Note
		}
	}
	t.Row(al.ID, al.Severity, al.Opened, until, nameOf(nodes, al.Node), al.Kind, al.Message, known)
}

// alertWatch has those that close among those that change, also where only open ones are
// asked for.
func (a *app) alertWatch(ctx context.Context, c *client.Client, f client.AlertFilter, limit int, interval time.Duration) error {
	names := liveNames{app: a, c: c}
	p := polled[apitype.Alert]{
		changing: changing[apitype.Alert]{app: a, heading: alertHeading, row: func(t *table.Table, al apitype.Alert) {
			known, err := names.of(ctx, al.Node)
			if err != nil {
				known = nil // it is shown by its ID
			}
			alertRow(t, known, al)
		}},
		id:   func(al apitype.Alert) string { return strconv.FormatInt(al.ID, 10) },
		same: func(al apitype.Alert) apitype.Alert { return al },
	}
	open := map[int64]bool{}
	p.ask = func(ctx context.Context) ([]apitype.Alert, bool, error) {
		list, err := c.Alerts(ctx, f, limit)
		if err != nil {
			return nil, false, err
		}
		now := map[int64]bool{}
		for _, al := range list {
			now[al.ID] = al.Closed == nil
		}
		for id := range open {
			if _, there := now[id]; there || len(list) >= limit {
				continue
			}
			al, err := c.Alert(ctx, id)
			if code, _ := judge(err); code == ExitNotFound {
				continue // it is not kept any more
			}
			if err != nil {
				return nil, false, err
			}
			list = append(list, al)
		}
		open = now
		return list, false, nil
	}
	return notFound(p.watch(ctx, interval), "haloctl node list shows the nodes")
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
			return notFound(err, "haloctl event list -o wide shows the numbers of events")
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
