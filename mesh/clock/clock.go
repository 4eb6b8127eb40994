// Package clock decides what time it is on a board without a clock: it starts
// from the latest sane time at hand, takes the gateway's signed answer to a
// nonce as a correction, and a person's word while nothing knows better, keeps
// the time across power cuts, and tells with every time how good it is.
package clock

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"halo.internal/model"
)

// Lifespan is how long after its build HALO believes a time: later ones are a
// fault or an attack, and would make certificates and tokens expire.
const Lifespan = model.ClockLifespan // years

const (
	// maxRoundTrip is the oldest answer that is taken: the error of a correction
	// is up to half the round trip.
	maxRoundTrip = 10 * time.Second
	// tolerance is the difference that is not worth a step: steps disturb the
	// stamps of readings and the handshakes of the overlay.
	tolerance = 250 * time.Millisecond
	// personTolerance is the same for a person's clock: those of phones are right by a
	// second, and what they say has come over slow links.
	personTolerance = 5 * time.Second
	// Estranged is how far a battery-backed clock may be from what a login has told the
	// gateway. Beyond that the lists that the gateway signs need not hold here, or whom it
	// certifies is of the future: half of the time that lists hold (mesh/peerlist).
	Estranged = 15 * 24 * time.Hour
	// drift is how far a good battery-backed clock may stand behind the saved
	// time, since two crystals run apart by minutes in a month. One that is
	// further behind has stopped.
	drift = 10 * time.Minute
	// holdover is how long GPS's time stands against the gateway's after GPS was heard last: a
	// board's crystal is off by a tenth of a second then.
	holdover = time.Hour
)

// System is the machine's clock.
type System interface {
	Now() time.Time
	Set(time.Time) error
	// RTC returns the time of the battery-backed clock; an error when there is
	// none.
	RTC() (time.Time, error)
}

// State is what outlives a restart of the process, but not of the machine.
type State struct {
	Quality model.ClockQuality `json:"quality"`
	// Steps counts how often the time went back in this boot. Peers are told,
	// since WireGuard refuses handshakes from the past.
	Steps uint32 `json:"steps"`
	// Known is a time that is past, whatever a battery says: it was saved, or confirmed
	// since. Zero: of a former release.
	Known time.Time `json:"known,omitzero"`
	// Unconfirmed: a battery alone says what time it is, or a login instead of it.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
}

// Clock is the machine's clock with its quality. Its methods may be called
// from any goroutine.
type Clock struct {
	sys   System
	build time.Time

	mu       sync.Mutex // guards what follows, and makes a correction one step
	state    State
	theirs   model.ClockQuality // see Compared
	compared time.Time
	refused  bool      // see Correction.Past; nothing was taken since
	heard    time.Time // when GPS told the time last, or an earlier process said that it had; monotonic
}

// New returns the clock of a system built at that time. It changes nothing.
func New(sys System, build time.Time) *Clock {
	return &Clock{sys: sys, build: build, state: State{Quality: model.ClockNone}}
}

// ErrRefused is wrapped where a time is not believed.
var ErrRefused = errors.New("time refused")

func (c *Clock) sane(t time.Time) error {
	switch limit := c.build.AddDate(Lifespan, 0, 0); {
	case t.Before(c.build):
		return fmt.Errorf("%w: expected %s (the build) or later, got %s", ErrRefused, stamp(c.build), stamp(t))
	case t.After(limit):
		return fmt.Errorf("%w: expected %s (%d years after the build) or earlier, got %s", ErrRefused, stamp(limit), Lifespan, stamp(t))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Start sets the clock, once per start of the machine, to the latest of itself,
// the saved time and the build; what lies beyond the build's lifespan does not
// count. saved is zero when there is none.
func (c *Clock) Start(saved time.Time) (Correction, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.sys.Now()
	best, quality := c.build, model.ClockNone
	if c.sane(saved) == nil && saved.After(best) {
		best = saved
	}
	if c.sane(was) == nil && !was.Before(best) {
		best = was
	}
	if rtc, err := c.sys.RTC(); err == nil && c.sane(rtc) == nil && !rtc.Before(best.Add(-drift)) {
		quality = model.ClockRTC
		if rtc.After(best) {
			best = rtc
		}
	}
	c.state = State{Quality: quality, Known: c.build, Unconfirmed: quality == model.ClockRTC}
	if c.sane(saved) == nil {
		c.state.Known = saved
	}
	corr := Correction{From: was, To: best, Quality: quality}
	if best.Equal(was) {
		return corr, nil
	}
	if err := c.sys.Set(best); err != nil {
		return corr, fmt.Errorf("set the clock to %s: %w", stamp(best), err)
	}
	return corr, nil
}

// Resume takes over what an earlier process of the same boot knew.
func (c *Clock) Resume(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.heard = s, time.Now()
}

// State returns what to keep for Resume.
func (c *Clock) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Confirmed tells whether more than a battery says what time it is, or there is none. What
// it alone says a node need not save, as the battery keeps it; and once it was saved, nobody
// could tell any more that nothing had confirmed it.
func (c *Clock) Confirmed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.state.Unconfirmed
}

// Compared returns what the gateway said of its own clock when this one was last
// compared with it, in this process, and when that was by this clock; nothing and
// zero when it was not. Of a person's time it returns when that was alone.
func (c *Clock) Compared() (gateway model.ClockQuality, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.theirs, c.compared
}

// Now returns the time and its quality, together.
func (c *Clock) Now() (time.Time, model.ClockQuality) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sys.Now(), c.state.Quality
}

// Answer is a gateway's signed answer to a nonce that this node made.
type Answer struct {
	Time      time.Time          // when it was signed
	Quality   model.ClockQuality // of the gateway's own clock
	RoundTrip time.Duration      // from the question to the answer, monotonic
}

// Correction tells what an answer did.
type Correction struct {
	From, To time.Time
	Quality  model.ClockQuality
	Stepped  bool // the clock was set; otherwise it was right already
	Battery  bool // it was a battery's, which is not believed any more
	// Past: a login's time was not taken, as it is far before what is known to be past. One
	// of the two is wrong, and this device may be kept out by it. It is said once, until a
	// time is taken.
	Past bool
}

// Offset is how far the clock moved.
func (c Correction) Offset() time.Duration { return c.To.Sub(c.From) }

var rank = map[model.ClockQuality]int{model.ClockNone: 0, model.ClockLogin: 1, model.ClockRTC: 2, model.ClockGateway: 3, model.ClockGPS: 4}

// Offer takes the time of a person who has logged in, back in time as well, if nothing
// has told it in this start of the machine; taken is false when something has, also
// another person.
func (c *Clock) Offer(t time.Time) (corr Correction, taken bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.sys.Now()
	if own := c.state.Quality; own != model.ClockNone {
		return Correction{From: now, To: now, Quality: own}, false, nil
	}
	if err := c.sane(t); err != nil {
		return Correction{}, false, err
	}
	corr, err = c.follow(now, t, personTolerance, model.ClockLogin)
	if err != nil {
		return Correction{}, false, err
	}
	c.compared = corr.To
	return corr, true, nil
}

// follow makes the clock show that time, unless it does within tolerance, and have that
// quality. c.mu is held.
func (c *Clock) follow(now, to time.Time, tolerance time.Duration, quality model.ClockQuality) (Correction, error) {
	corr := Correction{From: now, To: now, Quality: quality}
	if to.Sub(now).Abs() > tolerance {
		if err := c.sys.Set(to); err != nil {
			return Correction{}, fmt.Errorf("set the clock to %s: %w", stamp(to), err)
		}
		corr.To, corr.Stepped = to, true
		if to.Before(now) {
			c.state.Steps++
		}
	}
	c.state.Quality = quality
	return corr, nil
}

// Correct applies a gateway's answer, back in time as well. A gateway that does
// not know the time itself is followed too, so that the network agrees on one;
// but it makes no better quality, and overrules no clock that is better: one of the
// board's own that runs on a battery or by GPS, or one that the gateway has set in
// this start, before it lost the time itself.
func (c *Clock) Correct(a Answer) (Correction, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	theirs, known := rank[a.Quality]
	if !known {
		return Correction{}, fmt.Errorf("%w: expected a clock quality, got %q", ErrRefused, a.Quality)
	}
	if a.RoundTrip < 0 || a.RoundTrip > maxRoundTrip {
		return Correction{}, fmt.Errorf("%w: expected an answer within %s, got it after %s", ErrRefused, maxRoundTrip, a.RoundTrip)
	}
	now, to := c.sys.Now(), a.Time.Add(a.RoundTrip/2)
	own, login := c.state.Quality, a.Quality == model.ClockLogin
	if own == model.ClockGPS && time.Since(c.heard) > holdover {
		own = model.ClockGateway // good once, and drifting since
	}
	doubted := c.doubts(now, to, a.Quality)
	if own == model.ClockGPS || own == model.ClockRTC && theirs < rank[own] && !doubted || own == model.ClockGateway && theirs == 0 || login && c.state.Unconfirmed && c.past(to) {
		if own == model.ClockRTC && login && to.Sub(now).Abs() <= Estranged {
			c.state.Unconfirmed = false // two that know nothing of each other agree
		}
		corr := Correction{From: now, To: now, Quality: own}
		if login && c.past(to) && to.Sub(now).Abs() > Estranged {
			corr.Past, c.refused = !c.refused, true
		}
		return corr, nil
	}
	if err := c.sane(to); err != nil {
		return Correction{}, err
	}
	quality := model.ClockGateway
	if theirs == 0 {
		quality = model.ClockNone
	}
	corr, err := c.follow(now, to, tolerance+a.RoundTrip/2, quality)
	if err != nil {
		return Correction{}, err
	}
	c.theirs, c.compared, c.refused, corr.Battery = a.Quality, corr.To, false, doubted
	if theirs >= rank[model.ClockRTC] {
		c.state.Unconfirmed, c.state.Known = false, corr.To
	}
	return corr, nil
}

// Doubts tells whether what a gateway says unasked is reason to ask it: its answer would
// overrule this board's battery.
func (c *Clock) Doubts(t time.Time, quality model.ClockQuality) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doubts(c.sys.Now(), t, quality)
}

// doubts tells whether a login's time overrules the battery's. c.mu is held.
func (c *Clock) doubts(now, t time.Time, quality model.ClockQuality) bool {
	return c.state.Quality == model.ClockRTC && c.state.Unconfirmed && quality == model.ClockLogin &&
		!c.state.Known.IsZero() && t.Sub(now).Abs() > Estranged && !c.past(t) && c.sane(t) == nil
}

// past tells whether a time is before one that is known to be past. c.mu is held.
func (c *Clock) past(t time.Time) bool { return t.Before(c.state.Known.Add(-drift)) }
