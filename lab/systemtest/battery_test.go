//go:build lab

package systemtest_test

import (
	"slices"
	"testing"
	"time"

	"halo.internal/lab/bus"
	"halo.internal/lab/machine"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// soon has nodes stay up after a start for no longer than the least that may be set,
// whatever their battery says.
const soon = "[power]\nhold_s = 60\n"

// battery is one of two cells, with an INA219 between it and the board, as on a Waveshare
// UPS HAT. It runs empty while other parts have their turn: that takes more than a minute.
type battery struct {
	m       *network.Machine
	before  outage
	event   int64 // the newest before it runs empty
	emptied time.Time
}

const (
	upsChip = "waveshare-ups-hat"
	upsAddr = 0x42
	full    = 8.0 // V: 83 %
	empty   = 6.0 // 0 %
	feeds   = -0.4
	charges = 0.6 // A
)

// cells sets what a machine's battery measures.
func cells(t testing.TB, m *network.Machine, volts, amps float64) {
	t.Helper()
	change(t, m, bus.Change{Chip: &bus.ChipChange{Chip: "ina219", Values: map[string]float64{"voltage": volts, "current": amps}}})
}

// powered returns when the gateway knows that a node is fed so, with a battery that is full.
func (l *lab) powered(t *testing.T, m *network.Machine, by model.PowerSource) {
	t.Helper()
	l.eventually(t, "the gateway knows how "+m.Name()+" is fed", func() error {
		p, err := l.api.NodePower(t.Context(), m.Name())
		if err != nil {
			return err
		}
		return expect(p.Power.Source == by && p.Power.Percent != nil && *p.Power.Percent > 80 && !p.Power.Low, "%s and a battery of more than 80 %%, got %+v", by, p.Power)
	})
}

// runsEmpty has a person say that the second node's meter, which nothing tells from others,
// is its battery's, and then the battery be empty.
func (b *battery) runsEmpty(t *testing.T, l *lab) {
	b.m = l.nodes[1]
	cells(t, b.m, full, feeds)
	var meter apitype.Sensor
	l.eventually(t, "the meter is offered", func() error {
		list, err := l.api.Sensors(t.Context(), b.m.Name(), string(model.SensorOffered))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(s apitype.Sensor) bool { return s.Address == upsAddr && slices.Contains(s.Candidates, upsChip) })
		if i >= 0 {
			meter = list[i]
		}
		return expect(i >= 0, "something at %#x that may be a %s, got %+v", upsAddr, upsChip, list)
	})
	j, err := l.api.AssignSensor(t.Context(), meter.ID, apitype.AssignSensor{Chip: upsChip, Label: "ups", IntervalS: 2})
	if err != nil {
		t.Fatal(err)
	}
	l.done(t, j)
	l.powered(t, b.m, model.PowerBattery)
	b.before, b.event = l.before(t), l.lastEvent(t)
	cells(t, b.m, empty, feeds)
	b.emptied = time.Now()
}

// endsItsNode switches the first node off by its power button, and waits until the second
// one has switched itself off. The gateway has heard of it, and the data partition was
// unmounted. With a battery that is charged it is back as the other one is.
func (b *battery) endsItsNode(t *testing.T, l *lab) {
	pressed := l.nodes[0]
	arrived := l.switchOff(t, pressed)
	if err := l.net.PowerOn(pressed); err != nil {
		t.Fatal(err)
	}
	l.eventually(t, b.m.Name()+" switches itself off", func() error {
		s := b.m.Status()
		return expect(s.State == machine.Off, "it off, got %+v", s)
	})
	t.Logf("it is off %.0f s after its battery was empty", time.Since(b.emptied).Seconds())
	if s := b.m.Status(); s.LastEnd != "guest-shutdown" {
		t.Errorf("it ended by %s, want by itself", s.LastEnd)
	}
	if err := b.m.Unmounted(t.Context()); err != nil {
		t.Errorf("its card: %v", err)
	}
	for _, kind := range []string{"power.battery.low", "power.shutdown"} {
		l.eventually(t, "the gateway has heard of "+kind, func() error {
			list, err := l.api.EventsSince(t.Context(), eventsOf(b.m, kind), b.event)
			if err != nil {
				return err
			}
			return expect(len(list) == 1, "one event, got %+v", list)
		})
	}
	cells(t, b.m, full, charges)
	if err := l.net.PowerOn(b.m); err != nil {
		t.Fatal(err)
	}
	l.recovered(t, b.before, pressed, b.m)
	l.powered(t, b.m, model.PowerExternal)
	arrived()
}
