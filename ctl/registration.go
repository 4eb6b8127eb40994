package ctl

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) registrationCommand() *cobra.Command {
	var watch bool
	var interval time.Duration
	list := a.call("list", "those that wait, and those that were rejected", cobra.NoArgs, func(ctx context.Context, c *client.Client, args []string) error {
		if watch {
			return watchList(ctx, a, c, interval, apitype.TopicRegistrations, registrationRow(c), registrationHeading, 0)
		}
		return a.registrationList(ctx, c, args)
	})
	list.Flags().BoolVar(&watch, "watch", false, "go on and print those that come and go")
	intervalFlag(list, &interval, "--watch")
	return group("registration", "devices that ask to join", list,
		a.ofRegistration("approve ID", "admit a device", func(ctx context.Context, c *client.Client, args []string) error {
			return a.decided(c.Approve(ctx, args[0]), args[0], "approved; it joins at its next try")
		}),
		a.ofRegistration("reject ID", "refuse a device", func(ctx context.Context, c *client.Client, args []string) error {
			return a.decided(c.Reject(ctx, args[0]), args[0], "rejected")
		}))
}

// ofRegistration is a call whose argument is a device that asks to join, which
// the shell completes.
func (a *app) ofRegistration(use, short string, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	return a.completes(a.call(use, short, cobra.ExactArgs(1), run), func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, c.Registrations, func(r apitype.Registration) (string, string) {
			return r.ID, strings.TrimSpace(r.Name + " " + r.State)
		})
	})
}

func (a *app) decided(err error, id, verdict string) error {
	if err != nil {
		return notFound(err, "haloctl registration list shows who asks")
	}
	a.say("%s is %s.", id, verdict)
	return nil
}

func (a *app) registrationList(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.Registrations(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.Registration]{list}, func(w io.Writer) error {
		t, row := table.New(registrationHeading...), registrationRow(c)
		for _, r := range list {
			row(t, r)
		}
		return t.Write(w)
	})
}

var registrationHeading = []string{"ID", "STATE", "NAME", "BOARD", "FROM", "ASKED", "LAST TRY", "WHY", "MACS"}

func registrationRow(c *client.Client) func(*table.Table, apitype.Registration) {
	return func(t *table.Table, r apitype.Registration) {
		t.Row(r.ID, r.State, r.Name, r.Board, r.Remote, table.Age(c.Now(), r.Requested), table.Age(c.Now(), r.LastTry), r.Reason, strings.Join(r.MACs, " "))
	}
}
