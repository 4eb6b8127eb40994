package wireless

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
	"halo.internal/model"
)

// Kinds of events of airtime; fields driver, budget_s.
const (
	EventAirtime     = "mesh.radio.airtime"      // the duty cycle is used up, and the radio leaves the mesh
	EventAirtimeLeft = "mesh.radio.airtime-left" // it may be back
)

// measureEvery is how often airtime is read. What is sent between two readings
// nobody stops but the radio's own firmware.
const measureEvery = 10 * time.Second

// meter keeps the airtime of a radio with a duty cycle by its driver's counters:
// the survey's, which has all frames, or else those of its stations, which lacks
// what goes to all (beacons, broadcasts).
type meter struct {
	duty    legal.DutyCycle
	account *legal.Account

	mu       sync.Mutex // guards what follows
	seen     map[string]time.Duration
	surveyed map[string]bool // interfaces that the survey has counted airtime of
	counts   bool            // the driver has such counters
	silent   bool            // until a tenth of the budget is left
}

func newMeter(d legal.DutyCycle, now time.Time) *meter {
	return &meter{duty: d, account: legal.NewAccount(d, now), seen: map[string]time.Duration{}, surveyed: map[string]bool{}}
}

// read charges what has been sent since the last reading on an interface. A
// counter that is new, or began anew, counts as a whole; so one that cannot be read
// is left as it was, for the next reading. An interface that the survey has once
// counted is not counted by its stations any more, which would charge all again.
func (m *meter) read(now time.Time, conn kernel, i nl80211.Interface) error {
	surveys, err := conn.Surveys(i.Index)
	counters := map[string]time.Duration{}
	for _, s := range surveys {
		if s.Tx > 0 && err == nil {
			counters[fmt.Sprintf("%s %d MHz", i.Name, s.FreqMHz)] = s.Tx
		}
	}
	m.mu.Lock()
	if len(counters) > 0 {
		m.surveyed[i.Name] = true
	}
	surveyed := m.surveyed[i.Name]
	m.mu.Unlock()
	if surveyed {
		m.charge(now, counters)
		return err
	}
	stations, err := conn.Stations(i.Index) // many drivers have no survey
	if err != nil {
		return err
	}
	for _, s := range stations {
		if s.TxAirtime > 0 {
			counters[i.Name+" "+s.MAC.String()] = s.TxAirtime
		}
	}
	m.charge(now, counters)
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range m.seen { // of stations that went: one that comes back begins anew
		if _, ok := counters[key]; !ok && strings.HasPrefix(key, i.Name+" ") {
			delete(m.seen, key)
		}
	}
	return nil
}

// charge charges by how much counters have grown.
func (m *meter) charge(now time.Time, counters map[string]time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, count := range counters {
		m.counts = true
		before := m.seen[key]
		if count < before {
			before = 0
		}
		m.account.Charge(now, count-before)
		m.seen[key] = count
	}
}

// judge returns whether the radio has to be silent from now on, or no longer.
func (m *meter) judge(now time.Time) (silent, changed bool) {
	left := m.account.Left(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.silent
	switch {
	case left <= 0:
		m.silent = true
	case left >= m.account.Budget()/10:
		m.silent = false
	}
	return m.silent, m.silent != before
}

// check refuses a radio that has to be silent.
func (m *meter) check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.silent {
		return nil
	}
	return fmt.Errorf("%w: the duty cycle of %s (%s of an hour) is used up: it comes back once a tenth of it is left", legal.ErrRefused, m.duty, m.account.Budget())
}

// show fills in what is known of the airtime.
func (m *meter) show(now time.Time, l *model.Legality) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.counts {
		l.Reasons = append(l.Reasons, "the driver has counted no airtime: nobody but its firmware keeps to the duty cycle")
		return
	}
	l.AirtimeMaxS = m.account.Budget().Seconds()
	l.AirtimeS = l.AirtimeMaxS - m.account.Left(now).Seconds()
}

// keepAirtime reads airtime, and takes a radio off the air whose duty cycle is
// used up: it leaves the mesh, its interface with all beacons goes, and fit lets
// it back once there is airtime again. More cannot be done from here; what its
// driver sends of itself meanwhile, and between two readings, only that bounds.
func (w *Wireless) keepAirtime(ctx context.Context, m *meter) {
	for w.sleep(ctx, measureEvery) {
		if !w.apart(ctx, "airtime", w.measure) {
			return
		}
		silent, changed := m.judge(time.Now())
		if !changed {
			continue
		}
		name := w.halow.Name()
		budget := fmt.Sprint(m.account.Budget().Seconds())
		if !silent {
			w.notify(EventAirtimeLeft, model.Info, name+" has airtime again", "driver", name, "budget_s", budget)
			continue
		}
		w.notify(EventAirtime, model.Error, fmt.Sprintf("%s has used up its duty cycle of %s and leaves the mesh until it has airtime again", name, m.duty), "driver", name, "budget_s", budget)
		w.silence()
	}
}

// silence has the HaLow radios leave the mesh and ask fit anew.
func (w *Wireless) silence() {
	w.mu.Lock()
	rs := w.radios
	w.mu.Unlock()
	if rs == nil {
		return
	}
	for _, s := range rs.List() {
		if is, err := w.isHaLow(s.Wiphy); err == nil && is && s.Iface != "" {
			rs.Again(s.Wiphy)
		}
	}
}

// measure reads the airtime of the HaLow radios; what cannot be read now, the next
// reading finds.
func (w *Wireless) measure() {
	w.mu.Lock()
	m := w.meter
	w.mu.Unlock()
	if m == nil || w.hung() != "" {
		return
	}
	conn, err := w.dial()
	if err != nil {
		return
	}
	defer conn.Close()
	ifaces, err := conn.Interfaces()
	if err != nil {
		return
	}
	for _, i := range ifaces {
		if is, err := w.isHaLow(i.Wiphy); err != nil || !is || i.Type != nl80211.MeshPoint {
			continue
		}
		if err := m.read(time.Now(), conn, i); err != nil {
			w.c.Log.Debug("airtime not read", "iface", i.Name, "err", err)
		}
	}
}
