package output

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/hal/gpio"
	"halo.internal/model"
)

// fan notes what it was set to.
type fan struct{ set []float64 }

func (f *fan) Set(part float64) error { f.set = append(f.set, part); return nil }

// bench is a board whose outputs a test plays.
type bench struct {
	*Outputs
	lines   map[string]*gpio.Record
	fan     fan
	lamp    fan // pulses low
	reached bool
	now     time.Time
	events  []string
}

var hardware = model.Board{Name: "mast",
	Header: &model.BoardHeader{Columns: 1, Pins: []model.BoardPin{
		{Pin: 1, Name: "3V3", Kind: model.PinPower}, {Pin: 2, Name: "P2", Kind: model.PinGPIO, Line: "soc/2", Use: "I2C1 SDA"}, {Pin: 3, Name: "P3", Kind: model.PinGPIO, Line: "soc/3"}, {Pin: 4, Name: "P4", Kind: model.PinGPIO, Line: "soc/4", Use: "output siren"}}},
	Outputs: []model.BoardOutput{
		{Name: "siren", Line: "P4", ActiveLow: true, LostS: 60}, {Name: "fan", PWM: &model.OutputPWM{Device: "x", Hz: 50}, Safe: model.SafeOn}, {Name: "valve", Line: "soc/9", Safe: model.SafeKeep},
		{Name: "lamp", PWM: &model.OutputPWM{Device: "low", Hz: 50}, ActiveLow: true, Safe: model.SafeKeep},
	}}

func newBench(t *testing.T, state string) *bench {
	t.Helper()
	b := &bench{lines: map[string]*gpio.Record{}, reached: true, now: time.Unix(1_800_000_000, 0)}
	b.Outputs = New(Config{
		Board: func() model.Board { return hardware }, Reached: func() bool { return b.reached }, State: state, Log: slog.New(slog.DiscardHandler),
		Event: func(kind string, _ model.Severity, _ string, f map[string]string) error {
			b.events = append(b.events, kind+" "+f["output"]+" "+f["state"])
			return nil
		},
		Line: func(name string) (gpio.Line, error) {
			if b.lines[name] == nil {
				b.lines[name] = &gpio.Record{}
			}
			if name == "soc/3" {
				b.lines[name].Err = &gpio.TakenError{Line: name, By: "w1"}
			}
			return b.lines[name], nil
		},
		PWM: func(p model.OutputPWM) (Driver, error) {
			if p.Device == "low" {
				return &b.lamp, nil
			}
			return &b.fan, nil
		}, Now: func() time.Time { return b.now },
	})
	return b
}

func (b *bench) did(name string) string {
	if l := b.lines[name]; l != nil {
		return strings.Join(l.Done, " ")
	}
	return ""
}

func refusal(t *testing.T, err error, code, text string) {
	t.Helper()
	r, ok := errors.AsType[*model.CommandRefusal](err)
	if !ok || r.Code != code || !strings.Contains(r.Text, text) {
		t.Errorf("got %v, want %s: %s", err, code, text)
	}
}

func TestOutputsAreSafeAtTheStartAndWhenNobodyControlsThem(t *testing.T) {
	state := filepath.Join(t.TempDir(), "run/outputs")
	b := newBench(t, state)
	b.begin()
	if got := b.did("soc/4"); got != "high" { // off, as on is low
		t.Errorf("siren at the start: %s", got)
	}
	if len(b.fan.set) != 1 || b.fan.set[0] != 1 {
		t.Errorf("fan at the start: %v", b.fan.set)
	}
	if err := b.Set("siren", 1); err != nil {
		t.Fatal(err)
	}
	if err := b.Set("lamp", 0.25); err != nil {
		t.Fatal(err)
	}
	if err := b.Set("lamp", 0); err != nil {
		t.Fatal(err)
	}
	if got := b.lamp.set; !slices.Equal(got, []float64{0.75, 1}) {
		t.Errorf("a lamp that pulses low: %v", got)
	}
	if err := b.Set("fan", 0.25); err != nil {
		t.Fatal(err)
	}
	if err := b.Set("valve", 1); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(state); err != nil || string(text) != `["fan","lamp","siren","valve"]` {
		t.Errorf("kept: %s, %v", text, err)
	}
	b.look()
	b.reached = false
	b.look()
	b.now = b.now.Add(59 * time.Second)
	b.look()
	if got := b.did("soc/4"); got != "high low" {
		t.Errorf("siren before its time: %s", got)
	}
	b.now = b.now.Add(time.Second)
	b.look()
	if got := b.did("soc/4"); got != "high low high" {
		t.Errorf("siren after its time: %s", got)
	}
	b.now = b.now.Add(Lost)
	b.look()
	b.look()
	if got := b.did("soc/9"); got != "high" {
		t.Errorf("valve keeps: %s", got)
	}
	if len(b.fan.set) != 3 || b.fan.set[2] != 1 {
		t.Errorf("fan: %v", b.fan.set)
	}
	if got := strings.Join(b.events, ", "); got != "output.safe siren off, output.safe fan on" {
		t.Errorf("events: %s", got)
	}
	b.reached = true
	b.look()
	if err := b.Set("siren", 1); err != nil {
		t.Error(err)
	}
	b.end()
	if got := b.did("soc/4"); got != "high low high low high" {
		t.Errorf("siren at the end: %s", got)
	}
}

// A process that dies leaves outputs as they were; the next one makes them safe.
func TestOutputsAreSafeAfterACrash(t *testing.T) {
	state := filepath.Join(t.TempDir(), "outputs")
	if err := os.WriteFile(state, []byte(`["P9","siren"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, state)
	b.begin()
	if got := b.did("soc/4"); got != "high" {
		t.Errorf("siren: %s", got)
	}
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was made safe is still on the list: %v", err)
	}
	if err := os.WriteFile(state, []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	newBench(t, state).begin() // nothing to go by
}

func TestWhatIsNoOutput(t *testing.T) {
	b := newBench(t, filepath.Join(t.TempDir(), "outputs"))
	refusal(t, b.Set("bell", 1), model.CodeNoOutput, `expected one of ["siren" "fan" "valve" "lamp"] or a free pin`)
	refusal(t, b.Set("P2", 1), model.CodeNoOutput, "pin 2, P2, is used for I2C1 SDA")
	refusal(t, b.Set("3V3", 1), model.CodeNoOutput, "pin 1, 3V3, is no output")
	refusal(t, b.Set("P3", 1), model.CodeNoOutput, "taken by w1")
	refusal(t, b.Set("siren", 0.5), model.CodeInvalid, "expected it on or off")
	if err := b.Able(); err != nil {
		t.Error(err)
	}
	b.Board = func() model.Board { return model.Board{Name: "qemu-virt"} }
	refusal(t, b.Able(), model.CodeNoOutput, "neither outputs nor free pins")
}
