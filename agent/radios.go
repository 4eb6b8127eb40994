package agent

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// maxLinks bounds the peers of which there is telemetry: a radio holds about ten.
const maxLinks = 12

// radios is a collector of what halo-mesh knows of the radios: signals, rates and
// repetitions of each link, noise and occupation of the channel, airtime, and what came
// to nothing. Counters are of peers that come and go, so that it tells shares of the time
// since it was read last.
type radios struct {
	status   func() (model.MeshStatus, time.Time)
	channels func(context.Context) ([]model.RadioChannels, error)
	legal    func(context.Context) ([]model.Legality, error)
	chosen   map[string]bool // MACs of peers that are told of, while they are linked
	before   map[string]counts
}

// counts are of the frames to a peer.
type counts struct{ packets, retries, failed uint32 }

func newRadios(a *agent) *radios {
	return &radios{status: a.seen.around, channels: a.mesh.Channels, legal: a.mesh.Legal}
}

// Name implements collect.Collector.
func (*radios) Name() string { return "radios" }

// stale is how old what halo-mesh said may be.
const staleStatus = 3 * time.Minute

// Collect implements collect.Collector.
func (r *radios) Collect(ctx context.Context) ([]collect.Reading, error) {
	st, at := r.status()
	if at.IsZero() || time.Since(at) > staleStatus {
		return nil, nil // halo-mesh is missing, which /health says
	}
	list := slices.DeleteFunc(slices.Clone(st.Radios), func(v model.Radio) bool { return v.Iface == "" || v.Absent })
	if len(list) == 0 {
		return nil, nil
	}
	channels, err := r.channels(ctx)
	laws, lawErr := r.legal(ctx)
	if err = errors.Join(err, lawErr); errors.Is(err, local.ErrNone) {
		err = nil // a device without a network
	}
	var out []collect.Reading
	for _, v := range list {
		out = append(out, r.radio(v, channels, laws)...)
	}
	return append(out, r.links(list)...), err
}

// tenths is a value with one decimal place.
func tenths(name, unit string, v float64) collect.Reading {
	if math.IsNaN(v) || math.Abs(v) > 1e12 {
		return collect.Reading{Metric: wire.NewMetric(name, unit, 1)}
	}
	return collect.Reading{Metric: wire.NewMetric(name, unit, 1), Value: wire.Int(int64(math.Round(v * 10)))}
}

func integer(name, unit string, v int64) collect.Reading {
	return collect.Reading{Metric: wire.NewMetric(name, unit, 0), Value: wire.Int(v)}
}

// radio is what is told of a radio as a whole.
func (r *radios) radio(v model.Radio, channels []model.RadioChannels, laws []model.Legality) []collect.Reading {
	p := "radio." + collect.Label(v.Iface) + "."
	d := v.Dropped
	dropped := d.Malformed + d.SAEUnverified + d.SAEReplayed + d.SAEMismatched + d.SAEOverCapacity + d.PeeringUnverified + d.PeeringUnknownKey + d.PeeringReplayed + d.PeeringMismatched
	out := []collect.Reading{integer(p+"peers", "", int64(v.Linked())), integer(p+"handshakes_dropped", "", int64(min(dropped, math.MaxInt64)))}
	best := math.NaN()
	for _, peer := range v.Peers {
		if peer.Linked && peer.SignalDBm != 0 && !(peer.SignalDBm <= best) {
			best = peer.SignalDBm
		}
	}
	if !math.IsNaN(best) {
		out = append(out, tenths(p+"signal_dbm", "dBm", best))
	}
	if v.TxPowerDBm != 0 {
		out = append(out, tenths(p+"tx_power_dbm", "dBm", v.TxPowerDBm))
	}
	for _, c := range channels {
		i := slices.IndexFunc(c.Channels, func(c model.RadioChannel) bool { return c.InUse })
		if c.Radio != v.Name || i < 0 {
			continue
		}
		if n := c.Channels[i].NoiseDBm; n != 0 {
			out = append(out, integer(p+"noise_dbm", "dBm", int64(n)))
		}
		out = append(out, tenths(p+"busy_percent", "%", c.Channels[i].BusyPercent))
	}
	for _, l := range laws {
		if l.Radio == v.Name && l.AirtimeMaxS > 0 {
			out = append(out, tenths(p+"airtime_s", "s", l.AirtimeS), tenths(p+"airtime_used_percent", "%", l.AirtimeS/l.AirtimeMaxS*100))
		}
	}
	return out
}

// links is what is told of peers: at most maxLinks, the same as long as they are there.
func (r *radios) links(list []model.Radio) []collect.Reading {
	var linked []model.RadioPeer
	for _, v := range list {
		for _, p := range v.Peers {
			if p.Linked {
				linked = append(linked, p)
			}
		}
	}
	// Those that are told of already first, then the strongest.
	slices.SortStableFunc(linked, func(a, b model.RadioPeer) int {
		if r.chosen[a.MAC] != r.chosen[b.MAC] {
			if r.chosen[a.MAC] {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.SignalDBm, a.SignalDBm)
	})
	linked = linked[:min(len(linked), maxLinks)]
	slices.SortFunc(linked, func(a, b model.RadioPeer) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.MAC, b.MAC)) })
	was := r.before
	r.chosen, r.before = map[string]bool{}, map[string]counts{}
	var out []collect.Reading
	seen := map[string]bool{}
	for _, p := range linked {
		r.chosen[p.MAC] = true
		now := counts{p.TxPackets, p.TxRetries, p.TxFailed}
		r.before[p.MAC] = now
		name := collect.Label(cmp.Or(p.Node, p.MAC))
		if seen[name] {
			name = collect.Label(p.MAC) // a node that is reached by two radios
		}
		seen[name] = true
		prefix := "link." + name + "."
		out = append(out, tenths(prefix+"signal_dbm", "dBm", p.SignalDBm), tenths(prefix+"tx_mbps", "Mbit/s", p.TxMbps), tenths(prefix+"rx_mbps", "Mbit/s", p.RxMbps))
		if p.Expected > 0 {
			out = append(out, tenths(prefix+"expected_mbps", "Mbit/s", p.Expected))
		}
		retry, failed := math.NaN(), math.NaN() // there until something was sent
		if last, ok := was[p.MAC]; ok && now.packets > last.packets && now.retries >= last.retries && now.failed >= last.failed {
			n := float64(now.packets - last.packets)
			retry, failed = float64(now.retries-last.retries)/n*100, float64(now.failed-last.failed)/n*100
		}
		out = append(out, tenths(prefix+"retry_percent", "%", retry), tenths(prefix+"failed_percent", "%", failed))
	}
	return out
}
