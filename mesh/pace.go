package mesh

import (
	"context"
	"log/slog"
	"math"
	"time"

	"halo.internal/mesh/batman"
	"halo.internal/model/bundle"
)

// pace says how often routing messages are sent.
type pace struct {
	every time.Duration // where few are heard
	most  time.Duration // the longest interval
	took  time.Duration // what a message takes of the channel
}

func paceOf(m bundle.Mesh) pace { return pace{m.OGMInterval(), m.OGMLongest(), m.OGMAirtime()} }

// eager is the interval while routing knows nobody: a link that comes is a way only
// when each side has heard of itself by the other, which takes some messages of both.
// Nobody is there to pass them on, so that they cost little: ten that begin together
// take a twentieth of the channel at most.
func (p pace) eager() time.Duration {
	const share = 240
	return min(max(p.every/4, share*p.took), p.every)
}

// Times of the pace, in intervals of the profile.
const (
	paceSettle = 1 // that it stays eager after the first was heard
	paceLook   = 3 // between looks whether all are lost, and how many there are
)

// paceShare is what routing messages may take of a channel, by the ways that are known:
// messages of which none comes are a quarter more. paceStep is by how much the interval
// has to be wrong before it is changed.
const (
	paceShare = 0.02
	paceStep  = 0.2
)

// among returns the interval of a device that hears so many messages in each. All pass
// on the messages of all, so that ten on one channel send a hundred where three send
// nine: who are many, and so have ways enough, speak less; and a line, whose devices
// hear few, is quick to go around one that is lost.
func (p pace) among(heard int) time.Duration {
	needed := time.Duration(float64(heard) * float64(p.took) / paceShare)
	return min(max(p.every, needed), p.most)
}

// pacer is what bat0 does.
type pacer interface {
	Originators() ([]batman.Originator, error)
	SetOGMInterval(time.Duration) error
}

// keepPace has bat0, which begins eager, at that interval, say that it exists as often as
// the profile in force says, or more rarely where many do, from soon after it has heard of
// others until it has lost them all, until ctx ends. changed is awake when the profile may
// be another.
func keepPace(ctx context.Context, bat pacer, interval time.Duration, profile func() pace, changed <-chan struct{}, log *slog.Logger) {
	t := time.NewTimer(0)
	defer t.Stop()
	eager := true        // the interval is that of a device alone
	since := time.Time{} // when the first was heard
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-changed:
		}
		p := profile()
		ways, err := bat.Originators()
		switch {
		case err != nil || len(ways) == 0:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		settled := !since.IsZero() && time.Since(since) >= paceSettle*p.every
		want := p.eager()
		if settled {
			want = p.among(len(ways)) // each originator by each neighbour that passes it on
		}
		if off := float64(want-interval) / float64(interval); settled == eager || math.Abs(off) > paceStep {
			if err := bat.SetOGMInterval(want); err != nil {
				log.Warn("the interval of routing messages is not changed", "err", err)
			} else {
				eager, interval = !settled, want
			}
		}
		if eager {
			t.Reset(p.every / 2)
		} else {
			t.Reset(paceLook * p.every)
		}
	}
}
