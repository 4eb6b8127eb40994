package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
	"halo.internal/model/bundle"
)

func (a *app) networkCommand() *cobra.Command {
	var out string
	var cards uint32
	var life time.Duration
	export := a.call("export", "write the bundle (halo.toml) for new cards", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if out == "" {
			return &usageError{errors.New("--out: expected a file for the bundle, or - for standard output")}
		}
		return a.networkExport(ctx, c, out, cards, life)
	})
	export.Long = `Export writes the network bundle that makes a new card part of this network:
put it on the card's boot partition as halo.toml, or give it to halo-image.

It holds the mesh's secret and a join token for the number of cards given; with
--cards 0 there is no token, and each device waits for haloctl registration
approve.`
	export.Flags().StringVar(&out, "out", "", "`file` to write, readable by you alone; - for standard output")
	export.Flags().Uint32Var(&cards, "cards", 1, "how many new cards it admits")
	export.Flags().DurationVar(&life, "expires", 7*24*time.Hour, "how long it admits them")
	return group("network", "the network as a whole", export, a.epochCommand())
}

func (a *app) networkExport(ctx context.Context, c *client.Client, out string, cards uint32, life time.Duration) error {
	n, err := c.Network(ctx)
	if err != nil {
		return err
	}
	if n.Bundle == "" {
		return &hintError{errors.New("this gateway was set up without a bundle, so it has no mesh profile to hand on"),
			"make a network with halo-image bundle and give the gateway its part"}
	}
	b, err := bundle.Parse("the gateway's bundle", []byte(n.Bundle))
	if err != nil {
		return err
	}
	if cards > 0 {
		t, err := c.CreateJoinToken(ctx, apitype.CreateJoinToken{Uses: cards, ExpiresS: int64(life / time.Second), Note: "network export"})
		if err != nil {
			return err
		}
		b.Join.Token = t.Token
	}
	text, err := b.Marshal()
	if err != nil {
		return err
	}
	if out == "-" {
		_, err = a.env.Stdout.Write(text)
		return err
	}
	if err := atomicfile.Write(out, text, 0o600); err != nil {
		return err
	}
	fmt.Fprintf(a.env.Stderr, "Wrote %s: a secret; delete it when the cards are written.\n", out)
	return nil
}
