package ctl

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) joinTokenCommand() *cobra.Command {
	var uses uint32
	var life time.Duration
	var note string
	create := a.call("create", "make a token that admits devices without a person", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		t, err := c.CreateJoinToken(ctx, apitype.CreateJoinToken{Uses: uses, ExpiresS: int64(life / time.Second), Note: note})
		if err != nil {
			return err
		}
		return a.show(t, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, table.Clean(t.Token))
			return err
		})
	})
	create.Flags().Uint32Var(&uses, "uses", 1, "how many devices it admits")
	create.Flags().DurationVar(&life, "expires", 7*24*time.Hour, "how long it is good")
	create.Flags().StringVar(&note, "note", "", "what it is for")
	revoke := a.call("revoke ID", "end a token", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.RevokeJoinToken(ctx, args[0]); err != nil {
			return notFound(err, "haloctl join-token list shows the tokens")
		}
		a.say("Join token %s is revoked.", args[0])
		return nil
	})
	return group("join-token", "secrets that admit new cards", create,
		a.call("list", "all tokens that the gateway knows, without their secrets", cobra.NoArgs, a.joinTokenList),
		a.completes(revoke, func(ctx context.Context, c *client.Client) ([]string, error) {
			return names(ctx, c.JoinTokens, func(t apitype.JoinToken) (string, string) {
				return t.ID, strings.TrimSpace(tokenState(c.Now(), t) + " " + t.Note)
			})
		}))
}

func (a *app) joinTokenList(ctx context.Context, c *client.Client, _ []string) error {
	list, err := c.JoinTokens(ctx)
	if err != nil {
		return err
	}
	return a.show(items[apitype.JoinToken]{list}, func(w io.Writer) error {
		t := table.New("ID", "STATE", "USED", "USES", "EXPIRES", "NOTE")
		for _, j := range list {
			t.Row(j.ID, tokenState(c.Now(), j), j.Used, j.Uses, table.Age(c.Now(), j.Expires), j.Note)
		}
		return t.Write(w)
	})
}

func tokenState(now time.Time, j apitype.JoinToken) string {
	switch {
	case j.Revoked:
		return "revoked"
	case now.After(j.Expires):
		return "expired"
	case j.Used >= j.Uses:
		return "used up"
	}
	return "good"
}
