package bus

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"halo.internal/lab/chips"
)

// kind is one kind of chip: what it measures, and how package chips makes one.
type kind struct {
	name       string
	addr       uint16 // the usual one
	quantities []quantity
	// identity is what is written before its register of identity is read; nil where
	// it has none.
	identity []byte
	// make makes a chip that measures the quantities; set changes them.
	make func(v []float64) (c chips.Chip, set func(v []float64))
}

// quantity is one thing that a chip measures.
type quantity struct {
	name, unit       string
	usual, low, high float64
}

// Shunts that meters are soldered to.
const (
	shunt219 = 0.1
	shunt226 = 0.01
)

func temperature(low, high float64) quantity {
	return quantity{"temperature", "°C", 21.5, low, high}
}

var (
	humidity = quantity{"humidity", "%", 45, 0, 100}
	pressure = quantity{"pressure", "hPa", 1013.25, 300, 1100}
	voltage  = quantity{"voltage", "V", 5.1, 0, 36}
	current  = quantity{"current", "A", 0.6, -20, 20}
)

// kinds are those that a board can be wired with.
var kinds = []*kind{
	{"bme280", 0x76, []quantity{temperature(-40, 85), humidity, pressure}, []byte{0xd0}, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewBME280(v[0], v[1], v[2]*100)
		return c, func(v []float64) { c.Set(v[0], v[1], v[2]*100) }
	}},
	{"bmp280", 0x77, []quantity{temperature(-40, 85), pressure}, []byte{0xd0}, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewBMP280(v[0], v[1]*100)
		return c, func(v []float64) { c.Set(v[0], 0, v[1]*100) }
	}},
	{"ina219", 0x40, []quantity{voltage, current}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewINA219(shunt219, v[0], v[1])
		return c, func(v []float64) { c.Set(v[0], v[1]) }
	}},
	{"ina226", 0x40, []quantity{voltage, current}, []byte{0xff}, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewINA226(shunt226, v[0], v[1])
		return c, func(v []float64) { c.Set(v[0], v[1]) }
	}},
	{"ina260", 0x40, []quantity{voltage, current}, []byte{0xff}, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewINA260(v[0], v[1])
		return c, func(v []float64) { c.Set(v[0], v[1]) }
	}},
	{"lm75", 0x48, []quantity{temperature(-55, 125)}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewLM75(v[0])
		return c, func(v []float64) { c.Set(v[0]) }
	}},
	{"tmp102", 0x48, []quantity{temperature(-55, 125)}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewTMP102(v[0])
		return c, func(v []float64) { c.Set(v[0]) }
	}},
	{"mcp9808", 0x18, []quantity{temperature(-40, 125)}, []byte{0x07}, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewMCP9808(v[0])
		return c, func(v []float64) { c.Set(v[0]) }
	}},
	{"bh1750", 0x23, []quantity{{"illuminance", "lx", 320, 0, 54000}}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewBH1750(v[0])
		return c, func(v []float64) { c.Set(v[0]) }
	}},
	{"ads1115", 0x49, []quantity{{"in0", "V", 1, -4, 4}, {"in1", "V", 2, -4, 4}, {"in2", "V", 3, -4, 4}, {"in3", "V", 3.3, -4, 4}}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewADS1115([4]float64(v))
		return c, func(v []float64) { c.Set([4]float64(v)) }
	}},
	{"sht31", 0x44, []quantity{temperature(-40, 125), humidity}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewSHT31(v[0], v[1])
		return c, func(v []float64) { c.Set(v[0], v[1]) }
	}},
	{"sht40", 0x44, []quantity{temperature(-40, 125), humidity}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewSHT40(v[0], v[1])
		return c, func(v []float64) { c.Set(v[0], v[1]) }
	}},
	{"mpu6050", 0x68, []quantity{
		{"accel-x", "g", 0, -16, 16}, {"accel-y", "g", 0, -16, 16}, {"accel-z", "g", 1, -16, 16},
		{"gyro-x", "°/s", 0, -2000, 2000}, {"gyro-y", "°/s", 0, -2000, 2000}, {"gyro-z", "°/s", 0, -2000, 2000},
		temperature(-40, 85),
	}, []byte{0x75}, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewMPU6050([3]float64(v[:3]), [3]float64(v[3:6]), v[6])
		return c, func(v []float64) { c.Set([3]float64(v[:3]), [3]float64(v[3:6]), v[6]) }
	}},
	{"ds3231", 0x68, []quantity{temperature(-40, 85)}, nil, func(v []float64) (chips.Chip, func([]float64)) {
		c := chips.NewDS3231(time.Now(), v[0])
		return c, func(v []float64) { c.Set(v[0]) }
	}},
	{"ssd1306", 0x3c, nil, nil, func([]float64) (chips.Chip, func([]float64)) {
		return chips.NewSSD1306(), func([]float64) {}
	}},
}

// Kinds are the names of all kinds of chips.
func Kinds() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	slices.Sort(names)
	return names
}

func kindOf(name string) (*kind, bool) {
	for _, k := range kinds {
		if k.name == name {
			return k, true
		}
	}
	return nil, false
}

// assign sets one quantity among the values of a chip of the kind.
func (k *kind) assign(values []float64, name string, v float64) error {
	var names []string
	for i, q := range k.quantities {
		if q.name == name {
			if !(v >= q.low && v <= q.high) {
				return fmt.Errorf("%s: %s: expected %v to %v %s, got %v", k.name, name, q.low, q.high, q.unit, v)
			}
			values[i] = v
			return nil
		}
		names = append(names, q.name)
	}
	if names == nil {
		return fmt.Errorf("%s measures nothing", k.name)
	}
	return fmt.Errorf("%s does not measure %.40q: expected one of %s", k.name, name, strings.Join(names, ", "))
}
