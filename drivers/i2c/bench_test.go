package i2c_test

import (
	"testing"

	"periph.io/x/conn/v3/physic"

	"halo.internal/drivers/i2c"
)

// BenchmarkBME280 decodes a reading with compensation through the template, the bus's
// time and the chip's apart: see export_test.go.
func BenchmarkBME280(b *testing.B) {
	chip, err := i2c.OpenWithoutWaits(builtin(b, "bme280").(*i2c.Template), instant{}, 0x76)
	if err != nil {
		b.Fatal(err)
	}
	var samples []i2c.Sample
	b.ReportAllocs()
	for b.Loop() {
		if samples, err = chip.Read(b.Context(), samples[:0]); err != nil {
			b.Fatal(err)
		}
	}
	same(b, values(b, builtin(b, "bme280"), samples), map[string]float64{"temperature_c": 25.08, "pressure_hpa": 1006.5327}, 0.01)
}

// instant is a bus with the data sheet's example on it, which takes no time.
type instant struct{}

func (instant) String() string                  { return "instant" }
func (instant) SetSpeed(physic.Frequency) error { return nil }

func (instant) Tx(_ uint16, w, r []byte) error {
	clear(r)
	switch w[0] {
	case 0xd0:
		r[0] = 0x60
	case 0xf2:
		if len(r) > 0 {
			r[0] = 0x01
		}
	case 0x88:
		copy(r, bmp280Example)
		r[25] = 75
	case 0xe1:
		copy(r, []byte{0x6a, 0x01, 0x00, 0x13, 0x26, 0x03, 0x1e})
	case 0xf7:
		copy(r, []byte{0x65, 0x5a, 0xc0, 0x7e, 0xed, 0x00, 0x6a, 0x00})
	}
	return nil
}
