package sensors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/drivers/i2c"
	"halo.internal/model"
)

// Clock is the device's, as halo-mesh keeps it.
type Clock interface {
	// Quality is how good its time is.
	Quality() model.ClockQuality
	// Offer hands over the time of a battery-backed clock. An error says why it is not
	// taken.
	Offer(ctx context.Context, t time.Time) error
}

const (
	clockChip  = "ds3231"
	clockEvery = time.Minute
	// clockOff is how far the chip may be from a better time before it is set: it tells
	// whole seconds, and goes wrong by two millionths, a second in six days.
	clockOff = 2 * time.Second
	setAgain = time.Hour // that it is set, at most: it would be broken otherwise
)

// timepiece is a DS3231 as the board's clock: it tells the time until somebody knows better,
// and is then set by that.
type timepiece struct {
	*reader
	chip    *i2c.Clock
	label   string
	set     time.Time // when, monotonic
	offered bool      // its time was taken, or was refused for good
}

func newTimepiece(r *reader) *timepiece {
	return &timepiece{reader: r, label: r.label, chip: i2c.NewClock(r.line.wire, r.addr)}
}

// Name implements collect.Collector.
func (t *timepiece) Name() string { return "clock-" + t.label }

// Collect implements collect.Collector. It reads nothing that is a metric.
func (t *timepiece) Collect(ctx context.Context) ([]collect.Reading, error) {
	if err := t.use(ctx); err != nil {
		return nil, err
	}
	defer t.done()
	clock := t.line.m.Clock
	chip, err := t.chip.Time(ctx)
	stopped := errors.Is(err, i2c.ErrStopped)
	if err != nil && !stopped {
		return nil, err
	}
	switch clock.Quality() {
	case model.ClockGateway, model.ClockGPS:
		now := time.Now()
		if off := now.Sub(chip); !stopped && off.Abs() < clockOff || !t.set.IsZero() && time.Since(t.set) < setAgain {
			return nil, nil
		}
		if err := t.chip.SetTime(ctx, now); err != nil {
			return nil, fmt.Errorf("set: %w", err)
		}
		t.set = time.Now()
	case model.ClockRTC:
		// Itself, or the kernel's own: there is nothing better to set it by.
	default:
		if stopped {
			return nil, err
		}
		if t.offered {
			return nil, nil
		}
		if err := clock.Offer(ctx, chip); err != nil {
			if errors.Is(err, ErrRefused) {
				t.offered = true
			}
			return nil, err
		}
		t.offered = true
	}
	return nil, nil
}

// ErrRefused is wrapped by a Clock that will never take such a time.
var ErrRefused = errors.New("the time is not taken")
