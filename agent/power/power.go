// Package power judges how the board is fed: whether by its battery, how full that is, and
// when the device has to be shut down in order before it is empty. What it goes by is
// what meters and UPS boards measure (i2c.PowerMeanings). It is without I/O; whoever calls
// Step does what comes of it.
package power

import (
	"errors"
	"fmt"
	"math"
	"time"

	"halo.internal/model"
)

// Settings are what people may set.
type Settings struct {
	Chemistry string        // by which a voltage tells the charge, where no gauge does; empty: it does not
	Cells     int           // in series
	Low       float64       // per cent: an event
	Shutdown  float64       // per cent: the device shuts down; below 0: never
	Hold      time.Duration // after a start, in which it stays up whatever the battery says
}

// Defaults.
const (
	DefaultLow      = 20
	DefaultShutdown = 5
	DefaultHold     = 10 * time.Minute
)

// Check tells what is wrong with settings.
func (s Settings) Check() error {
	var errs []error
	if s.Chemistry != "" {
		if _, err := Charge(s.Chemistry, max(s.Cells, 1), 1); err != nil {
			errs = append(errs, fmt.Errorf("power.chemistry: expected one of %v, got %.20q", Chemistries(), s.Chemistry))
		}
		if s.Cells < 1 || s.Cells > 32 {
			errs = append(errs, fmt.Errorf("power.cells: expected 1 to 32 in series, got %d", s.Cells))
		}
	}
	if !(s.Low >= 0 && s.Low <= 100) {
		errs = append(errs, fmt.Errorf("power.low_percent: expected 0 to 100, got %v", s.Low))
	}
	if !(s.Shutdown < s.Low) && s.Shutdown >= 0 {
		errs = append(errs, fmt.Errorf("power.shutdown_percent: expected less than low_percent (%v), or a number below 0 for never, got %v", s.Low, s.Shutdown))
	}
	if s.Hold < time.Minute || s.Hold > 24*time.Hour {
		errs = append(errs, fmt.Errorf("power.hold: expected 1m to 24h, got %v", s.Hold))
	}
	return errors.Join(errs...)
}

// Thresholds, and how long what they say has to hold.
const (
	inputGone   = 1.0   // V at the input: nothing feeds the board
	inputThere  = 3.0   // V
	discharging = -0.05 // A of the battery
	idle        = -0.01 // A
	backFrom    = 5     // per cent that a low battery has to gain
	sureOf      = 5 * time.Second
	emptyFor    = time.Minute
	agreeing    = 2               // readings of the charge, at least, of which each says so: a meter may be read seldom
	fallen      = 1               // per cent, where nothing else tells that the battery feeds the board
	fallenFor   = 5 * time.Minute // in which a gauge is read several times: one wrong reading turns nothing off
	staleAfter  = 5 * time.Minute
)

// Events; fields percent, source, and voltage_v where it is known.
const (
	EventBattery  = "power.battery.on"
	EventExternal = "power.battery.off"
	EventLow      = "power.battery.low"
	EventCharged  = "power.battery.charged"
	EventShutdown = "power.shutdown"
	EventStays    = "power.shutdown.cancelled" // it was to, and is fed again
)

// Event is what is to be told.
type Event struct {
	Kind     string
	Severity model.Severity
	Message  string
	Fields   map[string]string
}

// Machine follows the board's power. It may be used from one goroutine at a time.
type Machine struct {
	Settings
	started time.Time

	state    model.PowerSource
	turning  time.Time // since when the other source seems to be; zero: it does not
	low      bool
	empty    time.Time // since when the battery is below the limit; zero: it is not
	empties  int       // readings that said so since then
	emptyAt  float64   // per cent, the most since then
	falling  time.Time // since when it is less than that; zero: it is not
	falls    int       // readings that said so since then
	read     time.Time // when the charge was read last, as Step was told
	shutting bool
	heard    time.Time
}

// New returns a machine of a process that starts now. up is how long ago the board did.
func New(s Settings, now time.Time, up time.Duration) *Machine {
	return &Machine{Settings: s, started: now.Add(-up), state: model.PowerUnknown}
}

// Step takes what was measured, by meaning, and returns how the power is by that, what is
// to be told, and whether the device has to be shut down. now is monotonic. read is when the
// battery was measured: Step may be called more often than that is.
func (m *Machine) Step(now, read time.Time, in map[string]float64) (st model.PowerState, events []Event, shutdown bool) {
	st.Measured = in
	if len(in) > 0 {
		m.heard = now
	}
	if m.heard.IsZero() || now.Sub(m.heard) > staleAfter {
		m.turning, m.empty = time.Time{}, time.Time{}
		m.state, st.Source = model.PowerUnknown, model.PowerUnknown // the meter is gone: nothing is concluded from that
		return st, nil, false
	}
	percent, known := in["battery_percent"]
	st.By = model.ChargeGauge
	if volts, ok := in["battery_voltage_v"]; !known && ok && m.Chemistry != "" {
		p, err := Charge(m.Chemistry, m.Cells, volts)
		percent, known, st.By = p, err == nil, model.ChargeVoltage
	}
	if known = known && !math.IsNaN(percent); known {
		st.Percent = &percent
	} else {
		st.By = ""
	}
	tell := func(kind string, s model.Severity, text string) {
		f := map[string]string{"source": string(m.state)}
		if known {
			f["percent"] = fmt.Sprintf("%.0f", percent)
		}
		if v, ok := in["battery_voltage_v"]; ok {
			f["voltage_v"] = fmt.Sprintf("%.2f", v)
		}
		events = append(events, Event{kind, s, text, f})
	}
	was := m.state
	m.turn(now, source(in, m.state))
	switch {
	case m.state == model.PowerBattery && was != m.state:
		tell(EventBattery, model.Warning, "the board is fed by its battery")
	case m.state == model.PowerExternal && was == model.PowerBattery:
		tell(EventExternal, model.Info, "the board is fed from outside again")
	}
	switch {
	case known && !m.low && percent <= m.Low:
		m.low = true
		tell(EventLow, model.Warning, fmt.Sprintf("the battery is low: %.0f %%", percent))
	case known && m.low && percent >= m.Low+backFrom:
		m.low = false
		tell(EventCharged, model.Info, fmt.Sprintf("the battery is charged again: %.0f %%", percent))
	}
	st.Source, st.Low = m.state, m.low
	if shutdown = m.emptied(now, read, percent, known); shutdown && !m.shutting {
		tell(EventShutdown, model.Error, fmt.Sprintf("the battery is almost empty (%.0f %%): the device shuts down, and starts when somebody gives it power. Where its UPS keeps the voltage up, that has to be taken away first", percent))
	}
	m.shutting = shutdown
	st.ShuttingDown = shutdown
	return st, events, shutdown
}

// Fed tells whether what was measured says that the board is fed from outside, without
// waiting whether that lasts.
func Fed(in map[string]float64) bool { return source(in, model.PowerUnknown) == model.PowerExternal }

// source is what seems to feed the board, with hysteresis.
func source(in map[string]float64, was model.PowerSource) model.PowerSource {
	if v, ok := in["input_voltage_v"]; ok {
		switch {
		case v < inputGone:
			return model.PowerBattery
		case v > inputThere:
			return model.PowerExternal
		}
		return was
	}
	if a, ok := in["battery_current_a"]; ok {
		switch {
		case a < discharging:
			return model.PowerBattery
		case a > idle:
			return model.PowerExternal
		}
		return was
	}
	if w, ok := in["battery_power_w"]; ok {
		switch {
		case w < 5*discharging:
			return model.PowerBattery
		case w > 5*idle:
			return model.PowerExternal
		}
		return was
	}
	return model.PowerUnknown
}

// turn takes over a source that has lasted.
func (m *Machine) turn(now time.Time, s model.PowerSource) {
	if s == m.state {
		m.turning = time.Time{}
		return
	}
	if m.turning.IsZero() {
		m.turning = now
	}
	if m.state == model.PowerUnknown || now.Sub(m.turning) >= sureOf {
		m.state, m.turning = s, time.Time{}
	}
}

// emptied tells whether the device has to be shut down: the battery is below the limit,
// and feeds the board, for a while. For some time after a start it stays up: where power
// has come back to an empty battery it is charged meanwhile, and where it has not, the
// device would start, shut down and be of no use to anybody.
func (m *Machine) emptied(now, read time.Time, percent float64, known bool) bool {
	another := 0
	if !read.Equal(m.read) {
		another = 1
	}
	m.read = read
	if !known || m.Shutdown < 0 || percent > m.Shutdown || m.state == model.PowerExternal {
		m.empty = time.Time{}
		return false
	}
	if m.empty.IsZero() {
		m.empty, m.empties, m.emptyAt, m.falling = now, 0, percent, time.Time{}
		another = 1
	}
	m.empties += another
	switch m.emptyAt = max(m.emptyAt, percent); {
	case percent > m.emptyAt-fallen:
		m.falling = time.Time{}
	case m.falling.IsZero():
		m.falling, m.falls = now, 1
	default:
		m.falls += another
	}
	if now.Sub(m.empty) < emptyFor || m.empties < agreeing || now.Sub(m.started) < m.Hold {
		return false
	}
	return m.state == model.PowerBattery || !m.falling.IsZero() && m.falls >= agreeing && now.Sub(m.falling) >= fallenFor
}
