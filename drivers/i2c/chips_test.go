package i2c_test

import (
	"context"
	"math"
	"testing"
	"testing/synctest"

	"halo.internal/drivers/i2c"
	"halo.internal/lab/chips"
)

// read opens a chip of a bus and reads it once.
func read(t testing.TB, d i2c.Driver, bus *chips.Bus, addr uint16, params map[string]float64) map[string]float64 {
	t.Helper()
	return readAgain(t, d, open(t, d, bus, addr, params))
}

func open(t testing.TB, d i2c.Driver, bus *chips.Bus, addr uint16, params map[string]float64) i2c.Device {
	t.Helper()
	chip, err := d.Open(bus, addr, params)
	if err != nil {
		t.Fatal(err)
	}
	return chip
}

func readAgain(t testing.TB, d i2c.Driver, chip i2c.Device) map[string]float64 {
	t.Helper()
	samples, err := chip.Read(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return values(t, d, samples)
}

type m = map[string]float64

// simulation is a chip of lab/chips, what is read of it at a fraction of its scale,
// and how far that may be from it: by the chip's resolution, and by what its integer
// arithmetic rounds. Scales end a little before the templates' ranges.
type simulation struct {
	addr      uint16
	params    m
	chip      func(f float64) (chips.Chip, m)
	tolerance m
}

var simulated = map[string]simulation{
	"bme280": {addr: 0x76, chip: func(f float64) (chips.Chip, m) {
		c, h, p := -39.9+124.8*f, 100*f, 30001+79998*f
		return chips.NewBME280(c, h, p), m{"temperature_c": c, "humidity_percent": h, "pressure_hpa": p / 100}
	}, tolerance: m{"temperature_c": 0.01, "humidity_percent": 0.1, "pressure_hpa": 0.03}},
	"bmp280": {addr: 0x77, chip: func(f float64) (chips.Chip, m) {
		c, p := -39.9+124.8*f, 109999-79998*f
		return chips.NewBMP280(c, p), m{"temperature_c": c, "pressure_hpa": p / 100}
	}, tolerance: m{"temperature_c": 0.01, "pressure_hpa": 0.03}},
	"bme680": {addr: 0x77, chip: func(f float64) (chips.Chip, m) {
		c, h, p, g := -39.9+124.8*f, 10+80*f, 30100+79800*f, 2000*math.Pow(1000, f)
		return chips.NewBME680(c, h, p, g), m{"temperature_c": c, "humidity_percent": h, "pressure_hpa": p / 100, "gas_resistance_ohm": g}
	}, tolerance: m{"temperature_c": 0.011, "humidity_percent": 0.3, "pressure_hpa": 0.3, "gas_resistance_ohm": 4000}},
	"ina219": {addr: 0x41, params: m{"shunt_ohm": 0.05}, chip: func(f float64) (chips.Chip, m) {
		v, a := 26*f, -5+10*f
		return chips.NewINA219(0.05, v, a), m{"voltage_v": v, "current_a": a, "power_w": v * a}
	}, tolerance: m{"voltage_v": 0.0021, "current_a": 0.0001, "power_w": 0.015}},
	"ina226": {addr: 0x42, params: m{"shunt_ohm": 0.01}, chip: func(f float64) (chips.Chip, m) {
		v, a := 36*f, -8+16*f
		return chips.NewINA226(0.01, v, a), m{"voltage_v": v, "current_a": a, "power_w": v * a}
	}, tolerance: m{"voltage_v": 0.0007, "current_a": 0.00013, "power_w": 0.012}},
	"ina260": {addr: 0x43, chip: func(f float64) (chips.Chip, m) {
		v, a := 36*f, -15+30*f
		return chips.NewINA260(v, a), m{"voltage_v": v, "current_a": a, "power_w": v * a}
	}, tolerance: m{"voltage_v": 0.0007, "current_a": 0.0007, "power_w": 0.04}},
	"bh1750": {addr: 0x23, chip: func(f float64) (chips.Chip, m) {
		return chips.NewBH1750(54000 * f), m{"illuminance_lx": 54000 * f}
	}, tolerance: m{"illuminance_lx": 0.42}},
	"ads1115": {addr: 0x49, chip: func(f float64) (chips.Chip, m) {
		v := [4]float64{4 * f, 4 - 4*f, 1 + f, 3.3}
		return chips.NewADS1115(v), m{"in0_v": v[0], "in1_v": v[1], "in2_v": v[2], "in3_v": v[3]}
	}, tolerance: m{"in0_v": 0.00007, "in1_v": 0.00007, "in2_v": 0.00007, "in3_v": 0.00007}},
	"hdc1080": {addr: 0x40, chip: func(f float64) (chips.Chip, m) {
		c, h := -40+160*f, 99*f
		return chips.NewHDC1080(c, h), m{"temperature_c": c, "humidity_percent": h}
	}, tolerance: m{"temperature_c": 0.011, "humidity_percent": 0.007}},
	"sht31": {addr: 0x45, chip: func(f float64) (chips.Chip, m) {
		c, h := -39.9+164.8*f, 100*f
		return chips.NewSHT31(c, h), m{"temperature_c": c, "humidity_percent": h}
	}, tolerance: m{"temperature_c": 0.0014, "humidity_percent": 0.0008}},
	"sht4x": {addr: 0x44, chip: func(f float64) (chips.Chip, m) {
		c, h := -39.9+164.8*f, 100*f
		return chips.NewSHT40(c, h), m{"temperature_c": c, "humidity_percent": h}
	}, tolerance: m{"temperature_c": 0.0014, "humidity_percent": 0.001}},
	"mpu6050": {addr: 0x69, chip: func(f float64) (chips.Chip, m) {
		g, d, c := [3]float64{-2 + 4*f*0.99, 1, -f}, [3]float64{-250 + 500*f*0.99, 0, 100 * f}, -39.9+124.8*f
		const e = 9.80665
		return chips.NewMPU6050(g, d, c), m{"accel_x_mps2": g[0] * e, "accel_y_mps2": g[1] * e, "accel_z_mps2": g[2] * e,
			"gyro_x_dps": d[0], "gyro_y_dps": d[1], "gyro_z_dps": d[2], "temperature_c": c}
	}, tolerance: m{"accel_x_mps2": 0.0004, "accel_y_mps2": 0.0004, "accel_z_mps2": 0.0004,
		"gyro_x_dps": 0.13, "gyro_y_dps": 0.004, "gyro_z_dps": 0.004, "temperature_c": 0.002}},
	"lm75": {addr: 0x4f, chip: func(f float64) (chips.Chip, m) {
		c := -55 + 180*f
		return chips.NewLM75(c), m{"temperature_c": c}
	}, tolerance: m{"temperature_c": 0.25}},
	"tmp105": {addr: 0x48, chip: func(f float64) (chips.Chip, m) {
		c := -55 + 182*f
		return chips.NewTMP105(c), m{"temperature_c": c}
	}, tolerance: m{"temperature_c": 0.032}},
	"mcp9808": {addr: 0x1c, chip: func(f float64) (chips.Chip, m) {
		c := -40 + 165*f
		return chips.NewMCP9808(c), m{"temperature_c": c}
	}, tolerance: m{"temperature_c": 0.032}},
	"ds3231": {addr: 0x68, chip: func(f float64) (chips.Chip, m) {
		c := -40 + 125*f
		return chips.NewDS3231(clockStart, c), m{"temperature_c": c}
	}, tolerance: m{"temperature_c": 0.13}},
	"scd41": {addr: 0x62, chip: func(f float64) (chips.Chip, m) {
		p, c, h := 400+4600*f, -10+70*f, 95*f
		return chips.NewSCD41(p, c, h), m{"co2_ppm": p, "temperature_c": c, "humidity_percent": h}
	}, tolerance: m{"co2_ppm": 0.5, "temperature_c": 0.0014, "humidity_percent": 0.0008}},
	"sgp40": {addr: 0x59, chip: func(f float64) (chips.Chip, m) {
		v := math.Round(20000 + 32000*f)
		return chips.NewSGP40(uint16(v)), m{"voc_raw": v}
	}},
	"max17048": {addr: 0x36, chip: func(f float64) (chips.Chip, m) {
		v, p, h := 3+1.2*f, 100*f, -20+40*f
		return chips.NewMAX17048(v, p, h), m{"voltage_v": v, "charge_percent": p, "rate_percent_h": h}
	}, tolerance: m{"voltage_v": 0.00004, "charge_percent": 0.002, "rate_percent_h": 0.11}},
	"max17040": {addr: 0x36, chip: func(f float64) (chips.Chip, m) {
		v, p := 3+1.2*f, 100*f
		return chips.NewMAX17040(v, p), m{"voltage_v": v, "charge_percent": p}
	}, tolerance: m{"voltage_v": 0.0007, "charge_percent": 0.002}},
	"vl53l0x": {addr: 0x29, chip: func(f float64) (chips.Chip, m) {
		v := 30 + math.Round(1900*f)
		return chips.NewVL53L0X(v), m{"distance_mm": v}
	}},
	"waveshare-ups-hat": {addr: 0x42, chip: func(f float64) (chips.Chip, m) {
		v, a := 6+2.4*f, -3+6*f
		return chips.NewINA219(0.1, v, a), m{"voltage_v": v, "current_a": a, "power_w": v * a, "charge_percent": 100 * f}
	}, tolerance: m{"voltage_v": 0.0021, "current_a": 0.0001, "power_w": 0.01, "charge_percent": 0.1}},
	"waveshare-ups-hat-c": {addr: 0x43, chip: func(f float64) (chips.Chip, m) {
		v, a := 3+1.2*f, -3+6*f
		return chips.NewINA219(0.01, v, a), m{"voltage_v": v, "current_a": a, "power_w": v * a, "charge_percent": 100 * f}
	}, tolerance: m{"voltage_v": 0.0021, "current_a": 0.001, "power_w": 0.01, "charge_percent": 0.2}},
}

// TestSimulatedChips sweeps what a simulated chip measures. Bosch's compute the raw
// numbers by their data sheets' integer arithmetic, the templates by floating point.
func TestSimulatedChips(t *testing.T) {
	for name, x := range simulated {
		t.Run(name, func(t *testing.T) {
			for f := 0.0; f <= 1; f += 1.0 / 16 {
				synctest.Test(t, func(t *testing.T) {
					chip, want := x.chip(f)
					bus := chips.NewBus()
					bus.Attach(x.addr, chip)
					got := read(t, builtin(t, name), bus, x.addr, x.params)
					for v, w := range want {
						same(t, got, m{v: w}, x.tolerance[v])
					}
				})
			}
		})
	}
}

// What is asked of the BME680's heater depends on what is burnt into the chip: the
// floating-point formula of its data sheet (3.3.5) at 320 °C, 25 °C around it.
func TestBME680Heater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := chips.NewBME680(25, 50, 100000, 50000)
		bus := chips.NewBus()
		bus.Attach(0x77, chip)
		read(t, builtin(t, "bme680"), bus, 0x77, nil)
		v1 := -30.0/16 + 49
		v2 := -5969.0/32768*0.0005 + 0.00235
		v5 := v1*(1+v2*320) + 18.0/1024*25
		want := byte(3.4 * (v5*(4.0/(4+1))*(1/(1+50*0.002)) - 25))
		if got := chip.Heater(); got != want {
			t.Errorf("expected %d, got %d", want, got)
		}
	})
}
