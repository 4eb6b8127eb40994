package mesh

import (
	"context"
	"log/slog"
	"time"

	"halo.internal/mesh/batman"
)

// eager is the interval of a device's routing messages while routing knows nobody:
// a link that comes is a way only when each side has heard of itself by the other,
// which takes some messages of both. Nobody is there to pass them on, so that they
// cost little.
func eager(every time.Duration) time.Duration { return every / 4 }

// Times of the pace, in intervals of the profile.
const (
	paceSettle = 1  // that it stays eager after the first was heard
	paceLook   = 10 // between looks whether all are lost
)

// pacer is what bat0 does.
type pacer interface {
	Originators() ([]batman.Originator, error)
	SetOGMInterval(time.Duration) error
}

// keepPace has bat0, which begins eager, say that it exists as often as the profile
// says from soon after it has heard of others until it has lost them all, until ctx
// ends.
func keepPace(ctx context.Context, bat pacer, every time.Duration, log *slog.Logger) {
	t := time.NewTimer(0)
	defer t.Stop()
	hurried := true
	since := time.Time{} // when the first was heard
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		ways, err := bat.Originators()
		alone := err != nil || len(ways) == 0
		switch {
		case alone:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		settled := !since.IsZero() && time.Since(since) >= paceSettle*every
		if alone != hurried && (alone || settled) {
			interval := every
			if alone {
				interval = eager(every)
			}
			if err := bat.SetOGMInterval(interval); err != nil {
				log.Warn("the interval of routing messages is not changed", "err", err)
			} else {
				hurried = alone
			}
		}
		if hurried {
			t.Reset(every / 2)
		} else {
			t.Reset(paceLook * every)
		}
	}
}
