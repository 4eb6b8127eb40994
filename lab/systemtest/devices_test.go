//go:build lab

package systemtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/ctl/client"
	"halo.internal/lab/bus"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// wired is what each machine of TestNetwork has on its board.
const wired = "bme280,ssd1306,ina219@0x42,gpio"

// measured is what node1's chip measures from the start.
const measured = 31.5

// warm sets that, before the machines start: their chips are read each minute.
func warm(t testing.TB, m *network.Machine) {
	t.Helper()
	change(t, m, bus.Change{Chip: &bus.ChipChange{Chip: "bme280", Values: map[string]float64{"temperature": measured}}})
}

func change(t testing.TB, m *network.Machine, c bus.Change) {
	t.Helper()
	if err := m.Board.Apply(c); err != nil {
		t.Fatal(err)
	}
}

// devices has chips, lines and a display of a node be reached from the gateway, through the
// node's own kernel.
func devices(t *testing.T, l *lab) {
	m := l.nodes[0]
	aChip(t, l, m)
	aLine(t, l, m)
	t.Run("a relay", func(t *testing.T) {
		for _, on := range []bool{true, false} {
			l.command(t, m, model.Command{Kind: model.CommandSetOutput, Output: &model.OutputCommand{Output: "relay", On: on}})
			for _, line := range m.Board.Status().Lines {
				if line.Line == "RELAY" && (line.High != on || line.Direction != "out") {
					t.Errorf("switched %v: %+v", on, line)
				}
			}
		}
	})
	aDisplay(t, l, m)
}

func aChip(t *testing.T, l *lab, m *network.Machine) {
	l.eventually(t, "the chip is in the gateway's list", func() error {
		list, err := l.api.Sensors(t.Context(), m.Name(), string(model.SensorOK))
		if err != nil {
			return err
		}
		return expect(len(list) == 1 && list[0].Chip == "bme280" && list[0].Address == 0x76, "bme280 at 0x76, got %+v", list)
	})
	r := l.reading(t, m.Name(), "i2c.bme280.temperature_c")
	if r.Value < measured-0.05 || r.Value > measured+0.05 || r.Unit != "°C" {
		t.Errorf("it is %v °C, and the gateway has %v %s", measured, r.Value, r.Unit)
	}
}

// aLine opens a door, and has the gateway hear of it.
func aLine(t *testing.T, l *lab, m *network.Machine) {
	l.reading(t, m.Name(), "gpio.door.on") // the node reads it
	for _, high := range []bool{true, false} {
		last, began := l.lastEvent(t), time.Now()
		change(t, m, bus.Change{Line: &bus.LineChange{Line: "DOOR", High: high}})
		want := map[bool]string{true: "on", false: "off"}[high]
		for {
			list, err := l.api.EventsSince(t.Context(), client.EventFilter{Node: m.Name(), Kind: "input.changed"}, last)
			if err != nil {
				t.Fatal(err)
			}
			if i := slices.IndexFunc(list, func(e apitype.Event) bool { return e.Fields["input"] == "door" && e.Fields["state"] == want }); i >= 0 {
				t.Logf("the door is %s: the gateway has that event and was asked for it within %d ms, by its own and the node's clock after %d ms",
					want, time.Since(began).Milliseconds(), list[i].Received.Sub(list[i].Time).Milliseconds())
				break
			}
			if time.Since(began) > limit {
				t.Fatalf("the door is %s, of which the gateway does not hear", want)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	l.eventually(t, "both changes are counted", func() error {
		r, err := l.latest(t.Context(), m.Name(), "gpio.door.changes")
		if err != nil {
			return err
		}
		return expect(r.Value == 2, "two, got %v", r.Value)
	})
}

// aDisplay is one that a person has to say is there, and which then shows what it is told.
func aDisplay(t *testing.T, l *lab, m *network.Machine) {
	shown := func() string {
		for _, c := range m.Board.Status().Chips {
			if c.Kind == "ssd1306" {
				return strings.Join(c.Picture, "\n")
			}
		}
		return ""
	}
	dark := shown()
	list, err := l.api.Sensors(t.Context(), m.Name(), string(model.SensorOffered))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(s apitype.Sensor) bool { return s.Address == 0x3c && slices.Contains(s.Candidates, "ssd1306") })
	if i < 0 {
		t.Fatalf("expected something at 0x3c that may be an ssd1306, got %+v", list)
	}
	j, err := l.api.AssignSensor(t.Context(), list[i].ID, apitype.AssignSensor{Chip: "ssd1306"})
	if err != nil {
		t.Fatal(err)
	}
	l.done(t, j)
	l.eventually(t, "it shows how the node is", func() error { return expect(shown() != dark, "a picture, got none") })
	l.command(t, m, model.Command{Kind: model.CommandDisplay, Display: &model.DisplayCommand{Lines: []string{"Maintenance", "until 18:00"}, Seconds: 60}})
	t.Logf("it is told\n%s", shown())
	lines := strings.Split(shown(), "\n")
	blank := strings.Repeat("\u2800", 64)
	// Eight dots a line of text: two of the picture's.
	if lines[0] == blank || lines[2] == blank || slices.ContainsFunc(lines[4:], func(s string) bool { return s != blank }) {
		t.Errorf("it does not show two lines of text:\n%s", strings.Join(lines, "\n"))
	}
	l.command(t, m, model.Command{Kind: model.CommandDisplay})
}

// command has a node do something, and waits until it is done.
func (l *lab) command(t testing.TB, m *network.Machine, c model.Command) {
	t.Helper()
	j, err := l.api.Command(t.Context(), m.Name(), apitype.CreateCommand{Command: c})
	if err != nil {
		t.Fatal(err)
	}
	l.done(t, j)
}

// done waits until a job is.
func (l *lab) done(t testing.TB, j apitype.Job) {
	t.Helper()
	l.eventually(t, fmt.Sprintf("job %d is done", j.ID), func() error {
		now, err := l.api.Job(t.Context(), j.ID)
		if err != nil {
			return err
		}
		return expect(now.State == "done", "it, got %+v", now)
	})
}
