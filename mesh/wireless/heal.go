package wireless

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"halo.internal/drivers"
	"halo.internal/hal/module"
	"halo.internal/mesh/heal"
	"halo.internal/model"
)

// Kinds of events of the ladder (mesh/heal); all have the fields radio and reason.
const (
	EventLonely    = "mesh.radio.lonely"    // it lacks links: peers are sought anew, for as long as that is so
	EventRestarted = "mesh.radio.restarted" // fields besides: evidence. It leaves the mesh and joins it anew
	EventHealed    = "mesh.radio.healed"    // it has links again, after restarts or reloads
)

const (
	look        = 10 * time.Second // between two looks at how radios and drivers are
	askAgain    = 3                // looks between two questions to a driver, which may go to its firmware
	answerWait  = 10 * time.Second // for the kernel, which answers within milliseconds unless it hangs
	recoverWait = 10 * time.Minute // far beyond what loading a driver anew takes
	clearWait   = time.Minute      // for a driver to go before radios join: what hangs holds no other up
	letGo       = 2 * time.Second  // for what was told to end, and does not hang
)

// healer keeps the ladders of the device's radios and drivers.
type healer struct {
	machine *heal.Machine
	begun   time.Time
	asked   chan answer // of the kernel, while it has not answered
	found   finder

	state   sync.Mutex // guards what follows
	tended  map[string]*tended
	apartly map[string]chan struct{} // what apart has running, by its name; closed when it ends
	loaders map[string]drivers.Modules
	crashed map[string]uint64 // times that firmware fell, by device
	ladders []heal.State
	ids     map[int]string // of radios, by wiphy
}

func newHealer(l heal.Limits) healer {
	return healer{machine: heal.New(l), begun: time.Now(), tended: map[string]*tended{}, apartly: map[string]chan struct{}{}, loaders: map[string]drivers.Modules{}, crashed: map[string]uint64{}, ids: map[int]string{}}
}

// tended is a driver that is kept going.
type tended struct {
	driver drivers.Radio
	seats  []seat // what its radios were; nil: they are soldered on
	busy   bool   // it is being brought back
	looks  int    // since it was asked how it is
	sick   string // what it answered
}

// seat is where a radio was plugged in.
type seat struct {
	module.Device
	alias string // another device may come to be there
}

// taken tells whether the radio's device is still there.
func (s seat) taken() bool { return s.Exists() && s.Modalias() == s.alias }

// tendNone forgets the drivers of an earlier run.
func (w *Wireless) tendNone() {
	w.state.Lock()
	defer w.state.Unlock()
	clear(w.tended)
}

// tend has a driver kept going from now on, or says where its radios are.
func (w *Wireless) tend(d drivers.Radio, seats []seat) {
	w.state.Lock()
	defer w.state.Unlock()
	if t := w.tended[d.Name()]; t != nil {
		t.seats = seats
		return
	}
	w.tended[d.Name()] = &tended{driver: d, seats: seats, looks: askAgain}
}

// tendWiFi finds the drivers of Wi-Fi radios; the guard loads them. Radios on no
// bus are simulated, and would be others when their driver is loaded anew.
func (w *Wireless) tendWiFi() {
	radios, err := w.sysfs()
	if err != nil {
		return
	}
	found := map[string][]seat{}
	w.state.Lock()
	clear(w.ids)
	for _, r := range radios {
		if r.Device.Name != "" {
			w.ids[r.Index] = r.Device.String()
		}
		if r.Module != "" && r.Module != w.halowModule && r.Device.Bus != "" {
			found[r.Module] = append(found[r.Module], seat{r.Device, r.Device.Modalias()})
		}
	}
	w.state.Unlock()
	for name, seats := range found {
		modules, err := w.modulesFor(name)
		if err != nil {
			return // a kernel without modules has nothing to load anew
		}
		w.tend(w.newWiFi(name, modules), seats)
	}
}

// modulesFor returns what loads a driver's module, the same for as long as the process runs:
// it knows what it has hanging in the kernel. Each driver has its own, so that one that hangs
// holds up no other.
func (w *Wireless) modulesFor(driver string) (drivers.Modules, error) {
	w.state.Lock()
	defer w.state.Unlock()
	if m := w.loaders[driver]; m != nil {
		return m, nil
	}
	m, err := w.modules()
	if err == nil {
		w.loaders[driver] = m
	}
	return m, err
}

// apart runs what may hang in the kernel, where nobody can end it, and returns when it is
// done, or soon after ctx has ended: then done is false, and it is left behind. Of one name
// no more than one is: the next waits for it, as for itself.
func (w *Wireless) apart(ctx context.Context, name string, f func()) (done bool) {
	for {
		w.state.Lock()
		before := w.apartly[name]
		if before == nil {
			break
		}
		w.state.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return false
		}
	}
	mine := make(chan struct{})
	w.apartly[name] = mine
	w.state.Unlock()
	go func() {
		defer func() {
			w.state.Lock()
			defer w.state.Unlock()
			delete(w.apartly, name)
			close(mine)
		}()
		f()
	}()
	select {
	case <-mine:
		return true
	case <-ctx.Done():
	}
	late := time.NewTimer(letGo)
	defer late.Stop()
	select {
	case <-mine:
		return true
	case <-late.C:
		return false
	}
}

// isBusy tells whether a driver is being brought back, also by an earlier run that it
// outlasts. w.state is held.
func (w *Wireless) isBusy(t *tended) bool {
	return t.busy || w.apartly[t.driver.Name()] != nil
}

// hangs tells whether an earlier run has left a driver's work behind in the kernel.
func (w *Wireless) hangs(driver string) bool {
	w.state.Lock()
	defer w.state.Unlock()
	return w.apartly[driver] != nil
}

// keepWell looks at radios and drivers and does what their ladders say, until ctx
// ends.
func (w *Wireless) keepWell(ctx context.Context) {
	var owned sync.WaitGroup
	defer owned.Wait()
	owned.Go(func() { w.followFirmware(ctx) })
	for w.sleep(ctx, w.look) {
		w.tendWiFi()
		o, wiphys := w.observe(ctx)
		if ctx.Err() != nil {
			return
		}
		before := w.machine.States()
		todo := w.machine.Step(time.Since(w.begun), o)
		after := w.machine.States()
		w.state.Lock()
		w.ladders = after
		w.state.Unlock()
		w.tellLadders(before, after)
		for _, a := range todo {
			w.carryOut(ctx, &owned, a, wiphys)
		}
	}
}

// tellLadders makes events of where ladders begin and end.
func (w *Wireless) tellLadders(before, after []heal.State) {
	for _, now := range after {
		i := slices.IndexFunc(before, func(s heal.State) bool { return s.ID == now.ID })
		was := heal.Rung(0)
		if i >= 0 {
			was = before[i].Rung
		}
		switch {
		case was >= heal.Restart && now.Rung == 0:
			w.notify(EventHealed, model.Info, fmt.Sprintf("radio %s works again", now.Name), "radio", now.Name, "reason", "it has links, and nothing says that it does not work")
		case was == 0 && now.Rung != 0 && now.Rung < heal.Restart:
			w.notify(EventLonely, model.Info, fmt.Sprintf("radio %s lacks links, and seeks peers anew until it has them", now.Name), "radio", now.Name, "reason", "no link, or fewer than a while ago")
		}
	}
}

// carryOut does what a ladder says. What takes time, owned waits for.
func (w *Wireless) carryOut(ctx context.Context, owned *sync.WaitGroup, a heal.Action, wiphys map[string]int) {
	if a.Rung == heal.Reload {
		w.state.Lock()
		t := w.tended[a.Driver]
		if t == nil || w.isBusy(t) {
			w.state.Unlock()
			return
		}
		t.busy = true
		w.state.Unlock()
		owned.Go(func() { w.reload(ctx, t, a.Why) })
		return
	}
	w.mu.Lock()
	rs := w.radios
	w.mu.Unlock()
	wiphy, ok := wiphys[a.Radio]
	if rs == nil || !ok {
		return
	}
	name := w.nameOf(a.Radio)
	switch a.Rung {
	case heal.Search:
		w.c.Log.Debug("peers are sought anew", "radio", name, "reason", a.Why)
		rs.Seek(wiphy)
	case heal.Scan:
		owned.Go(func() { w.lookElsewhere(ctx, name) })
	case heal.Restart:
		w.notify(EventRestarted, model.Warning, fmt.Sprintf("radio %s leaves the mesh and joins it anew, since %s", name, a.Why), "radio", name, "evidence", a.Kind.String(), "reason", a.Why)
		rs.Again(wiphy)
	}
}

func (w *Wireless) nameOf(id string) string {
	w.state.Lock()
	defer w.state.Unlock()
	for _, l := range w.ladders {
		if l.ID == id {
			return l.Name
		}
	}
	return id
}

// reload brings a driver back, by its hardware if need be. It waits no longer than ctx: the
// other radios are to go on, with another profile too.
func (w *Wireless) reload(ctx context.Context, t *tended, why string) {
	defer func() {
		w.state.Lock()
		defer w.state.Unlock()
		t.busy, t.sick, t.looks = false, "", askAgain
	}()
	name, own := t.driver.Name(), t.driver == drivers.Radio(w.halowNow())
	if own {
		w.driverIs("driver loading anew: " + why)
		w.isLoaded("")
	}
	hangs := time.AfterFunc(recoverWait, func() {
		w.notify(EventDriverHangs, model.Error, fmt.Sprintf("%s (%s) hangs in the kernel: only a restart of the machine may help", name, why), "driver", name, "reason", why)
	})
	var step drivers.Step
	var err error
	done := w.apart(ctx, name, func() {
		defer hangs.Stop()
		if own {
			w.measure() // before the counters are gone
		}
		step, err = drivers.Recover(ctx, t.driver)
	})
	switch {
	case !done, ctx.Err() != nil:
	case err != nil:
		if own {
			w.driverIs("driver failed: " + err.Error())
		}
		w.notify(EventDriverFailed, model.Error, fmt.Sprintf("%s (%s) could not be brought back, and is tried again ever more rarely: %v", name, why, err), "driver", name, "reason", err.Error())
	default:
		if d := w.halowNow(); own && d != nil {
			w.driverIs("")
			w.isLoaded(d.Parameters())
		}
		w.notify(EventDriverRecovered, model.Warning, fmt.Sprintf("%s was brought back (%s), since %s", name, step, why), "driver", name, "step", string(step), "reason", why)
	}
}

func (w *Wireless) halowNow() halowDriver {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.halow
}

// healing is where the ladder of a radio stands, for status; nil: nothing was
// ever done.
func (w *Wireless) healing(name string) *model.Healing {
	w.state.Lock()
	defer w.state.Unlock()
	i := slices.IndexFunc(w.ladders, func(l heal.State) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	l := w.ladders[i]
	h := model.Healing{Rung: l.Rung.String(), Evidence: l.Kind.String(), Reason: l.Why, Searches: l.Searches, Scans: l.Scans, Restarts: l.Restarts, Reloads: l.Reloads}
	if h == (model.Healing{}) {
		return nil
	}
	return &h
}

// drivers returns those that are tended, by name.
func (w *Wireless) drivers() []*tended {
	w.state.Lock()
	defer w.state.Unlock()
	var all []*tended
	for _, name := range slices.Sorted(maps.Keys(w.tended)) {
		all = append(all, w.tended[name])
	}
	return all
}
