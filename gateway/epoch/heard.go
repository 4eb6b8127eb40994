package epoch

import (
	"context"
	"fmt"
	"log/slog"

	"halo.internal/gateway/events"
	"halo.internal/model"
)

// mostByItself is how often a gateway raises its epoch without a person in one
// run: two fresh cards of one network would outbid each other for ever.
const mostByItself = 8

// Judge decides what it means that nodes have heard another card of the gateway, with an
// epoch that is no lower than this one's: a higher one they refuse this one for, and at
// the same one they keep to what the other one signed. Its method is for one goroutine.
type Judge struct {
	Keeper *Keeper
	// Fresh tells whether no other node was ever admitted here: then there is no
	// old list that a raise could bring back.
	Fresh func(context.Context) (bool, error)
	// Aside, if any, tells whether another gateway with this one's key lives, for which
	// this one has stood down: whatever was heard of its epoch is no reason to go above
	// it, or to call for a person.
	Aside  func() bool
	Events *events.Log
	Log    *slog.Logger

	raises int
	told   refusal // of the last event that asks for a person
	failed string
}

// refusal is why nodes refuse the gateway. After a raise that was not enough it
// is another one.
type refusal struct{ own, heard uint64 }

// Heard takes the highest epoch of which nodes have shown evidence. It may be
// called with the same again.
func (j *Judge) Heard(ctx context.Context, heard uint64) {
	j.Keeper.Hear(heard)
	own := j.Keeper.Now()
	if heard < own || j.Aside != nil && j.Aside() {
		return
	}
	err := j.judge(ctx, own, heard)
	j.Keeper.report()
	switch {
	case err == nil:
		j.failed = ""
	case ctx.Err() == nil && j.failed != err.Error(): // the next call tries again
		j.failed = err.Error()
		j.Log.Warn("the epoch is not raised", "err", err)
	}
}

func (j *Judge) judge(ctx context.Context, own, heard uint64) error {
	if j.told == (refusal{own, heard}) {
		return nil
	}
	fresh, err := j.Fresh(ctx)
	if err != nil {
		return err
	}
	if fresh && j.raises < mostByItself {
		now, err := j.Keeper.Raise(ctx)
		if err != nil {
			return err
		}
		j.raises++
		j.Events.Add("gateway.epoch-raised", model.Warning, "", fmt.Sprintf("nodes have heard epoch %d, which another card of this gateway had; "+
			"this one has admitted no node yet, so it went from epoch %d to %d", heard, own, now), fields(own, heard, now))
		return nil
	}
	j.told = refusal{own, heard}
	j.Events.Add("gateway.epoch-behind", model.Error, "", Behind(own, heard), fields(own, heard, 0))
	return nil
}

// Behind says, for people, what it means that nodes have heard that epoch from another
// card, and what to do.
func Behind(own, heard uint64) string {
	what := fmt.Sprintf("nodes have heard epoch %d from another card of this gateway and refuse this one, which has %d", heard, own)
	if heard == own {
		what = fmt.Sprintf("another card of this gateway was in use with the same epoch %d, and nodes keep to the list of members and the mesh profile that it signed", own)
	}
	return what + ". If this card is to replace the other for good, run haloctl network epoch raise; else take this card out and put the other back"
}

func fields(own, heard, now uint64) map[string]string {
	f := map[string]string{"epoch": fmt.Sprint(own), "heard": fmt.Sprint(heard)}
	if now != 0 {
		f["raised"] = fmt.Sprint(now)
	}
	return f
}
