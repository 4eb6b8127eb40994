package clock

import (
	"fmt"
	"time"

	"halo.internal/model"
)

// maxGPSAge is the oldest word of a receiver that is taken.
const maxGPSAge = 10 * time.Second

// Satellites takes the time of the board's GPS receiver, back in time as well: what it was
// age ago, good to accuracy. The receiver has been checked for sense; here its time is held
// against what is known besides. On a node whose gateway has told it the time in this start
// one that is far from that is refused: one of the two is wrong, and by the receiver's all
// that the gateway signs would be over, or of the future.
func (c *Clock) Satellites(t time.Time, age, accuracy time.Duration) (Correction, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age < 0 || age > maxGPSAge {
		return Correction{}, fmt.Errorf("%w: expected a time of the last %s, got one of %s ago", ErrRefused, maxGPSAge, age)
	}
	now, to := c.sys.Now(), t.Add(age)
	if err := c.sane(to); err != nil {
		return Correction{}, err
	}
	if off := to.Sub(now); c.state.Quality == model.ClockGateway && off.Abs() > Estranged {
		return Correction{}, fmt.Errorf("%w: expected a time within %s of what the gateway has told, got one that is off by %s", ErrRefused, Estranged, off.Round(time.Second))
	}
	corr, err := c.follow(now, to, tolerance+max(0, accuracy), model.ClockGPS)
	if err != nil {
		return Correction{}, err
	}
	c.theirs, c.compared, c.refused, c.heard = "", corr.To, false, time.Now()
	c.state.Unconfirmed, c.state.Known = false, corr.To
	return corr, nil
}
