package act

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"halo.internal/agent/command"
	"halo.internal/model"
)

// shelf notes what it is asked for.
type shelf struct {
	did  []string
	text string
	err  error

	displays []string
}

func (s *shelf) note(what string) error {
	s.did = append(s.did, what)
	return s.err
}

func (s *shelf) Scan(context.Context) (model.Inventory, error) {
	return model.Inventory{Sensors: make([]model.SensorChip, 2)}, s.note("scan")
}

func (s *shelf) Assign(_ context.Context, c model.SensorCommand) (model.SensorChip, error) {
	return model.SensorChip{Chip: c.Chip}, s.note("assign " + model.SensorKey(c.Bus, c.Address) + " " + c.Chip)
}

func (s *shelf) Forget(_ context.Context, bus string, addr uint16) error {
	return s.note("forget " + model.SensorKey(bus, addr))
}

func (s *shelf) Try(_ context.Context, c model.SensorCommand, text []byte) (model.SensorTrial, error) {
	s.text = string(text)
	return model.SensorTrial{TookMS: 1}, s.note("try " + c.Chip)
}

func (s *shelf) PutTemplate(name string, text []byte) error {
	s.text = string(text)
	return s.note("put " + name)
}

func (s *shelf) DeleteTemplate(name string) error { return s.note("delete " + name) }

func (s *shelf) Displays() []string { return s.displays }

func (s *shelf) Show(_ context.Context, label string, lines []string, d time.Duration) (string, error) {
	return "panel", s.note(fmt.Sprintf("show %q %q %s", label, lines, d))
}

func TestDisplayCommands(t *testing.T) {
	b, s := newBoard(), &shelf{}
	able := func() error { return Actions(b.Device)[model.CommandDisplay].Able() }
	code(t, able(), model.CodeUnsupported)
	b.Sensors = s
	code(t, able(), model.CodeNoDisplay)
	s.displays = []string{"panel"}
	if err := able(); err != nil {
		t.Error(err)
	}
	show := func(c model.DisplayCommand) (command.Result, error) {
		t.Helper()
		cmd := model.Command{Kind: model.CommandDisplay, Display: &c}
		if err := cmd.Check(); err != nil {
			t.Fatal(err)
		}
		return do(t.Context(), b, cmd)
	}
	if r, err := show(model.DisplayCommand{Lines: []string{"a", "b"}}); err != nil || r.Value.(map[string]any)["display"] != "panel" {
		t.Errorf("got %+v, %v", r, err)
	}
	s.err = errors.New("not acknowledged")
	if _, err := show(model.DisplayCommand{Display: "panel", Seconds: 5}); !errors.Is(err, s.err) {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(s.did, "; "); got != `show "" ["a" "b"] 5m0s; show "panel" [] 5s` {
		t.Errorf("it was asked for %s", got)
	}
}

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSensorCommands(t *testing.T) {
	b, s := newBoard(), &shelf{}
	code(t, Actions(b.Device)[model.CommandSensor].Able(), model.CodeUnsupported)
	b.Sensors = s
	if err := Actions(b.Device)[model.CommandSensor].Able(); err != nil {
		t.Error(err)
	}
	run := func(c model.SensorCommand) error {
		t.Helper()
		cmd := model.Command{Kind: model.CommandSensor, Sensor: &c}
		if err := cmd.Check(); err != nil {
			t.Fatal(err)
		}
		_, err := do(t.Context(), b, cmd)
		return err
	}
	text := packed(t, "name = \"odd\"")
	for _, c := range []model.SensorCommand{
		{Do: model.SensorScan}, {Do: model.SensorAssign, Bus: "a/1", Address: 0x76, Chip: "bme280"}, {Do: model.SensorForget, Bus: "a", Address: 0x40},
		{Do: model.SensorTry, Bus: "a", Address: 0x40, Chip: "odd", Text: text}, {Do: model.SensorPutTemplate, Name: "odd", Text: text}, {Do: model.SensorDeleteTemplate, Name: "odd"},
	} {
		if err := run(c); err != nil {
			t.Errorf("%s: %v", c.Do, err)
		}
	}
	if got, want := strings.Join(s.did, ", "), "scan, assign a~1-76 bme280, forget a-40, try odd, put odd, delete odd"; got != want || s.text != "name = \"odd\"" {
		t.Errorf("got %s with %q, want %s", got, s.text, want)
	}
	s.err = model.RefuseCommand(model.CodeInvalid, "no such bus")
	code(t, run(model.SensorCommand{Do: model.SensorScan}), model.CodeInvalid)
	s.err = errors.New("a bus")
	if err := run(model.SensorCommand{Do: model.SensorScan}); !errors.Is(err, s.err) {
		t.Errorf("got %v", err)
	}
	s.err = nil
	code(t, run(model.SensorCommand{Do: model.SensorPutTemplate, Name: "odd", Text: []byte("no deflate")}), model.CodeInvalid)
	code(t, run(model.SensorCommand{Do: model.SensorPutTemplate, Name: "odd", Text: packed(t, strings.Repeat("#", model.MaxTemplateText+1))}), model.CodeInvalid) // it unfolds
	for want, c := range map[string]model.SensorCommand{
		"what is to be done": {}, "path of a bus": {Do: model.SensorAssign, Bus: "..\x00", Address: 0x40, Chip: "a"}, "address": {Do: model.SensorForget, Bus: "a", Address: 0x80},
		"a chip": {Do: model.SensorAssign, Bus: "a", Address: 0x40}, "label": {Do: model.SensorAssign, Bus: "a", Address: 0x40, Chip: "a", Label: "A"},
		"name of a template": {Do: model.SensorPutTemplate, Name: "../x", Text: text}, "a template of at most": {Do: model.SensorPutTemplate, Name: "x"},
		"interval": {Do: model.SensorAssign, Bus: "a", Address: 0x40, Chip: "a", IntervalS: -1},
	} {
		cmd := model.Command{Kind: model.CommandSensor, Sensor: &c}
		if want == "what is to be done" {
			cmd.Sensor = nil
		}
		if err := cmd.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want …%s…", c, err, want)
		}
	}
}
