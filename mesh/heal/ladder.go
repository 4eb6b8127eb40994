package heal

import (
	"fmt"
	"slices"
	"time"
)

// ladder is one radio's.
type ladder struct {
	State
	evidence
	driver string
	last   time.Duration // when it was last there

	most   int           // links, of late
	mostAt time.Duration // when it last had as many
	lacks  track         // links: on since it has none, or fewer than of late

	searched, scanned, restarted, rebound wait
	vanished                              track // its device has no radio
	lonely                                wait
	linked                                time.Duration // when it last had a link without a fault, or began
	begun                                 bool          // linked is set
	faulty                                time.Duration // when it last had a fault
	tried                                 bool          // a restart, since the fault that stands began
}

// wait is until something may be done again.
type wait struct {
	done bool // ever
	at   time.Duration
	long time.Duration
}

// due tells whether it may be done.
func (w *wait) due(now time.Duration) bool { return !w.done || now-w.at >= w.long }

// did notes that it is done now, and how long it is to be left after that.
func (w *wait) did(now, long time.Duration) { w.done, w.at, w.long = true, now, long }

func newLadder() *ladder { return &ladder{evidence: newEvidence()} }

// disturbed forgets what the counters said: the radio is being brought back.
func (l *ladder) disturbed() {
	l.evidence.restart()
	l.Kind, l.Why = None, ""
}

// look takes what is seen.
func (l *ladder) look(now time.Duration, limits Limits, r Radio, sick string) {
	l.Name, l.driver = r.Name, r.Driver
	l.evidence.look(now, r, sick)
	l.Kind, l.Why = l.evidence.stands(now, limits, r, sick)
	links := len(r.Stations)
	if links >= l.most || now-l.mostAt > limits.Missed {
		l.most, l.mostAt = links, now
	}
	if lacks := r.Use == Ours && r.Member && (links == 0 || links < l.most); !lacks || !l.lacks.on {
		l.lacks = track{on: lacks, since: now}
	}
	switch {
	case l.Kind != None:
		l.faulty = now
	case links > 0:
		if l.tried, l.lonely = false, (wait{}); !l.lacks.on || l.Rung != Search { // else it still seeks those that it lacks
			l.Rung = 0
		}
	}
	if links > 0 && l.Kind == None || !l.begun || r.Use != Ours {
		l.begun, l.linked = true, now
	}
	if l.Kind == None && now-l.faulty > limits.Well {
		l.restarted.long, l.rebound.long = 0, 0
	}
	l.vanished = track{}
}

// next returns what the ladder does now, if anything.
func (l *ladder) next(now time.Duration, limits Limits, r Radio) (Action, bool) {
	if r.Use != Ours {
		return Action{}, false
	}
	act := func(rung Rung, why string) (Action, bool) {
		l.Rung = max(l.Rung, rung)
		return Action{Rung: rung, Radio: r.ID, Kind: l.Kind, Why: why}, true
	}
	if l.Kind != None && !l.Kind.restarted() && l.restarted.due(now) {
		l.restarted.did(now, limits.Restart.next(l.restarted.long))
		return l.restart(act, l.Why)
	}
	if !r.Member {
		return Action{}, false // it seeks nobody before it is
	}
	links := len(r.Stations)
	if alone := now - l.linked; links == 0 && l.Kind == None && alone >= limits.Lonely.First && l.lonely.due(now) {
		l.lonely.did(now, limits.Lonely.next(l.lonely.long))
		why := fmt.Sprintf("radio %s has had no link for %s", r.Name, alone.Round(time.Second))
		if r.Heard > 0 {
			why += fmt.Sprintf(", and hears %d members", r.Heard)
		}
		return l.restart(act, why)
	}
	if l.lacks.on && now-l.lacks.since >= limits.Search/3 && l.searched.due(now) {
		l.searched.did(now, limits.Search)
		l.Searches++
		why := fmt.Sprintf("radio %s has %d links, and had %d of late", r.Name, links, l.most)
		if links == 0 {
			why = fmt.Sprintf("radio %s has no link", r.Name)
		}
		return act(Search, why)
	}
	return Action{}, false
}

func (l *ladder) restart(act func(Rung, string) (Action, bool), why string) (Action, bool) {
	a, ok := act(Restart, why)
	l.Restarts++
	l.tried = true
	l.evidence.restart()
	return a, ok
}

// scan returns whether the radio is to look at other channels: while the whole
// device has no peer since then, and nothing says that the radio is at fault.
func (l *ladder) scan(now time.Duration, limits Limits, r Radio, isolated time.Duration) (Action, bool) {
	if r.Use != Ours || !r.Member || len(r.Stations) > 0 || l.Kind != None || isolated < 0 {
		l.scanned.long = 0
		return Action{}, false
	}
	if now-isolated < limits.Alone || !l.scanned.due(now) {
		return Action{}, false
	}
	l.scanned.did(now, limits.Scan.next(l.scanned.long))
	l.Scans++
	l.Rung = max(l.Rung, Scan)
	return Action{Rung: Scan, Radio: r.ID, Why: "this device has no peer at all"}, true
}

// reloads is one driver's.
type reloads struct {
	wait
	gone  track
	count uint64
	well  time.Duration // since when nothing is wrong with it
}

// reload returns whether a driver is to be loaded anew, and why.
func (m *Machine) reload(now time.Duration, d Driver, o Observation) (string, Kind, bool) {
	s := m.drivers[d.Name]
	if s == nil {
		s = &reloads{well: now}
		m.drivers[d.Name] = s
	}
	if d.Busy {
		s.at, s.well, s.gone = now, now, track{} // the wait begins when it is done
		return "", None, false
	}
	why, kind := "", None
	switch {
	case !d.Gone:
		s.gone = track{}
		why, kind = m.blame(d.Name, o)
	case !s.gone.on:
		s.gone = track{on: true, since: now}
	case now-s.gone.since >= stands[Vanished]*m.limits.Stand:
		why, kind = "its radio has vanished", Vanished
	}
	if kind != None || d.Gone {
		s.well = now
	} else if now-s.well > m.limits.Well {
		s.long = 0
	}
	if kind == None || !s.due(now) {
		return "", None, false
	}
	s.did(now, m.limits.Reload.next(s.long))
	s.gone = track{}
	s.count++
	for _, r := range o.Radios {
		if l := m.radios[r.ID]; l != nil && r.Driver == d.Name {
			l.Rung = Reload
			l.disturbed()
		}
	}
	return why, kind, true
}

// rebind returns which of several devices of a driver are to be given to it anew: one
// whose radio has a fault that a restart has not mended, or that has none any more. The
// driver is not loaded anew, since others of its radios may work.
func (m *Machine) rebind(now time.Duration, d Driver, o Observation) (todo []Action) {
	act := func(l *ladder, id string, kind Kind, why string) {
		l.rebound.did(now, m.limits.Reload.next(l.rebound.long))
		l.Rebinds++
		l.disturbed()
		l.vanished = track{}
		l.Rung = max(l.Rung, Rebind)
		todo = append(todo, Action{Rung: Rebind, Radio: id, Driver: d.Name, Kind: kind, Why: why})
	}
	for _, id := range d.Vanished {
		l := m.ladder(Radio{ID: id})
		l.faulty, l.driver = now, d.Name
		if l.Name == "" {
			l.Name = id
		}
		if !l.vanished.on {
			l.vanished = track{on: true, since: now}
		} else if now-l.vanished.since >= stands[Vanished]*m.limits.Stand && l.rebound.due(now) {
			act(l, id, Vanished, "the radio of "+id+" has vanished")
		}
	}
	radios := len(d.Vanished)
	for _, r := range o.Radios {
		if r.Driver == d.Name {
			radios++
		}
	}
	if _, all := m.blame(d.Name, o); radios < 2 || all != None {
		return todo // to load the driver anew does the same
	}
	for _, r := range o.Radios {
		if l := m.radios[r.ID]; l != nil && r.Driver == d.Name && r.Seat && l.hasFault(r) && l.rebound.due(now) {
			act(l, r.ID, l.Kind, l.Why)
		}
	}
	return todo
}

// hasFault tells whether a radio shows what is its driver's fault, and what a restart has
// not mended.
func (l *ladder) hasFault(r Radio) bool {
	return r.Use == Ours && len(r.Stations) == 0 && l.Kind.OfDriver() && (l.tried || l.Kind.restarted())
}

// blame returns what all radios of a driver show that is its fault, and that a
// restart has not mended; nothing if one of them does not, whatever the others do.
func (m *Machine) blame(driver string, o Observation) (why string, kind Kind) {
	for _, r := range o.Radios {
		if r.Driver != driver {
			continue
		}
		l := m.radios[r.ID]
		if !l.hasFault(r) {
			return "", None
		}
		if why != "" {
			why += "; "
		}
		why, kind = why+l.Why, l.Kind
	}
	return why, kind
}

// Kinds returns all kinds of evidence.
func Kinds() []Kind {
	var all []Kind
	for k := range names {
		if k != None {
			all = append(all, k)
		}
	}
	slices.Sort(all)
	return all
}
