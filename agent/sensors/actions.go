package sensors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"halo.internal/drivers/i2c"
	"halo.internal/model"
)

// Assign keeps what a person says is at a place, and acts on it at once. It wins over
// what is recognised there.
func (m *Manager) Assign(ctx context.Context, c model.SensorCommand) (model.SensorChip, error) {
	l, err := m.line(c.Bus)
	if err != nil {
		return model.SensorChip{}, err
	}
	if err := m.checkAssignment(l, c); err != nil {
		return model.SensorChip{}, err
	}
	err = l.ask(ctx, func(ctx context.Context) error {
		e := entry{Bus: c.Bus, Address: c.Address, Chip: c.Chip, Label: c.Label, Assigned: true, IntervalS: c.IntervalS, Params: c.Params}
		p := l.place(c.Address)
		p.calm("a person has said what its chip is")
		p.rest()
		p.quiet(ctx)
		if e.Chip != model.ChipNone && e.Label == "" {
			e.Label = m.memory.claim(c.Bus, c.Address, c.Chip)
		}
		if err := m.memory.put(e); err != nil {
			m.Log.Warn("what a person has said of a sensor is not kept over a start", "bus", c.Bus, "address", c.Address, "err", err)
		}
		m.mu.Lock()
		p.flaps = flaps{}
		m.mu.Unlock()
		if err := l.open(); err != nil {
			return err
		}
		l.settle(ctx, i2c.Found{Addr: c.Address}, c.Chip != model.ChipNone && l.answers(ctx, c.Address))
		m.changed()
		return nil
	})
	if err != nil {
		return model.SensorChip{}, err
	}
	return m.sensor(c.Bus, c.Address)
}

func (m *Manager) checkAssignment(l *line, c model.SensorCommand) error {
	if err := l.free(c.Address); err != nil {
		return err
	}
	m.memory.mu.Lock()
	full := m.memory.full(entry{Bus: c.Bus, Address: c.Address, Assigned: true})
	m.memory.mu.Unlock()
	if full {
		return refuse("expected at most %d places of which something is said: forget some first", maxEntries)
	}
	if c.Chip == model.ChipNone {
		return nil
	}
	m.mu.Lock()
	d := m.driver(c.Chip)
	var known []string
	for _, o := range m.drivers {
		known = append(known, o.Spec().Name)
	}
	m.mu.Unlock()
	if d == nil {
		slices.Sort(known)
		return refuse("there is no template %.40q here; there are: %s", c.Chip, strings.Join(known, ", "))
	}
	if _, err := d.Open(nil, c.Address, c.Params); err != nil { // it asks nothing of the bus
		return refuse("%v", err)
	}
	if c.Label == "" {
		return nil
	}
	m.memory.mu.Lock()
	defer m.memory.mu.Unlock()
	if m.memory.taken(c.Label, c.Bus, c.Address) {
		return refuse("the label %s is another sensor's", c.Label)
	}
	return nil
}

// free refuses an address that belongs to somebody else.
func (l *line) free(addr uint16) error {
	l.m.mu.Lock()
	inUse := l.fresh.InUse
	l.m.mu.Unlock()
	if inUse != nil && slices.Contains(inUse(), addr) {
		return refuse("address %#02x of bus %s is in use: by the kernel, or as the board file says", addr, l.Path)
	}
	return nil
}

// Forget forgets whatever was said and known of a place, and looks what is there.
func (m *Manager) Forget(ctx context.Context, path string, addr uint16) error {
	known, err := m.memory.forget(path, addr)
	if err != nil {
		m.Log.Warn("that a sensor is forgotten is not kept over a start", "bus", path, "address", addr, "err", err)
	}
	l, err := m.line(path)
	if err != nil {
		if known {
			return nil // of a bus that is gone
		}
		return err
	}
	return l.ask(ctx, func(ctx context.Context) error {
		m.mu.Lock()
		p := l.places[addr]
		m.mu.Unlock()
		if p == nil && !known {
			return refuse("nothing is known of address %#02x of bus %s", addr, path)
		}
		if p != nil {
			p.calm("a person has its chip be forgotten")
			p.rest()
			m.mu.Lock()
			delete(l.places, addr)
			m.mu.Unlock()
		}
		m.changed()
		l.scan(ctx)
		return nil
	})
}

func (m *Manager) sensor(path string, addr uint16) (model.SensorChip, error) {
	for _, s := range m.Inventory().Sensors {
		if s.Bus == path && s.Address == addr {
			return s, nil
		}
	}
	return model.SensorChip{}, refuse("nothing is at address %#02x of bus %s", addr, path)
}

// ErrNoOutput is wrapped where there is no such chip, or none that has such an output.
var ErrNoOutput = errors.New("no chip that is driven has such an output")

// Outputs are those of the chips that are driven now, by label.
func (m *Manager) Outputs() map[string][]i2c.Output {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string][]i2c.Output{}
	for _, l := range m.buses {
		for _, p := range l.places {
			if p.reader != nil && len(p.reader.spec.Outputs) > 0 {
				all[p.label] = p.reader.spec.Outputs
			}
		}
	}
	return all
}

// Send sets an output of the chip with a label.
func (m *Manager) Send(ctx context.Context, label, name string, value float64) error {
	m.mu.Lock()
	var r *reader
	for _, l := range m.buses {
		for _, p := range l.places {
			if p.reader != nil && p.label == label {
				r = p.reader
			}
		}
	}
	m.mu.Unlock()
	if r == nil || !slices.ContainsFunc(r.spec.Outputs, func(o i2c.Output) bool { return o.Name == name }) {
		return fmt.Errorf("%w: %.40s.%.40s", ErrNoOutput, label, name)
	}
	if err := r.use(ctx); err != nil {
		return err
	}
	defer r.done()
	if r.over.Load() {
		return fmt.Errorf("%w any more: %.40s.%.40s", ErrNoOutput, label, name)
	}
	return r.dev.Send(ctx, map[string]float64{name: value})
}

// calmLimit bounds what a bus may take to have a chip's outputs safe.
const calmLimit = 2 * time.Second

// calm has the outputs of a chip be in their safe state, before nobody drives it any more:
// what was asked of it before and has not been done is not done. why is for people; empty:
// the process ends.
func (p *place) calm(why string) {
	r := p.reader // which the bus's goroutine alone changes
	if r == nil || len(r.spec.Outputs) == 0 {
		return
	}
	r.over.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), r.spec.Longest+busMargin+calmLimit) // it may be in the middle of a reading
	defer cancel()
	safe := map[string]float64{}
	for _, o := range r.spec.Outputs {
		safe[o.Name] = o.Safe
	}
	err := r.use(ctx)
	if err == nil {
		err = r.dev.Send(ctx, safe)
		r.done()
	}
	if err != nil {
		p.line.m.Log.Warn("outputs of a chip stay as they are", "bus", p.line.Path, "address", p.addr, "err", err)
		return
	}
	p.line.m.safe(p.label, why)
}

// safe tells that the outputs of a chip are in their safe state.
func (m *Manager) safe(label, why string) {
	if m.Safe != nil {
		m.Safe(label, why)
	}
}

// tryLimit bounds a trial.
const tryLimit = 40 * time.Second

// Try sets a chip up as a template says, reads it once, and tells all that happened. The
// template need not be one that is loaded: text may be its own. A chip that is driven is not tried:
// what is on would be switched to its safe state behind its reader's back, and on again with
// the next output that is set.
func (m *Manager) Try(ctx context.Context, c model.SensorCommand, text []byte) (model.SensorTrial, error) {
	l, err := m.line(c.Bus)
	if err != nil {
		return model.SensorTrial{}, err
	}
	t, err := m.tried(c.Chip, text)
	if err != nil {
		return model.SensorTrial{}, err
	}
	if err := l.free(c.Address); err != nil {
		return model.SensorTrial{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	var trial i2c.Trial
	err = l.ask(ctx, func(ctx context.Context) error {
		if err := l.open(); err != nil {
			return err
		}
		m.mu.Lock()
		var r *reader
		if p := l.places[c.Address]; p != nil {
			r = p.reader
		}
		m.mu.Unlock()
		if r != nil && len(r.spec.Outputs) > 0 {
			return refuse("%s at address %#02x of bus %s is driven, and a trial would switch what it drives: assign the chip %s to the place first, and the chip again afterwards", r.spec.Name, c.Address, l.Path, model.ChipNone)
		}
		if r != nil { // its collector waits meanwhile
			if err := r.use(ctx); err != nil {
				return err
			}
			defer r.done()
		}
		trial = i2c.Try(ctx, l.wire, t, c.Address, c.Params)
		return nil
	})
	if err != nil {
		return model.SensorTrial{}, err
	}
	return told(trial, t.Spec()), nil
}

func (m *Manager) tried(chip string, text []byte) (*i2c.Template, error) {
	if text != nil {
		t, err := i2c.Parse(chip+suffix, text)
		if err != nil {
			return nil, refuse("%v", err)
		}
		return t, nil
	}
	m.mu.Lock()
	d := m.driver(chip)
	m.mu.Unlock()
	t, ok := d.(*i2c.Template)
	if !ok {
		return nil, refuse("there is no template %.40q here: only templates can be tried", chip)
	}
	return t, nil
}

// maxTold bounds what is told of a trial: a command's result has 48 KiB.
const maxTold = 96

func told(t i2c.Trial, spec *i2c.Spec) model.SensorTrial {
	out := model.SensorTrial{Transactions: []model.SensorTransaction{}, Variables: []model.SensorVariable{}, Values: []model.SensorVariable{}, Dropped: t.Dropped, TookMS: ms(t.Took)}
	for i, x := range t.Transactions {
		if i == maxTold {
			out.Dropped += len(t.Transactions) - i
			break
		}
		one := model.SensorTransaction{Write: octets(x.Write), Read: octets(x.Read), TookMS: ms(x.Took)}
		if x.Err != nil {
			one.Error = clip(x.Err.Error())
		}
		out.Transactions = append(out.Transactions, one)
	}
	for i, v := range t.Variables {
		if i == 2*maxTold {
			break
		}
		out.Variables = append(out.Variables, variable(v.Name, v.Number, "", v.Err))
	}
	for i, s := range t.Samples {
		out.Values = append(out.Values, variable(spec.Values[i].Name, s.Number, spec.Values[i].Unit, s.Err))
	}
	if t.Err != nil {
		out.Error = clip(t.Err.Error())
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// octets are in hexadecimal, the first 32 of them.
func octets(b []byte) string {
	const most = 32
	if len(b) > most {
		return fmt.Sprintf("% x … (%d)", b[:most], len(b))
	}
	return fmt.Sprintf("% x", b)
}

func variable(name string, n float64, unit string, err error) model.SensorVariable {
	v := model.SensorVariable{Name: name, Unit: unit}
	if err != nil {
		v.Error = clip(err.Error())
	}
	if !math.IsNaN(n) && !math.IsInf(n, 0) {
		v.Value = &n
	}
	return v
}
