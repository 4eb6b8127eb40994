package weigh

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/model"
	"halo.internal/model/wire"
)

func ptr(f float64) *float64 { return &f }

const name = "i2c.bme280.temperature_c"

// feed weighs a value each ten seconds and returns what of them was sent.
func feed(w *Weigher, values ...float64) string {
	var out []string
	for _, v := range values {
		r := []collect.Reading{{Metric: wire.NewMetric(name, "°C", 2), Value: wire.Int(int64(math.Round(v * 100)))}}
		w.Weigh(time.Now(), r)
		switch {
		case !r[0].Value.Present:
			out = append(out, "-")
		case r[0].Urgent:
			out = append(out, fmt.Sprint(v, "!"))
		default:
			out = append(out, fmt.Sprint(v))
		}
		time.Sleep(10 * time.Second)
	}
	return strings.Join(out, " ")
}

func TestDeadBandsAndAdaptiveIntervals(t *testing.T) {
	for _, tc := range []struct {
		what string
		rule Rule
		in   []float64
		want string
	}{
		{"no rule for it", Rule{Metric: "gps.*", DeadBand: 9}, []float64{1, 1, 1}, "1 1 1"},
		{"dead band", Rule{Metric: name, DeadBand: 0.5}, []float64{20, 20.4, 20.5, 20.6, 20.3, 20, 19.9}, "20 - - 20.6 - 20 -"},
		{"no longer silent than that", Rule{Metric: "i2c.*", DeadBand: 0.5, AtMost: 30 * time.Second}, []float64{20, 20, 20, 20, 20, 20, 20}, "20 - - 20 - - 20"},
		{"adaptive", Rule{Metric: name, DeadBand: 0.5, Adaptive: true}, []float64{20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 25, 25, 25, 25, 25, 25}, "20 20 20 - 20 - - - 20 - 25 25 25 - 25 -"},
		{"adaptive with an end", Rule{Metric: name, Adaptive: true, AtMost: 20 * time.Second}, []float64{20, 20, 20, 20, 20, 20, 20, 20}, "20 20 20 - 20 - 20 -"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := tc.rule.Check(); err != nil {
					t.Fatal(err)
				}
				w := New([]Rule{tc.rule}, func() bool { return false }, func(kind string, _ model.Severity, _ string, _ map[string]string) { t.Errorf("told %s", kind) })
				if got := feed(w, tc.in...); got != tc.want {
					t.Errorf("got  %s\nwant %s", got, tc.want)
				}
			})
		})
	}
}

// TestLimitsAreTold once, with hysteresis, after they have lasted, and say whether the
// gateway was away; what is beyond them is sent whatever the dead band says.
func TestLimitsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := false
		var events []string
		rule := Rule{Metric: name, DeadBand: 100, AtMost: time.Hour, Above: ptr(60), Below: ptr(0), Hysteresis: 2, For: 15 * time.Second, Severity: model.Error}
		if err := rule.Check(); err != nil {
			t.Fatal(err)
		}
		w := New([]Rule{rule}, func() bool { return away }, func(kind string, s model.Severity, text string, f map[string]string) {
			events = append(events, strings.TrimSpace(strings.Join([]string{strings.TrimPrefix(kind, "telemetry.limit."), string(s), f["value"], f["limit"], f["gateway"]}, " ")))
			if f["gateway"] != "" && !strings.Contains(text, "could not be reached") {
				t.Errorf("the text does not say that the gateway was away: %s", text)
			}
		})
		if got, want := feed(w, 20, 61, 20, 61, 62, 63, 63, 59, 58, 57), "20 - - - - 63! - - 58 -"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		away = true
		feed(w, -1, -1, -1, 1, 3)
		if got, want := strings.Join(events, "; "), "crossed error 63 60; cleared info 58; crossed error -1 0 away; cleared info 3  away"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// TestTooManyMetricsAreTold: those beyond are sent as they are made, which is news once;
// what is not read any more makes room, and what no rule is for takes none.
func TestTooManyMetricsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		w := New([]Rule{{Metric: "i2c.*", DeadBand: 1}}, func() bool { return false }, func(kind string, _ model.Severity, _ string, f map[string]string) {
			events = append(events, kind+" "+f["metric"])
		})
		sent := func(metric string) int {
			n := 0
			for range 2 {
				r := []collect.Reading{{Metric: wire.NewMetric(metric, "", 0), Value: wire.Int(5)}}
				if w.Weigh(time.Now(), r); r[0].Value.Present {
					n++
				}
			}
			return n
		}
		for i := range 2 * maxStates {
			sent(fmt.Sprintf("system.x%d.n", i))
		}
		for i := range maxStates {
			if n := sent(fmt.Sprintf("i2c.x%d.n", i)); n != 1 {
				t.Fatalf("number %d: sent %d times, want once", i, n)
			}
		}
		time.Sleep(gone / 2)
		for _, name := range []string{"i2c.more.n", "i2c.evenmore.n"} {
			if n := sent(name); n != 2 {
				t.Errorf("%s: sent %d times, want twice: there is no rule for it", name, n)
			}
		}
		if got := strings.Join(events, ", "); got != "telemetry.rules.full i2c.more.n" {
			t.Errorf("events: %s", got)
		}
		time.Sleep(gone)
		if n := sent("i2c.more.n"); n != 1 {
			t.Errorf("when the others are gone it is sent %d times, want once", n)
		}
	})
}

func TestRulesAreChecked(t *testing.T) {
	for want, r := range map[string]Rule{
		"name":       {},
		"dead_band":  {Metric: "a.b.c", DeadBand: math.NaN()},
		"hysteresis": {Metric: "a.b.c", Hysteresis: -1},
		"at_most":    {Metric: "a.b.c", AtMost: 25 * time.Hour},
		"for":        {Metric: "a.b.c", For: -1},
		"twice":      {Metric: "a.b.c", Above: ptr(1), Below: ptr(0), Hysteresis: 1},
		"numbers":    {Metric: "a.b.c", Above: ptr(math.Inf(1))},
		"severity":   {Metric: "a.b.c", Severity: "bad"},
	} {
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want …%s…", r, err, want)
		}
	}
}
