package mesh

import (
	"context"
	"log/slog"
	"math"
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
	paceLook   = 10 // between looks whether all are lost, and how many there are
	paceMost   = 4  // the longest interval
)

// paceShare is what routing messages may take of a channel, and paceStep by how much
// the interval has to be wrong before it is changed.
const (
	paceShare = 0.03
	paceStep  = 0.2
)

// pace returns the interval of a device that hears so many messages in each, which
// take so long. All pass on the messages of all, so that ten on one channel send a
// hundred where three send nine: who are many, and so have ways enough, speak less.
func pace(every, took time.Duration, heard int) time.Duration {
	needed := time.Duration(float64(heard) * float64(took) / paceShare)
	return min(max(every, needed), paceMost*every)
}

// pacer is what bat0 does.
type pacer interface {
	Originators() ([]batman.Originator, error)
	SetOGMInterval(time.Duration) error
}

// keepPace has bat0, which begins eager, say that it exists as often as the profile
// says, or more rarely where many do, from soon after it has heard of others until it
// has lost them all, until ctx ends. A message takes the air for took.
func keepPace(ctx context.Context, bat pacer, every, took time.Duration, log *slog.Logger) {
	t := time.NewTimer(0)
	defer t.Stop()
	hurried, interval := true, eager(every)
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
		want := pace(every, took, len(ways)) // each originator by each neighbour that passes it on
		if alone {
			want = eager(every)
		}
		if off := float64(want-interval) / float64(interval); (alone || settled) && (alone != hurried || math.Abs(off) > paceStep) {
			if err := bat.SetOGMInterval(want); err != nil {
				log.Warn("the interval of routing messages is not changed", "err", err)
			} else {
				hurried, interval = alone, want
			}
		}
		if hurried {
			t.Reset(every / 2)
		} else {
			t.Reset(paceLook * every)
		}
	}
}
