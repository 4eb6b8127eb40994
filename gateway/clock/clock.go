// Package clock is the control plane's time on a board that may have none: the
// system's, but never before the build, with what halo-mesh says of its
// quality. A clock without quality is late, not early (it starts from a saved
// time), so that an expiry that has passed by it has truly passed, while one
// that has not may have; tokens are therefore also counted and revocable. What is dropped
// for its age goes by Aged, which a step of the clock does not move.
package clock

import (
	"sync/atomic"
	"time"

	"halo.internal/model"
)

// Clock may be used from any goroutine.
type Clock struct {
	system  func() time.Time
	floor   time.Time
	quality atomic.Value // model.ClockQuality
	horizon atomic.Pointer[Horizon]
}

// New returns a clock over the system's (time.Now) that never shows less than
// floor, the time of the build.
func New(system func() time.Time, floor time.Time) *Clock {
	c := &Clock{system: system, floor: floor}
	c.quality.Store(model.ClockNone)
	return c
}

// Now is the time for stamps and for expiry.
func (c *Clock) Now() time.Time {
	if t := c.system().UTC(); t.After(c.floor) {
		return t
	}
	return c.floor.UTC()
}

// Quality tells where the time comes from.
func (c *Clock) Quality() model.ClockQuality { return c.quality.Load().(model.ClockQuality) }

// SetQuality is called with what halo-mesh reports.
func (c *Clock) SetQuality(q model.ClockQuality) {
	switch q {
	case model.ClockLogin, model.ClockRTC, model.ClockGateway, model.ClockGPS:
		c.quality.Store(q)
	default:
		c.quality.Store(model.ClockNone)
	}
}
