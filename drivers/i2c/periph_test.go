package i2c_test

import (
	"image"
	"image/color"
	"testing"
	"testing/synctest"

	"periph.io/x/conn/v3/gpio"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/ads1x15"
	"periph.io/x/devices/v3/bh1750"
	"periph.io/x/devices/v3/bmxx80"
	"periph.io/x/devices/v3/ina219"
	"periph.io/x/devices/v3/mcp9808"
	"periph.io/x/devices/v3/pcf857x"
	"periph.io/x/devices/v3/scd4x"
	"periph.io/x/devices/v3/ssd1306"
	"periph.io/x/devices/v3/tmp102"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/chips"
)

// Units of periph's integers.
func celsius(t physic.Temperature) float64 {
	return float64(t-physic.ZeroCelsius) / float64(physic.Celsius)
}
func percent(h physic.RelativeHumidity) float64 { return float64(h) / float64(physic.PercentRH) }
func hectopascal(p physic.Pressure) float64     { return float64(p) / float64(100*physic.Pascal) }

// TestPeriph reads simulated chips by periph's drivers and by ours: neither the
// chips nor the templates are judged by their author alone.
func TestPeriph(t *testing.T) {
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		driver    string
		addr      uint16
		params    m
		chip      func(f float64) chips.Chip
		periph    func(bus *chips.Bus) m
		tolerance float64
	}{
		"bme280": {driver: "bme280", addr: 0x76,
			chip: func(f float64) chips.Chip { return chips.NewBME280(-35+115*f, 5+90*f, 35000+70000*f) },
			periph: func(bus *chips.Bus) m {
				d, err := bmxx80.NewI2C(bus, 0x76, &bmxx80.DefaultOpts)
				must(err)
				var e physic.Env
				must(d.Sense(&e))
				return m{"temperature_c": celsius(e.Temperature), "humidity_percent": percent(e.Humidity), "pressure_hpa": hectopascal(e.Pressure)}
			}, tolerance: 0.03},
		"bmp280": {driver: "bmp280", addr: 0x77,
			chip: func(f float64) chips.Chip { return chips.NewBMP280(-35+115*f, 35000+70000*f) },
			periph: func(bus *chips.Bus) m {
				d, err := bmxx80.NewI2C(bus, 0x77, &bmxx80.DefaultOpts)
				must(err)
				var e physic.Env
				must(d.Sense(&e))
				return m{"temperature_c": celsius(e.Temperature), "pressure_hpa": hectopascal(e.Pressure)}
			}, tolerance: 0.02},
		"ina219": {driver: "ina219", addr: 0x41, params: m{"shunt_ohm": 0.1},
			chip: func(f float64) chips.Chip { return chips.NewINA219(0.1, 3+22*f, -3+6*f) },
			periph: func(bus *chips.Bus) m {
				d, err := ina219.New(bus, &ina219.Opts{Address: 0x41, SenseResistor: 100 * physic.MilliOhm, MaxCurrent: 3200 * physic.MilliAmpere})
				must(err)
				p, err := d.Sense()
				must(err)
				return m{"voltage_v": float64(p.Voltage) / float64(physic.Volt), "current_a": float64(p.Current) / float64(physic.Ampere)}
			}, tolerance: 0.0004}, // its current is rounded by the chip's calibration
		"ads1115": {driver: "ads1115", addr: 0x48,
			chip: func(f float64) chips.Chip { return chips.NewADS1115([4]float64{4 * f, 4 - 4*f, 0.001, 3.3}) },
			periph: func(bus *chips.Bus) m {
				d, err := ads1x15.NewADS1115(bus, &ads1x15.DefaultOpts)
				must(err)
				got := m{}
				for name, c := range map[string]ads1x15.Channel{"in0_v": ads1x15.Channel0, "in1_v": ads1x15.Channel1, "in2_v": ads1x15.Channel2, "in3_v": ads1x15.Channel3} {
					pin, err := d.PinForChannel(c, 4*physic.Volt, 100*physic.Hertz, ads1x15.BestQuality)
					must(err)
					s, err := pin.Read()
					must(err)
					got[name] = float64(s.V) / float64(physic.Volt)
				}
				return got
			}, tolerance: 0.0000011},
		"bh1750": {driver: "bh1750", addr: 0x23,
			chip: func(f float64) chips.Chip { return chips.NewBH1750(10 + 50000*f) },
			periph: func(bus *chips.Bus) m {
				d, err := bh1750.NewI2C(bus, 0x23)
				must(err)
				l, err := d.Sense()
				must(err)
				return m{"illuminance_lx": float64(l) / float64(physic.Lumen)}
			}, tolerance: 1}, // it cuts what is behind the point
		"mcp9808": {driver: "mcp9808", addr: 0x19,
			chip: func(f float64) chips.Chip { return chips.NewMCP9808(-39 + 160*f) },
			periph: func(bus *chips.Bus) m {
				d, err := mcp9808.New(bus, &mcp9808.Opts{Addr: 0x19, Res: mcp9808.Maximum})
				must(err)
				c, err := d.SenseTemp()
				must(err)
				return m{"temperature_c": celsius(c)}
			}, tolerance: 0.00001},
		"a TMP102 as a TMP105": {driver: "tmp105", addr: 0x48,
			chip: func(f float64) chips.Chip { return chips.NewTMP102(-54 + 180*f) },
			periph: func(bus *chips.Bus) m {
				d, err := tmp102.NewI2C(bus, 0x48, nil)
				must(err)
				var e physic.Env
				must(d.Sense(&e))
				return m{"temperature_c": celsius(e.Temperature)}
			}, tolerance: 0.00001},
		"scd41": {driver: "scd41", addr: 0x62,
			chip: func(f float64) chips.Chip { return chips.NewSCD41(400+4000*f, -9+68*f, 99*f) },
			periph: func(bus *chips.Bus) m {
				d, err := scd4x.NewI2C(bus, 0x62)
				must(err)
				var e scd4x.Env
				must(d.Sense(&e))
				return m{"co2_ppm": float64(e.CO2), "temperature_c": celsius(e.Temperature), "humidity_percent": percent(e.Humidity)}
			}, tolerance: 0.0001},
	} {
		t.Run(name, func(t *testing.T) {
			for f := 0.0; f <= 1; f += 1.0 / 8 {
				synctest.Test(t, func(t *testing.T) {
					bus := chips.NewBus()
					bus.Attach(x.addr, x.chip(f))
					want := x.periph(bus)
					d := builtin(t, x.driver)
					same(t, read(t, d, bus, x.addr, x.params), want, x.tolerance)
				})
			}
		})
	}
}

func TestPeriphRelays(t *testing.T) {
	theirs, ours := chips.NewPCF8574(), chips.NewPCF8574()
	bus := chips.NewBus()
	bus.Attach(0x20, theirs)
	bus.Attach(0x21, ours)
	d, err := pcf857x.New(bus, 0x20, pcf857x.PCF8574)
	if err != nil {
		t.Fatal(err)
	}
	device := open(t, builtin(t, "pcf8574"), bus, 0x21, map[string]float64{"active_low": 0})
	for _, outputs := range []map[int]float64{{0: 1}, {7: 1, 3: 1}, {0: 0}, {3: 0, 4: 1}} {
		named := map[string]float64{}
		for i, v := range outputs {
			named["out"+string(rune('1'+i))] = v
			if err := d.Pins[i].Out(gpio.Level(v == 1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := device.Send(t.Context(), named); err != nil {
			t.Fatal(err)
		}
		if theirs.State() != ours.State() {
			t.Errorf("%v: periph makes it %08b, we make it %08b", outputs, theirs.State(), ours.State())
		}
	}
}

func TestPeriphDisplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs, ours := chips.NewSSD1306(), chips.NewSSD1306()
		bus, second := chips.NewBus(), chips.NewBus()
		bus.Attach(0x3c, theirs)
		second.Attach(0x3c, ours)
		d, err := ssd1306.NewI2C(bus, &ssd1306.DefaultOpts)
		if err != nil {
			t.Fatal(err)
		}
		img := image.NewGray(image.Rect(0, 0, 128, 64))
		for y := range 64 {
			for x := range 128 {
				if (x/3+y/5)%3 == 0 {
					img.Set(x, y, color.White)
				}
			}
		}
		if err := d.Draw(d.Bounds(), img, image.Point{}); err != nil {
			t.Fatal(err)
		}
		if err := open(t, builtin(t, "ssd1306"), second, 0x3c, nil).(i2c.Display).Draw(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		if want, got := picture(theirs, 128, 64), picture(ours, 128, 64); want != got {
			t.Errorf("periph's\n%sours\n%s", want, got)
		}
		if u := theirs.Unknown(); len(u) > 0 {
			t.Errorf("the chip does not know commands % x", u)
		}
	})
}
