// Package i2c reads and drives chips on I2C buses. What a chip is called, where it
// answers, what sets it up and what its octets mean is said by a template: a TOML
// file, of which many are built in and any number may be added while HALO runs. A
// chip that no template can express has a Driver in a file of its own, in the same
// table.
//
// A template is not trusted: it comes from a person or the network, and the
// octets that it is about come from a wire. Its size, its transactions, their
// octets, its waits and its formulas are bounded when it is parsed, so that one
// reading takes a known time at most, and whatever a chip answers, a value is
// either a finite number within its range or missing with a reason.
//
// Nothing here looks for buses, keeps time or locks: who calls reads a chip from
// one goroutine at a time, as often as its Spec says.
package i2c

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"periph.io/x/conn/v3/i2c"

	"halo.internal/model/wire"
)

// Role of a chip in a neuron.
type Role string

// Roles.
const (
	Sensor Role = "sensor" // gathers
	Send   Role = "send"   // outputs
)

// Driver is one kind of chip.
type Driver interface {
	// Spec is what is known before a chip is opened. It must not be changed.
	Spec() *Spec
	// Open returns the chip at an address. It asks nothing of it yet: that is for
	// Device.Read and Send. Parameters that params has not are their defaults.
	Open(bus i2c.Bus, addr uint16, params map[string]float64) (Device, error)
}

// Device is one chip. Its methods may be called from one goroutine at a time.
type Device interface {
	// Read measures, and appends one sample for each of Spec.Values to dst, in
	// their order. It sets the chip up when that was not done, or when the chip has
	// not answered or has lost its settings since. The error says why the chip gave
	// nothing at all; nothing is appended then.
	Read(ctx context.Context, dst []Sample) ([]Sample, error)
	// Send sets outputs. Those that are not named stay as they were, at first at
	// Output.Safe.
	Send(ctx context.Context, outputs map[string]float64) error
}

// Spec is what is known of a kind of chip.
type Spec struct {
	Name      string // as metrics have it: bme280
	Title     string // for people
	Datasheet string // document and revision that the driver was written from
	Role      Role
	Addresses []uint16
	// Identity are questions that have no effect. All must be answered as it says.
	Identity []Check
	// WeakIdentity says that a chip that answers so may be another.
	WeakIdentity bool
	// IdleNAK says that the chip does not answer a read that no command came before.
	IdleNAK     bool
	Interval    time.Duration // between readings, unless somebody wants another
	MinInterval time.Duration // more often is pointless or harmful
	Longest     time.Duration // that a Read may wait for the chip, with set-up
	Parameters  []Parameter
	Values      []Value
	Outputs     []Output
	Display     bool // its Device is a Display
}

// Parameter is what depends on how the chip is wired: the resistance of a shunt.
type Parameter struct {
	Name     string
	Title    string
	Unit     string
	Default  float64
	Min, Max float64
}

// Value is one thing that a chip measures.
type Value struct {
	Name     string // last part of the metric's name: temperature_c
	Title    string
	Unit     string
	Min, Max float64 // what is outside is not possible
	Scale    int8    // decimal places on the wire
	Power    string  // what it is of the board's power, one of PowerMeanings; else empty
}

// PowerMeanings are what a value may be of the power of a board.
var powerMeanings = []string{
	"battery_percent", "battery_voltage_v", "battery_current_a", "battery_power_w", // current and power: above 0 while it is charged
	"input_voltage_v", "input_current_a", "input_power_w",
	"load_voltage_v", "load_current_a", "load_power_w",
}

// PowerMeanings are what a value may be of the power of a board: those of the
// battery, of what feeds the board, and of what it takes. Current and power of the
// battery are above 0 while it is charged.
func PowerMeanings() []string { return append([]string(nil), powerMeanings...) }

// Output is one thing that a chip drives.
type Output struct {
	Name     string
	Title    string
	Unit     string
	Min, Max float64
	Whole    bool    // takes whole numbers only
	Safe     float64 // at the start, and when whoever controls it is lost
}

// Sample is one value of one reading.
type Sample struct {
	Number float64 // in the value's unit; NaN where there is none
	Err    error   // why there is none
}

// Metric is the series of a value of the chip with a label: i2c.<label>.<value>. The
// label is the driver's name where a board has one such chip, and something else
// for each further one.
func Metric(label string, v Value) wire.Metric {
	return wire.NewMetric("i2c."+label+"."+v.Name, v.Unit, v.Scale)
}

// Wire is the sample as the value's metric has it: absent where there is no number.
func (s Sample) Wire(v Value) wire.Value {
	if s.Err != nil || math.IsNaN(s.Number) {
		return wire.Value{}
	}
	if v.Scale == wire.ScaleFloat {
		return wire.Float(s.Number)
	}
	n := math.RoundToEven(s.Number * math.Pow10(int(v.Scale)))
	if math.Abs(n) > 1<<53 {
		return wire.Value{}
	}
	return wire.Int(int64(n))
}

// ErrNoOutputs is what Send returns for chips that have none.
var ErrNoOutputs = errors.New("the chip has no outputs")

// IdentityError says that another chip answers, or none that is this one.
type IdentityError struct {
	Chip  string
	Addr  uint16
	Check Check
	Got   []byte
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("%#02x is no %s: asked % x: expected %s, got % x", e.Addr, e.Chip, e.Check.Write, e.Check.expected(), e.Got)
}

// BusError is a transaction that failed, after all tries.
type BusError struct {
	Addr  uint16
	Write []byte
	Read  int
	Err   error
}

func (e *BusError) Error() string {
	switch {
	case e.Read == 0:
		return fmt.Sprintf("%#02x: write % x: %v", e.Addr, e.Write, e.Err)
	case len(e.Write) == 0:
		return fmt.Sprintf("%#02x: read %d octets: %v", e.Addr, e.Read, e.Err)
	}
	return fmt.Sprintf("%#02x: write % x and read %d octets: %v", e.Addr, e.Write, e.Read, e.Err)
}

func (e *BusError) Unwrap() error { return e.Err }

// RangeError is a value that can't be.
type RangeError struct {
	Number, Min, Max float64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("expected %v to %v, got %v", e.Min, e.Max, e.Number)
}

// ErrNotReady wraps what a chip did not finish in time.
var ErrNotReady = errors.New("not ready in time")

// parameters returns the values of a driver's parameters, in their order.
func (s *Spec) parameters(given map[string]float64) ([]float64, error) {
	values := make([]float64, len(s.Parameters))
	known := 0
	for i, p := range s.Parameters {
		v, ok := given[p.Name]
		if !ok {
			v = p.Default
		} else {
			known++
		}
		if !(v >= p.Min && v <= p.Max) {
			return nil, fmt.Errorf("%s: parameter %s: expected %v to %v, got %v", s.Name, p.Name, p.Min, p.Max, v)
		}
		values[i] = v
	}
	if known < len(given) {
		for name := range given {
			if !s.hasParameter(name) {
				return nil, fmt.Errorf("%s has no parameter %.40q", s.Name, name)
			}
		}
	}
	return values, nil
}

func (s *Spec) hasParameter(name string) bool {
	for _, p := range s.Parameters {
		if p.Name == name {
			return true
		}
	}
	return false
}

// answersAt tells whether the chip may be at an address.
func (s *Spec) answersAt(addr uint16) bool {
	for _, a := range s.Addresses {
		if a == addr {
			return true
		}
	}
	return false
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
