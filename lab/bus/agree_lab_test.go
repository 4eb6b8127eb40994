//go:build lab

package bus_test

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	pi2c "periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/ads1x15"
	"periph.io/x/devices/v3/bh1750"
	"periph.io/x/devices/v3/bmxx80"
	"periph.io/x/devices/v3/ina219"
	"periph.io/x/devices/v3/mcp9808"
	"periph.io/x/devices/v3/ssd1306"
	"periph.io/x/devices/v3/tmp102"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/bus"
)

// m are values by the names that templates give them.
type m = map[string]float64

// kernelChip is a chip that one of the kernel's own drivers has.
type kernelChip struct{ dir string }

// bind gives a chip of bus 0 to the kernel's driver, until the test ends.
func bind(t *testing.T, driver string, addr uint16) kernelChip {
	t.Helper()
	const adapter = "/sys/bus/i2c/devices/i2c-0/"
	if err := os.WriteFile(adapter+"new_device", []byte(fmt.Sprintf("%s %#02x\n", driver, addr)), 0); err != nil {
		t.Fatal(err)
	}
	c := kernelChip{fmt.Sprintf("/sys/bus/i2c/devices/0-%04x", addr)}
	if _, err := os.Stat(filepath.Join(c.dir, "driver")); err != nil {
		t.Errorf("the kernel's driver %s does not take the chip: %v", driver, err)
	}
	return c
}

// unbind takes it away again.
func unbind(t *testing.T, addr uint16) {
	t.Helper()
	if err := os.WriteFile("/sys/bus/i2c/devices/i2c-0/delete_device", []byte(fmt.Sprintf("%#02x\n", addr)), 0); err != nil {
		t.Fatal(err)
	}
}

// number reads an attribute below the chip's hwmon or IIO device.
func (c kernelChip) number(name string) (float64, error) {
	for _, class := range []string{"hwmon/hwmon*", "iio:device*"} {
		found, err := filepath.Glob(filepath.Join(c.dir, class, name))
		if err != nil {
			return 0, err
		}
		if len(found) == 1 {
			text, err := attribute(found[0])
			if err != nil {
				return 0, err
			}
			return strconv.ParseFloat(strings.TrimSpace(text), 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", c.dir, name)
}

// attribute reads a file of sysfs. Package os would wait for ever where a driver says that
// it has not measured yet (EAGAIN).
func attribute(name string) (string, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return string(b[:n]), nil
}

// scaled is (raw + offset) * scale of a channel of IIO, in the unit that IIO has for it.
func (c kernelChip) scaled(channel, kind string) (float64, error) {
	raw, err := c.number(channel + "_raw")
	if err != nil {
		return 0, err
	}
	scale, err := c.number(channel + "_scale")
	if err != nil { // one for all of its kind
		if scale, err = c.number(kind + "_scale"); err != nil {
			return 0, err
		}
	}
	offset, err := c.number(channel + "_offset")
	if err != nil {
		offset = 0 // it has none
	}
	return (raw + offset) * scale, nil
}

// write sets an attribute.
func (c kernelChip) write(name, text string) error {
	found, err := filepath.Glob(filepath.Join(c.dir, "iio:device*", name))
	if err != nil || len(found) != 1 {
		return errors.Join(err, fmt.Errorf("%s has no %s", c.dir, name))
	}
	return os.WriteFile(found[0], []byte(text), 0)
}

// milli reads attributes that are thousandths of what templates have.
func milli(c kernelChip, names map[string]string) (m, error) {
	got := m{}
	for name, attribute := range names {
		v, err := c.number(attribute)
		if err != nil {
			return nil, err
		}
		got[name] = v / 1000
	}
	return got, nil
}

// ina reads a meter with a shunt.
func ina(shunt string) func(kernelChip) (m, error) {
	return func(c kernelChip) (m, error) {
		if err := c.write("in_shunt_resistor", shunt); err != nil {
			return nil, err
		}
		v, err1 := c.scaled("in_voltage1", "in_voltage")
		a, err2 := c.scaled("in_current3", "in_current")
		w, err3 := c.scaled("in_power2", "in_power")
		return m{"voltage_v": v / 1000, "current_a": a / 1000, "power_w": w / 1000}, errors.Join(err1, err2, err3)
	}
}

func celsius(t physic.Temperature) float64 {
	return float64(t-physic.ZeroCelsius) / float64(physic.Celsius)
}

func environment(e physic.Env) m {
	return m{"temperature_c": celsius(e.Temperature), "humidity_percent": float64(e.Humidity) / float64(physic.PercentRH), "pressure_hpa": float64(e.Pressure) / float64(100*physic.Pascal)}
}

// judged is a chip with others' drivers for it.
type judged struct {
	chip   string // on the board
	addr   uint16
	values func(f float64) m // set on the host, for a fraction of the chip's scale
	// want is what is then to be read, of what the test's chip is set to.
	want map[string]func(set m) float64

	template string
	params   m
	driver   string // the kernel's
	kernel   func(kernelChip) (m, error)
	free     bool                      // the kernel's driver lets the chip measure all the time, and reads what it has measured last
	periph   func(pi2c.Bus) (m, error) // nil: periph has none

	tolerance m // by value: of any two readings
}

func same(name string) func(m) float64 { return func(set m) float64 { return set[name] } }

// weight is an acceleration that is set in g.
func weight(name string) func(m) float64 { return func(set m) float64 { return set[name] * 9.80665 } }

var thermometer = map[string]func(m) float64{"temperature_c": same("temperature")}

func thermal(low, high float64) func(float64) m {
	return func(f float64) m { return m{"temperature": low + (high-low)*f} }
}

var hygrometer = map[string]func(m) float64{"temperature_c": same("temperature"), "humidity_percent": same("humidity")}

var meter = map[string]func(m) float64{
	"voltage_v": same("voltage"), "current_a": same("current"),
	"power_w": func(set m) float64 { return math.Abs(set["voltage"] * set["current"]) },
}

var judgedChips = []judged{
	{chip: "bme280", addr: 0x76, template: "bme280", driver: "bme280", free: true,
		values: func(f float64) m {
			return m{"temperature": -30 + 100*f, "humidity": 10 + 80*f, "pressure": 400 + 650*f}
		},
		want: map[string]func(m) float64{"temperature_c": same("temperature"), "humidity_percent": same("humidity"), "pressure_hpa": same("pressure")},
		kernel: func(c kernelChip) (m, error) {
			got, err := milli(c, map[string]string{"temperature_c": "in_temp_input", "humidity_percent": "in_humidityrelative_input"})
			if err != nil {
				return nil, err
			}
			kilopascal, err := c.number("in_pressure_input")
			got["pressure_hpa"] = 10 * kilopascal
			return got, err
		},
		periph: func(b pi2c.Bus) (m, error) {
			d, err := bmxx80.NewI2C(b, 0x76, &bmxx80.DefaultOpts)
			if err != nil {
				return nil, err
			}
			var e physic.Env
			err = d.Sense(&e)
			return environment(e), err
		},
		tolerance: m{"temperature_c": 0.03, "humidity_percent": 0.15, "pressure_hpa": 0.05}},
	{chip: "bmp280", addr: 0x77, template: "bmp280", driver: "bmp280", free: true,
		values: func(f float64) m { return m{"temperature": 70 - 100*f, "pressure": 1050 - 650*f} },
		want:   map[string]func(m) float64{"temperature_c": same("temperature"), "pressure_hpa": same("pressure")},
		kernel: func(c kernelChip) (m, error) {
			got, err := milli(c, map[string]string{"temperature_c": "in_temp_input"})
			if err != nil {
				return nil, err
			}
			kilopascal, err := c.number("in_pressure_input")
			got["pressure_hpa"] = 10 * kilopascal
			return got, err
		},
		tolerance: m{"temperature_c": 0.03, "pressure_hpa": 0.05}},
	{chip: "ina219", addr: 0x40, template: "ina219", params: m{"shunt_ohm": 0.1}, driver: "ina219",
		values: func(f float64) m { return m{"voltage": 3 + 22*f, "current": -2.5 + 5.2*f} },
		want:   meter, kernel: ina("0.1"),
		periph: func(b pi2c.Bus) (m, error) {
			d, err := ina219.New(b, &ina219.Opts{Address: 0x40, SenseResistor: 100 * physic.MilliOhm, MaxCurrent: 3200 * physic.MilliAmpere})
			if err != nil {
				return nil, err
			}
			p, err := d.Sense()
			return m{"voltage_v": float64(p.Voltage) / float64(physic.Volt), "current_a": float64(p.Current) / float64(physic.Ampere)}, err
		},
		tolerance: m{"voltage_v": 0.0041, "current_a": 0.0011, "power_w": 0.05}},
	{chip: "ina226", addr: 0x41, template: "ina226", params: m{"shunt_ohm": 0.01}, driver: "ina226",
		values: func(f float64) m { return m{"voltage": 1 + 34*f, "current": 7 - 13*f} },
		want:   meter, kernel: ina("0.01"),
		tolerance: m{"voltage_v": 0.0013, "current_a": 0.0011, "power_w": 0.05}},
	{chip: "lm75@0/0x48", addr: 0x48, template: "lm75", driver: "lm75", values: thermal(-50, 120), want: thermometer,
		kernel:    func(c kernelChip) (m, error) { return milli(c, map[string]string{"temperature_c": "temp1_input"}) },
		tolerance: m{"temperature_c": 0.251}},
	{chip: "tmp102", addr: 0x4a, template: "tmp105", driver: "tmp102", values: thermal(-50, 120), want: thermometer,
		kernel: func(c kernelChip) (m, error) { return milli(c, map[string]string{"temperature_c": "temp1_input"}) },
		periph: func(b pi2c.Bus) (m, error) {
			d, err := tmp102.NewI2C(b, 0x4a, nil)
			if err != nil {
				return nil, err
			}
			var e physic.Env
			err = d.Sense(&e)
			return m{"temperature_c": celsius(e.Temperature)}, err
		},
		tolerance: m{"temperature_c": 0.0632}},
	{chip: "mcp9808", addr: 0x18, template: "mcp9808", driver: "jc42", values: thermal(-35, 120), want: thermometer,
		kernel: func(c kernelChip) (m, error) { return milli(c, map[string]string{"temperature_c": "temp1_input"}) },
		periph: func(b pi2c.Bus) (m, error) {
			d, err := mcp9808.New(b, &mcp9808.Opts{Addr: 0x18, Res: mcp9808.Maximum})
			if err != nil {
				return nil, err
			}
			c, err := d.SenseTemp()
			return m{"temperature_c": celsius(c)}, err
		},
		tolerance: m{"temperature_c": 0.0632}},
	{chip: "bh1750", addr: 0x23, template: "bh1750", driver: "bh1750",
		values: func(f float64) m { return m{"illuminance": 20 + 50000*f} },
		want:   map[string]func(m) float64{"illuminance_lx": same("illuminance")},
		kernel: func(c kernelChip) (m, error) {
			v, err := c.scaled("in_illuminance", "in_illuminance")
			return m{"illuminance_lx": v}, err
		},
		periph: func(b pi2c.Bus) (m, error) {
			d, err := bh1750.NewI2C(b, 0x23)
			if err != nil {
				return nil, err
			}
			l, err := d.Sense()
			return m{"illuminance_lx": float64(l) / float64(physic.Lumen)}, err
		},
		tolerance: m{"illuminance_lx": 1.1}},
	{chip: "ads1115", addr: 0x49, template: "ads1115", driver: "ads1115",
		values: func(f float64) m { return m{"in0": 2 * f, "in1": 2 - 2*f, "in2": 0.001, "in3": 1.25} },
		want:   map[string]func(m) float64{"in0_v": same("in0"), "in1_v": same("in1"), "in2_v": same("in2"), "in3_v": same("in3")},
		kernel: func(c kernelChip) (m, error) {
			got := m{}
			for i := range 4 {
				v, err := c.scaled(fmt.Sprintf("in_voltage%d", i), "in_voltage")
				if err != nil {
					return nil, err
				}
				got[fmt.Sprintf("in%d_v", i)] = v / 1000
			}
			return got, nil
		},
		periph: func(b pi2c.Bus) (m, error) {
			d, err := ads1x15.NewADS1115(b, &ads1x15.Opts{I2cAddress: 0x49})
			if err != nil {
				return nil, err
			}
			got := m{}
			for i, c := range []ads1x15.Channel{ads1x15.Channel0, ads1x15.Channel1, ads1x15.Channel2, ads1x15.Channel3} {
				pin, err := d.PinForChannel(c, 4*physic.Volt, 100*physic.Hertz, ads1x15.BestQuality)
				if err != nil {
					return nil, err
				}
				s, err := pin.Read()
				if err != nil {
					return nil, err
				}
				got[fmt.Sprintf("in%d_v", i)] = float64(s.V) / float64(physic.Volt)
			}
			return got, nil
		},
		tolerance: m{"in0_v": 0.0002, "in1_v": 0.0002, "in2_v": 0.0002, "in3_v": 0.0002}},
	{chip: "sht31", addr: 0x44, template: "sht31", driver: "sht3x",
		values: func(f float64) m { return m{"temperature": -35 + 150*f, "humidity": 95 - 90*f} }, want: hygrometer,
		kernel: func(c kernelChip) (m, error) {
			return milli(c, map[string]string{"temperature_c": "temp1_input", "humidity_percent": "humidity1_input"})
		},
		tolerance: m{"temperature_c": 0.004, "humidity_percent": 0.003}},
	{chip: "sht40", addr: 0x45, template: "sht4x", driver: "sht4x",
		values: func(f float64) m { return m{"temperature": -35 + 150*f, "humidity": 5 + 90*f} }, want: hygrometer,
		kernel: func(c kernelChip) (m, error) {
			return milli(c, map[string]string{"temperature_c": "temp1_input", "humidity_percent": "humidity1_input"})
		},
		tolerance: m{"temperature_c": 0.004, "humidity_percent": 0.003}},
	{chip: "mpu6050", addr: 0x69, template: "mpu6050", driver: "mpu6050",
		values: func(f float64) m {
			return m{"accel-x": -1.9 + 3.8*f, "accel-y": 1.5 - 3*f, "accel-z": 1, "gyro-x": -240 + 480*f, "gyro-y": 100 - 50*f, "gyro-z": 5, "temperature": -20 + 90*f}
		},
		want: map[string]func(m) float64{
			"accel_x_mps2": weight("accel-x"), "accel_y_mps2": weight("accel-y"), "accel_z_mps2": weight("accel-z"),
			"gyro_x_dps": same("gyro-x"), "gyro_y_dps": same("gyro-y"), "gyro_z_dps": same("gyro-z"), "temperature_c": same("temperature"),
		},
		kernel: func(c kernelChip) (m, error) {
			got := m{}
			for _, axis := range []string{"x", "y", "z"} {
				a, err1 := c.scaled("in_accel_"+axis, "in_accel")
				g, err2 := c.scaled("in_anglvel_"+axis, "in_anglvel")
				if err := errors.Join(err1, err2); err != nil {
					return nil, err
				}
				got["accel_"+axis+"_mps2"], got["gyro_"+axis+"_dps"] = a, g*180/math.Pi
			}
			t, err := c.scaled("in_temp", "in_temp") // which it measures while it does the others
			got["temperature_c"] = t / 1000
			return got, err
		},
		// The kernel has ±2000 °/s, and its scales are cut at six places.
		tolerance: m{"accel_x_mps2": 0.025, "accel_y_mps2": 0.025, "accel_z_mps2": 0.025, "gyro_x_dps": 0.25, "gyro_y_dps": 0.25, "gyro_z_dps": 0.25, "temperature_c": 0.05}},
	{chip: "ds3231", addr: 0x68, template: "ds3231", driver: "ds3231", values: thermal(-35, 80), want: thermometer,
		kernel:    func(c kernelChip) (m, error) { return milli(c, map[string]string{"temperature_c": "temp1_input"}) },
		tolerance: m{"temperature_c": 0.126}},
}

// ours reads a chip by its template.
func ours(t *testing.T, b pi2c.Bus, x judged) m {
	t.Helper()
	for _, d := range i2c.Builtin() {
		if d.Spec().Name != x.template {
			continue
		}
		chip, err := d.Open(b, x.addr, x.params)
		if err != nil {
			t.Fatal(err)
		}
		samples, err := chip.Read(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		got := m{}
		for i, v := range d.Spec().Values {
			if samples[i].Err != nil {
				t.Errorf("%s: %v", v.Name, samples[i].Err)
			}
			got[v.Name] = samples[i].Number
		}
		return got
	}
	t.Fatalf("no template %s", x.template)
	return nil
}

// TestDriversAgree reads the same chips, over the same bus of the same kernel, by the
// kernel's own drivers, by periph's on periph's bus and by ours on ours: neither chips nor
// templates are judged by their author alone.
func TestDriversAgree(t *testing.T) {
	b, own := kernelBus(t, 0), halBus(t, 0)
	for _, x := range judgedChips {
		t.Run(x.chip, func(t *testing.T) {
			for _, f := range []float64{0.03, 0.5, 0.97} {
				set := x.values(f)
				change(t, bus.ChipChange{Chip: x.chip, Values: set})
				want := m{}
				for name, of := range x.want {
					want[name] = of(set)
				}
				read := map[string]m{}
				c := bind(t, x.driver, x.addr)
				kernel, err := x.kernel(c)
				for end := time.Now().Add(20 * time.Second); err != nil && time.Now().Before(end); kernel, err = x.kernel(c) {
					time.Sleep(50 * time.Millisecond) // it may not have measured yet
				}
				// What is there first is of the time before, also where nobody has asked for so long
				// that the kernel has switched the chip off meanwhile.
				for n := 0; err == nil && x.free && n < 10; n++ {
					time.Sleep(30 * time.Millisecond)
					kernel, err = x.kernel(c)
				}
				if err != nil {
					t.Errorf("the kernel's driver: %v", err)
				}
				read["the kernel's driver"] = kernel
				unbind(t, x.addr)
				if x.periph != nil {
					theirs, err := x.periph(b)
					if err != nil {
						t.Errorf("periph: %v", err)
					}
					read["periph"] = theirs
				}
				read["the template"] = ours(t, own, x)
				for _, who := range slices.Sorted(maps.Keys(read)) {
					for name, w := range want {
						v, ok := read[who][name]
						if !ok && who == "periph" {
							continue // it does not tell
						}
						if !(math.Abs(math.Abs(v)-math.Abs(w)) <= x.tolerance[name]) || name != "power_w" && !(math.Abs(v-w) <= x.tolerance[name]) {
							t.Errorf("%s: set to %v, %s reads %v (may differ by %v)", name, w, who, v, x.tolerance[name])
						}
					}
				}
			}
		})
	}
}

// TestDisplaysAgree has periph's driver and ours show the same picture, each on a display
// that has just got its power.
func TestDisplaysAgree(t *testing.T) {
	img := image.NewGray(image.Rect(0, 0, 128, 64))
	for y := range 64 {
		for x := range 128 {
			if (x/3+y/5)%3 == 0 {
				img.Set(x, y, color.White)
			}
		}
	}
	plugged := func(v bool) { change(t, bus.ChipChange{Chip: "ssd1306", Plugged: on(v)}) }
	shown := func() string {
		t.Helper()
		for _, c := range apply(t, bus.Change{}).Chips {
			if c.Kind == "ssd1306" {
				return strings.Join(c.Picture, "\n")
			}
		}
		t.Fatal("there is no display")
		return ""
	}
	dark := strings.Repeat(strings.Repeat("\u2800", 64)+"\n", 16)
	fresh := func() {
		t.Helper()
		plugged(false)
		plugged(true)
		if got := shown() + "\n"; got != dark {
			t.Errorf("without power it shows\n%s", got)
		}
	}
	fresh()
	theirs, err := ssd1306.NewI2C(kernelBus(t, 0), &ssd1306.DefaultOpts)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Draw(theirs.Bounds(), img, image.Point{}); err != nil {
		t.Fatal(err)
	}
	want := shown()
	fresh()
	ours, err := i2c.SSD1306{}.Open(halBus(t, 0), 0x3c, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ours.(i2c.Display).Draw(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != want || got+"\n" == dark {
		t.Errorf("periph shows\n%s\nwe show\n%s", want, got)
	}
}
