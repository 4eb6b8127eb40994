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
)

// Span is between which times it truly is, as far as dropping something goes.
type Span struct {
	Aged  time.Time `json:"aged"`
	Ahead time.Time `json:"ahead"`
}

// Horizon follows a clock. Its methods may be called from any goroutine.
type Horizon struct {
	clock   *Clock
	sure    func() bool
	running func() time.Duration

	mu   sync.Mutex // guards what follows
	span Span
	at   time.Duration // when span was true
	then time.Time     // by the clock; zero: it was not looked at yet
	back time.Duration // since the clock was set back
}

// Follow has the clock's Aged and Ahead go on from a span that was kept, which may be
// empty. sure tells whether the clock is more than a guess: they stay where they are while
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

// Aged is the time by which to judge what is old enough to be dropped.
func (c *Clock) Aged() time.Time {
	if h := c.horizon.Load(); h != nil {
		if s := h.Look(); !s.Aged.IsZero() {
			return s.Aged
		}
	}
	return c.Now()
}

// Ahead is the time by which to judge what is of the future.
func (c *Clock) Ahead() time.Time {
	if h := c.horizon.Load(); h != nil {
		if s := h.Look(); !s.Ahead.IsZero() {
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
		h.span, h.then = Span{now, now}, now
		return h.span
	}
	if h.back += passed; !h.then.IsZero() && now.Before(h.then.Add(passed-lookEvery)) {
		h.back = 0
	}
	h.then = now
	h.span.Aged, h.span.Ahead = h.span.Aged.Add(pace*passed), h.span.Ahead.Add(passed)
	if h.span.Aged.After(now) {
		h.span.Aged = now
	}
	if !h.span.Ahead.After(now) || h.back >= believed {
		h.span.Ahead = now
	}
	return h.span
}

// Run looks every minute, so that a step of the clock is seen, and has the span kept, until
// ctx ends. What save does not keep is to be kept the next time.
func (h *Horizon) Run(ctx context.Context, save func(context.Context, Span) error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	h.mu.Lock()
	kept := h.span
	h.mu.Unlock()
	for {
		s := h.Look()
		if far(s.Aged, kept.Aged) || far(s.Ahead, kept.Ahead) {
			if save(ctx, s) == nil {
				kept = s
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func far(a, b time.Time) bool { return a.Sub(b).Abs() >= saveStep }
