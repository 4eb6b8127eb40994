package i2c

import (
	"context"
	"errors"
	"fmt"
	"math"

	"periph.io/x/conn/v3/i2c"

	"halo.internal/drivers/i2c/formula"
)

// Spec is what the template says before a chip is opened.
func (t *Template) Spec() *Spec { return &t.spec }

// Open returns the chip at an address, which need not be one of the template's.
func (t *Template) Open(bus i2c.Bus, addr uint16, params map[string]float64) (Device, error) {
	return t.open(bus, addr, params)
}

func (t *Template) open(bus i2c.Bus, addr uint16, params map[string]float64) (*chip, error) {
	if addr < firstAddr || addr > lastAddr {
		return nil, fmt.Errorf("%s: expected an address from %#02x to %#02x, got %#02x", t.spec.Name, firstAddr, lastAddr, addr)
	}
	values, err := t.spec.parameters(params)
	if err != nil {
		return nil, err
	}
	c := &chip{t: t, why: make([]error, len(t.scope.Names()))}
	c.run = runner{bus: bus, addr: addr, frame: t.scope.NewFrame(), retries: t.retries, blocks: make([][]byte, len(t.blocks))}
	for i, b := range t.blocks {
		c.run.blocks[i] = make([]byte, b.size)
	}
	for i, slot := range t.parameters {
		c.run.frame.Vars[slot] = values[i]
	}
	for i, slot := range t.outputs {
		c.run.frame.Vars[slot] = t.spec.Outputs[i].Safe
	}
	return c, nil
}

// chip is a Device that a Template describes.
type chip struct {
	t     *Template
	run   runner
	ready bool    // it is set up
	why   []error // of each variable without a value
}

// Read implements Device.
func (c *chip) Read(ctx context.Context, dst []Sample) ([]Sample, error) {
	if _, err := c.prepare(ctx); err != nil {
		return dst, err
	}
	if err := c.run.run(ctx, c.t.measure); err != nil {
		c.ready = false // it may have lost its power: what it was told is gone
		return dst, err
	}
	c.decode(c.t.measured)
	c.compute(c.t.compute)
	for i := range c.t.values {
		dst = append(dst, c.sample(i))
	}
	return dst, nil
}

// Send implements Device.
func (c *chip) Send(ctx context.Context, outputs map[string]float64) error {
	if len(c.t.outputs) == 0 {
		return ErrNoOutputs
	}
	former := make([]float64, len(c.t.outputs))
	for i, slot := range c.t.outputs {
		former[i] = c.run.frame.Vars[slot]
	}
	if err := c.set(outputs); err != nil {
		return err
	}
	fresh, err := c.prepare(ctx)
	if !fresh && err == nil {
		err = c.run.run(ctx, c.t.send)
	}
	if err != nil {
		// What has failed must not happen later, when the chip is set up anew.
		c.ready = false
		for i, slot := range c.t.outputs {
			c.run.frame.Vars[slot] = former[i]
		}
	}
	return err
}

// set takes over all outputs that are named, or none.
func (c *chip) set(outputs map[string]float64) error {
	known := 0
	for i := range c.t.spec.Outputs {
		o := &c.t.spec.Outputs[i]
		v, ok := outputs[o.Name]
		if !ok {
			continue
		}
		known++
		if err := o.check(v); err != nil {
			return fmt.Errorf("output %s: %w", o.Name, err)
		}
	}
	if known < len(outputs) {
		return fmt.Errorf("%s has %d outputs of another name than those that were given", c.t.spec.Name, len(c.t.spec.Outputs))
	}
	for i, slot := range c.t.outputs {
		if v, ok := outputs[c.t.spec.Outputs[i].Name]; ok {
			c.run.frame.Vars[slot] = v
		}
	}
	return nil
}

// prepare sets the chip up unless that was done and it still has its settings. What
// is set up has its outputs too.
func (c *chip) prepare(ctx context.Context) (fresh bool, err error) {
	if c.ready {
		c.ready, err = c.kept(ctx)
		if c.ready || err != nil {
			return false, err
		}
	}
	if err := c.run.identify(ctx, &c.t.spec); err != nil {
		return false, err
	}
	if err := c.run.run(ctx, c.t.reset); err != nil {
		return false, err
	}
	if err := c.run.run(ctx, c.t.calibration); err != nil {
		return false, err
	}
	c.decode(c.t.calibrated)
	c.compute(c.t.constants)
	if err := c.run.run(ctx, c.t.setup); err != nil {
		return false, err
	}
	if err := c.run.run(ctx, c.t.send); err != nil {
		return false, err
	}
	c.ready = true
	return true, nil
}

// kept tells whether the chip has the settings still that set-up gave it: after a
// brown-out it answers as if nothing were wrong.
func (c *chip) kept(ctx context.Context) (bool, error) {
	for i := range c.t.verify {
		check := &c.t.verify[i]
		got, err := c.run.transact(ctx, check.Write, check.Wait, check.Read, check.CRC)
		if err != nil {
			return false, err
		}
		if !check.holds(got) {
			return false, nil
		}
	}
	return true, nil
}

func (c *chip) decode(fields []field) {
	for i := range fields {
		f := &fields[i]
		c.run.frame.Vars[f.slot] = f.decode(c.run.blocks[f.block])
	}
}

func (c *chip) compute(list []named) {
	for i := range list {
		v, err := c.eval(list[i].name, list[i].formula)
		c.run.frame.Vars[list[i].slot], c.why[list[i].slot] = v, err
	}
}

// eval computes a formula. Where it lacks a variable, the error is why that has no
// value.
func (c *chip) eval(name string, f *formula.Formula) (float64, error) {
	v, err := f.Eval(c.run.frame)
	return v, c.explain(name, err)
}

func (c *chip) explain(name string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*formula.Error](err); ok && e.Missing >= 0 && c.why[e.Missing] != nil {
		return c.why[e.Missing]
	}
	return fmt.Errorf("%s: %w", name, err)
}

// sample computes a value, which later values may be made of.
func (c *chip) sample(i int) Sample {
	v := &c.t.values[i]
	n, err := c.judge(v, &c.t.spec.Values[i])
	if err != nil {
		n = math.NaN()
	}
	c.run.frame.Vars[v.slot], c.why[v.slot] = n, err
	return Sample{n, err}
}

// errInvalid is why a value is left out of which the chip itself says so.
var errInvalid = errors.New("the chip says that there is no valid measurement")

func (c *chip) judge(v *formulaValue, spec *Value) (float64, error) {
	if v.valid != nil {
		ok, err := v.valid.Eval(c.run.frame)
		if err != nil {
			return 0, c.explain(v.name+": valid", err)
		}
		if !ok {
			return 0, fmt.Errorf("%s: %w", v.name, errInvalid)
		}
	}
	n, err := c.eval(v.name, v.formula)
	if err != nil {
		return 0, err
	}
	if !(n >= spec.Min && n <= spec.Max) {
		return 0, fmt.Errorf("%s: %w", v.name, &RangeError{n, spec.Min, spec.Max})
	}
	return n, nil
}

var (
	_ Driver = (*Template)(nil)
	_ Device = (*chip)(nil)
)
