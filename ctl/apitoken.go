package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

var scopes = []cobra.Completion{apitype.ScopeNodesRead, apitype.ScopeNodesWrite, apitype.ScopeTelemetryRead,
	apitype.ScopeEventsRead, apitype.ScopeSystemRead, apitype.ScopeAdmin}

func (a *app) apiTokenCommand() *cobra.Command {
	var want apitype.CreateAPIToken
	var life time.Duration
	create := a.call("create NAME", "let a program use the API; prints its secret, once", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		switch {
		case len(want.Scopes) == 0:
			return &usageError{errors.New("--scope: expected what the program may do: " + strings.Join(scopes, ", "))}
		case life < 0 || life > 0 && life < time.Second:
			return &usageError{fmt.Errorf("--expires: expected a second or more, or 0, got %s", life)}
		}
		want.Name, want.ExpiresS = args[0], int64(life/time.Second)
		t, err := c.CreateAPIToken(ctx, want)
		if err != nil {
			return err
		}
		return a.show(t, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, table.Clean(t.Token))
			return err
		})
	})
	create.Example = "  haloctl api-token create grafana --scope telemetry:read --scope nodes:read --expires 8760h"
	create.Flags().StringSliceVar(&want.Scopes, "scope", nil, "`scope` of what it may do, repeatable: "+strings.Join(scopes, ", "))
	create.Flags().DurationVar(&life, "expires", 0, "how long it is good; 0: until it is revoked")
	cobra.CheckErr(create.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(scopes, cobra.ShellCompDirectiveNoFileComp)))
	revoke := a.call("revoke ID", "end a token", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.DeleteAPIToken(ctx, args[0]); err != nil {
			return notFound(err, "haloctl api-token list shows the tokens")
		}
		a.say("API token %s is revoked.", args[0])
		return nil
	})
	return group("api-token", "secrets with which programs use the API", create,
		a.call("list", "all tokens, without their secrets", cobra.NoArgs, a.apiTokenList),
		a.completes(revoke, func(ctx context.Context, c *client.Client) ([]string, error) {
			return names(ctx, c.APITokens, func(t apitype.APIToken) (string, string) { return t.ID, t.Name })
		}))
}

func (a *app) apiTokenList(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.APITokens(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.APIToken]{list}, func(w io.Writer) error {
		t := table.New("ID", "NAME", "SCOPES", "EXPIRES", "LAST USED", "BY")
		for _, k := range list {
			expires, used := never, never
			if k.Expires != nil {
				expires = table.Age(c.Now(), *k.Expires)
			}
			if k.LastUsed != nil {
				used = table.Age(c.Now(), *k.LastUsed)
			}
			t.Row(k.ID, k.Name, strings.Join(k.Scopes, " "), expires, used, k.By)
		}
		return t.Write(w)
	})
}
