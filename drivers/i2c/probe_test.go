package i2c_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/chips"
)

// said is what Probe found, in words: the chip, or those that it may be.
func said(found []i2c.Found) map[uint16]string {
	m := map[uint16]string{}
	for _, f := range found {
		if f.Chip != nil {
			m[f.Addr] = f.Chip.Spec().Name
			continue
		}
		var names []string
		for _, c := range f.Candidates {
			names = append(names, c.Spec().Name)
		}
		m[f.Addr] = "? " + strings.Join(names, " ")
	}
	return m
}

func TestProbe(t *testing.T) {
	for name, x := range map[string]struct {
		chips map[uint16]chips.Chip
		want  map[uint16]string
	}{
		"empty": {},
		"Bosch's three": {
			map[uint16]chips.Chip{0x76: chips.NewBME280(20, 50, 1e5), 0x77: chips.NewBMP280(20, 1e5)},
			map[uint16]string{0x76: "bme280", 0x77: "bmp280"},
		},
		"BME680":  {map[uint16]chips.Chip{0x77: chips.NewBME680(20, 50, 1e5, 5e4)}, map[uint16]string{0x77: "bme680"}},
		"at 0x40": {map[uint16]chips.Chip{0x40: chips.NewINA226(1, 1, 1)}, map[uint16]string{0x40: "ina226"}},
		"INA260":  {map[uint16]chips.Chip{0x45: chips.NewINA260(1, 1)}, map[uint16]string{0x45: "ina260"}},
		"HDC1080": {map[uint16]chips.Chip{0x40: chips.NewHDC1080(1, 1)}, map[uint16]string{0x40: "hdc1080"}},
		"an INA219 has no identity": {
			map[uint16]chips.Chip{0x41: chips.NewINA219(1, 1, 1), 0x42: chips.NewINA219(1, 7, 1)},
			map[uint16]string{0x41: "? ina219", 0x42: "? ina219 waveshare-ups-hat"},
		},
		"Sensirion's, which keep silent": {
			map[uint16]chips.Chip{0x44: chips.NewSHT31(20, 50), 0x45: chips.NewSHT40(20, 50), 0x59: chips.NewSGP40(1), 0x62: chips.NewSCD41(500, 20, 50)},
			map[uint16]string{0x44: "sht31", 0x45: "sht4x", 0x59: "sgp40", 0x62: "scd41"},
		},
		"thermometers": {
			map[uint16]chips.Chip{0x18: chips.NewMCP9808(20), 0x48: chips.NewLM75(20), 0x49: chips.NewTMP105(20), 0x4a: chips.NewADS1115([4]float64{})},
			map[uint16]string{0x18: "mcp9808", 0x48: "? lm75 ina219", 0x49: "? lm75 tmp105 ina219", 0x4a: "? ads1115 ina219"},
		},
		"light": {map[uint16]chips.Chip{0x23: chips.NewBH1750(1), 0x5c: chips.NewBH1750(1)}, map[uint16]string{0x23: "? bh1750 pcf8574", 0x5c: "? bh1750"}},
		"at 0x68": {
			map[uint16]chips.Chip{0x68: chips.NewDS3231(clockStart, 20), 0x69: chips.NewMPU6050([3]float64{}, [3]float64{}, 20)},
			map[uint16]string{0x68: "? ds3231", 0x69: "mpu6050"},
		},
		"gauges":      {map[uint16]chips.Chip{0x36: chips.NewMAX17048(4, 50, 0)}, map[uint16]string{0x36: "max17048"}},
		"older gauge": {map[uint16]chips.Chip{0x36: chips.NewMAX17040(4, 50)}, map[uint16]string{0x36: "? max17040"}},
		"display, relays, distance": {
			map[uint16]chips.Chip{0x3c: chips.NewSSD1306(), 0x20: chips.NewPCF8574(), 0x29: chips.NewVL53L0X(100)},
			map[uint16]string{0x3c: "? ssd1306", 0x20: "? pcf8574", 0x29: "vl53l0x"},
		},
		"unknown": {map[uint16]chips.Chip{0x50: chips.NewEEPROM(), 0x77: chips.NewEEPROM()}, map[uint16]string{0x50: "? ", 0x77: "? "}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := chips.NewBus()
				for addr, c := range x.chips {
					bus.Attach(addr, c)
				}
				found, err := i2c.Probe(t.Context(), bus, i2c.Survey{Drivers: i2c.Builtin()})
				if err != nil {
					t.Fatal(err)
				}
				if got := said(found); fmt.Sprint(got) != fmt.Sprint(x.want) && len(got)+len(x.want) > 0 {
					t.Errorf("expected %v, got %v", x.want, got)
				}
				if !slices.IsSortedFunc(found, func(a, b i2c.Found) int { return int(a.Addr) - int(b.Addr) }) {
					t.Error("expected addresses in their order")
				}
				for addr := range x.chips {
					if _, written := bus.Count(addr); addr >= 0x50 && addr <= 0x57 && written > 0 {
						t.Errorf("%#x: expected nothing to be written to where memories are", addr)
					}
				}
			})
		})
	}
}

// What is in use is not even read.
func TestProbeLeavesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		relays := chips.NewPCF8574()
		if err := relays.Tx([]byte{0x5a}, nil); err != nil {
			t.Fatal(err)
		}
		bus.Attach(0x76, chips.NewBME280(20, 50, 1e5))
		bus.Attach(0x77, chips.NewBMP280(20, 1e5))
		bus.Attach(0x20, relays)
		found, err := i2c.Probe(t.Context(), bus, i2c.Survey{Drivers: i2c.Builtin(), InUse: []uint16{0x76, 0x44}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := said(found), "map[32:? pcf8574 119:bmp280]"; fmt.Sprint(got) != want {
			t.Errorf("expected %s, got %v", want, got)
		}
		for _, addr := range []uint16{0x76, 0x44} {
			if n, _ := bus.Count(addr); n != 0 {
				t.Errorf("%#x is in use: expected no transaction, got %d", addr, n)
			}
		}
		if relays.State() != 0x5a {
			t.Errorf("expected outputs as they were, got %#x", relays.State())
		}
	})
}

// Addresses that are known to answer are not looked for.
func TestProbeOfKnownAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		bus.Attach(0x76, chips.NewBME280(20, 50, 1e5))
		bus.Attach(0x77, chips.NewBMP280(20, 1e5))
		bus.Attach(0x44, chips.NewSHT31(20, 50))
		found, err := i2c.Probe(t.Context(), bus, i2c.Survey{Drivers: i2c.Builtin(), Present: []uint16{0x76}})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := said(found), "map[68:sht31 118:bme280]"; fmt.Sprint(got) != want {
			t.Errorf("expected %s, got %v", want, got)
		}
		if n, _ := bus.Count(0x77); n != 0 {
			t.Errorf("expected no transaction with what does not answer, got %d", n)
		}
	})
}

// Two templates that one chip fits are both offered.
func TestProbeTwoThatFit(t *testing.T) {
	text, err := i2c.BuiltinText("bme280.toml")
	if err != nil {
		t.Fatal(err)
	}
	other, err := i2c.Parse("other.toml", []byte(strings.Replace(string(text), `"bme280"`, `"other"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	bus := chips.NewBus()
	bus.Attach(0x76, chips.NewBME280(20, 50, 1e5))
	found, err := i2c.Probe(t.Context(), bus, i2c.Survey{Drivers: append(i2c.Builtin(), other)})
	if err != nil || len(found) != 1 || found[0].Chip != nil || len(found[0].Candidates) != 2 {
		t.Errorf("expected two candidates, got %v, %v", said(found), err)
	}
}

// A bus of which a line is held down is given up at once.
func TestProbeOfAStuckBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		bus.Attach(0x76, chips.NewBME280(20, 50, 1e5))
		bus.Stick(time.Second)
		began := time.Now()
		_, err := i2c.Probe(t.Context(), bus, i2c.Survey{Drivers: i2c.Builtin()})
		if !errors.Is(err, i2c.ErrStuck) || time.Since(began) > 2*time.Second {
			t.Errorf("expected %v, got %v after %v", i2c.ErrStuck, err, time.Since(began))
		}
		bus.Stick(0)
		if found, err := i2c.Probe(t.Context(), bus, i2c.Survey{Drivers: i2c.Builtin()}); err != nil || len(found) != 1 {
			t.Errorf("expected the BME280, got %v, %v", said(found), err)
		}
	})
}

func TestProbeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := i2c.Probe(ctx, chips.NewBus(), i2c.Survey{Drivers: i2c.Builtin()}); err == nil {
		t.Error("expected an error")
	}
}
