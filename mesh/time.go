package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/clock"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// saveEvery is how often the clock is saved: what a power cut takes back.
const saveEvery = time.Hour

// startClock gives the machine its first time of this boot, or, after a
// restart of the process, goes on with the one it has: then it returns true.
func (m *core) startClock(tell report) (resumed bool) {
	var s clock.State
	if b, err := os.ReadFile(m.path(paths.RunClock)); err == nil && json.Unmarshal(b, &s) == nil {
		m.clock.Resume(s)
		return true
	}
	var saved time.Time
	_, err := m.store.Get(paths.Clock, paths.VaultClock, func(b []byte) (err error) {
		saved, err = clock.Unmarshal(b)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tell("clock.damaged", model.Warning, "saved clock is damaged: "+err.Error())
	}
	c, err := m.clock.Start(saved)
	if err != nil {
		tell("clock.failed", model.Error, err.Error())
	}
	tell("clock.started", model.Info, "clock starts", "from", stamp(c.From), "to", stamp(c.To), "quality", string(c.Quality))
	m.saveClockState()
	return false
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (m *core) saveClockState() {
	b, err := json.Marshal(m.clock.State())
	if err != nil {
		panic("mesh: clock state: " + err.Error()) // a string and a number
	}
	m.saveRun(paths.RunClock, b)
}

// saveClock has the card hear of the time. What only its battery says a node does not save,
// see clock.Confirmed; a gateway does, whose time is the network's.
func (m *core) saveClock() {
	if m.id.Key.Public() != m.net && !m.clock.Confirmed() {
		return
	}
	now, _ := m.clock.Now()
	if _, err := m.store.Put(paths.Clock, paths.VaultClock, clock.Marshal(now)); err != nil {
		m.Log.Warn("clock not saved in both places", "err", err)
	}
}

// keepClock saves the clock hourly and when the process ends.
func (m *core) keepClock(ctx context.Context) error {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			m.saveClock()
			return nil
		case <-t.C:
			m.saveClock()
		}
	}
}

// correct takes the time from a gateway's answer. It tells whether the clock
// went back, which peers must learn.
func (m *core) correct(a clock.Answer) (wentBack bool) {
	before := m.clock.State()
	c, err := m.clock.Correct(a)
	if err != nil {
		m.events.Add(eventClockRefused, model.Warning, "time of the gateway is not taken: "+err.Error())
		return false
	}
	if c.Past {
		m.events.Add(eventClockRefused, model.Warning, "time of the gateway is not taken: it is of somebody who logged in there, and far before what this device has known to be past; one of the two is wrong, and until that is mended the device may be kept out of its network",
			"from", stamp(c.From), "to", stamp(a.Time), "offset", a.Time.Sub(c.From).Round(time.Second).String())
	}
	after := m.clock.State()
	if c.Stepped || after != before {
		m.saveClockState()
	}
	if !c.Stepped {
		return false
	}
	m.saveClock()
	severity, message := model.Info, "clock set by the gateway"
	if c.Battery {
		severity, message = model.Warning, "this board's battery-backed clock was far from what somebody who logged in has told the gateway, and nothing had confirmed it: the clock was set by the gateway"
	}
	m.events.Add(eventClockCorrected, severity, message,
		"from", stamp(c.From), "to", stamp(c.To), "offset", c.Offset().Round(time.Millisecond).String(), "quality", string(c.Quality))
	return after.Steps != before.Steps
}

// Kinds of events of what a person's clock said; fields from, to, offset, quality, source,
// user and remote.
const (
	eventClockConfirmed = "clock.confirmed" // and the clock was right
	eventClockCorrected = "clock.corrected"
	eventClockRefused   = "clock.refused"
	sourceLogin         = "login"
	sourceGPS           = "gps"
)

// offered takes the time from somebody who has logged in, where nothing knows better. It
// tells whether that is how the device knows it from now on.
func (m *core) offered(o model.TimeOffer) (taken bool, err error) {
	if len(o.User) > 64 || len(o.Remote) > 64 {
		return false, fmt.Errorf("%w: expected a user and an address of at most 64 octets", api.ErrInvalid)
	}
	from := []string{"source", sourceLogin, "user", o.User, "remote", o.Remote}
	c, taken, err := m.clock.Offer(o.Time)
	switch {
	case errors.Is(err, clock.ErrRefused):
		m.events.Add(eventClockRefused, model.Warning, "time of somebody who logged in is not taken: "+err.Error(), from...)
		return false, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case err != nil || !taken:
		return false, err
	}
	m.saveClockState()
	kind, message := eventClockConfirmed, "somebody who logged in has the same time"
	if c.Stepped {
		m.saveClock()
		kind, message = eventClockCorrected, "clock set by somebody who logged in"
	}
	m.events.Add(kind, model.Info, message, append(from,
		"from", stamp(c.From), "to", stamp(c.To), "offset", c.Offset().Round(time.Millisecond).String(), "quality", string(c.Quality))...)
	return true, nil
}

// satellites takes the time of the device's GPS receiver, which halo-agent has checked for
// sense. news is true when the clock is of another time or quality than before.
func (m *core) satellites(t model.GPSTime) (news, wentBack bool, err error) {
	age := time.Duration(int64(bootTime()) - t.BootNS)
	if t.AccuracyMS < 0 || t.AccuracyMS > 10_000 {
		return false, false, fmt.Errorf("%w: expected an accuracy of 0 to 10000 ms, got %d", api.ErrInvalid, t.AccuracyMS)
	}
	before := m.clock.State()
	c, err := m.clock.Satellites(t.Time, age, time.Duration(t.AccuracyMS)*time.Millisecond)
	switch {
	case errors.Is(err, clock.ErrRefused):
		if m.gpsRefused.CompareAndSwap(false, true) { // it comes again each minute
			m.events.Add(eventClockRefused, model.Warning, "time of the GPS receiver is not taken: "+err.Error(), "source", sourceGPS)
		}
		return false, false, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	case err != nil:
		return false, false, err
	}
	m.gpsRefused.Store(false)
	after := m.clock.State()
	if !c.Stepped && after.Quality == before.Quality {
		return false, false, nil
	}
	m.saveClockState()
	kind, message := eventClockConfirmed, "GPS has the same time"
	if c.Stepped {
		m.saveClock()
		kind, message = eventClockCorrected, "clock set by GPS"
	}
	m.events.Add(kind, model.Info, message, "source", sourceGPS,
		"from", stamp(c.From), "to", stamp(c.To), "offset", c.Offset().Round(time.Millisecond).String(), "quality", string(c.Quality))
	return true, after.Steps != before.Steps, nil
}

// GPSTime of a device without a network counts from its start.
func (m *core) GPSTime(t model.GPSTime) error {
	_, _, err := m.satellites(t)
	return err
}

// GPSTime has the mesh hear at once that this gateway knows the time.
func (g *gateway) GPSTime(t model.GPSTime) error {
	news, _, err := g.satellites(t)
	if news {
		g.voice.Changed()
		wake(g.overlayNow) // the list of members has to be of a time that has come
	}
	return err
}

// GPSTime has peers learn where handshakes restart in the past.
func (n *node) GPSTime(t model.GPSTime) error {
	_, wentBack, err := n.satellites(t)
	if wentBack {
		n.search.Ask()
	}
	return err
}
