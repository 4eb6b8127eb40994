package ctl

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"halo.internal/ctl/client"
	"halo.internal/ctl/table"
	"halo.internal/model"
)

func (a *app) nodeNeighbourhood() *cobra.Command {
	c := a.ofNode("neighbourhood NODE", "what a node reported last of what it sees around it", cobra.ExactArgs(1), func(ctx context.Context, c *client.Client, args []string) error {
		n, err := c.Neighbourhood(ctx, args[0])
		if err != nil {
			return notFound(err, "haloctl node list shows the nodes; one that is off has reported nothing since the gateway started")
		}
		names, err := a.nodeNames(ctx, c)
		if err != nil {
			return err
		}
		return a.show(n, func(w io.Writer) error {
			t := table.New()
			t.Row("Node", nameOf(names, n.Report.Node))
			t.Row("Heard", table.Age(c.Now(), n.Heard))
			t.Row("Boot", n.Report.Boot)
			t.Row("Report", n.Report.Seq)
			return writeTables(w, append([]section{{1, t}}, reportTables(n.Report, names)...))
		})
	})
	c.Long = `Neighbourhood shows what the network's picture is drawn from: the links that a
node sees, its own end of each, by whom it reaches others, and with whom it has
sessions of the overlay. Nothing of it is proven but who sent it; haloctl topology
node shows what became of it.`
	return c
}

func reportTables(r model.Report, names map[string]string) []section {
	links := table.New("INTERFACE", "OVER", "PEER", "NODE", "SIGNAL", "TX KBPS", "RX KBPS", "EXPECTED KBPS", "TQ", "REPEATED", "FAILED", "HEARD")
	ifaces, n := table.New("INTERFACE", "OVER", "MHZ", "WIDTH", "LINKS", "ADDRESSES"), 0
	for _, i := range r.Interfaces {
		addresses := make([]string, len(i.Addresses))
		for k, m := range i.Addresses {
			addresses[k] = m.String()
		}
		ifaces.Row(i.Name, i.Transport, inMHz(i.FreqKHz), inMHz(i.WidthKHz), len(i.Links), strings.Join(addresses, " "))
		for _, l := range i.Links {
			n++
			signal, peer := table.Cell{}, ""
			if l.SignalDBm != 0 {
				signal = dBm(float64(l.SignalDBm))
			}
			if l.Peer != (model.ReportLink{}).Peer {
				peer = l.Peer.String()
			}
			links.Row(i.Name, i.Transport, peer, nameOf(names, l.Node), signal, some(l.TxKbps), some(l.RxKbps), some(l.ExpectedKbps), some(l.TQ),
				permille(l.RetryPermille), permille(l.FailPermille), agoMS(int64(l.InactiveMS)))
		}
	}
	hops := table.New("REACHES", "BY", "NODE", "INTERFACE", "TQ", "KBPS")
	for _, h := range r.NextHops {
		hops.Row(nameOf(names, h.Node), h.Next, nameOf(names, h.NextNode), h.Iface, some(h.TQ), some(h.Kbps))
	}
	peers := table.New("OVERLAY PEER", "HANDSHAKE", "DIRECT")
	for _, p := range r.Overlay {
		shake := never
		if p.HandshakeS >= 0 {
			shake = table.Ago(time.Duration(p.HandshakeS) * time.Second)
		}
		peers.Row(nameOf(names, p.Node), shake, p.Direct)
	}
	return []section{{len(r.Interfaces), ifaces}, {n, links}, {len(r.NextHops), hops}, {len(r.Overlay), peers}}
}

// inMHz is a frequency; zero is none.
func inMHz(kHz int) string {
	if kHz == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(kHz)/1000, 'f', -1, 64)
}
