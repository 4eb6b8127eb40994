package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/agent/sensors"
	"halo.internal/hal/gpio"
	"halo.internal/hal/i2cbus"
	"halo.internal/hal/module"
	"halo.internal/hal/uevent"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// collectors has all that is read of the machine itself be read apart.
func (a *agent) collectors() error {
	set, err := collect.All("/", a.path(paths.Perm))
	if err != nil {
		return fmt.Errorf("collectors: %w", err)
	}
	a.apart = collect.NewApart(a.note)
	a.read = a.seen.keep(a.apart.Collect, a.apart.Groups)
	every := time.Duration(a.settings.Sample)
	for _, c := range append(set, a.where, a.inputs) {
		if err := a.apart.Add(c, collect.Pace{Every: every}); err != nil {
			return err
		}
	}
	if err := a.apart.Add(newRadios(a), collect.Pace{Every: collect.HealthEvery(every), Limit: 10 * time.Second}); err != nil {
		return err
	}
	return a.apart.Add(a.apart.Health(), collect.Pace{Every: collect.HealthEvery(every)})
}

// note makes an event. Until there is a spool it waits.
func (a *agent) note(kind string, s model.Severity, message string, fields map[string]string) {
	if err := a.news.add(kind, s, message, fields); err != nil {
		a.Log.Warn("event is lost", "kind", kind, "err", err)
	}
}

// sensing makes what looks after the chips on the board's buses, and what they are for:
// the board's power, and outputs.
func (a *agent) sensing() {
	state := paths.Dir(a.path(paths.State))
	buses := a.Buses
	if buses == nil {
		buses = a.boardBuses
	}
	a.sensors = sensors.New(sensors.Options{
		Buses: buses, Collectors: a.apart, Templates: state.File(paths.TemplatesDir), File: state.File(paths.SensorsFile),
		Event: a.note, Safe: func(label, why string) { a.chips.safe(label, why) }, Status: a.statusLines, Clock: deviceClock{a}, Log: a.Log,
	})
	a.chips = &chipOutputs{bus: a.sensors, reached: a.reached.Load, note: a.note, log: a.Log, state: a.path(paths.RunChips), driven: map[string]time.Time{}}
	a.chips.begin()
	a.power = newPowered(a)
	if err := a.apart.Add(a.power, collect.Pace{Every: min(time.Duration(a.settings.Sample), powerEvery)}); err != nil {
		a.Log.Error("the board's power is not followed", "err", err)
	}
}

// sense looks after the buses, for which the kernel's module has to be there.
func (a *agent) sense(ctx context.Context) {
	if a.Buses == nil && a.Root == "" { // a board
		if err := i2cbus.Load(); err != nil {
			a.Log.Warn("I2C buses cannot be reached", "err", err)
		}
	}
	a.sensors.Run(ctx)
}

// boardBuses are the buses of the kernel's, as the board file names them: what it says
// belongs to somebody is left alone, and so is what a driver of the kernel has.
func (a *agent) boardBuses() ([]sensors.Bus, error) {
	there, err := i2cbus.List(a.path(i2cbus.Sys))
	if err != nil {
		return nil, err
	}
	board := a.hardware.board()
	var list []sensors.Bus
	for _, info := range there {
		b := sensors.Bus{Path: info.Path}
		var fixed []uint16
		taken := false
		for _, v := range board.I2C {
			if v.Device != info.Path {
				continue
			}
			b.Name, taken, b.Recover = v.Name, v.Taken != "", a.recovery(board, v)
			for _, u := range v.InUse {
				fixed = append(fixed, u.Address)
			}
		}
		if taken {
			continue
		}
		b.InUse = func() []uint16 {
			used := append([]uint16(nil), fixed...)
			bound, err := info.InUse()
			if err != nil {
				return used // the bus has just gone: the next look finds that
			}
			for addr := range bound {
				used = append(used, addr)
			}
			return used
		}
		b.Open = func() (sensors.Wire, error) { return i2cbus.Open(info, a.path(i2cbus.Dev), i2cbus.Options{}) }
		list = append(list, b)
	}
	return list, nil
}

// recovery frees a bus that is stuck: by clocking its lines, where the board file names
// them, and by having its driver begin anew.
func (a *agent) recovery(board model.Board, bus model.BoardI2C) func(context.Context) error {
	controller := module.Device{Sys: a.path(i2cbus.Sys), Bus: "platform", Name: i2cbus.Controller(bus.Device)}
	driver, err := controller.Driver()
	if err != nil || driver == "" {
		return nil // not a controller of the chip's, such as one on USB
	}
	r := i2cbus.Recovery{
		Unbind: func(context.Context) error { return controller.Unbind() },
		Bind:   func(context.Context) error { return controller.Bind(driver) },
	}
	if bus.SDA != "" && bus.SCL != "" {
		r.SDA = func() (i2cbus.Line, error) { return gpio.OpenDrain(board.Line(bus.SDA)) }
		r.SCL = func() (i2cbus.Line, error) { return gpio.OpenDrain(board.Line(bus.SCL)) }
	}
	return r.Recover
}

// watchBuses has buses and inputs be looked at when the kernel says that one came or went.
// Without its word they are looked at each minute all the same.
func (a *agent) watchBuses(ctx context.Context) {
	every(ctx, time.Minute, func() bool {
		l, err := uevent.Listen()
		if err != nil {
			return false
		}
		defer l.Close() // nothing is written to it
		for ctx.Err() == nil {
			e, err := l.Next(ctx)
			if err != nil && !errors.Is(err, uevent.ErrLost) {
				return false
			}
			s := e["SUBSYSTEM"]
			if err != nil || strings.HasPrefix(s, "i2c") {
				a.sensors.Rescan()
			}
			if err != nil || s == "gpio" {
				a.inputs.Retry()
			}
		}
		return false
	})
}

// deviceClock is the device's clock, which halo-mesh keeps.
type deviceClock struct{ *agent }

func (c deviceClock) Quality() model.ClockQuality { return c.seen.quality() }

func (c deviceClock) Offer(ctx context.Context, t time.Time) error {
	err := c.mesh.BatteryTime(ctx, model.BatteryTime{Time: t})
	if errors.Is(err, local.ErrInvalid) {
		return fmt.Errorf("%w: %w", sensors.ErrRefused, err)
	}
	return err
}

// statusLines are what a display shows: name, address, how the mesh is, battery. The
// smallest has four lines.
func (a *agent) statusLines() []string {
	mesh, h := a.seen.last()
	whole, _ := a.seen.around()
	name := mesh.Name
	if name == "" {
		name = mesh.Node
	}
	lines := []string{name, mesh.OverlayV4}
	state := "waits for halo-mesh"
	if h.Name != "" {
		state = fmt.Sprintf("%d peers", len(whole.Neighbours))
		if !a.reached.Load() {
			state += ", no gateway"
		}
	}
	lines = append(lines, state)
	battery := ""
	if s := a.power.state(); s.Percent != nil {
		battery = fmt.Sprintf("battery %.0f %%", *s.Percent)
		if s.Source == model.PowerBattery {
			battery += ", in use"
		}
	} else if t, ok := a.seen.value("system.cpu-thermal.temperature_c"); ok {
		battery = fmt.Sprintf("board %.0f °C", t)
	}
	return append(lines, battery, time.Now().UTC().Format("2006-01-02 15:04Z"), filepath.Base(a.hardware.known().Ref.Name))
}
