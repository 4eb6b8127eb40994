package power

import (
	"math"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
)

var usual = Settings{Low: DefaultLow, Shutdown: DefaultShutdown, Hold: DefaultHold}

// follow steps through seconds and returns what was told, and when the device shuts down. The
// battery is measured once in a while, from the start on.
func follow(m *Machine, start time.Time, every time.Duration, seconds int, in func(s int) map[string]float64) (events string, down int) {
	var list []string
	down = -1
	for s := range seconds {
		after := time.Duration(s) * time.Second
		read := after.Truncate(every)
		_, told, shutdown := m.Step(start.Add(after), start.Add(read), in(int(read/time.Second)))
		for _, e := range told {
			list = append(list, strings.TrimPrefix(e.Kind, "power."))
		}
		if shutdown && down < 0 {
			down = s
		}
	}
	return strings.Join(list, " "), down
}

func TestPowerIsFollowed(t *testing.T) {
	start := time.Now()
	steady := func(percent, amps float64) func(int) map[string]float64 {
		return func(int) map[string]float64 {
			return map[string]float64{"battery_percent": percent, "battery_current_a": amps}
		}
	}
	for _, tc := range []struct {
		what   string
		set    func(*Settings)
		up     time.Duration
		in     func(int) map[string]float64
		events string
		down   int
	}{
		{"nothing measures", nil, time.Hour, func(int) map[string]float64 { return nil }, "", -1},
		{"full, from outside", nil, time.Hour, steady(100, 0), "", -1},
		{"full, on the battery", nil, time.Hour, steady(90, -0.8), "battery.on", -1},
		{"low and charged", nil, time.Hour, steady(10, 0.5), "battery.low", -1},
		{"empty and charged", nil, time.Hour, steady(2, 0.5), "battery.low", -1},
		{"empty", nil, time.Hour, steady(2, -0.8), "battery.on battery.low shutdown", 60},
		{"empty since the start", nil, 10 * time.Second, steady(2, -0.8), "battery.on battery.low shutdown", 590},
		{"empty, power comes", nil, 10 * time.Second, func(s int) map[string]float64 {
			if s > 300 {
				return steady(2, 0.8)(s)
			}
			return steady(2, -0.8)(s)
		}, "battery.on battery.low battery.off", -1},
		{"never", func(s *Settings) { s.Shutdown = -1 }, time.Hour, steady(2, -0.8), "battery.on battery.low", -1},
		{"nobody knows what feeds it", nil, time.Hour, func(int) map[string]float64 { return map[string]float64{"battery_percent": 3} }, "battery.low", -1},
		{"nobody knows, and it falls", nil, time.Hour, func(s int) map[string]float64 { return map[string]float64{"battery_percent": 5 - float64(s)/200} }, "battery.low shutdown", 500},
		{"nobody knows, and one reading is wrong", nil, time.Hour, func(s int) map[string]float64 {
			v := 4.0
			if s >= 300 && s < 420 {
				v = 1
			}
			return map[string]float64{"battery_percent": v}
		}, "battery.low", -1},
		{"around the limit", nil, time.Hour, func(s int) map[string]float64 { return steady(20+2*math.Sin(float64(s)), -0.5)(s) }, "battery.on battery.low", -1},
		{"the cable is touched", nil, time.Hour, func(s int) map[string]float64 {
			v := 5.0
			if s%10 < 3 {
				v = 0
			}
			return map[string]float64{"input_voltage_v": v, "battery_percent": 50}
		}, "battery.on battery.off", -1},
		{"charged again", nil, time.Hour, func(s int) map[string]float64 { return steady(15+float64(s)/60, 0.5)(s) }, "battery.low battery.charged", -1},
		{"by voltage", func(s *Settings) { s.Chemistry, s.Cells = "li-ion", 2 }, time.Hour, func(int) map[string]float64 {
			return map[string]float64{"battery_voltage_v": 6.4, "battery_current_a": -1}
		}, "battery.on battery.low shutdown", 60},
		{"voltage of a battery of which nobody said what it is", nil, time.Hour, func(int) map[string]float64 {
			return map[string]float64{"battery_voltage_v": 6.4, "battery_current_a": -1}
		}, "battery.on", -1},
		{"the meter goes", nil, time.Hour, func(s int) map[string]float64 {
			if s > 30 {
				return nil
			}
			return steady(2, -0.8)(s)
		}, "battery.on battery.low", -1},
	} {
		t.Run(tc.what, func(t *testing.T) {
			s := usual
			if tc.set != nil {
				tc.set(&s)
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			events, down := follow(New(s, start, tc.up), start, time.Second, 900, tc.in)
			if events != tc.events || down != tc.down {
				t.Errorf("got %q, down after %d s; want %q, %d", events, down, tc.events, tc.down)
			}
		})
	}
}

// TestOneReadingTurnsNothingOff, however long it stands: of a gauge that is read each five
// minutes it does so for all of them.
func TestOneReadingTurnsNothingOff(t *testing.T) {
	start := time.Now()
	wrong := func(amps ...float64) func(int) map[string]float64 {
		return func(s int) map[string]float64 {
			in := map[string]float64{"battery_percent": 60}
			if s == 600 {
				in["battery_percent"] = 0
			}
			for _, a := range amps {
				in["battery_current_a"] = a
			}
			return in
		}
	}
	for what, tc := range map[string]struct {
		in     func(int) map[string]float64
		events string
		down   int
	}{
		"on the battery":             {wrong(-0.8), "battery.on battery.low battery.charged", -1},
		"nobody knows what feeds it": {wrong(), "battery.low battery.charged", -1},
		"it is so": {func(s int) map[string]float64 {
			return map[string]float64{"battery_percent": max(0, 5.5-float64(s)/300), "battery_current_a": -0.8}
		}, "battery.on battery.low shutdown", 600},
	} {
		events, down := follow(New(usual, start, time.Hour), start, 5*time.Minute, 1800, tc.in)
		if events != tc.events || down != tc.down {
			t.Errorf("%s: got %q, down after %d s; want %q, %d", what, events, down, tc.events, tc.down)
		}
	}
}

func TestFed(t *testing.T) {
	for name, tc := range map[string]struct {
		in   map[string]float64
		want bool
	}{
		"something comes in":     {map[string]float64{"input_voltage_v": 5, "battery_current_a": -1}, true},
		"nothing comes in":       {map[string]float64{"input_voltage_v": 0.1}, false},
		"the battery is charged": {map[string]float64{"battery_current_a": 0.4}, true},
		"the battery is used":    {map[string]float64{"battery_current_a": -0.4}, false},
		"nobody knows":           {map[string]float64{"battery_percent": 3}, false},
	} {
		if got := Fed(tc.in); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestChargeByVoltage(t *testing.T) {
	for _, tc := range []struct {
		chemistry   string
		cells       int
		volts, want float64
	}{
		{"li-ion", 1, 4.3, 100}, {"li-ion", 1, 3.82, 50}, {"li-ion", 3, 3 * 3.805, 45}, {"li-ion", 1, 1, 0},
		{"lifepo4", 4, 13.08, 50}, {"lead-acid", 6, 12.102, 50}, {"lead-acid", 6, 10.5, 0},
	} {
		if got, err := Charge(tc.chemistry, tc.cells, tc.volts); err != nil || math.Abs(got-tc.want) > 0.5 {
			t.Errorf("%s, %d cells, %v V: got %v, %v, want %v", tc.chemistry, tc.cells, tc.volts, got, err, tc.want)
		}
	}
	for _, c := range Chemistries() {
		for i, p := range curves[c][1:] {
			if p.volts <= curves[c][i].volts || p.percent <= curves[c][i].percent {
				t.Errorf("%s does not rise at %v V", c, p.volts)
			}
		}
	}
	if _, err := Charge("nickel", 1, 1); err == nil {
		t.Error("nickel is known")
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"chemistry": func(s *Settings) { s.Chemistry, s.Cells = "nickel", 1 },
		"cells":     func(s *Settings) { s.Chemistry = "li-ion" },
		"low":       func(s *Settings) { s.Low = 101 },
		"shutdown":  func(s *Settings) { s.Shutdown = 30 },
		"hold":      func(s *Settings) { s.Hold = 0 },
	} {
		s := usual
		change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	m := New(usual, time.Now(), 0)
	if st, _, _ := m.Step(time.Now(), time.Time{}, nil); st.Source != model.PowerUnknown || st.Percent != nil {
		t.Errorf("got %+v", st)
	}
}
