package clock

import (
	"context"
	"sync"
	"time"
)

// A clock that is wrong by years, for an hour or a week, must not have dropped what is
// kept, nor have refused for the future what is right. So what is dropped for its age goes
// by a time that follows the clock at a pace (Aged), and what is of the future by one that
// stays where the clock was for a while (Ahead).
const (
	pace      = 8              // days that Aged may come closer to the clock in a day of running
	believed  = 48 * time.Hour // for which, after it was set back, a clock may have been right before
	lookEvery = time.Minute
	saveStep  = 6 * time.Hour // of either, so that the card is spared
	backStep  = 15 * time.Minute
)

// Span is between which times it truly is, as far as dropping something goes.
type Span struct {
	Aged  time.Time     `json:"aged"`
	Ahead time.Time     `json:"ahead"`
	Seen  time.Time     `json:"seen,omitzero"` // the clock when it was last looked at; zero: not known
	Back  time.Duration `json:"back,omitzero"` // of running since the clock was set back behind Ahead
}

// Horizon follows a clock. Its methods may be called from any goroutine.
type Horizon struct {
	clock   *Clock
	sure    func() bool
	running func() time.Duration

	mu   sync.Mutex // guards what follows
	span Span
	at   time.Duration // when span was true
}

// Follow has the clock's Aged and Ahead go on from a span that was kept, which may be
// empty. sure tells whether the clock is more than a guess: the span stays as it is while
// it is not. running tells for how long the process has been running, by a clock that is
// never set; nil: that of the system.
func (c *Clock) Follow(kept Span, sure func() bool, running func() time.Duration) *Horizon {
	if running == nil {
		start := time.Now()
		running = func() time.Duration { return time.Since(start) }
	}
	h := &Horizon{clock: c, sure: sure, running: running, span: kept, at: running()}
	c.horizon.Store(h)
	return h
}

// Aged is the time by which to judge what is old enough to be dropped; never later than
// Now.
func (c *Clock) Aged() time.Time {
	if h := c.horizon.Load(); h != nil {
		if s, now := h.Look(), c.Now(); !s.Aged.IsZero() && s.Aged.Before(now) {
			return s.Aged
		}
	}
	return c.Now()
}

// Ahead is the time by which to judge what is of the future; never before Now. A guess is
// late, not early, so that what is made by it is not of the future, for however long the
// span stays as it is.
func (c *Clock) Ahead() time.Time {
	if h := c.horizon.Load(); h != nil {
		if s, now := h.Look(), c.Now(); s.Ahead.After(now) {
			return s.Ahead
		}
	}
	return c.Now()
}

// Look returns the span as it is now; it is empty until the clock was more than a guess.
func (h *Horizon) Look() Span {
	h.mu.Lock()
	defer h.mu.Unlock()
	running := h.running()
	passed := running - h.at
	h.at = running
	if !h.sure() {
		return h.span
	}
	now := h.clock.Now()
	if h.span.Aged.IsZero() {
		h.span = Span{Aged: now, Ahead: now, Seen: now}
		return h.span
	}
	if h.span.Back += passed; now.Before(h.span.Seen.Add(passed - lookEvery)) {
		h.span.Back = 0
	}
	h.span.Seen = now
	h.span.Aged, h.span.Ahead = h.span.Aged.Add(pace*passed), h.span.Ahead.Add(passed)
	if h.span.Aged.After(now) {
		h.span.Aged = now
	}
	// A clock that is a little slower than the process's was not set back.
	if !h.span.Ahead.After(now.Add(lookEvery)) || h.span.Back >= believed {
		h.span.Ahead, h.span.Back = now, 0
	}
	return h.span
}

// lastWait is for how long the span may be kept once ctx has ended.
const lastWait = 5 * time.Second

// Run looks every minute, so that a step of the clock is seen, and has the span kept, until
// ctx ends, and then once more: the next process must not take for impossible what this
// one's clock has stamped. What save does not keep is to be kept the next time.
func (h *Horizon) Run(ctx context.Context, save func(context.Context, Span) error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	h.mu.Lock()
	kept := h.span
	h.mu.Unlock()
	keep := func(ctx context.Context) {
		if s := h.Look(); far(s, kept) && save(ctx, s) == nil {
			kept = s
		}
	}
	for {
		keep(ctx)
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWait)
			defer cancel()
			keep(last)
			return nil
		case <-tick.C:
		}
	}
}

// far tells whether spans differ by so much that it is worth a write. Back counts only
// while Ahead stays, and is of use only where a board that is off at night keeps it.
func far(a, b Span) bool {
	return a.Aged.Sub(b.Aged).Abs() >= saveStep || a.Ahead.Sub(b.Ahead).Abs() >= saveStep || (a.Back-b.Back).Abs() >= backStep
}
