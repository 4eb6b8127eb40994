package ctl

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
	"halo.internal/model"
)

const batmanLong = `Batman shows one of the tables of a device's routing: config, interfaces,
originators, neighbours, local (hardware addresses behind the device), global
(those behind others) or gateways.`

func (a *app) meshBatman() *cobra.Command {
	tables := []string{model.BatmanConfigTable, model.BatmanInterfaces, model.BatmanOriginators, model.BatmanNeighbours, model.BatmanLocal, model.BatmanGlobal, model.BatmanGateways}
	c := a.askDevice("batman TABLE", "a table of batman-adv, the mesh's routing", cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), a.batman)
	c.Long, c.ValidArgs, c.ValidArgsFunction = batmanLong, tables, nil
	return c
}

func (a *app) batman(ctx context.Context, from air, args []string) error {
	t, err := from.Batman(ctx, args[0])
	if err != nil {
		return err
	}
	names, err := a.namesOf(ctx, from)
	if err != nil {
		return err
	}
	node := func(id string) string {
		if id == "" {
			return ""
		}
		return nameOf(names, id)
	}
	seen := func(ms int64) table.Cell { // finer than a span: an OGM is seconds
		return table.Two(fmt.Sprintf("%d ms", ms), table.Span(millis(ms)).Programs())
	}
	return a.show(t, func(w io.Writer) error {
		var out *table.Table
		switch args[0] {
		case model.BatmanConfigTable:
			c := t.Config
			if c == nil {
				_, err := fmt.Fprintln(w, "There is no mesh interface.")
				return err
			}
			out = table.New()
			out.Row("Interface", c.Iface+" "+c.MAC)
			out.Row("Routing", c.Routing+", batman-adv "+c.Version)
			out.Row("OGM interval", seen(c.OGMIntervalMS))
			out.Row("Hop penalty", ofTQ(c.HopPenalty, " of 255"))
			out.Row("Gateway mode", c.GatewayMode)
			out.Row("Bridge-loop avoidance", onOff(c.BridgeLoopAvoidance))
			out.Row("Distributed ARP table", onOff(c.DistributedARP))
			out.Row("Multicast to all", onOff(c.MulticastFlood))
		case model.BatmanInterfaces:
			out = table.New("INTERFACE", "MAC", "HOP PENALTY", "ELP INTERVAL", "TOLD MBIT/S")
			for _, i := range t.Interfaces {
				out.Row(i.Iface, i.MAC, strconv.Itoa(int(i.HopPenalty)), seen(i.ELPIntervalMS), table.Value(i.ThroughputMbps))
			}
		case model.BatmanOriginators:
			out = table.New("BEST", "ORIGINATOR", "NODE", "NEXT HOP", "VIA", "INTERFACE", "QUALITY", "SEEN")
			for _, o := range t.Originators {
				out.Row(star(o.Best), o.MAC, node(o.Node), o.NextHop, node(o.NextHopNode), o.Iface, worth(o.TQ, o.Throughput), seen(o.LastSeenMS))
			}
		case model.BatmanNeighbours:
			out = table.New("INTERFACE", "NEIGHBOUR", "NODE", "QUALITY", "SEEN")
			for _, n := range t.Neighbours {
				out.Row(n.Iface, n.MAC, node(n.Node), worth(n.TQ, n.Throughput), seen(n.LastSeenMS))
			}
		case model.BatmanLocal, model.BatmanGlobal:
			out = table.New("BEST", "ADDRESS", "OF MEMBER", "BEHIND", "NODE")
			for _, c := range append(t.Local, t.Global...) {
				out.Row(star(c.Best), c.MAC, node(c.Member), c.Originator, node(c.Node))
			}
		default:
			out = table.New("BEST", "GATEWAY", "NODE", "NEXT HOP", "INTERFACE", "QUALITY", "DOWN", "UP")
			for _, g := range t.Gateways {
				out.Row(star(g.Best), g.MAC, node(g.Node), g.NextHop, g.Iface, worth(g.TQ, g.Throughput), table.Value(g.DownMbps), table.Value(g.UpMbps))
			}
		}
		return out.Write(w)
	})
}

func star(best bool) table.Cell {
	if best {
		return table.Two("*", "true")
	}
	return table.Two("", "false")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// worth is a quality in whatever routing measures it: of 255, or in Mbit/s.
func worth(tq uint8, mbps float64) table.Cell {
	if tq > 0 {
		return ofTQ(tq, "/255")
	}
	return table.In("Mbit/s", "", mbps)
}

func ofTQ(n uint8, of string) table.Cell {
	text := strconv.Itoa(int(n))
	return table.Two(text+of, text)
}

func (a *app) netNeighbours(ctx context.Context, from air, _ []string) error {
	list, err := from.NeighbourTable(ctx)
	if err != nil {
		return err
	}
	names, err := a.namesOf(ctx, from)
	if err != nil {
		return err
	}
	return a.show(items[model.NeighbourEntry]{list}, func(w io.Writer) error {
		t := table.New("INTERFACE", "ADDRESS", "MAC", "STATE", "NODE")
		for _, n := range list {
			who := ""
			if n.Node != "" {
				who = nameOf(names, n.Node)
			}
			t.Row(n.Iface, n.Address.String(), n.MAC, n.State, who)
		}
		return t.Write(w)
	})
}
