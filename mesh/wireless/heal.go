package wireless

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/drivers"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/hal/module"
	"halo.internal/mesh/apart"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/radio"
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
	backWait    = 30 * time.Second // for a radio to be there, whose device was given back
)

// healer keeps the ladders of the device's radios and drivers.
type healer struct {
	machine *heal.Machine
	begun   time.Time
	asking  apart.Question[answer] // of the kernel and the drivers
	alone   bool                   // as it was when that was answered last; keepWell's alone
	found   finder

	state   sync.Mutex // guards what follows
	tended  map[string]*tended
	apartly map[string]*work // what apart has running, by its name
	loaders map[string]drivers.Modules
	crashed map[string]uint64 // times that firmware fell, by device
	ladders []heal.State
	ids     map[int]string // of radios, by wiphy
}

func newHealer(l heal.Limits) healer {
	return healer{machine: heal.New(l), begun: time.Now(), tended: map[string]*tended{}, apartly: map[string]*work{}, loaders: map[string]drivers.Modules{}, crashed: map[string]uint64{}, ids: map[int]string{}}
}

// tended is a driver that is kept going.
type tended struct {
	driver drivers.Radio
	seats  []seat // where its radios are, or were while the device is there; nil: they are soldered on
	busy   bool   // it is being brought back
	looks  int    // since it was asked how it is
	sick   string // what it answered
}

// seat is where a radio is plugged in.
type seat struct {
	module.Device
	alias  string // another device may come to be there
	driver string // that has the device, as its bus calls it; empty: it is not known
	empty  bool   // the device is there, and has no radio
	tries  int    // to give it to its driver anew
}

// taken tells whether the radio's device is still there.
func (s seat) taken() bool { return s.Exists() && s.Modalias() == s.alias }

// tendNone forgets the driver of HaLow of an earlier run, which is made anew. Of others it
// is known where their radios were.
func (w *Wireless) tendNone() {
	w.state.Lock()
	defer w.state.Unlock()
	maps.DeleteFunc(w.tended, func(_ string, t *tended) bool { return t.seats == nil })
}

// tend has a driver kept going from now on, or says where its radios are. Where one was
// stays known for as long as its device is there.
func (w *Wireless) tend(d drivers.Radio, seats []seat) {
	w.state.Lock()
	defer w.state.Unlock()
	t := w.tended[d.Name()]
	if t == nil {
		t = &tended{driver: d, looks: askAgain}
		w.tended[d.Name()] = t
	}
	t.seats = seatsNow(t.seats, seats)
}

// seatsNow returns the seats that have radios, and of those that had some the ones whose
// device is there.
func seatsNow(before, taken []seat) []seat {
	at := func(all []seat, s seat) int {
		return slices.IndexFunc(all, func(o seat) bool { return o.Device == s.Device && o.alias == s.alias })
	}
	var all []seat
	for _, s := range taken {
		if at(all, s) >= 0 {
			continue // a second radio of one device
		}
		if i := at(before, s); i >= 0 {
			s.tries = before[i].tries
		}
		all = append(all, s)
	}
	for _, s := range before {
		if at(all, s) < 0 && s.taken() {
			s.empty = true
			all = append(all, s)
		}
	}
	return all
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
			driver, _ := r.Device.Driver() // it may be on its way out
			found[r.Module] = append(found[r.Module], seat{Device: r.Device, alias: r.Device.Modalias(), driver: driver})
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

// work is what runs apart.
type work struct {
	since time.Time
	ended chan struct{} // closed when it does
}

// apart runs what may hang in the kernel as apart.Run does. Of one name no more than one
// is: the next waits for it, as for itself.
func (w *Wireless) apart(ctx context.Context, name string, f func()) (done bool) {
	for {
		w.state.Lock()
		before := w.apartly[name]
		if before == nil {
			break
		}
		w.state.Unlock()
		select {
		case <-before.ended:
		case <-ctx.Done():
			return false
		}
	}
	mine := &work{since: time.Now(), ended: make(chan struct{})}
	w.apartly[name] = mine
	w.state.Unlock()
	go func() {
		defer func() {
			w.state.Lock()
			defer w.state.Unlock()
			delete(w.apartly, name)
			close(mine.ended)
		}()
		f()
	}()
	return apart.Await(ctx, mine.ended)
}

// Hangs returns what has not come back from the kernel for longest, in words, and for how
// long; 0: all has. What takes its time, as loading a driver does, counts too: it takes
// minutes at most. Nothing is asked of the kernel.
func (w *Wireless) Hangs() (what string, long time.Duration) {
	note := func(name string, took time.Duration) {
		if took > long {
			what, long = name, took
		}
	}
	for _, l := range w.left.List() {
		note("radio "+l.Radio, l.For)
	}
	for _, s := range w.states() {
		note("radio "+s.Name, s.Hangs)
	}
	note("what radios and drivers are asked", w.asking.Unanswered())
	note("what radios are asked", w.telling.Unanswered())
	w.state.Lock()
	defer w.state.Unlock()
	for name, a := range w.apartly {
		note(name, time.Since(a.since))
	}
	return what, long
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
	if a.Rung == heal.Rebind {
		w.state.Lock()
		t := w.tended[a.Driver]
		i := -1
		if t != nil && !w.isBusy(t) {
			i = slices.IndexFunc(t.seats, func(s seat) bool { return s.String() == a.Radio })
		}
		if i < 0 {
			w.state.Unlock()
			return
		}
		t.busy = true
		t.seats[i].tries++
		s := t.seats[i]
		w.state.Unlock()
		owned.Go(func() { w.rebind(ctx, t, s, a.Why) })
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
		owned.Go(func() { apart.Run(ctx, func() { w.lookElsewhere(ctx, name) }) })
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
	type outcome struct {
		step drivers.Step
		err  error
	}
	ended := make(chan outcome, 1)
	done := w.apart(ctx, name, func() {
		defer w.tellHang(name, why, own).Stop()
		if own {
			w.measure() // before the counters are gone
		}
		if w.giveBackHung(ctx, t) {
			ended <- outcome{rebound, nil}
			return
		}
		step, err := drivers.Recover(ctx, t.driver)
		ended <- outcome{step, err}
	})
	var step drivers.Step
	var err error
	if done {
		o := <-ended
		step, err = o.step, o.err
	}
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

// tellHang has an event tell of work on a driver that takes longer than any does, unless it
// is stopped; of HaLow's (own), its absent radio tells so too.
func (w *Wireless) tellHang(driver, why string, own bool) *time.Timer {
	return time.AfterFunc(recoverWait, func() {
		if own {
			w.driverIs("driver failed: " + errHangs.Error())
		}
		w.notify(EventDriverHangs, model.Error, fmt.Sprintf("%s (%s) hangs in the kernel: only a restart of the machine may help", driver, why), "driver", driver, "reason", why)
	})
}

// rebound is the step of a driver whose devices were taken from it and given back.
const rebound drivers.Step = "rebound"

// giveBackHung does so with a driver of which a radio hangs in the kernel: to unload it
// begins with its interfaces, for which it would wait too, while what waits for a device
// comes back when that is taken away.
func (w *Wireless) giveBackHung(ctx context.Context, t *tended) bool {
	mine, err := t.driver.Wiphys()
	if err != nil || !slices.ContainsFunc(w.states(), func(s radio.State) bool {
		return s.Hangs > 0 && slices.ContainsFunc(mine, func(r nl80211.Wiphy) bool { return r.Index == s.Wiphy })
	}) {
		return false
	}
	w.state.Lock()
	seats := slices.Clone(t.seats)
	w.state.Unlock()
	for _, s := range seats {
		if s.taken() && w.bringBack(ctx, s, true) != nil {
			return false
		}
	}
	return slices.ContainsFunc(seats, seat.taken) && t.driver.Health(ctx) == nil
}

// bringBack gives a device to its driver anew, and waits for its radio.
func (w *Wireless) bringBack(ctx context.Context, s seat, whole bool) error {
	err := w.giveBack(s, whole)
	for end := time.Now().Add(backWait); err == nil && !w.seated(s); {
		if time.Now().After(end) {
			err = fmt.Errorf("%s: it has no radio %s after it was given back: the kernel log may say why", s, backWait)
		} else if !w.sleep(ctx, time.Second) {
			err = ctx.Err()
		}
	}
	return err
}

// rebind gives the device of one of several radios to its driver anew, and waits for its
// radio. What does not help the first time, on USB the whole device does anew.
func (w *Wireless) rebind(ctx context.Context, t *tended, s seat, why string) {
	defer func() {
		w.state.Lock()
		defer w.state.Unlock()
		t.busy, t.sick, t.looks = false, "", askAgain
	}()
	name := t.driver.Name()
	ended := make(chan error, 1)
	done := w.apart(ctx, name, func() {
		defer w.tellHang(name, why, false).Stop()
		ended <- w.bringBack(ctx, s, s.tries > 1)
	})
	if !done || ctx.Err() != nil {
		return
	}
	if err := <-ended; err != nil {
		w.notify(EventDriverFailed, model.Error, fmt.Sprintf("%s of %s (%s) could not be brought back, and is tried again ever more rarely: %v", s, name, why, err), "driver", name, "device", s.String(), "reason", err.Error())
		return
	}
	w.notify(EventDriverRecovered, model.Warning, fmt.Sprintf("%s of %s was brought back (rebound), since %s", s, name, why), "driver", name, "device", s.String(), "step", string(rebound), "reason", why)
}

// seated tells whether there is a radio of a device.
func (w *Wireless) seated(s seat) bool {
	radios, err := w.sysfs()
	return err == nil && slices.ContainsFunc(radios, func(r wifi.Radio) bool { return r.Device == s.Device })
}

// giveBack takes a device from its driver and gives it back; whole: of USB, all of it, and
// not that interface alone.
func giveBack(s seat, whole bool) error {
	d := s.Device
	if whole && d.Bus == "usb" {
		d.Name, _, _ = strings.Cut(d.Name, ":") // 1-1.2:1.0 is an interface of 1-1.2
		return d.Rebind()
	}
	if driver, err := d.Driver(); err == nil && driver == "" && s.driver != "" {
		return d.Bind(s.driver) // which has given it up
	}
	return d.Rebind()
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
	h := model.Healing{Rung: l.Rung.String(), Evidence: l.Kind.String(), Reason: l.Why, Searches: l.Searches, Scans: l.Scans, Restarts: l.Restarts, Rebinds: l.Rebinds, Reloads: l.Reloads}
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
