package ctl

import (
	"context"
	"io"
	"maps"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
	"halo.internal/model"
)

const topologyLong = `Topology shows the mesh as a device's routing sees it: the other nodes, by which
neighbour each is reached and how good the whole way is, and the neighbours
themselves with the link to each.

Routing goes by addresses. Whose they are, nodes say themselves, and nothing proves
it, but on cables; of a node that is on no list, only the address is known.`

func (a *app) meshTopology() *cobra.Command {
	c := a.askDevice("topology", "by whom each node of the mesh is reached, and how well", cobra.NoArgs, func(ctx context.Context, from air, _ []string) error {
		t, err := from.Topology(ctx)
		if err != nil {
			return err
		}
		names, err := a.namesOf(ctx, from)
		if err != nil {
			return err
		}
		return a.show(t, func(w io.Writer) error { return writeTopology(w, t, names) })
	})
	c.Long = topologyLong
	return c
}

func writeTopology(w io.Writer, t model.MeshTopology, known map[string]string) error {
	names := map[string]string{t.Gateway: "gateway"}
	maps.Copy(names, known)
	maps.Copy(names, t.Names)
	about := table.New()
	about.Row("Seen by", nameOf(names, t.Node))
	about.Row("Routing", t.Routing)
	reached := 0
	for _, o := range t.Originators {
		if o.NextHop != "" {
			reached++
		}
	}
	about.Row("Nodes", len(t.Originators))
	about.Row("Reachable", reached)
	nodes := table.New("NODE", "ADDRESS", "NEXT HOP", "BY ADDRESS", "INTERFACE", "QUALITY", "LAST SEEN", "OTHER WAYS")
	for _, o := range t.Originators {
		hop, worth := nameOf(names, o.NextHopNode), table.Cell{}
		switch {
		case o.NextHop == "":
			hop = "none in use"
		case o.NextHop == o.MAC:
			hop = "directly"
		}
		if o.NextHop != "" {
			worth = quality(model.Neighbour{TQ: o.TQ, Throughput: o.Throughput})
		}
		nodes.Row(nameOf(names, o.Node), o.MAC, hop, o.NextHop, o.Iface, worth, agoMS(o.LastSeenMS), strconv.Itoa(o.Others))
	}
	links := table.New("NEIGHBOUR", "ADDRESS", "OVER", "INTERFACE", "QUALITY", "SIGNAL", "TX RATE", "RX RATE", "LAST SEEN")
	for _, p := range t.Neighbours {
		worth := table.Two("not routed yet", "")
		var signal, txRate, rxRate, seen table.Cell
		if r := p.Radio; r != nil {
			seen = agoMS(r.InactiveMS)
			if r.SignalDBm != 0 {
				signal = dBm(r.SignalDBm)
			}
			if r.TxMbps != 0 || r.RxMbps != 0 {
				txRate, rxRate = table.In("Mbit/s", "", r.TxMbps), table.In("Mbit/s", "", r.RxMbps)
			}
		}
		if n := p.Routing; n != nil {
			worth, seen = quality(*n), agoMS(n.LastSeenMS)
		}
		links.Row(nameOf(names, p.Node), p.MAC, p.Transport, p.Iface, worth, signal, txRate, rxRate, seen)
	}
	return writeTables(w, []section{{1, about}, {len(t.Originators), nodes}, {len(t.Neighbours), links}})
}

// agoMS says how long ago something was.
func agoMS(ms int64) table.Cell { return table.Ago(millis(ms)) }

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }
