package agent

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/agent/collect"
	"halo.internal/agent/power"
	"halo.internal/agent/spool"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
)

// powered is the board's power: a collector of what meters and UPS boards measure, by
// meaning. It shuts the device down before the battery is empty, for which it looks far more
// often than samples may be made.
type powered struct {
	*agent
	machine *power.Machine
	down    chan struct{} // a token: it is to shut down
	off     func(context.Context) error

	mu  sync.Mutex // guards now, and is held while the machine steps
	now model.PowerState
}

const (
	powerLook  = 5 * time.Second
	powerEvery = 10 * time.Minute // between its samples, at most: a gateway ignores what is old
)

func newPowered(a *agent) *powered {
	return &powered{agent: a, machine: power.New(a.settings.power(), time.Now(), bootTime()), down: make(chan struct{}, 1), off: local.NewSupervisor(a.path(paths.GokrazySocket)).PowerOff}
}

func (p *powered) state() model.PowerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// Name implements collect.Collector.
func (*powered) Name() string { return "power" }

// meanings are the metrics by which the power is known, the likeliest first: of chips that
// measure several things those which measure most.
func meanings(v model.Inventory) map[string][]string {
	list := slices.DeleteFunc(slices.Clone(v.Sensors), func(s model.SensorChip) bool { return s.State != model.SensorOK })
	many := func(s model.SensorChip) (n int) {
		for _, v := range s.Values {
			if v.Power != "" {
				n++
			}
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b model.SensorChip) int { return many(b) - many(a) })
	by := map[string][]string{}
	for _, s := range list {
		for _, v := range s.Values {
			if v.Power != "" {
				by[v.Power] = append(by[v.Power], v.Metric)
			}
		}
	}
	return by
}

// measured is what was measured last, by meaning. read is when its battery was: the charge,
// or where no gauge tells it the voltage.
func (p *powered) measured() (in map[string]float64, read time.Time) {
	in = map[string]float64{}
	for meaning, metrics := range meanings(p.sensors.Inventory()) {
		for _, m := range metrics {
			n, at, ok := p.seen.reading(m)
			if !ok {
				continue
			}
			in[meaning] = n
			if _, gauge := in["battery_percent"]; meaning == "battery_percent" || meaning == "battery_voltage_v" && !gauge {
				read = at
			}
			break
		}
	}
	return in, read
}

// look judges the power, and has done what comes of it.
func (p *powered) look() {
	in, read := p.measured()
	now := time.Now()
	p.mu.Lock()
	st, events, down := p.machine.Step(now, read, in)
	if len(in) > 0 {
		st.Time = now.UTC()
	}
	p.now = st
	p.mu.Unlock()
	for _, e := range events {
		p.note(e.Kind, e.Severity, e.Message, e.Fields)
	}
	if down {
		select {
		case p.down <- struct{}{}:
		default: // it is at it
		}
	}
}

// watch looks until ctx ends.
func (p *powered) watch(ctx context.Context) {
	every(ctx, powerLook, func() bool {
		p.look()
		return false
	})
}

// Collect implements collect.Collector.
func (p *powered) Collect(context.Context) ([]collect.Reading, error) {
	st := p.state()
	in := st.Measured
	if st.Source == model.PowerUnknown && st.Percent == nil && len(in) == 0 {
		return nil, nil // nothing measures it: there is no metric
	}
	var out []collect.Reading
	for _, meaning := range slices.Sorted(maps.Keys(in)) {
		if meaning == "battery_percent" {
			continue
		}
		thing, name, _ := strings.Cut(meaning, "_")
		out = append(out, collect.Reading{Metric: wire.NewMetric("power."+thing+"."+name, powerUnits[name], 3), Value: wire.Int(int64(in[meaning]*1000 + sign(in[meaning])/2))})
	}
	if st.Percent != nil {
		name := "power.battery.percent"
		if st.By == model.ChargeVoltage {
			name = "power.battery.estimated_percent"
		}
		out = append(out, collect.Reading{Metric: wire.NewMetric(name, "%", 1), Value: wire.Int(int64(*st.Percent*10 + 0.5)), Urgent: st.Low})
	}
	flag := func(name string, on bool) {
		r := collect.Reading{Metric: wire.NewMetric("power.supply."+name, "", 0), Value: wire.Int(0), Urgent: on}
		if on {
			r.Value = wire.Int(1)
		}
		out = append(out, r)
	}
	if st.Source != model.PowerUnknown {
		flag("on_battery", st.Source == model.PowerBattery)
	}
	if st.Percent != nil {
		flag("battery_low", st.Low)
		flag("shutting_down", st.ShuttingDown)
	}
	return out, nil
}

func sign(f float64) float64 {
	if f < 0 {
		return -1
	}
	return 1
}

var powerUnits = map[string]string{"voltage_v": "V", "current_a": "A", "power_w": "W"}

const (
	goodbyeWait = 20 * time.Second // for the gateway to have what the device says last
	offAgain    = 5 * time.Minute  // before it is tried again
	offLimit    = 2 * time.Minute
)

// shutdowns waits until the device is to shut down, and has it do so: first the gateway
// hears of it, then all that it has not acknowledged is on the card, and then, where it is
// so still, gokrazy ends all processes in order, unmounts the data partition, and turns the
// board off. While nobody knows who the node is there is no spool, and nothing to wait for.
func (p *powered) shutdowns(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.down:
		}
		p.shutDown(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(offAgain):
		}
		select { // what was asked for meanwhile; it is asked for again while it is so
		case <-p.down:
		default:
		}
	}
}

// fedAgain tells whether the device need not be shut down any more. Where nothing is known
// any more, as when the meter fails with the battery, what was known last counts.
func (p *powered) fedAgain() bool {
	st := p.state()
	in, _ := p.measured()
	return st.Source == model.PowerExternal || st.Percent != nil && !st.ShuttingDown || power.Fed(in)
}

func (p *powered) shutDown(ctx context.Context) {
	p.Log.Warn("the battery is almost empty: the device shuts down")
	if kept := p.seen.spoolNow(); kept != nil {
		told, cancel := context.WithTimeout(ctx, goodbyeWait)
		every(told, 200*time.Millisecond, func() bool {
			return !slices.ContainsFunc(kept.Items(), func(i spool.Item) bool { return i.Urgent })
		})
		cancel()
		if err := kept.Flush(time.Now(), true); err != nil {
			p.Log.Error("unacknowledged readings are lost with the power", "err", err)
		}
	}
	unix.Sync()
	// Power may have come back meanwhile. Turned off now, the board would stay so: where it
	// was never without power nothing starts it.
	if p.fedAgain() {
		p.note(power.EventStays, model.Info, "the device was to shut down, as its battery is almost empty, and stays up: its power has come back", nil)
		return
	}
	off, cancel := context.WithTimeout(ctx, offLimit)
	defer cancel()
	if err := p.off(off); err != nil && ctx.Err() == nil {
		p.note("power.shutdown.failed", model.Error, "the device was to shut down, as the battery is almost empty, and could not: "+err.Error(), nil)
	}
}
