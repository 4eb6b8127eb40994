package ctl

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
	"halo.internal/model"
)

const doctorLong = `Doctor has the device examine the paths to all peers in use: how large packets may
be through the overlay and over the mesh itself, whether what it sends to all
arrives, and, on a node, whether traffic for outside goes through the overlay. What
it finds it mends where it can; the second table says what, and when.

Each direction of a path is its sender's: the other end has to be asked for the
other. An examination takes a second where all is well, and sends a few packets to
each peer. With --last nothing is sent: it shows what was known before.`

func (a *app) meshDoctor() *cobra.Command {
	var last bool
	c := a.askDevice("doctor", "examine the paths to other nodes, and say what was mended", cobra.NoArgs, func(ctx context.Context, from air, _ []string) error {
		look := from.Examine
		if last {
			look = from.Doctor
		}
		r, err := look(ctx)
		if err != nil {
			return err
		}
		return a.show(r, func(w io.Writer) error { return writeDoctor(w, r) })
	})
	c.Long = doctorLong
	c.Flags().BoolVar(&last, "last", false, "show what is known, without a look")
	return c
}

func writeDoctor(w io.Writer, r model.DoctorReport) error {
	about := table.New()
	n := 0
	row := func(name string, value any) { n++; about.Row(name, value) }
	if o := r.Route; o != nil {
		way := "goes through " + o.Iface
		switch {
		case o.Iface == "":
			way = "goes nowhere"
		case o.Follows && !o.Answers:
			way += ", where the gateway does not answer"
		}
		if o.Detail != "" {
			way += ": " + o.Detail
		}
		row("Traffic for outside", way)
	}
	if r.Flooding != nil {
		row("What goes to all", map[bool]string{true: "is flooded", false: "is sent only to those that are known to listen"}[*r.Flooding])
	}
	if r.Examining > 0 {
		row("Being examined", table.Two(fmt.Sprintf("%d of %d peers; ask again with --last", r.Examining, len(r.Peers)), fmt.Sprint(r.Examining)))
	}
	peers := table.New("PEER", "EXAMINED", "LATENCY", "OVERLAY", "UNDERLAY", "MULTICAST", "OVERLAY HELD TO", "UNDERLAY HELD TO")
	names := map[string]string{}
	for _, p := range r.Peers {
		examined := table.Two("not yet", "")
		var latency table.Cell
		if p.Examined != nil {
			examined = table.Age(r.At, *p.Examined)
		}
		switch {
		case !p.Answers && p.Examined != nil:
			latency = table.Two("no answer", "")
		case p.LatencyMS != 0:
			latency = table.In("ms", "%.1f", p.LatencyMS)
		}
		names[p.Node] = p.Name
		if p.Gateway {
			names[p.Node] = "gateway"
		}
		peers.Row(nameOf(names, p.Node), examined, latency, some(p.OverlayMTU), some(p.UnderlayMTU), p.Multicast, some(p.Limit), some(p.Fragment))
	}
	findings := table.New("FOUND", "FAULT", "PEER", "TIMES", "WHAT", "NOW", "SINCE", "BY")
	for _, f := range r.Findings {
		now, since := "not mended", table.Cell{}
		switch {
		case f.Ended != nil:
			now, since = "over", table.Time(*f.Ended)
		case f.Mended != nil:
			now, since = "mended", table.Time(*f.Mended)
		}
		findings.Row(f.Found, f.Fault, nameOf(names, f.Peer), f.Times, f.Detail, now, since, f.Treatment)
	}
	return writeTables(w, []section{{n, about}, {1, peers}, {len(r.Findings), findings}})
}
