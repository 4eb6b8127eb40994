// Package sensors finds chips on the board's I2C buses, and has them read. It looks at
// the start and every minute what answers where nobody reads: what is known beyond doubt
// is read from then on, what may be several things is offered for a person to choose, and
// what a person has said wins, by path of the bus and address.
//
// Each bus is looked after by a goroutine of its own, and each chip is a collector
// (package collect), so that a bus on which somebody holds a line down keeps nothing else
// waiting. A chip that is unplugged is an event, as is its coming back; where a contact is
// loose, that is one event too.
package sensors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	periph "periph.io/x/conn/v3/i2c"

	"halo.internal/agent/collect"
	"halo.internal/drivers/i2c"
	"halo.internal/model"
)

// Bus is one bus of the board.
type Bus struct {
	Path  string               // the same at each start
	Name  string               // for people; may be empty
	InUse func() []uint16      // addresses to which nothing is sent when chips are looked for
	Open  func() (Wire, error) // may be called again after Close
	// Recover frees a bus that is stuck; nil: nobody can.
	Recover func(context.Context) error
}

// Wire is a bus that is open.
type Wire interface {
	periph.BusCloser
	// Present tells at which addresses something answers, but for those in use, without
	// disturbing what is there. A bus on which nothing ends in time is an error.
	Present(ctx context.Context, inUse []uint16) ([]uint16, error)
}

// Options of a Manager.
type Options struct {
	Buses      func() ([]Bus, error) // that there are now
	Collectors interface {
		Add(collect.Collector, collect.Pace) error
		Remove(name string) <-chan struct{}
	}
	Templates string // directory of people's
	File      string // that keeps what people have said, on the card
	Event     func(kind string, s model.Severity, message string, fields map[string]string)
	Changed   func() // the inventory is another; nil: nobody wants to know
	// Safe is told that all outputs of a chip are in their safe state, and why they are;
	// empty: the process ends. nil: nobody wants to know.
	Safe   func(label, why string)
	Status func() []string // lines for displays; nil: none
	Clock  Clock           // nil: clocks on buses are sensors alone
	Every  time.Duration   // between two looks; 0: a minute
	Log    *slog.Logger
}

// Events that this package makes; fields bus, address, chip, label.
const (
	EventFound       = "sensor.found"
	EventOffered     = "sensor.offered"
	EventGone        = "sensor.gone"
	EventBack        = "sensor.back"
	EventChanged     = "sensor.changed"
	EventFailed      = "sensor.failed"
	EventFlapping    = "sensor.flapping"
	EventStuck       = "sensor.bus.stuck"
	EventFree        = "sensor.bus.free"
	EventBusFlapping = "sensor.bus.flapping"
	EventBad         = "sensor.template.invalid"
	EventLoaded      = "sensor.template.loaded"
	EventForgot      = "sensor.assignments.lost"
)

const (
	lookEvery     = time.Minute
	templateEvery = 15 * time.Second
	suspectAfter  = time.Second // until it is looked whether a chip is there that could not be read
	probeLimit    = 20 * time.Second
	busMargin     = 2 * time.Second // for the bus's own time in a reading
	listLimit     = 10 * time.Second
	endLimit      = 10 * time.Second // for all buses to have outputs safe when the process ends
)

// Manager is the whole of it. Its methods may be called from any goroutine.
type Manager struct {
	Options
	memory *memory

	loading sync.Mutex    // held while templates are loaded
	again   chan struct{} // a token: buses are to be listed anew
	listing chan listing  // of Run's: what is to come of a question; nil: none is asked

	mu        sync.Mutex // guards what follows
	buses     map[string]*line
	flaps     map[string]*flaps // of buses that are there, or were lately, by path
	drivers   []i2c.Driver
	templates map[string]template // of people's, by name
	version   uint64              // counts changes of the inventory
}

// New returns a manager that has not begun. What people have said is read at once; a
// file that is damaged is an event, and what is good in it is known all the same.
func New(o Options) *Manager {
	if o.Every == 0 {
		o.Every = lookEvery
	}
	m := &Manager{Options: o, again: make(chan struct{}, 1), buses: map[string]*line{}, flaps: map[string]*flaps{}, templates: map[string]template{}}
	var err error
	if m.memory, err = openMemory(o.File); err != nil {
		o.Event(EventForgot, model.Error, "what people have said of sensors can't be read, or not all of it; what is missing is to be said again: "+err.Error(), nil)
	}
	return m
}

// Run looks after the buses until ctx ends. A bus that hangs then is left to the kernel.
func (m *Manager) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer m.await(&running)
	m.loadTemplates()
	look := time.NewTicker(m.Every)
	defer look.Stop()
	texts := time.NewTicker(templateEvery)
	defer texts.Stop()
	failed := ""
	for {
		if err := m.list(ctx, &running); ctx.Err() != nil {
			return
		} else if err != nil && err.Error() != failed {
			failed = err.Error()
			m.Log.Warn("I2C buses can't be listed", "err", err)
		} else if err == nil {
			failed = ""
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-m.again:
		case <-texts.C:
			for !m.loadTemplates() { // nothing new: the buses need not be listed
				select {
				case <-ctx.Done():
					return
				case <-look.C:
				case <-m.again:
				case <-texts.C:
					continue
				}
				break
			}
		}
	}
}

// await waits until nothing of buses runs.
func (m *Manager) await(running *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		m.Log.Error("outputs of chips may not be in their safe state: a bus hangs")
	}
}

// listing is what buses there are.
type listing struct {
	buses []Bus
	err   error
}

// there asks which buses there are, apart: a driver that hangs may keep whoever reads what
// the kernel tells. What comes late counts at the next look.
func (m *Manager) there(ctx context.Context) ([]Bus, error) {
	if m.listing == nil {
		answer := make(chan listing, 1)
		m.listing = answer
		go func() {
			b, err := m.Buses()
			answer <- listing{b, err}
		}()
	}
	limit := time.NewTimer(listLimit)
	defer limit.Stop()
	select {
	case l := <-m.listing:
		m.listing = nil
		return l.buses, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-limit.C:
		return nil, fmt.Errorf("the kernel has not told of them within %v", listLimit)
	}
}

// Rescan has all buses be looked at soon: a device of the machine's has come or gone.
func (m *Manager) Rescan() {
	select {
	case m.again <- struct{}{}:
	default: // a token waits already
	}
}

// list begins to look after buses that came, lets go of those that went, and has all be
// looked at.
func (m *Manager) list(ctx context.Context, running *sync.WaitGroup) error {
	there, err := m.there(ctx)
	if err != nil {
		return err
	}
	there = there[:min(len(there), model.MaxBuses)]
	now := time.Now()
	var gone []*line
	var flapping []string
	m.mu.Lock()
	for path, f := range m.flaps {
		if m.buses[path] == nil && f.Forget(now) {
			delete(m.flaps, path)
		}
	}
	for path, l := range m.buses {
		if !slices.ContainsFunc(there, func(b Bus) bool { return b.Path == path }) && !l.ending && !l.mending {
			l.ending = true
			gone = append(gone, l)
		}
	}
	for _, b := range there {
		l := m.buses[b.Path]
		if l != nil && l.ending {
			continue // the next look finds it as new
		}
		if l == nil {
			f := m.flaps[b.Path]
			if f == nil {
				f = &flaps{}
				m.flaps[b.Path] = f
			} else if _, first := f.moved(now); first { // it was there lately
				flapping = append(flapping, b.Path)
			}
			l = newLine(m, b, f)
			m.buses[b.Path] = l
			inner, cancel := context.WithCancel(ctx)
			l.cancel = cancel
			running.Go(func() { l.run(inner) })
			m.version++
		}
		l.fresh = b
		l.poke()
	}
	m.mu.Unlock()
	for _, l := range gone {
		l.cancel()
	}
	for _, path := range flapping {
		m.busMoved(path, true)
	}
	return nil
}

// changed notes that the inventory is another.
func (m *Manager) changed() {
	m.mu.Lock()
	m.version++
	m.mu.Unlock()
	if m.Changed != nil {
		m.Changed()
	}
}

// Version is another number whenever the inventory may be another one.
func (m *Manager) Version() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version
}

// Inventory is what there is now, the same whenever nothing has changed.
func (m *Manager) Inventory() model.Inventory {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := model.Inventory{Buses: []model.SensorBus{}, Sensors: []model.SensorChip{}, Templates: []model.NodeTemplate{}}
	for _, l := range m.buses {
		v.Buses = append(v.Buses, model.SensorBus{Path: l.Path, Name: clip(l.Name), Problem: clip(l.problem)})
		for _, p := range l.places {
			if p.state != "" {
				v.Sensors = append(v.Sensors, p.sensor())
			}
		}
	}
	for name, t := range m.templates {
		v.Templates = append(v.Templates, model.NodeTemplate{Name: name, Digest: t.digest, Problem: clip(t.problem)})
	}
	slices.SortFunc(v.Buses, func(a, b model.SensorBus) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(v.Sensors, func(a, b model.SensorChip) int { return strings.Compare(a.Key(), b.Key()) })
	slices.SortFunc(v.Templates, func(a, b model.NodeTemplate) int { return strings.Compare(a.Name, b.Name) })
	v.Sensors = v.Sensors[:min(len(v.Sensors), model.MaxSensors)]
	return v
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "")
	if len(s) > model.MaxSensorText {
		s = strings.ToValidUTF8(s[:model.MaxSensorText], "")
	}
	return s
}

// driver is the one of that name; the caller holds the lock.
func (m *Manager) driver(name string) i2c.Driver {
	for _, d := range m.drivers {
		if d.Spec().Name == name {
			return d
		}
	}
	return nil
}

// errNoBus and so on are refusals.
func refuse(format string, args ...any) error {
	return model.RefuseCommand(model.CodeInvalid, format, args...)
}

// line is the bus of a path.
func (m *Manager) line(path string) (*line, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.buses[path]; l != nil {
		return l, nil
	}
	var known []string
	for p := range m.buses {
		known = append(known, p)
	}
	slices.Sort(known)
	return nil, refuse("there is no bus %.64q here; there are: %s", path, strings.Join(known, ", "))
}

// Scan looks at all buses now, and returns what there is then.
func (m *Manager) Scan(ctx context.Context) (model.Inventory, error) {
	m.mu.Lock()
	var lines []*line
	for _, l := range m.buses {
		lines = append(lines, l)
	}
	m.mu.Unlock()
	var errs []error
	for _, l := range lines {
		if err := l.ask(ctx, func(ctx context.Context) error { l.scan(ctx); return nil }); err != nil {
			errs = append(errs, err)
		}
	}
	return m.Inventory(), errors.Join(errs...)
}
