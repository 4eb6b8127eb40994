package clock

import (
	"fmt"
	"time"

	"halo.internal/model"
)

// Battery takes the time of a battery-backed clock that was found after the start, such as
// one on an I2C bus, as Start would have: it is taken only while nothing better is known,
// forward alone, and not from one that is far behind, which has stopped. taken is false
// where something better is known.
func (c *Clock) Battery(t time.Time) (corr Correction, taken bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.sys.Now()
	if own := c.state.Quality; own != model.ClockNone {
		return Correction{From: now, To: now, Quality: own}, false, nil
	}
	if err := c.sane(t); err != nil {
		return Correction{}, false, err
	}
	if t.Before(now.Add(-drift)) {
		return Correction{}, false, fmt.Errorf("%w: expected a time of at most %s before %s, which is past, got %s: it has stopped", ErrRefused, drift, stamp(now), stamp(t))
	}
	if t.Before(now) {
		t = now
	}
	if corr, err = c.follow(now, t, personTolerance, model.ClockRTC); err != nil { // it tells whole seconds
		return Correction{}, false, err
	}
	c.state.Unconfirmed = true
	return corr, true, nil
}
