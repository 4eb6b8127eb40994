package ctl

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) trustCommand() *cobra.Command {
	var note string
	add := a.call("add MAC", "admit the device with this MAC, once", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		m, err := c.TrustMAC(ctx, apitype.TrustMAC{MAC: args[0], Note: note})
		if err != nil {
			return err
		}
		return a.show(m, func(io.Writer) error {
			if m.Node != "" {
				a.say("%s is on the list already; %s has come with it.", m.MAC, m.Node)
			} else {
				a.say("The device with %s is admitted when it asks.", m.MAC)
			}
			return nil
		})
	})
	add.Long = `Add admits the first device that says it has this MAC, without join token and
approval. A MAC can be heard and imitated: prefer join tokens (haloctl
join-token create) where a stranger may hold the mesh's secret.`
	add.Flags().StringVar(&note, "note", "", "what device it is")
	remove := a.call("remove MAC", "take a MAC off the list; a node that came with it stays", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.DistrustMAC(ctx, args[0]); err != nil {
			return notFound(err, "haloctl trust mac list shows the MACs")
		}
		a.say("%s is off the list.", args[0])
		return nil
	})
	change := a.call("note MAC NOTE", "change what is noted of a MAC", cobra.ExactArgs(2), func(ctx context.Context, c *client.Client, args []string) error {
		m, err := c.NoteTrustedMAC(ctx, args[0], args[1])
		if err != nil {
			return notFound(err, "haloctl trust mac list shows the MACs")
		}
		return a.show(m, func(io.Writer) error {
			a.say("%s: %s.", m.MAC, table.Clean(m.Note))
			return nil
		})
	})
	listed := func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, c.TrustedMACs, func(m apitype.TrustedMAC) (string, string) { return m.MAC, m.Note })
	}
	return group("trust", "what is trusted without a secret", group("mac", "MACs by which devices are admitted", add,
		a.call("list", "the MACs and who came with them", cobra.NoArgs, a.trustedMACs),
		a.completes(a.call("show MAC", "one MAC on the list", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
			m, err := c.TrustedMAC(ctx, args[0])
			if err != nil {
				return notFound(err, "haloctl trust mac list shows the MACs")
			}
			return a.show(m, trustedTable(c.Now(), m).Write)
		}), listed),
		a.completes(change, listed), a.completes(remove, listed)),
		a.call("renew-codes", "give all nodes other codes for their consoles", cobra.NoArgs, a.renewCodes))
}

func (a *app) trustedMACs(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.TrustedMACs(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.TrustedMAC]{list}, trustedTable(c.Now(), list...).Write)
}

func trustedTable(now time.Time, list ...apitype.TrustedMAC) *table.Table {
	t := table.New("MAC", "NODE", "USED", "ADDED", "BY", "NOTE")
	for _, m := range list {
		var used table.Cell
		if m.Used != nil {
			used = table.Age(now, *m.Used)
		}
		t.Row(m.MAC, m.Node, used, table.Age(now, m.Created), m.By, m.Note)
	}
	return t
}
