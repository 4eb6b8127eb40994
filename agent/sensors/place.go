package sensors

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/drivers/i2c"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// place is an address of a bus, and what is there.
type place struct {
	line *line
	addr uint16

	// The manager's lock guards what follows.
	state      model.SensorState // empty: nothing was ever there
	problem    string
	drv        i2c.Driver // what it is, or was last
	label      string
	assigned   bool
	every      time.Duration
	params     map[string]float64
	candidates []string
	reader     *reader
	idle       []<-chan struct{} // of readers that are removed
	fails      int               // readings in vain since the last good one
	why        error             // of the last
	missed     int               // looks in a row at which it was not there
	dry        int               // readings in a row of which a value was missing; below 0: none was
	benched    bool              // it is not read because its bus does not work
	told       bool              // that it can't be read, since it last was
	notice     notice            // of a display
	flaps
}

const (
	failedAfter = 3 // readings in vain of a chip that answers
	goneAfter   = 2 // looks
	dryAfter    = 3 // readings
)

// busy tells whether something of an earlier reader still runs. The caller holds the lock,
// or is the bus's goroutine.
func (p *place) busy() bool {
	p.idle = slices.DeleteFunc(p.idle, func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	})
	return len(p.idle) > 0
}

func (p *place) title() string {
	if p.drv == nil {
		return ""
	}
	return p.drv.Spec().Name
}

// tell makes an event of the place, unless its bus comes and goes all the time.
func (p *place) tell(kind string, s model.Severity, text, chip string, more map[string]string) {
	if p.line.hushed() {
		return
	}
	f := map[string]string{"bus": p.line.Path, "address": fmt.Sprintf("%#02x", p.addr)}
	if chip != "" {
		f["chip"] = chip
	}
	if p.label != "" {
		f["label"] = p.label
	}
	maps.Copy(f, more)
	p.line.m.Event(kind, s, text, f)
}

// sensor is the place as the inventory has it; the caller holds the lock.
func (p *place) sensor() model.SensorChip {
	s := model.SensorChip{Bus: p.line.Path, BusName: p.line.Name, Address: p.addr, State: p.state, Problem: clip(p.problem), Assigned: p.assigned, Candidates: p.candidates}
	if p.drv == nil || p.state == model.SensorOffered || p.state == model.SensorIgnored {
		return s
	}
	spec := p.drv.Spec()
	s.Chip, s.Title, s.Label, s.Role, s.IntervalS, s.Params = spec.Name, clip(spec.Title), p.label, model.Component(spec.Role), p.every.Seconds(), p.params
	for _, v := range spec.Values[:min(len(spec.Values), model.MaxValues)] {
		s.Values = append(s.Values, model.SensorValue{Metric: i2c.Metric(p.label, v).Name, Title: clip(v.Title), Unit: v.Unit, Power: v.Power})
	}
	for _, o := range spec.Outputs[:min(len(spec.Outputs), model.MaxValues)] {
		s.Outputs = append(s.Outputs, model.SensorOutput{Name: o.Name, Title: clip(o.Title), Unit: o.Unit, Min: o.Min, Max: o.Max, Safe: o.Safe})
	}
	return s
}

// set changes what is said of a place where nothing is read, and tells whether that is
// news.
func (p *place) set(s model.SensorState, problem string, candidates []string) (news bool) {
	m := p.line.m
	m.mu.Lock()
	news = p.state != s || p.problem != problem || !slices.Equal(p.candidates, candidates)
	p.state, p.problem, p.candidates = s, problem, candidates
	p.told = p.told && s == model.SensorFailed
	m.mu.Unlock()
	if news {
		m.changed()
	}
	return news
}

// offer has a person choose.
func (p *place) offer(candidates []string) {
	was := p.state
	p.line.m.mu.Lock()
	p.assigned = false
	p.line.m.mu.Unlock()
	if p.set(model.SensorOffered, "", candidates) && was != model.SensorOffered {
		p.tell(EventOffered, model.Info, fmt.Sprintf("something answers on an I2C bus that may be: %s. A person has to say what it is", names(candidates)), "", map[string]string{"candidates": names(candidates)})
	}
}

// fail notes that what answers can't be read. That is news once: what exactly is wrong may
// be something else at each look.
func (p *place) fail(err error) {
	m := p.line.m
	m.mu.Lock()
	news := !p.told
	p.state, p.problem, p.candidates, p.told, p.benched = model.SensorFailed, err.Error(), nil, true, false
	m.mu.Unlock()
	if news {
		m.changed()
	}
	if news && !p.Hushed() {
		p.tell(EventFailed, model.Warning, "a chip answers and can't be read: "+err.Error(), p.title(), nil)
	}
}

// admit has a chip be read from now on. other is what answers beyond doubt, if that is
// known; answers is false where nothing does, which a chip that is there may do until it is
// spoken to.
func (p *place) admit(ctx context.Context, drv i2c.Driver, e entry, other i2c.Driver, answers bool) {
	m, spec := p.line.m, drv.Spec()
	was, state := p.drv, p.state
	m.mu.Lock()
	p.drv, p.assigned, p.params, p.candidates = drv, e.Assigned, e.Params, nil
	p.every = spec.Interval
	if e.IntervalS > 0 {
		p.every = time.Duration(e.IntervalS * float64(time.Second))
	}
	p.every = max(p.every, spec.MinInterval, minEvery).Round(time.Millisecond)
	if e.Label != "" {
		p.label = e.Label
	} else {
		p.label = m.memory.claim(e.Bus, e.Address, spec.Name)
	}
	m.mu.Unlock()
	if p.Hushed() {
		if p.steady++; !answers {
			p.steady = 0
		}
		if p.steady < steadyLooks {
			return
		}
	}
	dev, err := drv.Open(p.line.wire, p.addr, e.Params)
	if err != nil {
		p.fail(err)
		return
	}
	// Once here, before it counts as there: a chip whose first reading fails would come and go.
	limit := spec.Longest + busMargin
	first, cancel := context.WithTimeout(ctx, limit)
	_, err = dev.Read(first, nil)
	cancel()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		if id, no := errors.AsType[*i2c.IdentityError](err); no && other != nil {
			err = fmt.Errorf("it is to be %s, and %s answers: %w", spec.Name, other.Spec().Name, id)
		}
		switch {
		case answers:
			p.fail(err)
		case state == model.SensorOK || state == model.SensorFailed || state == model.SensorGone:
			p.absent()
		default:
			p.set(model.SensorGone, err.Error(), nil) // it was assigned, and has not been there since
		}
		return
	}
	if len(spec.Outputs) > 0 {
		m.safe(p.label, "its chip was set up anew")
	}
	r := &reader{place: p, dev: dev, spec: spec, name: "i2c-" + p.label, turn: make(chan struct{}, 1)}
	for _, v := range spec.Values {
		r.metrics = append(r.metrics, i2c.Metric(p.label, v))
	}
	if err := r.begin(limit); err != nil {
		p.fail(err)
		return
	}
	if !e.Assigned {
		e.Label = p.label
	}
	if kept, ok := m.memory.of(e.Bus, e.Address); !ok || kept.claimed || kept.Chip != spec.Name || kept.Label != p.label {
		e.Chip, e.Label = spec.Name, p.label
		if err := m.memory.put(e); err != nil {
			m.Log.Warn("the label of a sensor is not kept over a start", "label", p.label, "err", err)
		}
	}
	m.mu.Lock()
	p.reader, p.fails, p.missed, p.dry, p.why = r, 0, 0, 0, nil
	m.mu.Unlock()
	p.set(model.SensorOK, "", nil)
	switch another := was != nil && was.Spec().Name != spec.Name; {
	case p.benched: // its bus told
	case another:
		p.tell(EventChanged, model.Warning, "another chip than before answers", spec.Name, map[string]string{"was": was.Spec().Name})
	case state == model.SensorGone || state == model.SensorFailed && was != nil:
		p.moved(EventBack, model.Info, "a chip is back")
	case state != model.SensorOK:
		p.tell(EventFound, model.Info, "a chip on an I2C bus is read from now on", spec.Name, nil)
	}
	p.benched = false
}

// bench has a chip be read no more while its bus does not work.
func (p *place) bench(why string) {
	p.rest()
	p.benched = true
	p.set(model.SensorFailed, "its bus does not work: "+why, nil)
}

// minEvery bounds how often anything is read.
const minEvery = 100 * time.Millisecond

// moved tells that a chip came or went, unless it does so all the time.
func (p *place) moved(kind string, s model.Severity, text string) {
	m := p.line.m
	m.mu.Lock()
	tell, first := p.flaps.moved(time.Now())
	m.mu.Unlock()
	switch {
	case first:
		p.tell(EventFlapping, model.Warning, "a chip comes and goes: a contact may be loose. It is not told any more until that ends", p.title(), nil)
	case tell:
		p.tell(kind, s, text, p.title(), nil)
	}
}

// absent notes that nothing answers where nobody is read.
func (p *place) absent() {
	m := p.line.m
	switch p.state {
	case model.SensorOffered, "":
		m.mu.Lock()
		delete(p.line.places, p.addr)
		was := p.state
		m.mu.Unlock()
		if was != "" {
			m.changed()
		}
	case model.SensorFailed:
		p.benched = false
		if p.set(model.SensorGone, "nothing answers", nil) {
			p.moved(EventGone, model.Warning, "a chip is gone")
		}
	case model.SensorOK: // its template was taken away, or is another one
		p.set(model.SensorGone, "nothing answers", nil)
	case model.SensorGone:
		p.steady = 0
	}
}

// rest has the chip be read no more.
func (p *place) rest() {
	m := p.line.m
	m.mu.Lock()
	r := p.reader
	p.reader = nil
	m.mu.Unlock()
	if r == nil {
		return
	}
	for _, c := range r.names {
		p.idle = append(p.idle, m.Collectors.Remove(c))
	}
}

// quietLimit bounds how long a bus waits for a reading that is under way to end.
const quietLimit = 2 * time.Second

// quiet waits until nothing of earlier readers runs. What hangs for longer is left to the
// looks to come.
func (p *place) quiet(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	for _, c := range p.idle {
		select {
		case <-c:
		case <-limited.Done():
			return
		}
	}
}

// doubted looks whether a chip that could not be read is there. It returns true where that
// is to be looked at again.
func (p *place) doubted(ctx context.Context) (again bool) {
	m := p.line.m
	m.mu.Lock()
	r, fails, why := p.reader, p.fails, p.why
	m.mu.Unlock()
	if r == nil || fails == 0 {
		return false
	}
	select {
	case r.turn <- struct{}{}:
	default:
		return true // it is being read
	}
	_, other := errors.AsType[*i2c.IdentityError](why)
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	found, err := i2c.Probe(limited, p.line.wire, i2c.Survey{Drivers: p.line.knows(), InUse: only(p.addr)})
	cancel()
	r.done()
	if ctx.Err() != nil {
		return false
	}
	if errors.Is(err, i2c.ErrStuck) { // that is the bus's: the next look deals with it
		p.line.poke()
		return false
	}
	switch {
	case len(found) == 0:
		m.mu.Lock()
		p.missed++
		missed := p.missed
		m.mu.Unlock()
		if missed < goneAfter {
			return true
		}
		p.calm("its chip does not answer") // it may hear it all the same
		p.rest()
		p.set(model.SensorGone, why.Error(), nil)
		p.moved(EventGone, model.Warning, "a chip is gone")
	case other || found[0].Chip != nil && found[0].Chip.Spec().Name != p.drv.Spec().Name && !p.assigned:
		p.calm("another chip answers in the place of its own") // which asks first whether it is that chip
		p.rest()
		if found[0].Chip == nil && !p.assigned {
			p.tell(EventChanged, model.Warning, "another chip than before answers, and nobody knows which", "", map[string]string{"was": p.drv.Spec().Name})
			m.mu.Lock()
			p.drv = nil
			m.mu.Unlock()
		}
		p.set(model.SensorFailed, why.Error(), nil)
		p.line.settle(ctx, found[0], true)
	case fails >= failedAfter:
		p.calm("its chip can't be read")
		p.rest()
		p.fail(why) // the next look tries again
	default:
		m.mu.Lock()
		p.missed = 0
		m.mu.Unlock()
	}
	return false
}

// reader is the collector of a chip.
type reader struct {
	*place
	dev     i2c.Device
	spec    *i2c.Spec
	metrics []wire.Metric
	name    string
	names   []string // of its collectors

	turn chan struct{} // holds a token while somebody uses the chip, and room
	room []i2c.Sample
	over atomic.Bool // nobody drives it any more
}

// use waits until nobody else uses the chip; done has to be called afterwards.
func (r *reader) use(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s is in use: %w", r.name, context.Cause(ctx))
	}
}

func (r *reader) done() { <-r.turn }

// begin adds the collectors of a chip.
func (r *reader) begin(limit time.Duration) error {
	m := r.line.m
	type one struct {
		c collect.Collector
		p collect.Pace
	}
	list := []one{{r, collect.Pace{Every: r.every, Limit: limit}}}
	if d, ok := r.dev.(i2c.Display); ok {
		list = nil // it has nothing to measure
		if m.Status != nil {
			list = append(list, one{&screen{r, d, m.Status}, collect.Pace{Every: screenEvery, Limit: limit}})
		}
	}
	if r.spec.Name == clockChip && m.Clock != nil {
		list = append(list, one{newTimepiece(r), collect.Pace{Every: clockEvery, Limit: limit}})
	}
	for _, o := range list {
		if err := m.Collectors.Add(o.c, o.p); err != nil {
			for _, c := range r.names {
				m.Collectors.Remove(c)
			}
			return err
		}
		r.names = append(r.names, o.c.Name())
	}
	return nil
}

// Name implements collect.Collector.
func (r *reader) Name() string { return r.name }

// Collect implements collect.Collector.
func (r *reader) Collect(ctx context.Context) ([]collect.Reading, error) {
	if err := r.use(ctx); err != nil {
		return nil, err
	}
	defer r.done()
	if r.over.Load() { // what it is to drive must not be set up again
		return nil, fmt.Errorf("%s is not read any more", r.name)
	}
	samples, err := r.dev.Read(ctx, r.room[:0])
	if err != nil {
		r.doubt(err)
		return nil, err
	}
	r.room = samples
	readings := make([]collect.Reading, 0, len(samples))
	missing := ""
	for i, s := range samples {
		v := s.Wire(r.spec.Values[i])
		if !v.Present && missing == "" {
			missing = fmt.Sprintf("%s is missing", r.spec.Values[i].Name)
			if s.Err != nil {
				missing = s.Err.Error()
			}
		}
		readings = append(readings, collect.Reading{Metric: r.metrics[i], Value: v})
	}
	r.good(missing)
	if missing != "" && !slices.ContainsFunc(readings, func(r collect.Reading) bool { return r.Value.Present }) {
		return readings, errors.New(missing)
	}
	return readings, nil
}

// good notes that the chip was read; missing is why a value has no number.
func (r *reader) good(missing string) {
	m := r.line.m
	m.mu.Lock()
	r.fails, r.missed, r.why = 0, 0, nil
	switch {
	case missing != "":
		r.dry = max(r.dry, 0) + 1
	default:
		r.dry = min(r.dry, 0) - 1
	}
	news := false
	if r.dry == dryAfter && r.problem == "" {
		r.problem, news = missing, true
	} else if r.dry == -dryAfter && r.problem != "" && r.state == model.SensorOK {
		r.problem, news = "", true
	}
	m.mu.Unlock()
	if news {
		m.changed()
	}
}

// doubt notes that the chip could not be read.
func (r *reader) doubt(err error) {
	m := r.line.m
	m.mu.Lock()
	r.fails++
	r.why = err
	m.mu.Unlock()
	token(r.line.doubt)
}
