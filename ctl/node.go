package ctl

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func (a *app) nodeCommand() *cobra.Command {
	var watch bool
	var interval time.Duration
	list := a.call("list", "all nodes, the gateway among them", cobra.NoArgs, func(ctx context.Context, c *client.Client, args []string) error {
		if watch {
			return watchList(ctx, a, c, interval, apitype.TopicNodes, nodeRow(c), nodeHeading, 0)
		}
		return a.nodeList(ctx, c, args)
	})
	list.Flags().BoolVar(&watch, "watch", false, "go on and print those that change")
	intervalFlag(list, &interval, "--watch")
	g := group("node", "devices of the network", list,
		a.ofNode("show NODE", "one node with its interfaces and links", cobra.ExactArgs(1), a.nodeShow),
		a.ofNode("rename NODE NAME", "give a node another name", cobra.ExactArgs(2), a.nodeRename),
		a.ofNode("console-code NODE", "show the code with which a person logs in at a node's console", cobra.ExactArgs(1), a.nodeConsoleCode),
		a.ofNode("revoke NODE", "expel a node: its overlay and API end", cobra.ExactArgs(1), a.nodeRevoke),
		a.nodeRelease(),
		a.replacementCommand(),
	)
	g.AddCommand(a.nodeNeighbourhood(), a.nodeCommandsList(),
		a.ofNode("interfaces NODE", "a node's interfaces as it reported them, those too that are gone", cobra.ExactArgs(1), a.nodeInterfaces),
		a.ofNode("clients NODE", "hosts behind a node that are no members", cobra.ExactArgs(1), a.nodeClients))
	g.AddCommand(a.nodeCommands()...)
	return g
}

// call is a command that talks to the gateway with a session.
func (a *app) call(use, short string, args cobra.PositionalArgs, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.refuseElsewhere(); err != nil {
				return err
			}
			api, err := a.connect()
			if err != nil {
				return err
			}
			defer api.Close()
			a.keepUp(c.Context(), api)
			return run(c.Context(), api, args)
		},
	}
}

// ofNode is a call whose first argument is a node, by name or ID, which the
// shell completes.
func (a *app) ofNode(use, short string, args cobra.PositionalArgs, run func(context.Context, *client.Client, []string) error) *cobra.Command {
	return a.completes(a.call(use, short, args, run), func(ctx context.Context, c *client.Client) ([]string, error) {
		return names(ctx, c.Nodes, func(n apitype.Node) (string, string) { return n.Name, n.ID })
	})
}

func (a *app) nodeList(ctx context.Context, c *client.Client, _ []string) error {
	nodes, err := a.nodes(ctx, c)
	if err != nil {
		return err
	}
	return a.show(items[apitype.Node]{nodes}, func(w io.Writer) error {
		t, row := table.New(nodeHeading...), nodeRow(c)
		for _, n := range nodes {
			row(t, n)
		}
		return t.Write(w)
	})
}

var nodeHeading = []string{"NAME", "ROLE", "STATE", "OVERLAY", "UNDERLAY", "VERSION", "SEEN", "ID",
	"OVERLAY V6", "CLIENTS", "BOARD", "KERNEL", "SLOT", "BOOT", "UP", "ADMITTED BY", "JOINED"}

func nodeRow(c *client.Client) func(*table.Table, apitype.Node) {
	return func(t *table.Table, n apitype.Node) {
		clients := textOf(n.Clients)
		t.Wide(8).Row(n.Name, string(n.Role), nodeState(n), address(n.OverlayV4), address(n.Underlay), n.Version, seen(c.Now(), n), n.ID,
			address(n.OverlayV6), clients, n.Board, n.Kernel, n.Slot, n.Boot, time.Duration(n.UptimeS)*time.Second, n.AdmittedBy, n.Joined)
	}
}

// nodeState is what a person wants to know first of a node.
func nodeState(n apitype.Node) string {
	switch {
	case n.Revoked:
		return "revoked"
	case n.Quarantined != nil:
		return "quarantined"
	case !n.Online && n.Role != model.RoleGateway: // the gateway that answers is there
		return "offline"
	case n.Missing != "":
		return n.State + ": " + n.Missing
	case n.Volatile:
		return "volatile"
	case n.State != "":
		return n.State
	}
	return "online"
}

func seen(now time.Time, n apitype.Node) table.Cell {
	last := never
	if n.LastSeen != nil {
		last = table.Age(now, *n.LastSeen)
	}
	// Its stream may stand for minutes after its power has gone.
	if n.Role == model.RoleGateway || n.Online && n.LastSeen != nil && now.Sub(*n.LastSeen) < silent {
		return table.Two("now", last.Programs())
	}
	return last
}

// silent is how long a node that is there says nothing at most: it sends once a minute,
// unless it was told to be slower.
const silent = 90 * time.Second

var never = table.Age(time.Time{}, time.Time{})

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (a *app) nodeShow(ctx context.Context, c *client.Client, args []string) error {
	n, err := c.Node(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	names, err := a.nodeNames(ctx, c)
	if err != nil {
		return err
	}
	return a.show(n, func(w io.Writer) error { return writeNode(w, n, names, c.Now()) })
}

func writeNode(w io.Writer, n apitype.NodeDetail, names map[string]string, now time.Time) error {
	t := table.New()
	t.Row("Node", n.Name)
	t.Row("ID", n.ID)
	t.Row("Role", string(n.Role))
	t.Row("State", nodeState(n.Node))
	t.Row("Board", n.Board)
	t.Row("Version", strings.TrimSpace(n.Version+" "+n.Slot))
	t.Row("Kernel", n.Kernel)
	t.Row("Overlay", strings.TrimSpace(address(n.OverlayV4)+" "+address(n.OverlayV6)))
	t.Row("Underlay", address(n.Underlay))
	t.Row("Uptime", time.Duration(n.UptimeS)*time.Second)
	t.Row("Boot", n.Boot)
	if n.Position != nil {
		t.Row("Position", place(*n.Position))
	}
	t.Row("Joined", table.Age(now, n.Joined))
	t.Row("Admitted by", n.AdmittedBy)
	t.Row("Seen", seen(now, n.Node))
	return writeTables(w, append([]section{{1, t}}, sections(n, names, now)...))
}

// place puts a position into words.
func place(p model.Position) string {
	s := fmt.Sprintf("%.6f, %.6f", p.Lat, p.Lon)
	if p.AltM != nil {
		s += fmt.Sprintf(", %.0f m", *p.AltM)
	}
	if p.AccuracyM > 0 {
		s += fmt.Sprintf(" ±%.0f m", p.AccuracyM)
	}
	return s + " (" + string(p.Source) + ")"
}

// sections are what hangs on a node.
func sections(n apitype.NodeDetail, names map[string]string, now time.Time) []section {
	ifaces := interfacesTable(n.Interfaces, now)
	peers := table.New("OVERLAY PEER", "ENDPOINT", "HANDSHAKE", "RX", "TX")
	overlays := n.Overlays
	if n.Overlay != nil {
		overlays = append([]model.OverlayPeer{*n.Overlay}, overlays...)
	}
	for _, p := range overlays {
		shake := never
		if p.LastHandshake != nil {
			shake = table.Age(now, *p.LastHandshake)
		}
		peers.Row(nameOf(names, p.Node), p.Endpoint, shake, table.Bytes(p.RxBytes), table.Bytes(p.TxBytes))
	}
	return []section{{len(n.Interfaces), ifaces}, {len(overlays), peers}, {len(n.Neighbours), neighbours(n.Neighbours, names)}}
}

// interfacesTable is what a node reported of its interfaces, of those too that are gone.
func interfacesTable(list []apitype.Interface, now time.Time) *table.Table {
	t := table.New("INTERFACE", "KIND", "PORT", "LINK", "SEEN", "MAC", "RX", "TX", "ADDRESSES")
	for _, i := range list {
		link, seen := "down", table.Age(now, i.LastSeen)
		switch {
		case !i.Present:
			link = "gone"
		case i.Up:
			link = "up"
		}
		if i.Present {
			seen = table.Two("now", seen.Programs())
		}
		t.Row(i.Name, i.Kind, i.PortRole, link, seen, i.MAC, table.Bytes(int64(i.RxBytes)), table.Bytes(int64(i.TxBytes)), words(i.Addresses))
	}
	return t
}

func (a *app) nodeInterfaces(ctx context.Context, c *client.Client, args []string) error {
	list, err := c.NodeInterfaces(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	return a.show(items[apitype.Interface]{list}, interfacesTable(list, c.Now()).Write)
}

// section is a table that is left out when it has no rows.
type section struct {
	rows int
	t    *table.Table
}

// writeTables prints tables with an empty line before each but the first.
func writeTables(w io.Writer, list []section) error {
	for i, s := range list {
		if s.rows == 0 {
			continue
		}
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := s.t.Write(w); err != nil {
			return err
		}
	}
	return nil
}

func neighbours(list []model.Neighbour, names map[string]string) *table.Table {
	t := table.New("NEIGHBOUR", "INTERFACE", "MAC", "QUALITY", "SEEN")
	for _, l := range list {
		t.Row(nameOf(names, l.Node), l.Iface, l.MAC, quality(l), agoMS(l.LastSeenMS))
	}
	return t
}

// quality is how good a link is to routing.
func quality(n model.Neighbour) table.Cell {
	if n.Throughput > 0 {
		return table.In("Mbit/s", "", n.Throughput)
	}
	return ofTQ(n.TQ, "/255")
}

func (a *app) nodeRename(ctx context.Context, c *client.Client, args []string) error {
	if err := c.RenameNode(ctx, args[0], args[1]); err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	a.say("%s is now %s.", args[0], args[1])
	return nil
}

func (a *app) nodeRevoke(ctx context.Context, c *client.Client, args []string) error {
	if err := c.RevokeNode(ctx, args[0]); err != nil {
		return notFound(err, "haloctl node list shows the nodes")
	}
	a.say("%s is revoked.", args[0])
	return nil
}

// notFound adds the next step to a 404.
func notFound(err error, hint string) error {
	if code, _ := judge(err); code == ExitNotFound {
		return &hintError{err, hint}
	}
	return err
}
