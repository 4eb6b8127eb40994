package i2c_test

import (
	"math"
	"testing"
	"testing/synctest"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/chips"
)

func TestTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		bus.Attach(0x40, chips.NewINA226(0.1, 12, 0.5))
		d := builtin(t, "ina226").(*i2c.Template)
		trial := i2c.Try(t.Context(), bus, d, 0x40, nil)
		if trial.Err != nil {
			t.Fatal(trial.Err)
		}
		same(t, values(t, d, trial.Samples), map[string]float64{"voltage_v": 12, "current_a": 0.5}, 1e-9)
		if len(trial.Transactions) != 5 || string(trial.Transactions[0].Write) != "\xfe" || string(trial.Transactions[0].Read) != "\x54\x49" {
			t.Errorf("got %v", trial.Transactions)
		}
		got := map[string]float64{}
		for _, v := range trial.Variables {
			if v.Err != nil {
				t.Errorf("%s: %v", v.Name, v.Err)
			}
			got[v.Name] = v.Number
		}
		same(t, got, map[string]float64{"shunt_ohm": 0.1, "shunt": 20000, "bus": 9600, "power_w": 6}, 1e-9)
	})
}

func TestTryOfAnEmptyBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trial := i2c.Try(t.Context(), chips.NewBus(), builtin(t, "ina226").(*i2c.Template), 0x40, nil)
		if trial.Err == nil || len(trial.Transactions) != 3 || trial.Transactions[0].Err == nil {
			t.Errorf("expected three tries that fail, got %+v", trial)
		}
		for _, v := range trial.Variables {
			if v.Name != "shunt_ohm" && (v.Err == nil || !math.IsNaN(v.Number)) {
				t.Errorf("expected %s not to be computed, got %v", v.Name, v.Number)
			}
		}
	})
	if trial := i2c.Try(t.Context(), chips.NewBus(), builtin(t, "ina226").(*i2c.Template), 0x40, map[string]float64{"x": 1}); trial.Err == nil {
		t.Error("expected an unknown parameter to be refused")
	}
}
