package ctl

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) clientCommand() *cobra.Command {
	var node string
	var w watchFlags
	list := a.call("list", "hosts behind nodes that are no members, such as phones and cameras", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		ask := func(ctx context.Context) ([]apitype.Endpoint, bool, error) {
			list, err := c.Endpoints(ctx, node)
			return list, true, notFound(err, "haloctl node list shows the nodes")
		}
		if w.on {
			return a.clientWatch(ctx, c, ask, w.interval)
		}
		list, _, err := ask(ctx)
		if err != nil {
			return err
		}
		return a.showClients(c, list)
	})
	w.add(list, "go on and print those that come, go or move")
	list.Flags().StringVar(&node, "node", "", "only behind this `node`")
	show := a.ofClient("show ID", "a client, and where it was", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		e, err := c.Endpoint(ctx, args[0])
		if err != nil {
			return notFound(err, "haloctl client list shows the clients")
		}
		nodes, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(e, func(w io.Writer) error {
			t := table.New()
			t.Row("ID", e.ID)
			t.Row("Name", called(e.Endpoint))
			t.Row("Note", e.Note)
			t.Row("Behind", behind(e.Endpoint)+" "+e.Interface)
			t.Row("Found as", e.DNS)
			t.Row("Addresses", words(e.Addresses))
			t.Row("MAC", e.MAC)
			t.Row("First seen", e.FirstSeen)
			t.Row("Last seen", e.LastSeen)
			places := table.New("BEHIND", "FROM")
			for _, p := range e.Places {
				places.Row(nameOf(nodes, p.Node), p.Since)
			}
			return writeTables(w, []section{{1, t}, {len(e.Places), places}})
		})
	})
	var note string
	rename := a.ofClient("rename ID NAME", "call a client so; an empty name is as it calls itself", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
		u := apitype.UpdateEndpoint{Name: &args[1]}
		if note != "" {
			u.Note = &note
		}
		if err := c.UpdateEndpoint(ctx, args[0], u); err != nil {
			return notFound(err, "haloctl client list shows the clients")
		}
		a.say("%s is now called %s.", args[0], args[1])
		return nil
	})
	rename.Flags().StringVar(&note, "note", "", "what to remember of it, in `words`")
	forget := a.ofClient("forget ID", "forget a client; one that is there is known anew", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.ForgetEndpoint(ctx, args[0]); err != nil {
			return notFound(err, "haloctl client list shows the clients")
		}
		a.say("%s is forgotten.", args[0])
		return nil
	})
	return group("client", "hosts behind nodes that are no members", list, show, rename, forget)
}

// ofClient is a call whose first argument is a client, which the shell completes.
func (a *app) ofClient(use, short string, args cobra.PositionalArgs, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	return a.completes(a.call(use, short, args, run), func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, func(ctx context.Context) ([]apitype.Endpoint, error) { return c.Endpoints(ctx, "") },
			func(e apitype.Endpoint) (string, string) { return e.ID, called(e) + " " + behind(e) })
	})
}

func (a *app) nodeClients(ctx context.Context, c *client.Client, args []string) error {
	list, err := c.NodeEndpoints(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.showClients(c, list)
}

var clientHeading = []string{"NAME", "BEHIND", "ADDRESSES", "MAC", "SEEN", "ID"}

// showClients prints clients, those first that were there last.
func (a *app) showClients(c *client.Client, list []apitype.Endpoint) error {
	return a.show(items[apitype.Endpoint]{list}, func(w io.Writer) error {
		t := table.New(clientHeading...)
		slices.SortFunc(list, func(x, y apitype.Endpoint) int { return y.LastSeen.Compare(x.LastSeen) })
		for _, e := range list {
			clientRow(c)(t, e)
		}
		return t.Write(w)
	})
}

func (a *app) clientWatch(ctx context.Context, c *client.Client, ask func(context.Context) ([]apitype.Endpoint, bool, error), interval time.Duration) error {
	p := polled[apitype.Endpoint]{
		changing: changing[apitype.Endpoint]{app: a, heading: clientHeading, row: clientRow(c)},
		ask:      ask,
		id:       func(e apitype.Endpoint) string { return e.ID },
		same: func(e apitype.Endpoint) apitype.Endpoint {
			e.LastSeen = time.Time{} // it is another each time
			return e
		},
	}
	return p.watch(ctx, interval)
}

func clientRow(c *client.Client) func(*table.Table, apitype.Endpoint) {
	return func(t *table.Table, e apitype.Endpoint) {
		t.Row(called(e), behind(e), words(e.Addresses), e.MAC, clientSeen(c.Now(), e), e.ID)
	}
}

// clientSeen is when a client was there.
func clientSeen(now time.Time, e apitype.Endpoint) table.Cell {
	seen := table.Age(now, e.LastSeen)
	if e.Present {
		return table.Two("now", seen.Programs())
	}
	return seen
}

func called(e apitype.Endpoint) string {
	switch {
	case e.Name != "":
		return e.Name
	case e.Hostname != "":
		return e.Hostname
	}
	return ""
}

func behind(e apitype.Endpoint) string {
	switch {
	case e.NodeName != "":
		return e.NodeName
	case e.Node != "":
		return e.Node
	}
	return e.Behind
}
