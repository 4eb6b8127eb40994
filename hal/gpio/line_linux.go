package gpio

import (
	"fmt"
	"strings"

	"periph.io/x/conn/v3/driver/driverreg"
	periph "periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"
)

// Open finds a line of the board by its name or by chip/number. It is not
// touched before it is driven.
func Open(name string) (Line, error) {
	if _, err := driverreg.Init(); err != nil {
		return nil, fmt.Errorf("gpio lines: %w", err)
	}
	found := find(name)
	switch len(found) {
	case 1:
		return &line{found[0]}, nil
	case 0:
		return nil, fmt.Errorf("gpio line %s: there is none of that name on %s: name it as the device tree does, or by chip and number as in gpiochip0/17", name, chips())
	}
	return nil, fmt.Errorf("gpio line %s: %d chips have one: name it by chip and number as in gpiochip0/17", name, len(found))
}

func find(name string) (found []*gpioioctl.GPIOLine) {
	chip, number, byNumber := strings.Cut(name, "/")
	for _, c := range gpioioctl.Chips {
		for _, l := range c.Lines() {
			if byNumber && chip == c.Name() && number == fmt.Sprint(l.Number()) || !byNumber && name == l.Name() {
				found = append(found, l)
			}
		}
	}
	return found
}

func chips() string {
	var names []string
	for _, c := range gpioioctl.Chips {
		names = append(names, fmt.Sprintf("%s (%s, %d lines)", c.Name(), c.Label(), c.LineCount()))
	}
	if names == nil {
		return "a board without gpio chips"
	}
	return strings.Join(names, ", ")
}

type line struct{ l *gpioioctl.GPIOLine }

func (l *line) Drive(high bool) error { return l.l.Out(periph.Level(high)) }

func (l *line) Release() error {
	err := l.l.In(periph.Float, periph.NoEdge)
	l.l.Close()
	return err
}
