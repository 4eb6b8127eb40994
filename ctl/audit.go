package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) auditCommand() *cobra.Command {
	var limit int
	list := a.call("list", "who changed what, newest last", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		entries, err := c.Audit(ctx, limit)
		if err != nil {
			return err
		}
		slices.Reverse(entries)
		return a.show(items[apitype.AuditEntry]{entries}, func(w io.Writer) error {
			t := table.New("TIME", "WHO", "DID", "TO", "FROM", "STATUS")
			for _, e := range entries {
				t.Row(e.Time.UTC().Format(time.DateTime), e.Actor, e.Action, e.Target, e.Remote, outcome(e.Status))
			}
			return t.Write(w)
		})
	})
	list.Flags().IntVar(&limit, "limit", 50, "how many of the newest")
	return group("audit", "what people and programs changed, or tried to", list)
}

// outcome prints the status of an answer; there is none of a request under way,
// nor of one in which the gateway stopped.
func outcome(status int) string {
	if status == 0 {
		return "outcome unknown"
	}
	return strconv.Itoa(status)
}
