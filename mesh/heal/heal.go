// Package heal decides what is done about radios that do not work: a state
// machine without I/O, which takes what was seen of them and says what to try
// next, in the order of a ladder whose rungs disturb ever more.
//
//	rung     does                                       when
//	search   seeks all peers anew, on the channel; of   no link, or fewer than a while ago: every 30 s
//	         a device that has no peer at all, also     alone for a minute: 30 s, later 2 min
//	         a scan of other channels
//	restart  leaves the mesh and joins it anew, with    evidence of a fault that stands: 1 min, doubling to 30 min;
//	         an interface that is made anew             no link for ten minutes: 10 min, doubling to 1 h
//	rebind   takes its device from its driver and       the same as for reload, of one among several radios of
//	         gives it back                              a driver: 1 min, doubling to 30 min
//	reload   loads the driver anew, and resets the      a fault of the driver that a restart has not mended, and
//	         hardware if that does not help             that all its radios have: 1 min, doubling to 30 min
//
// A wait begins anew from its least after an hour without a fault. Package
// wireless observes, and carries out. Below all of it is the machine's own restart,
// see Last.
//
// # Evidence
//
// A radio that hears nobody is no fault: it may be alone. So silence counts for
// nothing here. What counts is what a working driver does whoever is in reach,
// and each only where this very radio has been seen to do it before, as many
// drivers cannot. The kinds are listed at Kind. Those of the driver may
// end in a reload, the others at most in a restart, since somebody else can bring
// them about: a peer that hears badly, or whoever beacons in the mesh's name.
//
// No driver is loaded anew while one of its radios has a link, is in use by
// others or refused by law, joins yet, or has no such fault, lonely as it may be.
package heal

import (
	"cmp"
	"slices"
	"time"

	"halo.internal/model/order"
)

// Use is whose a radio is.
type Use uint8

// Uses.
const (
	Ours   Use = iota // the mesh's
	Spared            // others use it, or it may not be a member: by law, or as its driver is
)

// Survey is what the driver has counted on the channel in use, since it began to
// count; zero is not counted. Busy is how much of the time somebody sent, or
// something that sounded like it.
type Survey struct{ Time, Busy, Tx time.Duration }

// Station is a peer with a link, by the kernel's counters.
type Station struct {
	MAC       string
	TxPackets uint64 // data frames to it
	TxFailed  uint64 // of any kind, that it did not acknowledge
	Inactive  time.Duration
}

// Radio is what is seen of one. Counters may begin anew at any time.
type Radio struct {
	ID       string // the same after its driver was loaded anew, as far as that can be told
	Name     string // for people, e.g. phy0
	Driver   string // names one of the observation's; empty: nobody can load it anew
	Use      Use
	Member   bool          // of the mesh
	Detail   string        // why it is no member
	Failures int           // attempts in a row that did not make it a member, or not for long
	Unseen   time.Duration // of a member: since its keeper last looked at its stations, as it does every 2 s
	Sent     uint64        // frames whose report was asked for and is there or overdue
	Reported uint64        // those of them of which the driver has said in time that they were sent
	Survey   Survey
	Stations []Station
	Heard    int    // members that are heard on the channel, without a link
	Routed   bool   // routing hears somebody by it, or cannot be asked
	Crashes  uint64 // of its firmware, that the kernel has told of
	Hung     bool   // the kernel does not come back from what it was asked for it
	Seat     bool   // ID names its device, which can be taken from its driver by itself
}

// Driver is what is seen of the driver of one or more radios.
type Driver struct {
	Name string
	Gone bool   // its device is there, and no radio
	Sick string // what it answered when it was asked how it is; empty: well, or not asked
	Busy bool   // it is being loaded anew
	// Vanished are the devices, by the IDs of their radios, that are there and have no
	// radio, while others of the driver have.
	Vanished []string
}

// Observation is what is seen at a time.
type Observation struct {
	Radios  []Radio
	Drivers []Driver
	// Alone: the device has no peer by any other way than radios.
	Alone bool
}

// Rung is a step of the ladder.
type Rung uint8

// Rungs, in their order. Scan belongs to the first.
const (
	Search Rung = iota + 1
	Scan
	Restart
	Rebind
	Reload
)

// String returns the rung's name.
func (r Rung) String() string {
	return [...]string{"", "search", "scan", "restart", "rebind", "reload"}[min(r, Reload)]
}

// Action is to be done now.
type Action struct {
	Rung   Rung
	Radio  string // ID; empty for a reload
	Driver string // of a reload or rebind
	Kind   Kind   // of the evidence; None for loneliness
	Why    string
}

// Waits grow from First by doubling, up to Last.
type Waits struct{ First, Last time.Duration }

func (w Waits) next(before time.Duration) time.Duration {
	return min(max(2*before, w.First), w.Last)
}

// Limits of the ladder.
type Limits struct {
	Search  time.Duration // between two searches; the first comes after a third of it
	Missed  time.Duration // for which a link that is gone has it search
	Alone   time.Duration // after which a device without peers looks at other channels
	Scan    Waits         // between two scans
	Lonely  Waits         // of a radio without links, until it is restarted all the same
	Restart Waits         // between two restarts for a fault
	Reload  Waits         // between two reloads
	Well    time.Duration // after which waits begin anew
	Stand   time.Duration // for which evidence has to stand, at the least; see Kind
}

// DefaultLimits are those of boards.
var DefaultLimits = Limits{
	Search: 30 * time.Second, Missed: 10 * time.Minute, Alone: time.Minute,
	Scan:    Waits{30 * time.Second, 2 * time.Minute},
	Lonely:  Waits{10 * time.Minute, time.Hour},
	Restart: Waits{time.Minute, 30 * time.Minute},
	Reload:  Waits{time.Minute, 30 * time.Minute},
	Well:    time.Hour,
	Stand:   30 * time.Second,
}

// Machine is the ladders of all radios and drivers of a device. Its methods are
// for one goroutine.
type Machine struct {
	limits  Limits
	radios  map[string]*ladder
	drivers map[string]*reloads
	isolate time.Duration // since when the device has no peer; negative: it has one
}

// Bounds: what is plugged in again and again is forgotten in the end.
const (
	maxKept   = 64
	forgotten = 24 * time.Hour
)

// New returns a machine that has seen nothing.
func New(l Limits) *Machine {
	return &Machine{limits: l, radios: map[string]*ladder{}, drivers: map[string]*reloads{}, isolate: -1}
}

// Step takes what is seen at now, which never goes back, and returns what is to
// be done: for each radio at most one action, and a scan at most of one radio.
func (m *Machine) Step(now time.Duration, o Observation) []Action {
	m.judgeIsolation(now, o)
	for _, r := range o.Radios {
		if l := m.ladder(r); held(r.Driver, o.Drivers) {
			l.disturbed() // what it counts now says nothing
		} else {
			l.look(now, m.limits, r, sickness(r.Driver, o.Drivers))
		}
	}
	m.forget(now, o)
	var todo []Action
	reloaded := map[string]bool{}
	for _, d := range o.Drivers {
		if why, kind, ok := m.reload(now, d, o); ok {
			todo = append(todo, Action{Rung: Reload, Driver: d.Name, Why: why, Kind: kind})
		}
		reloaded[d.Name] = d.Busy || len(todo) > 0 && todo[len(todo)-1].Driver == d.Name
		if !reloaded[d.Name] {
			todo = append(todo, m.rebind(now, d, o)...)
		}
	}
	scanned := false
	for _, r := range o.Radios {
		if r.Driver != "" && reloaded[r.Driver] {
			continue
		}
		if slices.ContainsFunc(todo, func(a Action) bool { return a.Radio == r.ID }) {
			continue
		}
		l := m.ladder(r)
		a, ok := l.next(now, m.limits, r)
		if !ok && !scanned {
			a, ok = l.scan(now, m.limits, r, m.isolate)
			scanned = ok
		}
		if ok {
			todo = append(todo, a)
		}
	}
	return todo
}

func (m *Machine) ladder(r Radio) *ladder {
	l := m.radios[r.ID]
	if l == nil {
		l = newLadder()
		m.radios[r.ID] = l
	}
	return l
}

// held tells whether a driver is being loaded anew.
func held(driver string, all []Driver) bool {
	return slices.ContainsFunc(all, func(d Driver) bool { return d.Name == driver && d.Busy })
}

func sickness(driver string, all []Driver) string {
	for _, d := range all {
		if d.Name == driver && driver != "" {
			return d.Sick
		}
	}
	return ""
}

// judgeIsolation notes since when nobody is linked.
func (m *Machine) judgeIsolation(now time.Duration, o Observation) {
	linked := !o.Alone || slices.ContainsFunc(o.Radios, func(r Radio) bool { return len(r.Stations) > 0 })
	switch {
	case linked:
		m.isolate = -1
	case m.isolate < 0:
		m.isolate = now
	}
}

// forget drops the ladders of radios that are long gone.
func (m *Machine) forget(now time.Duration, o Observation) {
	for id, l := range m.radios {
		if slices.ContainsFunc(o.Radios, func(r Radio) bool { return r.ID == id }) || slices.ContainsFunc(o.Drivers, func(d Driver) bool { return slices.Contains(d.Vanished, id) }) {
			l.last = now
		}
	}
	for id, l := range m.radios {
		if now-l.last > forgotten {
			delete(m.radios, id)
		}
	}
	for len(m.radios) > maxKept {
		oldest := ""
		for id, l := range m.radios {
			if oldest == "" || cmp.Or(cmp.Compare(l.last, m.radios[oldest].last), cmp.Compare(id, oldest)) < 0 {
				oldest = id
			}
		}
		delete(m.radios, oldest)
	}
}

// State is where a radio's ladder stands.
type State struct {
	ID, Name string
	Kind     Kind   // of the evidence that stands; None: there is none
	Why      string // in words
	Rung     Rung   // the highest that was tried since it had a link without a fault; 0: none
	Searches uint64 // since the start, as the others
	Scans    uint64
	Restarts uint64
	Rebinds  uint64
	Reloads  uint64 // of its driver
}

// States returns where the ladders of radios stand, by name.
func (m *Machine) States() []State {
	list := make([]State, 0, len(m.radios))
	for id, l := range m.radios {
		s := l.State
		s.ID = id
		if d := m.drivers[l.driver]; d != nil && l.driver != "" {
			s.Reloads = d.count
		}
		list = append(list, s)
	}
	order.By(list, func(a, b State) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list
}
