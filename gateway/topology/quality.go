package topology

import (
	"halo.internal/model"
	"halo.internal/model/graph"
)

// How good a link is, of 100, from one end: as good as the worst of what is known of
// it. The constants are published in docs/topology.md; a test holds the two together.
const (
	// Signals in dBm between which the quality goes from 0 to 100. HaLow's channels
	// are narrow, and its receivers hear what Wi-Fi's do not.
	wifiNone, wifiFull   = -85, -60
	halowNone, halowFull = -95, -70

	// Of transmissions that are repetitions, each percent costs half a point; of
	// frames that are given up, five.
	retryPer100 = 50
	failPer100  = 500

	fullTQ         = 255
	unknownQuality = 50 // of a link over the air of which nothing is known

	perfect    = graph.PerfectCost
	worstCost  = perfect * 10000 // and of one that hardly is
	noLinkCost = perfect * 100   // of a hop that routing takes and no report knows a link for
)

// qualityOf rates a link by what its end reports.
func qualityOf(t model.Transport, l model.ReportLink) (quality int, limit graph.Limit) {
	quality = 100
	worse := func(q int, why graph.Limit) {
		if q = min(max(q, 0), 100); q < quality {
			quality, limit = q, why
		}
	}
	known := false
	if l.SignalDBm != 0 && t != model.TransportEthernet {
		none, full := wifiNone, wifiFull
		if t == model.TransportHaLow {
			none, full = halowNone, halowFull
		}
		worse(100*(l.SignalDBm-none)/(full-none), graph.LimitSignal)
		known = true
	}
	if l.RetryPermille != 0 || l.FailPermille != 0 {
		worse(100-(retryPer100*l.RetryPermille+failPer100*l.FailPermille)/1000, graph.LimitLoss)
		known = true
	}
	if l.TQ != 0 {
		worse(100*l.TQ/fullTQ, graph.LimitTQ)
		known = true
	}
	if !known && t != model.TransportEthernet {
		worse(unknownQuality, graph.LimitUnknown)
	}
	return quality, limit
}

// costOf is how many transmissions a frame and its answer take, in thousandths, where
// the qualities are the shares that arrive (ETX; De Couto, Aguayo, Bicket, Morris: A
// High-Throughput Path Metric for Multi-Hop Wireless Routing, MobiCom 2003).
func costOf(there, back int) int {
	return min(perfect*100*100/(max(there, 1)*max(back, 1)), worstCost)
}

// rate sets a link's quality and cost by its directions: one that is not reported is
// taken to be as good as the other.
func rate(l *graph.Link) {
	there, back := l.AB.Quality, l.BA.Quality
	if l.AB.Iface == "" {
		there = back
	}
	if l.BA.Iface == "" {
		back = there
	}
	l.Quality, l.Cost = min(there, back), costOf(there, back)
}
