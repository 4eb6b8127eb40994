package topology

import (
	"time"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// prepared is a report as drawing needs it: what does not depend on others or on the
// time is reckoned once.
type prepared struct {
	report model.Report // whole
	heard  time.Time
	alive  life // of the node since
	halves []half
}

// life is when a node last said anything, and how often it does.
type life struct {
	at    time.Time // zero: only reports are known
	every time.Duration
}

// half is one end of a link.
type half struct {
	peer      dot11.MAC // zero where only node is known
	node      string    // canonical ID of the other end, where it was proven
	iface     int8      // index in the report
	transport uint8     // index in transports
	dead      bool      // the peer was not heard for long
	view      graph.Direction
}

var transports = [...]model.Transport{model.TransportEthernet, model.TransportHaLow, model.TransportWiFi}

func transportIndex(t model.Transport) uint8 {
	for n, known := range transports {
		if t == known {
			return uint8(n)
		}
	}
	return 0
}

func prepare(r model.Report, heard time.Time) *prepared {
	p := &prepared{report: r, heard: heard}
	for n, i := range r.Interfaces {
		for _, l := range i.Links {
			q, limit := qualityOf(i.Transport, l)
			p.halves = append(p.halves, half{
				peer: l.Peer, node: l.Node, iface: int8(n), transport: transportIndex(i.Transport), dead: l.InactiveMS > model.DeadLinkMS,
				view: graph.Direction{
					Iface: i.Name, FreqKHz: i.FreqKHz, WidthKHz: i.WidthKHz, Quality: q, Limit: limit, SignalDBm: l.SignalDBm,
					TxKbps: l.TxKbps, RxKbps: l.RxKbps, ExpectedKbps: l.ExpectedKbps, TQ: l.TQ,
					RetryPermille: l.RetryPermille, FailPermille: l.FailPermille,
				},
			})
		}
	}
	return p
}

// freshness of the report: it holds while the node says other things, since it would say
// if something had changed, but not for ever. What is from the future was stamped before
// the clock was set back: nobody knows how long ago.
func (p *prepared) freshness(now time.Time) graph.Freshness {
	report := freshness(now.Sub(p.heard).Abs(), time.Duration(p.report.EveryS)*time.Second)
	if p.alive.at.IsZero() || report == graph.Silent {
		return report
	}
	if alive := freshness(now.Sub(p.alive.at).Abs(), p.alive.every); alive != graph.Fresh {
		return alive
	}
	return report
}

// freshness of something so old that comes so often: of what does not come every minute,
// two and a half intervals and ten are long.
func freshness(age, every time.Duration) graph.Freshness {
	switch {
	case age <= max(graph.FreshFor, every*5/2):
		return graph.Fresh
	case age <= max(graph.SilentAfter, every*10):
		return graph.Late
	}
	return graph.Silent
}

// nextHop returns the way to a node that the report names.
func (p *prepared) nextHop(to string) (model.ReportNextHop, bool) {
	for _, h := range p.report.NextHops {
		if h.Node == to {
			return h, true
		}
	}
	return model.ReportNextHop{}, false
}

// transport returns what the interface of that name goes over.
func (p *prepared) transport(iface string) model.Transport {
	for _, i := range p.report.Interfaces {
		if i.Name == iface {
			return i.Transport
		}
	}
	return ""
}
