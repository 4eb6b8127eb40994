// Package wiretest makes what boards say of themselves, for tests and benchmarks: twelve
// metrics, with the noise and the steps that such readings have.
package wiretest

import (
	"math/rand/v2"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// Metrics is how many metrics a board has.
const Metrics = 12

// Schema is that of a board's batches.
func Schema() wire.Schema {
	return wire.Schema{Metrics: []wire.Metric{
		wire.NewMetric("system.cpu.used_percent", "%", 1),
		wire.NewMetric("system.memory.used_percent", "%", 1),
		wire.NewMetric("system.memory.available_kib", "KiB", 0),
		wire.NewMetric("system.load.avg_1m", "", 2),
		wire.NewMetric("system.load.avg_5m", "", 2),
		wire.NewMetric("system.host.uptime_s", "s", 0),
		wire.NewMetric("system.cpu-thermal.temperature_c", "°C", 1),
		wire.NewMetric("storage.perm.used_percent", "%", 1),
		wire.NewMetric("net.wg0.rx_bytes", "B", 0),
		wire.NewMetric("net.wg0.tx_bytes", "B", 0),
		wire.NewMetric("net.wg0.rx_packets", "", 0),
		wire.NewMetric("net.wg0.tx_packets", "", 0),
	}}
}

// Board is a source of readings.
type Board struct {
	noise                             *rand.Rand
	available, load1, load5, warmth   float64
	rx, tx, rxPackets, txPackets, run int64
	seq                               uint64
}

// NewBoard returns a board; those of one seed say the same.
func NewBoard(seed uint64) *Board {
	return &Board{noise: rand.New(rand.NewPCG(seed, 12)), available: 312_400, load1: 24, load5: 18, warmth: 472, rx: 8_412_300, tx: 21_530_112, rxPackets: 41_230, txPackets: 52_114}
}

// Batch is the board's next one of a boot: so many reports, a step apart.
func (d *Board) Batch(boot uint64, at time.Time, reports int, step time.Duration) wire.Batch {
	d.seq++
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(boot, d.seq), Clock: model.ClockGateway}}
	for i := range reports {
		d.available += 90 * d.noise.NormFloat64()
		d.load1 = max(0, d.load1+2*d.noise.NormFloat64())
		d.load5 += (d.load1 - d.load5) / 30
		d.warmth += 3 * d.noise.NormFloat64()
		d.rxPackets += 14 + d.noise.Int64N(5)
		d.txPackets += 16 + d.noise.Int64N(5)
		d.rx += 1_900 + d.noise.Int64N(300)
		d.tx += 3_400 + d.noise.Int64N(600)
		d.run += int64(step / time.Second)
		r := wire.Report{Time: at.Add(time.Duration(i) * step).UnixMilli(), Values: make([]wire.Value, 0, Metrics)}
		for _, v := range [Metrics]int64{int64(max(0, 64+18*d.noise.NormFloat64())), int64(1000 * (1 - d.available/489_376)), int64(d.available), int64(d.load1), int64(d.load5), d.run, int64(d.warmth), 127, d.rx, d.tx, d.rxPackets, d.txPackets} {
			r.Values = append(r.Values, wire.Int(v))
		}
		b.Reports = append(b.Reports, r)
	}
	return b
}
