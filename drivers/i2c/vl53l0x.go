package i2c

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"periph.io/x/conn/v3/i2c"
)

// VL53L0X measures distances by light (ST DS11555). It is no template: its start
// reads which of its diodes are good, chooses some, and calibrates itself.
//
// Its data sheet has no registers; they are known from ST's program (UM2039), whose
// order of things this follows: data initialisation, reference SPADs, calibration of
// voltage and phase, single measurements. The table of tuning values of that program
// is not loaded.
type VL53L0X struct{}

var vl53l0xSpec = Spec{
	Name:      "vl53l0x",
	Title:     "VL53L0X: distance",
	Datasheet: "DS11555, revision 3; UM2039",
	Role:      Sensor,
	Addresses: []uint16{0x29},
	Identity: []Check{ // DS11555, table 4: reference registers
		{Write: []byte{0xC0}, Read: 1, Mask: 0xFF, Want: 0xEE},
		{Write: []byte{0xC1}, Read: 1, Mask: 0xFF, Want: 0xAA},
		{Write: []byte{0xC2}, Read: 1, Mask: 0xFF, Want: 0x10},
	},
	Interval:    10 * time.Second,
	MinInterval: 100 * time.Millisecond,
	Longest:     5 * rangerLimit,
	Values: []Value{
		{Name: "distance_mm", Title: "Distance", Unit: "mm", Min: 0, Max: 2200, Scale: 0},
	},
}

// rangerLimit is how long any step may take.
const rangerLimit = 200 * time.Millisecond

// Spec implements Driver.
func (VL53L0X) Spec() *Spec { return &vl53l0xSpec }

// Open implements Driver.
func (VL53L0X) Open(bus i2c.Bus, addr uint16, params map[string]float64) (Device, error) {
	if _, err := vl53l0xSpec.parameters(params); err != nil {
		return nil, err
	}
	return &ranger{run: runner{bus: bus, addr: addr, retries: 2}}, nil
}

// ranger is a VL53L0X.
type ranger struct {
	run   runner
	ready bool
	stop  byte // what register 0x91 had at the start: it belongs to each measurement
}

// Registers, as ST's program names them.
const (
	sysrangeStart        = 0x00
	sequenceConfig       = 0x01
	interruptConfig      = 0x0A
	interruptClear       = 0x0B
	interruptStatus      = 0x13
	rangeStatus          = 0x14
	msrcConfig           = 0x60
	rateLimit            = 0x44
	gpioMux              = 0x84
	padVoltage           = 0x89
	spadMap              = 0xB0
	spadStart            = 0xB6
	allSteps        byte = 0xE8 // of a measurement: all but MSRC and TCC
)

// Send implements Device.
func (d *ranger) Send(context.Context, map[string]float64) error { return ErrNoOutputs }

// Read implements Device.
func (d *ranger) Read(ctx context.Context, dst []Sample) ([]Sample, error) {
	if err := d.prepare(ctx); err != nil {
		return dst, err
	}
	status, mm, err := d.measure(ctx)
	if err != nil {
		d.ready = false
		return dst, err
	}
	return append(dst, judgeRange(status, mm)), nil
}

// judgeRange makes a sample of the result. Status 11 is a valid one.
func judgeRange(status byte, mm uint16) Sample {
	v := vl53l0xSpec.Values[0]
	switch n := float64(mm); {
	case status != 11:
		return Sample{math.NaN(), fmt.Errorf("%s: nothing within reach, or too little light (status %d): %w", v.Name, status, errInvalid)}
	case n > v.Max:
		return Sample{math.NaN(), fmt.Errorf("%s: %w", v.Name, &RangeError{n, v.Min, v.Max})}
	default:
		return Sample{Number: n}
	}
}

func (d *ranger) prepare(ctx context.Context) error {
	if d.ready {
		sequence, err := d.get(ctx, sequenceConfig)
		if d.ready = err == nil && sequence == allSteps; d.ready || err != nil {
			return err
		}
	}
	if err := d.identify(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.initialise, d.chooseSPADs, d.calibrate} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.ready = true
	return nil
}

// identify asks again where another chip seems to answer: what was broken off in the
// midst has left the chip on a page of registers that has no identity.
func (d *ranger) identify(ctx context.Context) error {
	err := d.run.identify(ctx, &vl53l0xSpec)
	if _, other := errors.AsType[*IdentityError](err); !other {
		return err
	}
	if err := d.set(ctx, 0xFF, 0x00, 0x80, 0x00); err != nil {
		return err
	}
	return d.run.identify(ctx, &vl53l0xSpec)
}

// initialise is for pads of 2.8 V, and takes what the stop variable is.
func (d *ranger) initialise(ctx context.Context) error {
	if err := d.change(ctx, padVoltage, 0x01, 0x01); err != nil {
		return err
	}
	if err := d.set(ctx, 0x88, 0x00, 0x80, 0x01, 0xFF, 0x01, 0x00, 0x00); err != nil {
		return err
	}
	stop, err := d.get(ctx, 0x91)
	if err != nil {
		return err
	}
	d.stop = stop
	if err := d.set(ctx, 0x00, 0x01, 0xFF, 0x00, 0x80, 0x00); err != nil {
		return err
	}
	if err := d.change(ctx, msrcConfig, 0x12, 0x12); err != nil { // no limits before the last step
		return err
	}
	// 0.25 million counts a second, in 128ths, are the least for a valid measurement.
	if _, err := d.run.transact(ctx, []byte{rateLimit, 0x00, 0x20}, 0, 0, NoCRC); err != nil {
		return err
	}
	return d.set(ctx, sequenceConfig, 0xFF)
}

// chooseSPADs enables as many reference diodes as the chip's memory says, of those
// that are good.
func (d *ranger) chooseSPADs(ctx context.Context) error {
	count, aperture, err := d.spads(ctx)
	if err != nil {
		return err
	}
	good, err := d.run.transact(ctx, []byte{spadMap}, 0, 6, NoCRC)
	if err != nil {
		return err
	}
	chosen := append([]byte{spadMap}, chooseDiodes([6]byte(good), count, aperture)...)
	if err := d.set(ctx, 0xFF, 0x01, 0x4F, 0x00, 0x4E, 0x2C, 0xFF, 0x00, spadStart, 0xB4); err != nil {
		return err
	}
	if _, err := d.run.transact(ctx, chosen, 0, 0, NoCRC); err != nil {
		return err
	}
	// The interrupt is that a sample is ready; its line is low then.
	if err := d.set(ctx, interruptConfig, 0x04); err != nil {
		return err
	}
	if err := d.change(ctx, gpioMux, 0x10, 0x00); err != nil {
		return err
	}
	return d.set(ctx, interruptClear, 0x01)
}

// chooseDiodes takes the first good ones, of those behind an aperture, which begin at
// the twelfth, or of all.
func chooseDiodes(good [6]byte, count int, aperture bool) []byte {
	first := 0
	if aperture {
		first = 12
	}
	var chosen [6]byte
	for i := first; i < 48 && count > 0; i++ {
		if bit := byte(1) << (i % 8); good[i/8]&bit != 0 {
			chosen[i/8] |= bit
			count--
		}
	}
	return chosen[:]
}

// spads reads the number and kind of reference diodes from the chip's memory.
func (d *ranger) spads(ctx context.Context) (count int, aperture bool, err error) {
	if err := d.set(ctx, 0x80, 0x01, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0x06); err != nil {
		return 0, false, err
	}
	if err := d.change(ctx, 0x83, 0x04, 0x04); err != nil {
		return 0, false, err
	}
	if err := d.set(ctx, 0xFF, 0x07, 0x81, 0x01, 0x80, 0x01, 0x94, 0x6B, 0x83, 0x00); err != nil {
		return 0, false, err
	}
	if err := d.await(ctx, 0x83, 0xFF); err != nil {
		return 0, false, err
	}
	if err := d.set(ctx, 0x83, 0x01); err != nil {
		return 0, false, err
	}
	info, err := d.get(ctx, 0x92)
	if err != nil {
		return 0, false, err
	}
	if err := d.set(ctx, 0x81, 0x00, 0xFF, 0x06); err != nil {
		return 0, false, err
	}
	if err := d.change(ctx, 0x83, 0x04, 0x00); err != nil {
		return 0, false, err
	}
	return int(info & 0x7F), info&0x80 != 0, d.set(ctx, 0xFF, 0x01, 0x00, 0x01, 0xFF, 0x00, 0x80, 0x00)
}

// calibrate lets the chip find its voltage, and then its phase.
func (d *ranger) calibrate(ctx context.Context) error {
	for _, step := range [][2]byte{{0x01, 0x41}, {0x02, 0x01}} {
		if err := d.set(ctx, sequenceConfig, step[0], sysrangeStart, step[1]); err != nil {
			return err
		}
		if err := d.await(ctx, interruptStatus, 0x07); err != nil {
			return err
		}
		if err := d.set(ctx, interruptClear, 0x01, sysrangeStart, 0x00); err != nil {
			return err
		}
	}
	return d.set(ctx, sequenceConfig, allSteps)
}

// measure measures once.
func (d *ranger) measure(ctx context.Context) (status byte, mm uint16, err error) {
	if err := d.set(ctx, 0x80, 0x01, 0xFF, 0x01, 0x00, 0x00, 0x91, d.stop, 0x00, 0x01, 0xFF, 0x00, 0x80, 0x00, sysrangeStart, 0x01); err != nil {
		return 0, 0, err
	}
	if err := d.await(ctx, interruptStatus, 0x07); err != nil {
		return 0, 0, err
	}
	r, err := d.run.transact(ctx, []byte{rangeStatus}, 0, 12, NoCRC)
	if err != nil {
		return 0, 0, err
	}
	status, mm = r[0]>>3&0x0F, uint16(r[10])<<8|uint16(r[11])
	return status, mm, d.set(ctx, interruptClear, 0x01)
}

// set writes octets to registers: pairs of number and octet, in their order.
func (d *ranger) set(ctx context.Context, pairs ...byte) error {
	for i := 0; i+1 < len(pairs); i += 2 {
		if _, err := d.run.transact(ctx, pairs[i:i+2], 0, 0, NoCRC); err != nil {
			return err
		}
	}
	return nil
}

func (d *ranger) get(ctx context.Context, reg byte) (byte, error) {
	r, err := d.run.transact(ctx, []byte{reg}, 0, 1, NoCRC)
	if err != nil {
		return 0, err
	}
	return r[0], nil
}

// change sets the bits of a mask.
func (d *ranger) change(ctx context.Context, reg, mask, bits byte) error {
	v, err := d.get(ctx, reg)
	if err != nil {
		return err
	}
	return d.set(ctx, reg, v&^mask|bits)
}

// await waits until a register has any of the bits of a mask.
func (d *ranger) await(ctx context.Context, reg, mask byte) error {
	check := Check{Mask: uint32(mask), Differs: true}
	s := step{read: 1, block: -1, until: &until{check, defaultEvery, rangerLimit}}
	_, err := d.run.poll(ctx, &s, []byte{reg})
	return err
}

var (
	_ Driver = VL53L0X{}
	_ Device = (*ranger)(nil)
)
