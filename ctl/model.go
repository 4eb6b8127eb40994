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

// modelLists are the parts of the network's model, of all nodes.
func (a *app) modelLists() []*cobra.Command {
	return []*cobra.Command{
		modelList(a, "networks", "networks, of which a gateway has one", (*client.Client).ModelNetworks,
			[]string{"NETWORK", "GATEWAY", "EPOCH", "COUNTRY", "MESHES", "OVERLAY", "UNDERLAY", "CLIENTS", "ID"}, 8,
			func(n apitype.ModelNetwork, names map[string]string) []any {
				return []any{n.Name, nameOf(names, n.Gateway), n.Epoch, n.Country, strings.Join(n.Meshes, " "), strings.Join(n.Overlay, " "), strings.Join(n.Underlay, " "), strings.Join(n.Clients, " "), n.ID}
			}),
		modelList(a, "meshes", "authenticated RF domains of the network", (*client.Client).ModelMeshes,
			[]string{"MESH", "NETWORK", "ROUTING", "NODES", "DOMAINS"}, 0,
			func(m apitype.ModelMesh, _ map[string]string) []any {
				domains := make([]string, len(m.Domains))
				for i, d := range m.Domains {
					domains[i] = d.ID
				}
				return []any{m.ID, m.Network, m.Routing, m.Nodes, strings.Join(domains, " ")}
			}),
		modelList(a, "domains", "transports that carry a mesh, and who is in each", (*client.Client).ModelDomains,
			[]string{"DOMAIN", "MESH", "TRANSPORT", "CHANNEL", "NODES"}, 0,
			func(d apitype.UnderlayDomain, names map[string]string) []any {
				nodes := make([]string, len(d.Nodes))
				for i, id := range d.Nodes {
					nodes[i] = nameOf(names, id)
				}
				return []any{d.ID, d.Mesh, d.Transport, d.Channel, strings.Join(nodes, " ")}
			}),
		modelList(a, "interfaces", "interfaces of all nodes, and the hardware that each has had", (*client.Client).ModelInterfaces,
			[]string{"NODE", "INTERFACE", "KIND", "PORT", "PRESENT", "MAC", "HARDWARE SINCE", "BEFORE", "LAST SEEN", "ID"}, 8,
			func(i apitype.ModelInterface, names map[string]string) []any {
				mac, since, before := i.MAC, table.Cell{}, []string{}
				for k, h := range i.Hardware {
					if k == 0 {
						mac, since = h.MAC, table.Time(h.Since)
					} else {
						before = append(before, h.MAC)
					}
				}
				return []any{nameOf(names, i.Node), i.Name, i.Kind, i.PortRole, i.Present, mac, since, strings.Join(before, " "), i.LastSeen, i.ID}
			}),
		modelList(a, "sources", "what the readings of all nodes come from", (*client.Client).ModelSources,
			[]string{"NODE", "SOURCE", "THING", "LATEST", "METRICS", "ID"}, 5,
			func(s apitype.TelemetrySource, names map[string]string) []any {
				latest := table.Cell{}
				if s.Latest != nil {
					latest = table.Time(*s.Latest)
				}
				return []any{nameOf(names, s.Node), s.Source, s.Thing, latest, strings.Join(s.Metrics, " "), s.ID}
			}),
	}
}

// modelList is a command that lists things of one kind; columns from wide on are for who
// wants all.
func modelList[T any](a *app, use, short string, list func(*client.Client, context.Context) ([]T, error), heading []string, wide int, row func(T, map[string]string) []any) *cobra.Command {
	return a.call(use, short, cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		all, err := list(c, ctx)
		if err != nil {
			return err
		}
		names, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(items[T]{all}, func(w io.Writer) error {
			t := table.New(heading...).Wide(wide)
			for _, v := range all {
				t.Row(row(v, names)...)
			}
			return t.Write(w)
		})
	})
}
