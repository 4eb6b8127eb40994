package ctl

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/apitype"
)

func (a *app) replacementCommand() *cobra.Command {
	of := func(use, short string, run func(context.Context, *client.Client, []string) error) *cobra.Command {
		return a.completes(a.call(use, short, cobra.ExactArgs(1), run), func(ctx context.Context, c *client.Client) ([]string, error) {
			return names(ctx, c.Replacements, func(r apitype.Replacement) (string, string) { return r.Node, "for " + r.OldName })
		})
	}
	g := group("replacement", "nodes that look like others whose card was written anew",
		a.call("list", "who may take whose place, and why", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			list, err := c.Replacements(ctx)
			if err != nil {
				return err
			}
			return a.show(items[apitype.Replacement]{list}, func(w io.Writer) error {
				t := table.New("NEW", "CALLED", "STATE", "OLD", "ID OF THE OLD", "IN COMMON")
				for _, r := range list {
					state := "member"
					if r.Waits {
						state = "waits"
					}
					t.Row(r.Node, r.NodeName, state, r.OldName, r.Old, strings.Join(r.Reasons, ", "))
				}
				return t.Write(w)
			})
		}),
		of("adopt ID", "have the new node take the old one's place, with name, history and assignments", func(ctx context.Context, c *client.Client, args []string) error {
			n, err := c.AdoptReplacement(ctx, args[0])
			if err != nil {
				return notFound(err, "haloctl node replacement list shows who may")
			}
			return a.show(n, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is %s now; the old key is revoked.\n", n.ID, table.Clean(n.Name))
				return err
			})
		}),
		of("dismiss ID", "say that it is another device", func(ctx context.Context, c *client.Client, args []string) error {
			if err := c.DismissReplacement(ctx, args[0]); err != nil {
				return notFound(err, "haloctl node replacement list shows who may")
			}
			a.say("%s is not offered any more.", args[0])
			return nil
		}),
	)
	return g
}

func (a *app) nodeRelease() *cobra.Command {
	c := a.ofNode("release NODE", "end a node's quarantine, when its clone is gone", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.ReleaseNode(ctx, args[0]); err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		a.say("%s is a member again.", args[0])
		return nil
	})
	c.Long = `A node whose key was on two devices at once is quarantined: both are shut out, since
which of them is the node nothing can tell. Find both. Write the cards of both anew
where somebody may have copied one; release the node when only one device is left.`
	return c
}

func (a *app) modelCommand() *cobra.Command {
	g := group("model", "the network as one picture",
		a.call("show", "the network in numbers", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			s, err := c.ModelSummary(ctx)
			if err != nil {
				return err
			}
			return a.show(s, func(w io.Writer) error {
				t := table.New()
				t.Row("Network", s.Network)
				t.Row("Meshes", s.Meshes)
				t.Row("Nodes", s.Nodes.All)
				t.Row("Nodes online", s.Nodes.Online)
				t.Row("Nodes quarantined", s.Nodes.Quarantined)
				t.Row("Sensors", s.Sensors)
				t.Row("Clients", s.Clients)
				t.Row("Clients present", s.Present)
				t.Row("Conflicts", s.Conflict)
				return t.Write(w)
			})
		}),
		a.ofNode("node NODE", "a node with all that is its own", cobra.ExactArgs(1), a.modelNode),
		a.call("conflicts", "keys that were there twice, and addresses that several nodes say they have", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
			m, err := c.ModelConflicts(ctx)
			if err != nil {
				return err
			}
			nodes, err := a.nodeNames(ctx, c)
			if err != nil {
				return err
			}
			return a.show(m, func(w io.Writer) error {
				t := table.New("WHAT", "OF", "WHY")
				for _, n := range m.Quarantined {
					t.Row("quarantine", n.Name, n.Quarantined.Reason)
				}
				for _, x := range m.MACs {
					of := ""
					for _, id := range x.Nodes {
						of += nameOf(nodes, id) + " "
					}
					t.Row("address", of, x.MAC)
				}
				return t.Write(w)
			})
		}),
	)
	g.AddCommand(a.modelLists()...)
	return g
}

func (a *app) modelNode(ctx context.Context, c *client.Client, args []string) error {
	n, err := c.ModelNode(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.show(n, func(w io.Writer) error {
		t := table.New("WHAT", "NAME", "DETAIL")
		for _, r := range n.Roles {
			t.Row("role", r.Label, r.Why)
		}
		for _, d := range n.Domains {
			t.Row("domain", d, "")
		}
		for _, i := range n.Children {
			detail := i.Kind
			if !i.Present {
				detail += ", gone"
			}
			for k, h := range i.Hardware {
				if k > 0 {
					detail += ", before"
				}
				detail += " " + h.MAC
			}
			t.Row("interface", i.Name, detail)
		}
		for _, s := range n.Sources {
			t.Row("source", s.Source+"."+s.Thing, strconv.Itoa(len(s.Metrics))+" metrics")
		}
		for _, e := range n.Endpoints {
			t.Row("client", called(e), e.MAC+" "+words(e.Addresses))
		}
		for _, old := range n.Replaced {
			t.Row("replaces", old, "")
		}
		if n.ReplacedBy != "" {
			t.Row("replaced by", n.ReplacedBy, "")
		}
		return t.Write(w)
	})
}
