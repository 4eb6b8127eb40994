package clock

import (
	"errors"
	"testing"
	"time"

	"halo.internal/model"
)

func TestABatteryThatIsFoundLater(t *testing.T) {
	for _, tc := range []struct {
		name    string
		quality model.ClockQuality
		battery time.Time
		want    time.Time
		taken   bool
		refused bool
	}{
		{"ahead", model.ClockNone, days(9), days(9), true, false},
		{"a little behind", model.ClockNone, days(5).Add(-time.Minute), days(5), true, false},
		{"it has stopped", model.ClockNone, days(4), days(5), false, true},
		{"before the build", model.ClockNone, build.AddDate(-1, 0, 0), days(5), false, true},
		{"in the far future", model.ClockNone, build.AddDate(30, 0, 0), days(5), false, true},
		{"somebody has logged in", model.ClockLogin, days(9), days(5), false, false},
		{"the gateway has told", model.ClockGateway, days(9), days(5), false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sys := &fake{now: days(5)}
			c := New(sys, build)
			c.Resume(State{Quality: tc.quality})
			corr, taken, err := c.Battery(tc.battery)
			if taken != tc.taken || errors.Is(err, ErrRefused) != tc.refused || !sys.now.Equal(tc.want) {
				t.Errorf("got %+v, %v, %v; the clock is %v", corr, taken, err, sys.now)
			}
			if taken && (c.State().Quality != model.ClockRTC || c.Confirmed()) {
				t.Errorf("a battery vouches for itself: %+v", c.State())
			}
			if !taken && c.State().Quality != tc.quality {
				t.Errorf("the quality is %s", c.State().Quality)
			}
		})
	}
}
