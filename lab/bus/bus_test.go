package bus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/physic"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/bus/nmea"
	"halo.internal/lab/chips"
)

func board(t testing.TB, devices string) *Board {
	t.Helper()
	l, err := Parse(devices)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(l, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// busOf is the bus as drivers on this host have it.
type busOf struct{ *I2C }

func (b busOf) String() string                  { return "I2C" }
func (b busOf) SetSpeed(physic.Frequency) error { return nil }
func (b busOf) Tx(addr uint16, w, r []byte) error {
	return b.I2C.Tx(context.Background(), addr, w, r)
}

func on(v bool) *bool { return &v }

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"bme280,ina219@0x41,ina219,lm75@1/0x4f,gpio,gps": "",
		"all":                 "",
		"none":                "",
		"bme281":              "expected gpio, gps or one of ads1115, bh1750",
		"lm75@0x78":           "an address from 0x08 to 0x77",
		"lm75@9/0x48":         "expected a bus below 4",
		"lm75@0x48x":          "expected a bus below 4",
		"ina219,ina226":       "the address is taken",
		"ina219@0x40,ina219@": "expected a bus",
	} {
		l, err := Parse(text)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", text, l, err, want)
		}
	}
}

// TestKindsAreWhatTemplatesKnow: every kind is recognized where it usually is, says
// the same name that its template has, and each quantity can be set.
func TestKindsAreWhatTemplatesKnow(t *testing.T) {
	names := map[string]string{"tmp102": "tmp105", "sht40": "sht4x"}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			b := board(t, k.name)
			var found i2c.Driver
			want := k.name
			if n, ok := names[k.name]; ok {
				want = n
			}
			for _, d := range i2c.Builtin() {
				if d.Spec().Name == want {
					found = d
				}
			}
			if found == nil {
				t.Fatalf("no template is called %s", want)
			}
			if k.name != "ssd1306" {
				chip, err := found.Open(busOf{b.I2C[0]}, k.addr, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := chip.Read(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
			for _, q := range k.quantities {
				for _, v := range []float64{q.low, q.usual, q.high} {
					if err := b.Apply(Change{Chip: &ChipChange{Chip: k.name, Values: map[string]float64{q.name: v}}}); err != nil {
						t.Error(err)
					}
				}
				if err := b.Apply(Change{Chip: &ChipChange{Chip: k.name, Values: map[string]float64{q.name: q.high + 1}}}); err == nil {
					t.Errorf("%s above its bound is taken", q.name)
				}
			}
			identity := Change{Chip: &ChipChange{Chip: k.name, Fault: &Fault{Identity: true}}}
			if err := b.Apply(identity); (err == nil) != (k.identity != nil) {
				t.Errorf("a wrong identity: %v", err)
			}
			if k.identity == nil {
				return
			}
			chip, err := found.Open(busOf{b.I2C[0]}, k.addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = chip.Read(t.Context(), nil)
			if _, ok := errors.AsType[*i2c.IdentityError](err); !ok {
				t.Errorf("expected an error of identity, got %v", err)
			}
		})
	}
}

func TestChanges(t *testing.T) {
	b := board(t, "bme280,ina219,ina219@0x41,lm75@1/0x48,gpio,gps")
	seven := 7
	for name, tc := range map[string]struct {
		c    Change
		want string
	}{
		"nothing":        {Change{}, "expected a change of a chip"},
		"no such chip":   {Change{Chip: &ChipChange{Chip: "lm76"}}, "expected one of bme280@0/0x76"},
		"which of two":   {Change{Chip: &ChipChange{Chip: "ina219"}}, "there are several ina219"},
		"by address":     {Change{Chip: &ChipChange{Chip: "ina219@0x41", Values: map[string]float64{"current": 2}}}, ""},
		"by bus":         {Change{Chip: &ChipChange{Chip: "lm75@1/0x48", Values: map[string]float64{"temperature": 2}}}, ""},
		"what it lacks":  {Change{Chip: &ChipChange{Chip: "bme280", Values: map[string]float64{"wind": 2}}}, "expected one of temperature, humidity, pressure"},
		"too slow":       {Change{Chip: &ChipChange{Chip: "bme280", Fault: &Fault{SlowMS: 1e9}}}, "expected at most 1m0s"},
		"no such bus":    {Change{Bus: &BusChange{Bus: 2}}, "expected an I2C bus from 0 to 1, got 2"},
		"no such line":   {Change{Line: &LineChange{Line: "HORN"}}, "expected one of BUTTON, DOOR, RELAY, LED"},
		"a line":         {Change{Line: &LineChange{Line: "BUTTON", High: true}}, ""},
		"beyond the sky": {Change{GPS: &nmea.Change{RateHz: &seven, Fix: new(nmea.Fix)}}, "expected none, 2d or 3d"},
	} {
		if err := b.Apply(tc.c); (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	s := b.Status()
	if len(s.Chips) != 4 || s.Chips[2].Values[1] != (Value{"current", "A", 2}) || s.Chips[1].Values[1].Number == 2 || !s.Lines[0].High || s.GPS.RateHz != 1 {
		t.Errorf("status %+v", s)
	}
	none := board(t, "none")
	for _, c := range []Change{{Line: &LineChange{}}, {GPS: &nmea.Change{}}, {Chip: &ChipChange{}}, {Bus: &BusChange{}}} {
		if err := none.Apply(c); err == nil {
			t.Errorf("an empty board takes %+v", c)
		}
	}
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := board(t, "bme280,lm75")
		x := b.I2C[0]
		ask := func(addr uint16, reg byte) (byte, time.Duration, error) {
			r := make([]byte, 1)
			at := time.Now()
			err := x.Tx(t.Context(), addr, []byte{reg}, r)
			return r[0], time.Since(at), err
		}
		change := func(c Change) {
			t.Helper()
			if err := b.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		chip := func(c ChipChange) { t.Helper(); c.Chip = "bme280"; change(Change{Chip: &c}) }
		want := func(id byte, took time.Duration, fails error) {
			t.Helper()
			got, d, err := ask(0x76, 0xd0)
			if !errors.Is(err, fails) || err == nil && got != id || d != took {
				t.Errorf("got %#x, %v in %s, want %#x, %v in %s", got, err, d, id, fails, took)
			}
		}
		want(0x60, 0, nil)
		chip(ChipChange{Fault: &Fault{NAK: true}})
		want(0, 0, chips.ErrNAK)
		chip(ChipChange{Fault: &Fault{Identity: true, SlowMS: 30}})
		want(0x9f, 30*time.Millisecond, nil)
		if v, _, err := ask(0x76, 0xf4); v != 0 || err != nil {
			t.Errorf("another register: %#x, %v", v, err)
		}
		chip(ChipChange{Fault: &Fault{}})
		if err := x.Tx(t.Context(), 0x76, []byte{0xf5, 0xa0}, nil); err != nil {
			t.Fatal(err)
		}
		chip(ChipChange{Plugged: on(false)})
		want(0, 0, chips.ErrNAK)
		chip(ChipChange{Plugged: on(true)})
		if v, _, err := ask(0x76, 0xf5); v != 0 || err != nil {
			t.Errorf("settings outlive the cable: %#x, %v", v, err)
		}
		two := 2
		change(Change{Bus: &BusChange{Lose: &two}})
		want(0, 0, chips.ErrNAK)
		want(0, 0, chips.ErrNAK)
		want(0x60, 0, nil)

		change(Change{Bus: &BusChange{Stuck: on(true)}})
		time.AfterFunc(time.Hour, func() { change(Change{Bus: &BusChange{Stuck: on(false)}}) })
		want(0, time.Hour, ErrStuck)
		want(0x60, 0, nil)
		change(Change{Bus: &BusChange{Stuck: on(true)}})
		ctx, end := context.WithTimeout(t.Context(), time.Second)
		defer end()
		if err := x.Tx(ctx, 0x48, []byte{0}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a machine that ends while the bus is stuck: %v", err)
		}
		if s := b.Status().Buses[0]; !s.Stuck || s.Failed != 6 {
			t.Errorf("status %+v", s)
		}
	})
}

// A remote steers, and hears what was wrong.
func TestSteering(t *testing.T) {
	b := board(t, "lm75")
	near, far := net.Pipe()
	if err := b.Steering().Plug(far); err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	r := NewRemote(near)
	s, err := r.Apply(Change{Chip: &ChipChange{Chip: "lm75", Values: map[string]float64{"temperature": -3.5}}})
	if err != nil || s.Chips[0].Values[0].Number != -3.5 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := r.Apply(Change{Chip: &ChipChange{Chip: "lm74"}}); err == nil || !strings.Contains(err.Error(), "no such chip") {
		t.Errorf("got %v", err)
	}
	if s, err := r.Apply(Change{}); err != nil || len(s.Chips) != 1 {
		t.Errorf("a question: %+v, %v", s, err)
	}
}
