package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/hal/gpio"
	"halo.internal/model"
)

// fan notes what it was set to.
type fan struct {
	set   []float64
	err   error
	hangs chan struct{} // Set waits until it is closed; nil: it does not
}

func (f *fan) Set(part float64) error {
	if f.hangs != nil {
		<-f.hangs
	}
	f.set = append(f.set, part)
	return f.err
}

// bench is a board whose outputs a test plays.
type bench struct {
	*Outputs
	board   model.Board
	lines   map[string]*gpio.Record
	absent  map[string]error // lines that do not open
	opened  int              // attempts
	fan     fan
	lamp    fan // pulses low
	reached bool
	events  []string
	log     bytes.Buffer
}

var hardware = model.Board{Name: "mast",
	Header: &model.BoardHeader{Columns: 1, Pins: []model.BoardPin{
		{Pin: 1, Name: "3V3", Kind: model.PinPower}, {Pin: 2, Name: "P2", Kind: model.PinGPIO, Line: "soc/2", Use: "I2C1 SDA"}, {Pin: 3, Name: "P3", Kind: model.PinGPIO, Line: "soc/3", Functions: []string{"SPI0 MOSI"}}, {Pin: 4, Name: "P4", Kind: model.PinGPIO, Line: "soc/4", Use: "output siren"}}},
	Outputs: []model.BoardOutput{
		{Name: "siren", Line: "P4", ActiveLow: true, LostS: 60}, {Name: "fan", PWM: &model.OutputPWM{Device: "x", Hz: 50}, Safe: model.SafeOn}, {Name: "valve", Line: "soc/9", Safe: model.SafeKeep},
		{Name: "lamp", PWM: &model.OutputPWM{Device: "low", Hz: 50}, ActiveLow: true, Safe: model.SafeKeep},
	}}

func newBench(state string) *bench {
	b := &bench{board: hardware, lines: map[string]*gpio.Record{}, absent: map[string]error{}, reached: true}
	b.Outputs = New(Config{
		Board: func() model.Board { return b.board }, Reached: func() bool { return b.reached }, State: state, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Event: func(kind string, _ model.Severity, _ string, f map[string]string) error {
			b.events = append(b.events, kind+" "+f["output"]+" "+f["state"])
			return nil
		},
		Line: func(name string) (gpio.Line, error) {
			b.opened++
			if err := b.absent[name]; err != nil {
				return nil, err
			}
			if b.lines[name] == nil {
				b.lines[name] = &gpio.Record{}
			}
			return b.lines[name], nil
		},
		PWM: func(p model.OutputPWM) (Driver, error) {
			if p.Device == "low" {
				return &b.lamp, nil
			}
			return &b.fan, nil
		},
	})
	return b
}

// run has the outputs run until the test is over, or end is called.
func (b *bench) run(t *testing.T) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	synctest.Wait()
	return end
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) did(name string) string {
	if l := b.lines[name]; l != nil {
		return strings.Join(l.Done, " ")
	}
	return ""
}

// names are the outputs that the next process is told of.
func names(t *testing.T, state string) string {
	t.Helper()
	b := newBench(state)
	b.begin()
	var list []string
	for _, u := range b.units {
		list = append(list, fmt.Sprintf("%s=%v", u.out.Name, u.part))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func refusal(t *testing.T, err error, code, text string) {
	t.Helper()
	r, ok := errors.AsType[*model.CommandRefusal](err)
	if !ok || r.Code != code || !strings.Contains(r.Text, text) {
		t.Errorf("got %v, want %s: %s", err, code, text)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOutputsAreSafeAtTheStartAndWhenNobodyControlsThem(t *testing.T) {
	state := filepath.Join(t.TempDir(), "run/outputs")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(state)
		end := b.run(t)
		if got := b.did("soc/4"); got != "high" { // off, as on is low
			t.Errorf("siren at the start: %s", got)
		}
		if len(b.fan.set) != 1 || b.fan.set[0] != 1 {
			t.Errorf("fan at the start: %v", b.fan.set)
		}
		must(t, b.Set("siren", 1))
		must(t, b.Set("lamp", 0.25))
		must(t, b.Set("lamp", 0))
		if got := b.lamp.set; !slices.Equal(got, []float64{0.75, 1}) {
			t.Errorf("a lamp that pulses low: %v", got)
		}
		must(t, b.Set("fan", 0.25))
		must(t, b.Set("valve", 1))
		if got := names(t, state); got != "fan=0.25 lamp=0 siren=1 valve=1" {
			t.Errorf("kept: %s", got)
		}
		pass(time.Hour)
		if got := b.did("soc/4"); got != "high low" {
			t.Errorf("siren within reach: %s", got)
		}
		b.reached = false
		pass(lookEvery)
		pass(59 * time.Second)
		if got := b.did("soc/4"); got != "high low" {
			t.Errorf("siren before its time: %s", got)
		}
		pass(time.Second)
		if got := b.did("soc/4"); got != "high low high" {
			t.Errorf("siren after its time: %s", got)
		}
		pass(Lost)
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
		pass(lookEvery)
		must(t, b.Set("siren", 1))
		end()
		if got := b.did("soc/4"); got != "high low high low high" {
			t.Errorf("siren at the end: %s", got)
		}
		refusal(t, b.Set("siren", 1), model.CodeBusy, "halo-agent ends")
		if got := b.did("soc/4"); got != "high low high low high" {
			t.Errorf("siren behind the end: %s", got)
		}
		if got := names(t, state); got != "lamp=0 valve=1" {
			t.Errorf("the next process is told of %s, want those that keep their state", got)
		}
	})
}

// A process that dies leaves outputs as they were, and its lines as the kernel likes. The
// next one makes them safe, by what they were, and has those that keep their state have it.
func TestOutputsAreSafeAfterACrash(t *testing.T) {
	state := filepath.Join(t.TempDir(), "outputs")
	for name, tc := range map[string]struct{ kept, siren, valve, horn, next string }{
		"driven":         {`[{"output": {"name": "siren", "line": "soc/4", "active_low": true, "lost_s": 60}, "part": 1}, {"output": {"name": "valve", "line": "soc/9", "safe": "keep"}, "part": 1}]`, "high", "high", "", "valve=1"},
		"kept off":       {`[{"output": {"name": "valve", "line": "soc/9", "safe": "keep"}, "part": 0}]`, "high", "low", "", "valve=0"},
		"no more of it":  {`[{"output": {"name": "horn", "line": "soc/8"}, "part": 1}]`, "high", "", "low release", ""},
		"another name":   {`[{"output": {"name": "horn", "line": "soc/4"}, "part": 1}]`, "high", "", "", ""},
		"of a damaged":   {`{`, "high", "", "", ""},
		"never one":      {``, "high", "", "", ""},
		"of an old form": {`["siren"]`, "high", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.WriteFile(state, []byte(tc.kept), 0o600))
			synctest.Test(t, func(t *testing.T) {
				b := newBench(state)
				b.run(t)
				pass(lookEvery)
				if b.did("soc/4") != tc.siren || b.did("soc/9") != tc.valve || b.did("soc/8") != tc.horn {
					t.Errorf("siren %q, valve %q, horn %q", b.did("soc/4"), b.did("soc/9"), b.did("soc/8"))
				}
				if got := names(t, state); got != tc.next {
					t.Errorf("the next process is told of %q, want %q", got, tc.next)
				}
			})
		})
	}
}

// An output whose chip is not there yet is made safe when it is, and until then not
// forgotten, whoever dies meanwhile.
func TestAnOutputThatIsNotThereYet(t *testing.T) {
	state := filepath.Join(t.TempDir(), "outputs")
	siren := `[{"output": {"name": "siren", "line": "soc/4", "active_low": true, "lost_s": 60}, "part": 1}]`
	must(t, os.WriteFile(state, []byte(siren), 0o600))
	synctest.Test(t, func(t *testing.T) {
		b := newBench(state)
		b.absent["soc/4"] = errors.New("there is none of that name")
		b.lines["soc/4"] = &gpio.Record{}
		b.run(t)
		pass(10 * time.Minute)
		if got := names(t, state); got != "siren=1" {
			t.Errorf("the next process is told of %q", got)
		}
		if b.opened < 10 || b.opened > 20 {
			t.Errorf("%d attempts in ten minutes", b.opened)
		}
		if n := strings.Count(b.log.String(), "not in its safe state"); n != 1 {
			t.Errorf("%d warnings, want one: %s", n, b.log.String())
		}
		refusal(t, b.Set("siren", 1), model.CodeNoOutput, "none of that name")
		delete(b.absent, "soc/4")
		b.lines["soc/4"].Err = &gpio.TakenError{Line: "soc/4", By: "w1"} // for a while by somebody else
		pass(2 * seldom)
		refusal(t, b.Set("siren", 0), model.CodeNoOutput, "taken by w1")
		if got := names(t, state); got != "siren=1" {
			t.Errorf("the next process is told of %q", got)
		}
		b.lines["soc/4"].Err = nil
		pass(seldom)
		if got := b.did("soc/4"); got != "high" {
			t.Errorf("siren: %q", got)
		}
		if got := names(t, state); got != "" {
			t.Errorf("what was made safe is still on the list: %s", got)
		}
	})
}

// A driver that hangs holds up its own output alone, and what it does late is put right.
func TestADriverThatHangs(t *testing.T) {
	state := filepath.Join(t.TempDir(), "outputs")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(state)
		end := b.run(t)
		hang := make(chan struct{})
		b.fan.hangs = hang
		if err := b.Set("fan", 0); err == nil || !strings.Contains(err.Error(), "not answered within 5s") {
			t.Errorf("got %v", err)
		}
		refusal(t, b.Set("fan", 0.5), model.CodeBusy, "asked for before")
		begin := time.Now()
		must(t, b.Set("siren", 1))
		b.reached = false
		pass(2 * Lost)
		if got := b.did("soc/4"); got != "high low high" || time.Since(begin) != 2*Lost {
			t.Errorf("siren: %s, after %v", got, time.Since(begin))
		}
		close(hang)
		pass(2 * lookEvery)
		if got := b.fan.set; !slices.Equal(got, []float64{1, 0, 1}) {
			t.Errorf("fan: %v", got)
		}
		b.fan.hangs = make(chan struct{})
		b.reached = true
		pass(lookEvery)
		if err := b.Set("fan", 0); err == nil {
			t.Error("a driver that hangs did it")
		}
		begin = time.Now()
		end()
		if d := time.Since(begin); d != endWait {
			t.Errorf("the end took %v", d)
		}
		if got := names(t, state); got != "fan=0" {
			t.Errorf("the next process is told of %q", got)
		}
		close(b.fan.hangs)
	})
}

// What fails half-way is not safe.
func TestADriverThatFailsHalfWay(t *testing.T) {
	state := filepath.Join(t.TempDir(), "outputs")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(state)
		b.run(t)
		b.fan.err = errors.New("set enable to 1: input/output error")
		if err := b.Set("fan", 0); !errors.Is(err, b.fan.err) {
			t.Errorf("got %v", err)
		}
		if got := names(t, state); got != "fan=0" {
			t.Errorf("the next process is told of %q", got)
		}
		b.reached = false
		pass(Lost + time.Minute)
		if n := strings.Count(b.log.String(), "not in its safe state"); n != 1 || len(b.events) != 0 {
			t.Errorf("%d warnings, want one: %s; events %v", n, b.log.String(), b.events)
		}
		b.fan.err = nil
		pass(seldom)
		if got := b.fan.set; got[len(got)-1] != 1 || len(b.events) != 1 {
			t.Errorf("fan: %v, events %v", got, b.events)
		}
	})
}

// People change board files while the device runs.
func TestAnotherBoardFile(t *testing.T) {
	state := filepath.Join(t.TempDir(), "outputs")
	for name, tc := range map[string]struct {
		siren          []model.BoardOutput
		old, line4, l6 string
	}{
		"moved":             {[]model.BoardOutput{{Name: "siren", Line: "soc/6", ActiveLow: true}}, "high low", "high low high release", "high"},
		"gone":              {nil, "high low", "high low high release", ""},
		"high is on":        {[]model.BoardOutput{{Name: "siren", Line: "P4"}}, "high low", "high low low", ""},
		"another name":      {[]model.BoardOutput{{Name: "horn", Line: "soc/4", ActiveLow: true}}, "high low", "high low high", ""},
		"more patience":     {[]model.BoardOutput{{Name: "siren", Line: "P4", ActiveLow: true, LostS: 600}}, "high low", "high low", ""},
		"another title":     {[]model.BoardOutput{{Name: "siren", Title: "Sirene", Line: "P4", ActiveLow: true}}, "high low", "high low", ""},
		"safe when it's on": {[]model.BoardOutput{{Name: "siren", Line: "P4", ActiveLow: true, Safe: model.SafeOn}}, "high", "high low", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(state)
				b.run(t)
				if strings.Contains(tc.old, "low") {
					must(t, b.Set("siren", 1))
				}
				if got := b.did("soc/4"); got != tc.old {
					t.Fatalf("line 4: %s, want %s", got, tc.old)
				}
				next := hardware
				next.Outputs = append(slices.Clone(hardware.Outputs[1:]), tc.siren...)
				b.board = next
				pass(2 * lookEvery)
				if b.did("soc/4") != tc.line4 || b.did("soc/6") != tc.l6 {
					t.Errorf("line 4: %q, line 6: %q", b.did("soc/4"), b.did("soc/6"))
				}
				if len(tc.siren) == 0 {
					refusal(t, b.Set("siren", 1), model.CodeNoOutput, "expected one of")
					return
				}
				v := tc.siren[0]
				must(t, b.Set(v.Name, 1))
				if got, want := b.did(next.Line(v.Line)), map[bool]string{true: "low", false: "high"}[v.ActiveLow]; !strings.HasSuffix(got, " "+want) {
					t.Errorf("switched on: %s, want %s", got, want)
				}
				must(t, b.Set(v.Name, 0))
			})
		})
	}
}

func TestWhatIsNoOutput(t *testing.T) {
	b := newBench(filepath.Join(t.TempDir(), "outputs"))
	refusal(t, b.Set("bell", 1), model.CodeNoOutput, `expected one of ["siren" "fan" "valve" "lamp"]`)
	for _, pin := range []string{"P2", "P3", "P4", "3V3"} { // of a bus, of one that no file speaks of, of an output by its line
		refusal(t, b.Set(pin, 1), model.CodeNoOutput, "named by [[output]]")
	}
	refusal(t, b.Set("siren", 0.5), model.CodeInvalid, "expected it on or off")
	b.board.Outputs = []model.BoardOutput{{Name: "taken", Line: "soc/5"}}
	b.lines["soc/5"] = &gpio.Record{Err: &gpio.TakenError{Line: "soc/5", By: "w1"}}
	refusal(t, b.Set("taken", 1), model.CodeNoOutput, "taken by w1")
	if err := b.Able(); err != nil {
		t.Error(err)
	}
	b.board = model.Board{Name: "qemu-virt"}
	refusal(t, b.Able(), model.CodeNoOutput, "has no outputs")
}
