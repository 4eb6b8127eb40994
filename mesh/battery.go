package mesh

import (
	"errors"
	"fmt"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/clock"
	"halo.internal/model"
)

const sourceBattery = "battery"

// battery takes the time of a battery-backed clock that halo-agent has found. It tells
// whether that is how the device knows it from now on.
func (m *core) battery(t model.BatteryTime) (taken bool, err error) {
	c, taken, err := m.clock.Battery(t.Time)
	switch {
	case errors.Is(err, clock.ErrRefused):
		m.events.Add(eventClockRefused, model.Warning, "time of a battery-backed clock is not taken: "+err.Error(), "source", sourceBattery)
		return false, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case err != nil || !taken:
		return false, err
	}
	m.saveClockState()
	kind, message := eventClockConfirmed, "a battery-backed clock has the same time"
	if c.Stepped {
		m.saveClock()
		kind, message = eventClockCorrected, "clock set by a battery-backed one"
	}
	m.events.Add(kind, model.Info, message, "source", sourceBattery,
		"from", stamp(c.From), "to", stamp(c.To), "offset", c.Offset().Round(time.Millisecond).String(), "quality", string(c.Quality))
	return true, nil
}

// BatteryTime of a node, and of a device without a network, concerns nobody else.
func (m *core) BatteryTime(t model.BatteryTime) error {
	_, err := m.battery(t)
	return err
}

// BatteryTime has the mesh hear at once that this gateway knows the time.
func (g *gateway) BatteryTime(t model.BatteryTime) error {
	taken, err := g.battery(t)
	if taken {
		g.voice.Changed()
		wake(g.overlayNow) // the list of members has to be of a time that has come
	}
	return err
}
