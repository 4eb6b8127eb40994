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
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/version"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "the network on one page; with --node, the mesh as that node sees it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withDevice(c.Context(), func(from air) error {
				api, ok := from.(*client.Client)
				if !ok {
					return a.meshStatus(c.Context(), from, nil)
				}
				s, err := a.readStatus(c.Context(), api)
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) error { return s.table(api.Now()).Write(w) })
			})
		},
	}
}

// status is the network on one page.
type status struct {
	Health health.Report      `json:"health"`
	System apitype.SystemInfo `json:"system"`
	Nodes  []apitype.Node     `json:"nodes"`
	Mesh   *model.MeshStatus  `json:"mesh,omitempty"` // absent where halo-mesh does not answer
}

func (a *app) readStatus(ctx context.Context, c *client.Client) (status, error) {
	var s status
	var err error
	if s.Health, err = c.Health(ctx); err != nil {
		return s, err
	}
	if s.System, err = c.SystemInfo(ctx); err != nil {
		return s, err
	}
	if s.Nodes, err = a.nodes(ctx, c); err != nil {
		return s, err
	}
	mesh, err := c.MeshStatus(ctx)
	if err == nil {
		s.Mesh = &mesh
	} else if _, ok := errors.AsType[*apitype.Problem](err); !ok {
		return s, err // a problem says that there is no mesh to ask, which health explains
	}
	return s, nil
}

func (s status) table(now time.Time) *table.Table {
	t := table.New()
	if s.System.Network != "" {
		t.Row("Network", s.System.Network)
	}
	t.People("Gateway", fmt.Sprintf("%s (%s)", s.System.Name, s.System.Node))
	t.Programs("Gateway", s.System.Name)
	t.Programs("ID", s.System.Node)
	t.Row("State", state(s.Health.State, s.Health.Missing, s.Health.Detail))
	t.Row("Version", s.System.Build.Version)
	t.Row("Started", table.Age(now, s.System.Started))
	t.Row("Time", s.System.Time)
	t.Row("Clock from", s.System.Clock)
	online := 0
	for _, n := range s.Nodes {
		if n.Online || n.Role == model.RoleGateway {
			online++
		}
	}
	t.People("Nodes", fmt.Sprintf("%d of %d online", online, len(s.Nodes)))
	t.Programs("Nodes", len(s.Nodes))
	t.Programs("Nodes online", online)
	if s.Mesh != nil {
		t.People("Mesh", fmt.Sprintf("%s, neighbours: %d, nodes reachable: %d", s.Mesh.Mesh, len(s.Mesh.Neighbours), s.Mesh.Originators))
		t.Programs("Mesh", s.Mesh.Mesh)
		t.Programs("Neighbours", len(s.Mesh.Neighbours))
		t.Programs("Nodes reachable", s.Mesh.Originators)
		fresh := shaken(now, s.Mesh.Overlay)
		t.People("Overlay", fmt.Sprintf("%d of %d peers with a fresh handshake", fresh, len(s.Mesh.Overlay)))
		t.Programs("Overlay peers", len(s.Mesh.Overlay))
		t.Programs("Fresh handshakes", fresh)
		if s.Mesh.StaleMS > 0 {
			t.Row("Mesh as of", agoMS(s.Mesh.StaleMS)) // the kernel does not answer halo-mesh
		}
	}
	storage(t, "Configuration", s.System.Config)
	storage(t, "Telemetry", s.System.Telemetry)
	t.Row("CA", s.System.CASHA256)
	return t
}

func storage(t *table.Table, name string, d apitype.Database) {
	t.Row(name, table.Bytes(d.Bytes))
	if d.Budget != 0 {
		t.Row(name+" at most", table.Bytes(d.Budget))
	}
	if d.Thinned > 0 {
		t.Row(name+" thinned", table.Two(fmt.Sprintf("%d times", d.Thinned), fmt.Sprint(d.Thinned)))
	}
}

// shaken counts peers with a fresh handshake.
func shaken(now time.Time, peers []model.OverlayPeer) (fresh int) {
	for _, p := range peers {
		if p.LastHandshake != nil && model.Recent(now, *p.LastHandshake, 3*time.Minute) { // WireGuard renews every two
			fresh++
		}
	}
	return fresh
}

// state puts a health state and its cause into words.
func state(s health.State, missing, detail string) string {
	text := string(s)
	if missing != "" {
		text += ": " + missing
	}
	if detail != "" {
		text += " (" + detail + ")"
	}
	return text
}

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "what the gateway needs and how each of it is", Args: cobra.NoArgs,
		Long: `Health asks the gateway how it is; no login is needed. With --node or --local it
asks halo-mesh of that device. Exit status 0 means that it works, if with less
than all (degraded).`,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.node != "" || a.onDevice() {
				return a.withDevice(c.Context(), func(from air) error { return a.showHealth(c.Context(), from, "the device") })
			}
			api, err := a.connectOpen(c.Context())
			if err != nil {
				return err
			}
			defer api.Close()
			return a.showHealth(c.Context(), api, "the gateway")
		},
	}
}

func (a *app) showHealth(ctx context.Context, from interface {
	Health(context.Context) (health.Report, error)
	Now() time.Time
}, who string) error {
	r, err := from.Health(ctx)
	if err != nil {
		return err
	}
	if err := a.show(r, func(w io.Writer) error { return writeHealth(w, r, from.Now()) }); err != nil {
		return err
	}
	if r.State == health.OK || r.State == health.Degraded {
		return nil
	}
	return fmt.Errorf("%s is not well: %s", who, state(r.State, r.Missing, r.Detail))
}

func writeHealth(w io.Writer, r health.Report, now time.Time) error {
	t := table.New("CHECK", "STATE", "SINCE", "NEEDS", "DETAIL")
	t.Row(r.Name, string(r.State), table.Age(now, r.Started), "", r.Build.Version)
	for _, c := range r.Checks {
		t.Row(c.Name, string(c.State), table.Age(now, c.Since), strings.Join(c.Needs, " "), c.Detail)
	}
	return t.Write(w)
}

func (a *app) capabilitiesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "capabilities", Short: "what the gateway can do; no login is needed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.refuseElsewhere(); err != nil {
				return err
			}
			api, err := a.connectOpen(c.Context())
			if err != nil {
				return err
			}
			defer api.Close()
			k, err := api.Capabilities(c.Context())
			if err != nil {
				return err
			}
			return a.show(k, func(w io.Writer) error {
				t := table.New()
				t.Row("API", k.API)
				t.Row("Version", k.Version)
				t.Row("Claimed", k.Claimed)
				t.Row("Mesh", k.Mesh)
				for _, f := range k.Features {
					t.Row("Feature", f)
				}
				return t.Write(w)
			})
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "which build this haloctl is", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			return a.show(v, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "haloctl", v)
				return err
			})
		},
	}
}
