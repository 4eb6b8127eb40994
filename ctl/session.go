package ctl

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) sessionCommand() *cobra.Command {
	end := a.call("end ID", "end a login, such as that of a lost laptop", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.EndSession(ctx, args[0]); err != nil {
			return notFound(err, "haloctl session list shows the sessions")
		}
		a.say("Session %s has ended.", args[0])
		return nil
	})
	end.Long = `End ends a login at once: its tokens are good for nothing from then on. A laptop
that is lost has an operator certificate, too: haloctl operator revoke.`
	return group("session", "logins that have not ended", a.call("list", "all logins for an admin, else the own", cobra.NoArgs, a.sessionList),
		a.call("show", "who you are for the gateway, and what you may do", cobra.NoArgs, a.sessionShow),
		a.completes(end, func(ctx context.Context, c *client.Client) ([]string, error) {
			return names(ctx, c.Sessions, func(s apitype.Session) (string, string) { return s.ID, s.Username + " at " + s.Remote })
		}))
}

func (a *app) sessionShow(ctx context.Context, c *client.Client, _ []string) error {
	me, err := c.Me(ctx)
	if err != nil {
		return err
	}
	return a.show(me, func(w io.Writer) error {
		t := table.New()
		t.Row("Name", me.Name)
		t.Row("Kind", me.Kind)
		t.Row("Role", me.Role)
		t.Row("Scopes", strings.Join(me.Scopes, " "))
		return t.Write(w)
	})
}

func (a *app) sessionList(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.Session]{list}, func(w io.Writer) error {
		t := table.New("ID", "USER", "FROM", "BEGAN", "LAST USED", "THIS ONE")
		for _, s := range list {
			var began table.Cell
			if s.Started != nil {
				began = table.Age(c.Now(), *s.Started)
			}
			t.Row(s.ID, s.Username, s.Remote, began, table.Age(c.Now(), s.LastUsed), yes(s.Current))
		}
		return t.Write(w)
	})
}
