package ctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model/atomicfile"
	"halo.internal/model/graph"
)

const topologyCommandLong = `Topology shows the network as all its nodes see it together: who there is, the
links between them with their quality both ways, by whom each reaches the gateway,
what would be cut off by whose loss, and how healthy all that is. What the routing
of one device sees, haloctl mesh topology shows.

With --at it shows the network as it was. With -o csv it prints the links, as links
does; nodes prints the nodes. docs/topology.md says what the numbers mean.`

// topologyCommand is about the network's picture.
func (a *app) topologyCommand() *cobra.Command {
	var at, from, to string
	atFlag := func(c *cobra.Command) *cobra.Command {
		c.Flags().StringVar(&at, "at", "", "as it was at this "+instantHelp)
		return c
	}
	picture := func(ctx context.Context, c *client.Client) (graph.Picture, error) {
		t, err := instant{c.Now, at}.of()
		if err != nil {
			return graph.Picture{}, err
		}
		p, err := c.Picture(ctx, t)
		return p, notFound(err, "haloctl topology history shows of which times something is known")
	}

	var watch bool
	show := a.call("show", "health, nodes, links and what cuts off what", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		p, err := picture(ctx, c)
		if err != nil {
			return err
		}
		switch {
		case watch && a.page().CSV:
			return &usageError{fmt.Errorf("--watch: expected to be without -o csv; --json prints each change as an object")}
		case a.page().CSV: // of all its tables the one that the picture is of
			return a.show(p, linksTable(p.Links, namer(p)).Write)
		case watch && at != "":
			return &usageError{fmt.Errorf("--watch: expected to be without --at")}
		case watch && a.json:
			return a.watchPicture(ctx, c, p)
		}
		if err := a.show(p, func(w io.Writer) error { return writePicture(w, p) }); err != nil || !watch {
			return err
		}
		return a.watchPicture(ctx, c, p)
	})
	show.Flags().BoolVar(&watch, "watch", false, "go on and print what changes")
	nodes := a.call("nodes", "nodes, their health and their ways to the gateway", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		p, err := picture(ctx, c)
		if err != nil {
			return err
		}
		return a.show(items[graph.Node]{p.Nodes}, nodesTable(p).Write)
	})
	links := a.call("links", "links, with their quality both ways", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		p, err := picture(ctx, c)
		if err != nil {
			return err
		}
		return a.show(items[graph.Link]{p.Links}, linksTable(p.Links, namer(p)).Write)
	})
	node := a.ofNode("node NODE", "one node: its links, its way, and why its health is what it is", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		t, err := instant{c.Now, at}.of()
		if err != nil {
			return err
		}
		n, err := c.NodeTopology(ctx, args[0], t)
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes")
		}
		names, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(n, func(w io.Writer) error {
			name := func(id string) string { return nameOf(names, id) }
			about := table.New()
			about.Row("Node", name(n.Node.ID))
			about.Row("At", n.At)
			about.Row("Health", strconv.Itoa(n.Node.Score))
			about.Row("Report", string(n.Node.Report))
			about.Row("Overlay", string(n.Node.Overlay))
			way := make([]string, len(n.Path))
			for i, id := range n.Path {
				way[i] = name(id)
			}
			about.Row("Way", strings.Join(way, " > "))
			if n.Cut != nil {
				about.Row("Cuts off", namesOf(n.Cut.Split, n.Cut.Count, name))
			}
			why := table.New("POINTS", "LACKING FOR", "CODE", "OF", "VALUE").Wide(2)
			for _, r := range n.Node.Reasons {
				why.Row(strconv.Itoa(r.Lost), r.Text(name), string(r.Code), r.Node, r.Value)
			}
			return writeTables(w, []section{{1, about}, {len(n.Node.Reasons), why}, {len(n.Links), linksTable(n.Links, name)}})
		})
	})

	var limit int
	history := a.call("history", "what happened to the network, oldest first", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 1 {
			return &usageError{fmt.Errorf("--limit: expected 1 or more, got %d", limit)}
		}
		begin, err := instant{c.Now, from}.of()
		if err != nil {
			return err
		}
		end, err := instant{c.Now, to}.of()
		if err != nil {
			return err
		}
		list, more, err := c.TopologyHistory(ctx, begin, end, limit)
		if err != nil {
			return err
		}
		names, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		err = a.show(items[graph.Moment]{list}, momentsTable(list, func(id string) string { return nameOf(names, id) }).Write)
		if err == nil && more && !a.json {
			fmt.Fprintf(a.env.Stderr, "haloctl: there is more; go on with --from %q\n", stampOf(list[len(list)-1].At))
		}
		return err
	})
	history.Flags().StringVar(&from, "from", "", "from this "+instantHelp+" (default an hour before --to)")
	history.Flags().StringVar(&to, "to", "", "until this `time`, written likewise (default now)")
	history.Flags().IntVar(&limit, "limit", 100, "how many at most")

	var out string
	export := a.call("export", "the picture as a NetJSON NetworkGraph, as OpenWISP and netjsongraph.js read it", cobra.NoArgs, func(ctx context.Context, c *client.Client, _ []string) error {
		t, err := instant{c.Now, at}.of()
		if err != nil {
			return err
		}
		g, err := c.NetJSON(ctx, t)
		if err != nil {
			return notFound(err, "haloctl topology history shows of which times something is known")
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(g); err != nil {
			return err
		}
		if out == "-" {
			_, err := a.env.Stdout.Write(b.Bytes())
			return err
		}
		if err := atomicfile.Write(out, b.Bytes(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(a.env.Stderr, "Wrote %s: %d nodes, %d links.\n", out, len(g.Nodes), len(g.Links))
		return nil
	})
	export.Flags().StringVar(&out, "out", "-", "`file` to write; - for standard output")
	for _, c := range []*cobra.Command{show, nodes, links, node, export} {
		atFlag(c)
	}
	g := group("topology", "the network as its nodes see it, now and at earlier times", show, nodes, links, node, history, export)
	g.Long = topologyCommandLong
	return g
}

// namer names the nodes of a picture.
func namer(p graph.Picture) func(string) string {
	names := make(map[string]string, len(p.Nodes))
	for _, n := range p.Nodes {
		names[n.ID] = n.Name
	}
	return func(id string) string { return nameOf(names, id) }
}

// namesOf names the first of so many nodes.
func namesOf(ids []string, all int, name func(string) string) string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = name(id)
	}
	text := strings.Join(list, ", ")
	if more := all - len(ids); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func stampOf(t time.Time) string { return t.UTC().Format(time.DateTime) }

func writePicture(w io.Writer, p graph.Picture) error {
	name := namer(p)
	about := table.New()
	about.Row("Health", strconv.Itoa(p.Score))
	about.Row("At", p.At)
	about.Row("Gateway", name(p.Gateway))
	live, lost := 0, 0
	for _, l := range p.Links {
		if l.State == graph.Live {
			live++
		}
	}
	for _, r := range p.Routes {
		if r.State != graph.RouteOK {
			lost++
		}
	}
	about.Row("Links", fmt.Sprintf("%d live of %d", live, len(p.Links)))
	about.Row("Without a way", fmt.Sprintf("%d of %d nodes", lost, len(p.Routes)))
	cuts := table.New("LOSS OF", "CUTS OFF")
	for _, c := range p.Cuts {
		of := name(c.Node)
		if c.Node == "" {
			of = fmt.Sprintf("%s to %s over %s", name(c.Link.A), name(c.Link.B), c.Link.Transport)
		}
		cuts.Row(of, fmt.Sprintf("%d: %s", c.Count, namesOf(c.Split, c.Count, name)))
	}
	conflicts := table.New("ADDRESS", "IS SAID TO BE OF")
	for _, c := range p.Conflicts {
		conflicts.Row(c.Address.String(), namesOf(c.Nodes, len(c.Nodes), name))
	}
	return writeTables(w, []section{{1, about}, {len(p.Nodes), nodesTable(p)}, {len(p.Links), linksTable(p.Links, name)},
		{len(p.Cuts), cuts}, {len(p.Conflicts), conflicts}})
}

func nodesTable(p graph.Picture) *table.Table {
	heading := []string{"NODE", "HEALTH", "REPORT", "OVERLAY", "NEXT HOP", "HOPS", "NEIGHBOURS", "CUTS OFF", "WHY",
		"OVER", "COST", "WORST LINK", "TQ", "KBPS", "HOP CHANGES", "DIRECT", "KIND", "HEARD", "ADDRESSES", "ID"}
	t, name := table.New(heading...).Wide(9), namer(p)
	for _, n := range p.Nodes {
		r, _ := p.Route(n.ID)
		health, hop, cuts, why := strconv.Itoa(n.Score), name(r.Next), "", ""
		switch {
		case n.Kind == graph.KindStranger:
			health = ""
		case r.State == graph.RouteLoop:
			hop += " (a loop)"
		case r.State == graph.RouteDeadEnd:
			hop = strings.TrimSpace(hop + " (no way)")
		case r.Estimated:
			hop += " (estimated)"
		}
		if c, ok := p.Cut(graph.CutID{Node: n.ID}); ok {
			cuts = strconv.Itoa(c.Count)
		}
		if len(n.Reasons) > 0 {
			why = n.Reasons[0].Text(name)
			if more := len(n.Reasons) - 1; more > 0 {
				why += fmt.Sprintf(", and %d more", more)
			}
		}
		addresses := make([]string, len(n.Addresses))
		for i, a := range n.Addresses {
			addresses[i] = a.String()
		}
		t.Row(cmp.Or(n.Name, n.ID), health, string(n.Report), string(n.Overlay), hop, some(r.Hops), strconv.Itoa(n.Neighbours), cuts, why,
			string(r.Transport), costOf(r.Cost), some(r.Worst), some(r.TQ), some(r.Kbps), strconv.Itoa(n.NextHops), strconv.Itoa(n.Direct),
			string(n.Kind), n.Heard, strings.Join(addresses, " "), n.ID)
	}
	return t
}

// some is a number; zero is not known.
func some(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// costOf is in transmissions.
func costOf(thousandths int) string {
	if thousandths == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(thousandths)/graph.PerfectCost, 'f', 3, 64)
}

func linksTable(links []graph.Link, name func(string) string) *table.Table {
	heading := []string{"A", "B", "OVER", "STATE", "QUALITY AB", "QUALITY BA", "COST", "DBM AB", "DBM BA", "KBPS AB", "KBPS BA",
		"TQ AB", "TQ BA", "REPEATED AB", "REPEATED BA", "FAILED AB", "FAILED BA", "IFACE A", "IFACE B", "KHZ", "WIDTH KHZ", "PARALLEL", "ID A", "ID B"}
	t := table.New(heading...).Wide(11)
	for _, l := range links {
		quality := func(d graph.Direction) string {
			if d.Iface == "" {
				return ""
			}
			return strconv.Itoa(d.Quality)
		}
		t.Row(name(l.A), name(l.B), string(l.Transport), table.Two(strings.ReplaceAll(string(l.State), "_", " "), string(l.State)), quality(l.AB), quality(l.BA), costOf(l.Cost),
			some(l.AB.SignalDBm), some(l.BA.SignalDBm), some(l.AB.TxKbps), some(l.BA.TxKbps),
			some(l.AB.TQ), some(l.BA.TQ), permille(l.AB.RetryPermille), permille(l.BA.RetryPermille), permille(l.AB.FailPermille), permille(l.BA.FailPermille),
			l.AB.Iface, l.BA.Iface, some(cmp.Or(l.AB.FreqKHz, l.BA.FreqKHz)), some(cmp.Or(l.AB.WidthKHz, l.BA.WidthKHz)), strconv.Itoa(l.Parallel), l.A, l.B)
	}
	return t
}

// permille is a share in percent.
func permille(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(n)/10, 'f', 1, 64)
}

func momentsTable(list []graph.Moment, name func(string) string) *table.Table {
	t := table.New("TIME", "HEALTH", "NODES", "WITHOUT A WAY", "LINKS", "WHAT")
	for _, m := range list {
		t.Row(m.At, strconv.Itoa(m.Score), strconv.Itoa(m.Nodes), strconv.Itoa(m.Lost), strconv.Itoa(m.Links), strings.Join(tellMoment(m, name), "; "))
	}
	return t
}

// tellMoment says in words what a moment is about.
func tellMoment(m graph.Moment, name func(string) string) (words []string) {
	if m.Anew {
		words = append(words, "as it was in the beginning, or after a time of which nothing is known")
	}
	for _, l := range m.LinksLost {
		words = append(words, fmt.Sprintf("lost %s-%s over %s", name(l.A), name(l.B), l.Transport))
	}
	for _, l := range m.LinksMade {
		words = append(words, fmt.Sprintf("made %s-%s over %s", name(l.A), name(l.B), l.Transport))
	}
	for _, id := range m.NodesLost {
		words = append(words, name(id)+" has no way")
	}
	for _, id := range m.NodesBack {
		words = append(words, name(id)+" has a way again")
	}
	for _, h := range m.NextHops {
		switch {
		case slices.Contains(m.NodesLost, h.Node) || h.To == "":
		case h.From == "":
			words = append(words, fmt.Sprintf("%s by %s", name(h.Node), name(h.To)))
		default:
			words = append(words, fmt.Sprintf("%s by %s instead of %s", name(h.Node), name(h.To), name(h.From)))
		}
	}
	return words
}

// watchFor is for how long the gateway holds a question for changes open.
const watchFor = 30 * time.Second

// watchPicture prints what changes after a picture, until it is interrupted: a line for
// each change for people, deltas for programs, or a picture where it begins anew.
func (a *app) watchPicture(ctx context.Context, c *client.Client, p graph.Picture) error {
	if a.json {
		if err := lines(a.env.Stdout, []graph.Picture{p}); err != nil {
			return err
		}
	}
	for {
		changes, err := c.PictureChanges(ctx, p.Run, p.Seq, watchFor)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		was := p
		switch {
		case changes.Picture != nil:
			p, was = *changes.Picture, graph.Picture{}
		case changes.Delta != nil:
			if p, err = p.Apply(*changes.Delta); err != nil {
				return err
			}
		default:
			continue
		}
		if a.json {
			var v any = changes.Delta
			if changes.Picture != nil {
				v = changes.Picture
			}
			if err := lines(a.env.Stdout, []any{v}); err != nil {
				return err
			}
			continue
		}
		m, worth := graph.MomentOf(was, p)
		if !worth {
			continue
		}
		what := strings.Join(tellMoment(m, namer(p)), "; ")
		if _, err := fmt.Fprintf(a.env.Stdout, "%s  health %d  %s\n", stampOf(m.At), m.Score, table.Clean(what)); err != nil {
			return err
		}
	}
}
