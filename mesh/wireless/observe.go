package wireless

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"halo.internal/drivers"
	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
)

// answer is what the kernel and the drivers say.
type answer struct {
	stations map[string][]nl80211.StationInfo // by interface
	surveys  map[string]heal.Survey
	drivers  map[string]driverAnswer
	alone    bool            // see Config.Alone
	routed   map[string]bool // see Config.Routed
	blind    bool            // routing could not be asked
}

// driverAnswer is one driver's.
type driverAnswer struct {
	wiphys []int
	gone   bool
	sick   string
}

// observe looks at all radios and drivers, and returns which wiphy a radio's ID
// means. It takes no longer than answerWait, whatever hangs.
func (w *Wireless) observe(ctx context.Context) (heal.Observation, map[string]int) {
	states, all := w.states(), w.drivers()
	seen, answered := w.ask(ctx, states, all)
	if answered {
		w.alone = seen.alone
	}
	o := heal.Observation{Alone: w.alone}
	owners, seats := map[int]string{}, map[string]bool{}
	w.state.Lock()
	for _, t := range all {
		name := t.driver.Name()
		a := seen.drivers[name]
		busy := w.isBusy(t)
		d := heal.Driver{Name: name, Busy: busy, Gone: a.gone && !busy, Sick: a.sick}
		for _, s := range t.seats {
			if seats[s.String()] = true; s.empty && len(a.wiphys) > 0 && !busy && s.taken() {
				d.Vanished = append(d.Vanished, s.String())
			}
		}
		o.Drivers = append(o.Drivers, d)
		for _, index := range a.wiphys {
			owners[index] = name
		}
	}
	ids, crashed := maps.Clone(w.ids), maps.Clone(w.crashed)
	w.state.Unlock()
	wiphys := map[string]int{}
	for _, s := range states {
		id := ids[s.Wiphy]
		if _, twice := wiphys[id]; id == "" || twice {
			id = s.Name
		}
		wiphys[id] = s.Wiphy
		r := heal.Radio{
			ID: id, Name: s.Name, Driver: owners[s.Wiphy], Member: s.Detail == "", Detail: s.Detail, Failures: s.Failures,
			Heard: s.View.Heard, Sent: s.View.Reports.Sent, Reported: s.View.Reports.Reported, Survey: seen.surveys[s.Iface],
			Routed: !answered || seen.blind || seen.routed[s.Iface], Crashes: crashed[ids[s.Wiphy]],
			Hung: s.Hangs > 0, Seat: seats[id],
		}
		if s.Iface == "" || s.Refused {
			r.Use = heal.Spared
		}
		if r.Member && !s.View.Looked.IsZero() {
			r.Unseen = time.Since(s.View.Looked)
		}
		if w.limited(s.Wiphy) {
			// Its firmware may be silent for long to keep to the duty cycle; how it is, it is
			// asked.
			r.Survey.Tx, r.Sent, r.Reported = 0, 0, 0
		}
		if answered && !r.Hung || r.Unseen < answerWait {
			r.Stations = linkedStations(s, seen.stations[s.Iface])
		} // else nobody knows whether its links stand
		o.Radios = append(o.Radios, r)
	}
	return o, wiphys
}

// linkedStations are the peers with a link, and the kernel's counters of them.
func linkedStations(s radio.State, known []nl80211.StationInfo) (list []heal.Station) {
	for _, p := range s.Peers {
		if p.Peering != peering.Estab {
			continue
		}
		h := heal.Station{MAC: p.MAC.String(), Inactive: p.Inactive}
		for _, k := range known {
			if k.MAC.String() == h.MAC {
				h.TxPackets, h.TxFailed, h.Inactive = uint64(k.TxPackets), uint64(k.TxFailed), k.Inactive
			}
		}
		list = append(list, h)
	}
	return list
}

// limited tells whether a radio has a duty cycle to keep to.
func (w *Wireless) limited(wiphy int) bool {
	w.mu.Lock()
	m := w.meter
	w.mu.Unlock()
	if m == nil {
		return false
	}
	is, err := w.isHaLow(wiphy)
	return is || err != nil
}

// ask asks the kernel and the drivers. Who hangs in the kernel cannot be ended:
// then nobody else is sent after him, and answered is false.
func (w *Wireless) ask(ctx context.Context, states []radio.State, all []*tended) (a answer, answered bool) {
	return w.asking.Ask(ctx, answerWait, func() answer { return w.askKernel(ctx, states, all) })
}

func (w *Wireless) askKernel(ctx context.Context, states []radio.State, all []*tended) answer {
	a := answer{stations: map[string][]nl80211.StationInfo{}, surveys: map[string]heal.Survey{}, drivers: map[string]driverAnswer{}, alone: w.c.Alone == nil || w.c.Alone(), blind: w.c.Routed == nil}
	if !a.blind {
		var err error
		a.routed, err = w.c.Routed()
		a.blind = err != nil
	}
	if conn, ifaces := w.open(); conn != nil {
		defer w.idled(conn)
		for _, i := range ifaces {
			if !slices.ContainsFunc(states, func(s radio.State) bool { return s.Iface != "" && s.Iface == i.Name }) {
				continue
			}
			a.stations[i.Name], _ = conn.Stations(i.Index)
			surveys, _ := conn.Surveys(i.Index) // many drivers have none
			for _, s := range surveys {
				if s.InUse {
					a.surveys[i.Name] = heal.Survey{Time: s.Time, Busy: s.Busy, Tx: s.Tx}
				}
			}
		}
	}
	for _, t := range all {
		a.drivers[t.driver.Name()] = w.askDriver(ctx, t, states)
	}
	return a
}

// askDriver asks a driver for its radios, and now and then how it is: when one of
// them is a member without a link. Morse's is asked with links too, which has its
// firmware keep to the law.
func (w *Wireless) askDriver(ctx context.Context, t *tended, states []radio.State) (a driverAnswer) {
	w.state.Lock()
	busy, seats := w.isBusy(t), slices.Clone(t.seats)
	w.state.Unlock()
	if busy {
		return a
	}
	mine, err := t.driver.Wiphys()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return a // the kernel cannot be asked just now
	}
	for _, r := range mine {
		a.wiphys = append(a.wiphys, r.Index)
	}
	if len(mine) == 0 {
		a.gone = seats == nil || slices.ContainsFunc(seats, seat.taken) // otherwise it was unplugged
		return a
	}
	member, linked, hangs := false, false, false
	for _, s := range states {
		if s.Iface == "" || !slices.Contains(a.wiphys, s.Wiphy) {
			continue
		}
		member = member || s.Detail == ""
		linked = linked || len(linkedStations(s, nil)) > 0
		hangs = hangs || s.Hangs > 0 // its health is asked of the radio
	}
	idle := hangs || !member && !linked || linked && t.driver != drivers.Radio(w.halowNow())
	w.state.Lock()
	if t.looks++; idle {
		t.sick, t.looks = "", askAgain
	}
	before, due := t.sick, t.looks > askAgain
	w.state.Unlock()
	if a.sick = before; idle || !due {
		return a
	}
	a.sick = ""
	if err := t.driver.Health(ctx); err != nil && ctx.Err() == nil {
		a.sick = err.Error()
	}
	if linked && a.sick != "" && a.sick != before {
		w.c.Log.Warn("the driver of a radio that works complains", "driver", t.driver.Name(), "err", a.sick)
	}
	w.state.Lock()
	defer w.state.Unlock()
	t.sick, t.looks = a.sick, 1
	return a
}
