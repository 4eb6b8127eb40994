package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/agent/output"
	"halo.internal/agent/sensors"
	"halo.internal/drivers/i2c"
	"halo.internal/model"
)

// relayBoard is a chip with a relay and a level from 10 to 20, which a test unplugs.
type relayBoard struct {
	sent []string
	fail error
	gone bool
}

func (r *relayBoard) Outputs() map[string][]i2c.Output {
	if r.gone {
		return nil
	}
	return map[string][]i2c.Output{"relays": {{Name: "out1", Max: 1, Whole: true}, {Name: "level", Min: 10, Max: 20, Safe: 15}}}
}

func (r *relayBoard) Send(_ context.Context, label, name string, v float64) error {
	switch {
	case r.gone:
		return sensors.ErrNoOutput
	case r.fail != nil:
		return r.fail
	}
	r.sent = append(r.sent, label+"."+name+" "+strings.TrimSuffix(time.Duration(v*float64(time.Second)).String(), "s"))
	return nil
}

// noBoard has the output siren alone.
type noBoard struct{ set []string }

func (*noBoard) Able() error { return model.RefuseCommand(model.CodeNoOutput, "nothing to drive") }

func (b *noBoard) Set(name string, _ float64) error {
	if name != "siren" {
		return model.RefuseCommand(model.CodeNoOutput, "no %s", name)
	}
	b.set = append(b.set, name)
	return nil
}

func TestOutputsOfChips(t *testing.T) {
	refused := func(err error, code string) {
		t.Helper()
		if no, ok := errors.AsType[*model.CommandRefusal](err); !ok || no.Code != code {
			t.Errorf("got %v, want it refused as %s", err, code)
		}
	}
	relays, board := &relayBoard{}, &noBoard{}
	reached := true
	var events []string
	c := &chipOutputs{bus: relays, reached: func() bool { return reached }, log: slog.New(slog.DiscardHandler), driven: map[string]time.Time{},
		note: func(kind string, _ model.Severity, _ string, f map[string]string) {
			events = append(events, kind+" "+f["output"]+" "+f["state"])
		}}
	o := outputs{board, c}
	if err := o.Able(); err != nil {
		t.Error(err)
	}
	for _, one := range []struct {
		name string
		part float64
	}{{"siren", 1}, {"relays.out1", 1}, {"relays.level", 0.4}} {
		if err := o.Set(one.name, one.part); err != nil {
			t.Errorf("%s: %v", one.name, err)
		}
	}
	if got := strings.Join(relays.sent, ", "); got != "relays.out1 1, relays.level 14" || len(board.set) != 1 {
		t.Errorf("got %s and %v", got, board.set)
	}
	refused(o.Set("relays.out1", 0.4), model.CodeInvalid)
	refused(o.Set("relays.out9", 1), model.CodeNoOutput)
	refused(o.Set("pump", 1), model.CodeNoOutput)

	// The gateway is lost for long, while the chip can't be driven at first.
	now := time.Now()
	relays.sent, reached, relays.fail = nil, false, errors.New("the bus is stuck")
	for range 80 {
		if c.look(t.Context(), now); now.Sub(c.lost) >= output.Lost+5*time.Second {
			relays.fail = nil
		}
		now = now.Add(output.Lost / 60)
	}
	slices.Sort(relays.sent)
	if got := strings.Join(relays.sent, ", "); got != "relays.level 15, relays.out1 0" {
		t.Errorf("made safe: %s", got)
	}
	slices.Sort(events)
	if got := strings.Join(events, ", "); got != "output.safe relays.level 50 %, output.safe relays.out1 off" {
		t.Errorf("events: %s", got)
	}

	// What is away meanwhile is made safe when it comes back.
	reached = true
	c.look(t.Context(), now)
	if err := o.Set("relays.out1", 1); err != nil {
		t.Error(err)
	}
	relays.gone, reached = true, false
	c.look(t.Context(), now)
	c.look(t.Context(), now.Add(2*output.Lost))
	refused(o.Set("relays.out1", 1), model.CodeNoOutput)
	if o.Able() == nil {
		t.Error("there is nothing to drive")
	}
	relays.gone, relays.sent = false, nil
	c.look(t.Context(), now.Add(2*output.Lost+time.Second))
	if got := strings.Join(relays.sent, ", "); got != "relays.out1 0" || len(c.driven) != 0 {
		t.Errorf("made safe: %s; still driven: %v", got, c.driven)
	}
}

// TestWhichOutputsOfChipsAreDriven is told to the next process, where this one does not end
// in order, and to people when they are safe.
func TestWhichOutputsOfChipsAreDriven(t *testing.T) {
	state := filepath.Join(t.TempDir(), "run", "chip-outputs")
	var events []string
	process := func() (*chipOutputs, outputs) {
		c := &chipOutputs{bus: &relayBoard{}, reached: func() bool { return true }, log: slog.New(slog.DiscardHandler), state: state, driven: map[string]time.Time{},
			note: func(kind string, _ model.Severity, message string, f map[string]string) {
				events = append(events, kind+" "+f["output"]+" "+message)
			}}
		c.begin()
		return c, outputs{&noBoard{}, c}
	}
	set := func(o outputs, name string, part float64) {
		t.Helper()
		if err := o.Set(name, part); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		t.Helper()
		c, _ := process()
		return strings.Join(slices.Sorted(maps.Keys(c.driven)), " ")
	}
	c, o := process()
	set(o, "relays.out1", 1)
	set(o, "relays.level", 0.4)
	if got := left(); got != "relays.level relays.out1" {
		t.Errorf("after a crash the next process knows of %q", got)
	}
	set(o, "relays.level", 0.5) // which is its safe state
	if got := left(); got != "relays.out1" {
		t.Errorf("got %q", got)
	}
	c.safe("pumps", "its chip was set up anew")
	c.safe("relays", "")
	if got := left(); got != "" || len(events) != 0 {
		t.Errorf("after an end in order: %q, told %q", got, events)
	}
	set(o, "relays.out1", 1)
	c, _ = process()
	c.safe("relays", "its chip was set up anew")
	if got := strings.Join(events, ", "); got != "output.safe relays.out1 an output went to its safe state: its chip was set up anew" {
		t.Errorf("told: %s", got)
	}
	for _, text := range []string{"{", `[7]`, `"relays.out1"`, "[" + strings.Repeat(`"relays.out1",`, 1<<20) + `""]`, `["` + strings.Repeat("x", 1<<20) + `"]`} {
		if err := os.WriteFile(state, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := left(); got != "" {
			t.Errorf("of a damaged file: %.80q", got)
		}
	}
}
