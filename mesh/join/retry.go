package join

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"halo.internal/model"
)

// How long until the gateway is asked again; each wait doubles up to its limit.
const (
	retryFirst   = 2 * time.Second
	retryMost    = time.Minute
	pendingEvery = 30 * time.Second // a person is at work: no hurry, no back-off
	pendingSoon  = 20               // tries, after which perhaps nobody is: the air is for others
	pendingMost  = 5 * time.Minute
	refusedFirst = time.Minute
	refusedMost  = 10 * time.Minute // tokens are replaced and mistakes undone, so never give up
)

// Persist asks until a membership comes or ctx ends, and reports where it
// stands before each wait. attempt is one try, such as Request. What comes from
// hurry, a change of the gateway, ends a wait and the patience behind it.
func Persist(ctx context.Context, attempt func(context.Context) (model.Membership, error), report func(model.JoinState, error), hurry <-chan struct{}) (model.Membership, error) {
	retry, refused, pending := retryFirst, refusedFirst, 0
	for {
		m, err := attempt(ctx)
		if err == nil {
			return m, nil
		}
		if ctx.Err() != nil {
			return model.Membership{}, ctx.Err()
		}
		var wait time.Duration
		switch _, no := errors.AsType[*RefusedError](err); {
		case no:
			report(model.JoinRefused, err)
			wait, refused = refused, min(2*refused, refusedMost)
		case errors.Is(err, ErrPending):
			report(model.JoinPending, err)
			wait = pendingEvery
			if pending++; pending > pendingSoon {
				wait = pendingMost
			}
		default:
			report(model.JoinTrying, err)
			wait, retry = retry, min(2*retry, retryMost)
		}
		select {
		case <-ctx.Done():
			return model.Membership{}, ctx.Err()
		case <-hurry:
			retry, refused, pending = retryFirst, refusedFirst, 0
		case <-time.After(wait - wait/5 + rand.N(2*wait/5)):
		}
	}
}
