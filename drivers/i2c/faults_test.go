package i2c_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/i2c/i2ctest"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/chips"
)

func TestNoiseIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		bus.Attach(0x76, chips.NewBME280(20, 50, 100000))
		d := builtin(t, "bme280")
		chip := open(t, d, bus, 0x76, nil)
		bus.Fail(0, 2)
		same(t, readAgain(t, d, chip), map[string]float64{"temperature_c": 20}, 0.01)
		bus.Fail(0, 3)
		if _, err := chip.Read(t.Context(), nil); !errors.Is(err, chips.ErrNAK) {
			t.Errorf("expected %v after three tries, got %v", chips.ErrNAK, err)
		}
		same(t, readAgain(t, d, chip), map[string]float64{"temperature_c": 20}, 0.01)
	})
}

// TestEachTransactionFails lets every transaction of set-up and of a reading fail in
// its turn, one that is tried again and one that is not: the first is not noticed,
// and after the second the next reading is right.
func TestEachTransactionFails(t *testing.T) {
	for name, x := range simulated {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := builtin(t, name)
				bus := chips.NewBus()
				chip, want := x.chip(0.5)
				bus.Attach(x.addr, chip)
				read(t, d, bus, x.addr, x.params)
				all, _ := bus.Count(x.addr)
				for k := range all {
					for _, n := range []int{1, 3} {
						device := open(t, d, bus, x.addr, x.params)
						bus.Fail(k, n)
						samples, err := device.Read(t.Context(), nil)
						bus.Fail(0, 0)
						if err == nil {
							values(t, d, samples)
						} else if n == 1 {
							t.Errorf("transaction %d failed once: %v", k, err)
						}
						got := readAgain(t, d, device)
						for v, w := range want {
							same(t, got, map[string]float64{v: w}, x.tolerance[v])
						}
					}
				}
			})
		})
	}
}

func TestStuckBusIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		bus.Attach(0x76, chips.NewBME280(20, 50, 100000))
		bus.Stick(time.Second)
		began := time.Now()
		_, err := open(t, builtin(t, "bme280"), bus, 0x76, nil).Read(t.Context(), nil)
		if !errors.Is(err, chips.ErrTimeout) || time.Since(began) > 1500*time.Millisecond {
			t.Errorf("expected %v after a second, got %v after %v", chips.ErrTimeout, err, time.Since(began))
		}
	})
}

func TestUnpluggedAndAnotherPluggedIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		d := builtin(t, "bme280")
		chip := open(t, d, bus, 0x76, nil)
		if _, err := chip.Read(t.Context(), nil); !errors.Is(err, chips.ErrNAK) {
			t.Fatalf("expected %v of an empty bus, got %v", chips.ErrNAK, err)
		}
		bus.Attach(0x76, chips.NewBME280(20, 50, 100000))
		readAgain(t, d, chip)
		bus.Detach(0x76)
		if _, err := chip.Read(t.Context(), nil); err == nil {
			t.Fatal("expected an error of a chip that was unplugged")
		}
		bus.Attach(0x76, chips.NewBMP280(20, 100000))
		_, err := chip.Read(t.Context(), nil)
		if wrong, ok := errors.AsType[*i2c.IdentityError](err); !ok || wrong.Got[0] != 0x58 {
			t.Fatalf("expected the identity of a BMP280, got %v", err)
		}
		bus.Attach(0x76, chips.NewBME280(21, 50, 100000))
		same(t, readAgain(t, d, chip), map[string]float64{"temperature_c": 21}, 0.01)
	})
}

// A chip that has lost its power for a moment answers as if nothing were wrong.
func TestBrownOut(t *testing.T) {
	type chip interface {
		chips.Chip
		LosePower()
	}
	for name, x := range map[string]struct {
		addr uint16
		chip chip
		want map[string]float64
	}{
		"bme280":            {0x76, chips.NewBME280(20, 50, 100000), map[string]float64{"humidity_percent": 50}},
		"bme680":            {0x76, chips.NewBME680(20, 50, 100000, 50000), map[string]float64{"humidity_percent": 50}},
		"ina226":            {0x40, chips.NewINA226(0.1, 12, 0.5), map[string]float64{"voltage_v": 12}},
		"ina260":            {0x40, chips.NewINA260(12, 0.5), map[string]float64{"voltage_v": 12}},
		"mpu6050":           {0x68, chips.NewMPU6050([3]float64{1, 0, 0}, [3]float64{}, 30), map[string]float64{"accel_x_mps2": 9.807}},
		"tmp105":            {0x48, chips.NewTMP105(20.25), map[string]float64{"temperature_c": 20.25}},
		"waveshare-ups-hat": {0x42, chips.NewINA219(0.1, 7.2, 0), map[string]float64{"charge_percent": 50}},
		"vl53l0x":           {0x29, chips.NewVL53L0X(300), map[string]float64{"distance_mm": 300}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bus := chips.NewBus()
				bus.Attach(x.addr, x.chip)
				d := builtin(t, name)
				device := open(t, d, bus, x.addr, nil)
				same(t, readAgain(t, d, device), x.want, 0.2)
				x.chip.LosePower()
				same(t, readAgain(t, d, device), x.want, 0.2)
			})
		})
	}
}

// An SCD41 that has lost its power has no measurement, ever: it is set up again after
// the first that did not come.
func TestMeasurementThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		chip := chips.NewSCD41(600, 20, 50)
		bus.Attach(0x62, chip)
		d := builtin(t, "scd41")
		device := open(t, d, bus, 0x62, nil)
		readAgain(t, d, device)
		chip.LosePower()
		began := time.Now()
		if _, err := device.Read(t.Context(), nil); !errors.Is(err, i2c.ErrNotReady) {
			t.Fatalf("expected %v, got %v", i2c.ErrNotReady, err)
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("expected it to be given up after 6 s, took %v", took)
		}
		same(t, readAgain(t, d, device), map[string]float64{"co2_ppm": 600}, 1)
	})
}

func TestContextEndsAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		bus.Attach(0x62, chips.NewSCD41(600, 20, 50))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := open(t, builtin(t, "scd41"), bus, 0x62, nil).Read(ctx, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 1100*time.Millisecond {
			t.Errorf("expected it to end after a second, got %v after %v", err, time.Since(began))
		}
	})
}

func TestDamagedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := playback(0x44, []i2ctest.IO{
			w(0xf3, 0x2d), r(0x80, 0x10, 0xe1),
			w(0x30, 0x93), w(0x30, 0xa2),
			w(0x24, 0x00), r(0xbe, 0xee, 0x92, 0xbe, 0xef, 0x92), // a flipped bit: again
			w(0x24, 0x00), r(0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92),
			w(0x24, 0x00), r(0xbe, 0xef, 0x93, 0xbe, 0xef, 0x92),
			w(0x24, 0x00), r(0xbe, 0xef, 0x92, 0xbe, 0xef, 0x00),
			w(0x24, 0x00), r(0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		})
		d := builtin(t, "sht31")
		chip, err := d.Open(bus, 0x44, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, readAgain(t, d, chip), map[string]float64{"temperature_c": 85.523}, 0.001)
		if _, err := chip.Read(t.Context(), nil); !errors.Is(err, i2c.ErrCRC) {
			t.Errorf("expected %v, got %v", i2c.ErrCRC, err)
		}
	})
}

// What was set is there again when a chip comes back, and what could not be set is not.
func TestOutputsComeBack(t *testing.T) {
	bus := chips.NewBus()
	bus.Attach(0x20, chips.NewPCF8574())
	device := open(t, builtin(t, "pcf8574"), bus, 0x20, nil)
	if err := device.Send(t.Context(), map[string]float64{"out2": 1}); err != nil {
		t.Fatal(err)
	}
	bus.Detach(0x20)
	if err := device.Send(t.Context(), map[string]float64{"out3": 1}); !errors.Is(err, chips.ErrNAK) {
		t.Errorf("expected %v, got %v", chips.ErrNAK, err)
	}
	if _, err := device.Read(t.Context(), nil); !errors.Is(err, chips.ErrNAK) {
		t.Errorf("expected %v, got %v", chips.ErrNAK, err)
	}
	again := chips.NewPCF8574()
	bus.Attach(0x20, again)
	if _, err := device.Read(t.Context(), nil); err != nil || again.State() != 0xfd {
		t.Errorf("expected output 2 alone to be on, got %08b, %v", again.State(), err)
	}
}

// What has failed in the middle of it is undone by the next reading, and not done.
func TestAnOutputThatFailedStaysOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := chips.NewBus()
		relays := chips.NewPCF8574()
		bus.Attach(0x20, relays)
		device := open(t, builtin(t, "pcf8574"), bus, 0x20, nil)
		if _, err := device.Read(t.Context(), nil); err != nil || relays.State() != 0xff {
			t.Fatalf("got %08b, %v", relays.State(), err)
		}
		bus.Fail(1, 20) // that it is there is answered still
		if err := device.Send(t.Context(), map[string]float64{"out1": 1}); !errors.Is(err, chips.ErrNAK) {
			t.Errorf("expected %v, got %v", chips.ErrNAK, err)
		}
		bus.Fail(0, 0)
		for range 2 {
			if _, err := device.Read(t.Context(), nil); err != nil || relays.State() != 0xff {
				t.Errorf("expected all to be off, got %08b, %v", relays.State(), err)
			}
		}
	})
}

// The example of the MLX90614's data sheet (3901090614, rev. 13, 8.4.3): 0xB4 0x07,
// 0xB5 0xD2 0x3A, PEC 0x30.
func TestPEC(t *testing.T) {
	template, err := i2c.Parse("mlx90614.toml", []byte(`name = "mlx90614"
addresses = [0x5A]
measure = [ { write = [0x07], read = 3, crc = "smbus-pec", into = "data" } ]
[fields]
raw = { in = "data", at = 0, type = "u16le" }
[[value]]
name = "object_c"
formula = "raw * 0.02 - 273.15"
range = [-70, 380]
`))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		damaged := wr(0x07, 0xd2, 0x3b, 0x30)
		chip, err := template.Open(playback(0x5a, io(damaged, wr(0x07, 0xd2, 0x3a, 0x30), damaged, damaged, damaged)), 0x5a, nil)
		if err != nil {
			t.Fatal(err)
		}
		same(t, readAgain(t, template, chip), map[string]float64{"object_c": 28.01}, 1e-9)
		if _, err := chip.Read(t.Context(), nil); !errors.Is(err, i2c.ErrCRC) {
			t.Errorf("expected %v, got %v", i2c.ErrCRC, err)
		}
	})
}

// An octet that is computed has to be one.
func TestOctetThatIsNone(t *testing.T) {
	template, err := i2c.Parse("dac.toml", []byte(`name = "dac"
role = "send"
addresses = [0x60]
send = [ { write = ["level / step"] } ]
[[parameter]]
name = "step"
default = 1
range = [0, 2]
[[output]]
name = "level"
range = [-10, 1000]
safe = 0
`))
	if err != nil {
		t.Fatal(err)
	}
	bus := chips.NewBus()
	bus.Attach(0x60, chips.NewPCF8574())
	device := open(t, template, bus, 0x60, nil)
	for level, want := range map[float64]string{255: "", 256: "expected a whole number from 0 to 255, got 256", -1: "got -1", 0.5: "got 0.5"} {
		err := device.Send(t.Context(), map[string]float64{"level": level})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v: expected %q, got %v", level, want, err)
		}
	}
	err = open(t, template, bus, 0x60, map[string]float64{"step": 0}).Send(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "division by zero") {
		t.Errorf("expected a division by zero, got %v", err)
	}
}

func TestErrorsSayWhatHappened(t *testing.T) {
	for want, err := range map[string]error{
		"0x76 is no bme280: asked d0: expected 0x60 in 0xff, got 58": &i2c.IdentityError{Chip: "bme280", Addr: 0x76,
			Check: i2c.Check{Write: []byte{0xd0}, Read: 1, Mask: 0xff, Want: 0x60}, Got: []byte{0x58}},
		"0x44 is no sht31: asked f3 2d: expected 3 octets with checksums, got ": &i2c.IdentityError{Chip: "sht31", Addr: 0x44,
			Check: i2c.Check{Write: []byte{0xf3, 0x2d}, Read: 3, Any: true}},
		"0x40 is no x: asked 01: expected anything but 0x1 in 0xff, got 01": &i2c.IdentityError{Chip: "x", Addr: 0x40,
			Check: i2c.Check{Write: []byte{1}, Read: 1, Mask: 0xff, Want: 1, Differs: true}, Got: []byte{1}},
		"0x40: write 01 02: not acknowledged":                &i2c.BusError{Addr: 0x40, Write: []byte{1, 2}, Err: chips.ErrNAK},
		"0x40: read 2 octets: not acknowledged":              &i2c.BusError{Addr: 0x40, Read: 2, Err: chips.ErrNAK},
		"0x40: write 01 and read 2 octets: not acknowledged": &i2c.BusError{Addr: 0x40, Write: []byte{1}, Read: 2, Err: chips.ErrNAK},
	} {
		if err.Error() != want {
			t.Errorf("expected %q, got %q", want, err)
		}
	}
}

func TestParameters(t *testing.T) {
	d := builtin(t, "ina219")
	for name, params := range map[string]map[string]float64{
		"unknown": {"ohm": 1}, "below": {"shunt_ohm": 0}, "above": {"shunt_ohm": 1000}, "nan": {"shunt_ohm": math.NaN()},
	} {
		if _, err := d.Open(chips.NewBus(), 0x40, params); err == nil {
			t.Errorf("%s: expected %v to be refused", name, params)
		}
	}
	for _, addr := range []uint16{0, 7, 0x78, 0x3ff} {
		if _, err := d.Open(chips.NewBus(), addr, nil); err == nil {
			t.Errorf("expected address %#x to be refused", addr)
		}
	}
}

func TestImpossibleValueHasAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := playback(0x1f, []i2ctest.IO{
			wr(0x06, 0x00, 0x54), wr(0x07, 0x04, 0x00), w(0x01, 0x00, 0x00), w(0x08, 0x03),
			wr(0x05, 0x0f, 0xff),
		})
		chip, err := builtin(t, "mcp9808").Open(bus, 0x1f, nil)
		if err != nil {
			t.Fatal(err)
		}
		samples, err := chip.Read(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := errors.AsType[*i2c.RangeError](samples[0].Err); !ok || samples[0].Err.Error() != "temperature_c: expected -40 to 125, got 255.9375" {
			t.Errorf("expected a RangeError, got %v", samples[0].Err)
		}
	})
}

// Why a value is missing is said of the formula that failed, not of those behind it.
func TestReasonIsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := recordings["bmp280, trimming of zeros"]
		chip, err := builtin(t, x.chip).Open(playback(x.addr, x.bus), x.addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		samples, err := chip.Read(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := samples[1].Err; err == nil || !strings.HasPrefix(err.Error(), "p4: column ") || !strings.Contains(err.Error(), "division by zero") {
			t.Errorf("expected p4's division by zero, got %v", err)
		}
	})
}

func TestWire(t *testing.T) {
	v := i2c.Value{Name: "temperature_c", Unit: "°C", Scale: 2}
	if m := i2c.Metric("bme280", v); m.Name != "i2c.bme280.temperature_c" || m.Unit != "°C" || m.Number((i2c.Sample{Number: -1.125}).Wire(v)) != -1.12 {
		t.Errorf("got %v", m)
	}
	if w := (i2c.Sample{Number: math.NaN(), Err: i2c.ErrNotReady}).Wire(v); w.Present {
		t.Errorf("expected a missing value, got %v", w)
	}
}
