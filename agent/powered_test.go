package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/agent/sensors"
	"halo.internal/agent/spool"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
)

// gauge is a board with a fuel gauge, as its inventory and its latest readings say.
func gauge(t *testing.T) *agent {
	quiet := slog.New(slog.DiscardHandler)
	a := &agent{log: quiet, Config: Config{Root: t.TempDir(), Log: quiet}}
	var err error
	a.spool, err = spool.Open(spool.Options{
		Live: filepath.Join(a.Root, "live"), Disk: filepath.Join(a.Root, "disk"), Boot: 1, Owner: spool.Owner{Network: "valley", Node: "n-a"}, Budget: 1 << 20, Delay: time.Minute,
		Clock: func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockGateway }, Log: a.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	a.seen.opened(a.spool)
	if err := a.news.open(a.spool); err != nil {
		t.Fatal(err)
	}
	a.apart = collect.NewApart(a.note)
	a.sensors = sensors.New(sensors.Options{Buses: func() ([]sensors.Bus, error) { return nil, nil }, Collectors: a.apart, Event: a.note, File: filepath.Join(a.Root, "sensors.json"), Log: a.log})
	return a
}

func TestMeaningsOfSeveralMeters(t *testing.T) {
	value := func(metric, power string) model.SensorValue {
		return model.SensorValue{Metric: metric, Power: power}
	}
	got := meanings(model.Inventory{Sensors: []model.SensorChip{
		{State: model.SensorOK, Values: []model.SensorValue{value("i2c.ina219.voltage_v", "battery_voltage_v")}},
		{State: model.SensorOK, Values: []model.SensorValue{value("i2c.ups.voltage_v", "battery_voltage_v"), value("i2c.ups.charge_percent", "battery_percent")}},
		{State: model.SensorGone, Values: []model.SensorValue{value("i2c.gone.charge_percent", "battery_percent")}},
		{State: model.SensorOK, Values: []model.SensorValue{value("i2c.bme280.temperature_c", "")}},
	}})
	if len(got) != 2 || !slices.Equal(got["battery_voltage_v"], []string{"i2c.ups.voltage_v", "i2c.ina219.voltage_v"}) || !slices.Equal(got["battery_percent"], []string{"i2c.ups.charge_percent"}) {
		t.Errorf("got %v", got)
	}
}

// TestTheGatewayHearsFirstAndTheCardHasAll before the board is turned off; what can't be
// turned off says so, and is tried again.
func TestTheGatewayHearsFirstAndTheCardHasAll(t *testing.T) {
	a := gauge(t)
	synctest.Test(t, func(t *testing.T) {
		p := newPowered(a)
		p.down = make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		off, urgent, kept := 0, true, 0
		p.off = func(context.Context) error {
			off++
			urgent = slices.ContainsFunc(a.spool.Items(), func(i spool.Item) bool { return i.Urgent })
			kept = a.spool.Stats().Segments
			return context.DeadlineExceeded
		}
		schema := wire.Schema{Metrics: []wire.Metric{wire.NewMetric("a.b.c", "", 0)}}
		if err := a.spool.AddBatch(schema, wire.Batch{Header: wire.Header{Clock: model.ClockGateway}, Reports: []wire.Report{{Time: time.Now().UnixMilli(), Values: []wire.Value{wire.Int(1)}}}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		a.note("power.shutdown", model.Error, "the battery is almost empty", nil)
		done := make(chan struct{})
		go func() { defer close(done); p.shutdowns(ctx) }()
		p.down <- struct{}{}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if off != 0 {
			t.Error("it was turned off before the gateway had heard of it")
		}
		for _, i := range a.spool.Items() { // the gateway has it
			if i.Urgent {
				a.spool.Ack(spool.Event, []wire.BatchID{i.ID})
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if off != 1 || urgent || kept != 1 {
			t.Errorf("turned off %d times, with something urgent: %v, segments on the card: %d", off, urgent, kept)
		}
		if e := a.spool.Items(); len(e) != 1 || !strings.Contains(string(e[0].Data), "power.shutdown.failed") {
			t.Errorf("that it failed is not told: %d items", len(e))
		}
		p.down <- struct{}{} // it is so still, and nobody acknowledges: after a while that does not count
		time.Sleep(offAgain + goodbyeWait + time.Second)
		p.down <- struct{}{}
		time.Sleep(offAgain + goodbyeWait + time.Second)
		synctest.Wait()
		if off < 2 {
			t.Errorf("it was tried %d times", off)
		}
		cancel()
		<-done
	})
}

// TestPowerThatComesBackInTimeKeepsTheDeviceUp: once it is off nothing may start it.
func TestPowerThatComesBackInTimeKeepsTheDeviceUp(t *testing.T) {
	a := gauge(t)
	synctest.Test(t, func(t *testing.T) {
		p := newPowered(a)
		p.down = make(chan struct{}, 1)
		charge := 4.0
		now := func(source model.PowerSource, down bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.now = model.PowerState{Source: source, Percent: &charge, Low: true, ShuttingDown: down}
		}
		now(model.PowerBattery, true)
		off := 0
		p.off = func(context.Context) error { off++; return nil }
		a.note("power.shutdown", model.Error, "the battery is almost empty", nil) // the gateway does not hear of it
		done := make(chan struct{})
		go func() { defer close(done); p.shutDown(t.Context()) }()
		time.Sleep(goodbyeWait / 2)
		now(model.PowerExternal, false)
		<-done
		if off != 0 {
			t.Error("it was turned off")
		}
		if !slices.ContainsFunc(a.spool.Items(), func(i spool.Item) bool { return strings.Contains(string(i.Data), "power.shutdown.cancelled") }) {
			t.Error("that it stays up is not told")
		}
	})
}

func TestRulesAndPowerAreConfigured(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"good":        {"[power]\nchemistry = \"li-ion\"\ncells = 2\nlow_percent = 30\nshutdown_percent = -1\n[[metric]]\nname = \"i2c.*\"\ndead_band = 0.5\nadaptive = true\n[[metric]]\nname = \"power.battery.percent\"\nbelow = 10\nfor_s = 30\n", ""},
		"chemistry":   {"[power]\nchemistry = \"nickel\"\ncells = 2\n", "nickel"},
		"no cells":    {"[power]\nchemistry = \"li-ion\"\n", "cells"},
		"unknown key": {"[[metric]]\nname = \"a.b.c\"\nabove = 1\nwithin = 2\n", "within"},
		"bad rule":    {"[[metric]]\nname = \"a.b.c\"\ndead_band = -1\n", "metric[0]: dead_band"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := parseSettings("agent.toml", []byte(tc.text))
			if err == nil {
				err = s.or(defaults(model.RoleNode)).check()
			}
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil {
				return
			}
			if p, r := s.power(), s.rules(); p.Cells != 2 || p.Low != 30 || p.Shutdown != -1 || len(r) != 2 || !r[0].Adaptive || *r[1].Below != 10 || r[1].For != 30*time.Second {
				t.Errorf("got %+v and %+v", p, r)
			}
		})
	}
	c := Config{Root: t.TempDir(), Role: model.RoleNode}
	if err := os.MkdirAll(c.path(paths.State), 0o755); err != nil {
		t.Fatal(err)
	}
	low := 40.0
	rules := &model.MetricRules{Rules: []model.MetricRule{{Metric: "i2c.*", DeadBand: 1}}}
	s, err := c.configure(model.AgentConfig{Power: &model.PowerSettings{LowPercent: &low}, Metrics: rules})
	if err != nil || s.power().Low != 40 || len(s.rules()) != 1 {
		t.Fatalf("got %+v, %v", s, err)
	}
	again, err := c.settings()
	if err != nil || again.power().Low != 40 || len(again.rules()) != 1 {
		t.Errorf("after a start: %+v, %v", again, err)
	}
	s, err = c.configure(model.AgentConfig{Power: &model.PowerSettings{}, Metrics: &model.MetricRules{}})
	if err != nil || s.Power != nil || len(s.Metrics) != 0 {
		t.Errorf("the defaults again: %+v, %v", s, err)
	}
}
