package load

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"halo.internal/model"
	"halo.internal/model/dot11"
)

const (
	linksOfNode = 6 // in a field, by which 250 nodes have 1,500
	meshIface   = "mesh0"
	freqKHz     = 2_412_000
	widthKHz    = 20_000
)

// field is where the devices of a network are, and who hears whom. Numbers of devices count
// from 0, which is the gateway.
type field struct {
	ids   []string
	near  [][]int // whom a device hears, by number
	next  []int   // by whom it reaches the gateway; -1: nobody
	links int
}

// newField puts devices on a plane, each linked to those around it, so that there are about
// six links for each. The same number of devices is always the same field.
func newField(ids []string) *field {
	n := len(ids)
	f := &field{ids: ids, near: make([][]int, n), next: make([]int, n)}
	noise := rand.New(rand.NewPCG(uint64(n), 1))
	type place struct{ x, y float64 }
	places := make([]place, n)
	for i := range places {
		places[i] = place{noise.Float64(), noise.Float64()}
	}
	far := func(a, b int) float64 { return math.Hypot(places[a].x-places[b].x, places[a].y-places[b].y) }
	type pair struct{ a, b int }
	var pairs []pair
	for a := range n {
		for b := range a {
			pairs = append(pairs, pair{a, b})
		}
	}
	slices.SortFunc(pairs, func(p, q pair) int { return cmp.Compare(far(p.a, p.b), far(q.a, q.b)) })
	link := func(a, b int) {
		if !slices.Contains(f.near[a], b) && len(f.near[a]) < model.MaxReportLinks && len(f.near[b]) < model.MaxReportLinks {
			f.near[a], f.near[b] = append(f.near[a], b), append(f.near[b], a)
			f.links++
		}
	}
	for a := 1; a < n; a++ { // each to the nearest before it, so that the network is whole
		best := 0
		for b := range a {
			if far(a, b) < far(a, best) {
				best = b
			}
		}
		link(a, best)
	}
	for _, p := range pairs {
		if f.links >= linksOfNode*n {
			break
		}
		link(p.a, p.b)
	}
	for i := range f.next {
		f.next[i] = -1
	}
	for queue := []int{0}; len(queue) > 0; queue = queue[1:] {
		for _, b := range f.near[queue[0]] {
			if b != 0 && f.next[b] < 0 {
				f.next[b] = queue[0]
				queue = append(queue, b)
			}
		}
	}
	return f
}

// mac is the hardware address of a device's interface.
func mac(device int, iface byte) dot11.MAC {
	return dot11.MAC{2, 0x16, 0, iface, byte(device >> 8), byte(device)}
}

// report is a device's whole report, with numbers that are somewhat different each time.
func (f *field) report(device int, boot, seq uint64, noise *rand.Rand) model.Report {
	r := model.Report{Node: f.ids[device], Boot: boot, Seq: seq, EveryS: reportEveryS,
		Interfaces: model.ReportInterfaces{
			{Name: "bat0", Addresses: []dot11.MAC{mac(device, 0)}},
			{Name: meshIface, Addresses: []dot11.MAC{mac(device, 1)}, Transport: model.TransportWiFi, FreqKHz: freqKHz, WidthKHz: widthKHz},
		}}
	radio := &r.Interfaces[1]
	for _, b := range f.near[device] {
		level := (device*31 + b*31) % 30 // of the link, both ways
		radio.Links = append(radio.Links, model.ReportLink{Peer: mac(b, 1), SignalDBm: -50 - level + noise.IntN(7), TQ: 245 - 3*level + noise.IntN(10),
			TxKbps: 6500 * (1 + noise.IntN(10)), RxKbps: 6500 * (1 + noise.IntN(10)), RetryPermille: noise.IntN(200), InactiveMS: noise.IntN(2000)})
	}
	if next := f.next[device]; next >= 0 {
		r.NextHops = model.ReportNextHops{{Node: f.ids[0], Next: mac(next, 1), NextNode: f.ids[next], Iface: meshIface, TQ: 200}}
		r.Overlay = model.ReportOverlay{{Node: f.ids[0], HandshakeS: noise.IntN(120), Direct: true}}
	}
	if device == 0 {
		for _, id := range f.ids[1:min(len(f.ids), 1+model.MaxReportOverlay)] {
			r.Overlay = append(r.Overlay, model.ReportOverlayPeer{Node: id, HandshakeS: noise.IntN(120), Direct: true})
		}
	}
	r.Sort()
	return r
}
