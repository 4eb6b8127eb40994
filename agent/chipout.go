package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"halo.internal/agent/output"
	"halo.internal/agent/sensors"
	"halo.internal/drivers/i2c"
)

// chipOutputs are the outputs of chips on buses: LABEL.OUTPUT, as pcf8574.out1.
type chipOutputs struct{ m *sensors.Manager }

// Any implements output.Chips.
func (c chipOutputs) Any() bool { return len(c.m.Outputs()) > 0 }

// Find implements output.Chips.
func (c chipOutputs) Find(name string) (output.Chip, bool) {
	label, of, _ := strings.Cut(name, ".")
	list := c.m.Outputs()[label]
	i := slices.IndexFunc(list, func(o i2c.Output) bool { return o.Name == of })
	if i < 0 {
		return output.Chip{}, false
	}
	o := list[i]
	return output.Chip{Driver: chipDriver{c.m, label, o}, Safe: (o.Safe - o.Min) / (o.Max - o.Min), Whole: o.Whole && o.Max-o.Min == 1}, true
}

// chipDriver drives one output of a chip: a part of it is that part of its range.
type chipDriver struct {
	m     *sensors.Manager
	label string
	out   i2c.Output
}

const chipLimit = 5 * time.Second

// Set implements output.Driver.
func (d chipDriver) Set(part float64) error {
	v := d.out.Min + part*(d.out.Max-d.out.Min)
	if d.out.Whole {
		v = math.Round(v)
	}
	ctx, cancel := context.WithTimeout(context.Background(), chipLimit)
	defer cancel()
	err := d.m.Send(ctx, d.label, d.out.Name, v)
	if errors.Is(err, sensors.ErrNoOutput) {
		err = fmt.Errorf("%w: %s.%s", output.ErrGone, d.label, d.out.Name)
	}
	return err
}
