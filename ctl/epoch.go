package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
)

func (a *app) epochCommand() *cobra.Command {
	var yes bool
	raise := a.call("raise", "have this gateway replace its other cards for good", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		return a.epochRaise(ctx, c, yes)
	})
	raise.Long = `Raise makes this gateway's epoch higher than it is and than any that nodes have
heard from another card of this gateway. The nodes then believe this card again
and join it anew, with the join token of their bundle or after haloctl
registration approve; every card with a lower epoch is refused from then on.

It is for a card that is to replace the other for good. What this card knows
counts again with it: a node that only the other card has revoked is a member
here, unless the mesh profile that the other has left to the nodes is without it
(event node.left-out). A fresh card, which has admitted no node, raises its epoch
by itself.`
	raise.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return group("epoch", "which card of the gateway the nodes believe",
		a.call("show", "the gateway's epoch, and the one that nodes have heard", cobra.NoArgs, a.epochShow), raise)
}

func (a *app) epochShow(ctx context.Context, c *client.Client, _ []string) error {
	e, err := c.Epoch(ctx)
	if err != nil {
		return err
	}
	return a.show(e, func(w io.Writer) error {
		t := table.New()
		t.Row("Epoch", fmt.Sprint(e.Epoch))
		switch {
		case e.Heard > e.Epoch:
			t.Row("Heard", table.Two(fmt.Sprintf("%d, by nodes, from another card of this gateway: they refuse this one", e.Heard), fmt.Sprint(e.Heard)))
		case e.Heard == e.Epoch:
			t.Row("Heard", table.Two("the same, by nodes, from another card of this gateway: they keep to what that one signed", fmt.Sprint(e.Heard)))
		}
		return t.Write(w)
	})
}

func (a *app) epochRaise(ctx context.Context, c *client.Client, yes bool) error {
	e, err := c.Epoch(ctx)
	if err != nil {
		return err
	}
	if !yes {
		fmt.Fprintf(a.env.Stderr, "The gateway has epoch %d, and will have %d. Other cards of it are refused by all nodes from then on.\n", e.Epoch, max(e.Epoch, e.Heard)+1)
		if err := a.confirm(ctx, "Is this card to replace the others for good?"); err != nil {
			return err
		}
	}
	if e, err = c.RaiseEpoch(ctx, e.Epoch); err != nil { // an answer that was lost may be asked for again
		return err
	}
	return a.show(e, func(io.Writer) error {
		if e.Heard > e.Epoch { // somebody else was faster, and nodes have heard of a third card
			a.say("The gateway has epoch %d now, but nodes have heard %d and refuse it still; raise it again.", e.Epoch, e.Heard)
			return nil
		}
		a.say("The gateway has epoch %d now; its nodes join it anew.", e.Epoch)
		return nil
	})
}

// confirm asks a person before something that cannot be undone. Where nobody
// can be asked, it takes --yes.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.env.Terminal == nil {
		return &usageError{errors.New("nobody to ask whether this is meant; give --yes")}
	}
	yes, err := a.yes(ctx, question)
	if err == nil && !yes {
		err = errors.New("not confirmed; nothing was changed")
	}
	return err
}
