package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/telemetry/format"
	"halo.internal/model/apitype"
)

// Questions to the telemetry may be about one hour or about years of all nodes. Small ones
// are answered at once, at a pace for each caller of what they read. Large ones take turns,
// so that nobody has all of the gateway, nor keeps others from theirs.
const (
	smallCost    = 200 // blocks: a week of a node's readings
	largeAtOnce  = 2   // of all callers
	largeWaiting = 8   // of one caller, of which one is answered at a time

	turnPatience = 20 * time.Second // for a turn
	largeLongest = time.Minute      // that an answer takes
)

// lookups is what small questions read: some hundred charts at once, and then a day of a node
// as often as anything may be asked.
var lookups = pace{"blocks of telemetry", 1500, 12_000}

var (
	errTooMany = errors.New("too many wait")
	errNoTurn  = errors.New("no turn came")
	errTooSlow = errors.New("it took too long")
)

// turns gives callers turns, one after the other. The zero value is ready.
type turns struct {
	mu      sync.Mutex // guards what follows
	running int
	of      map[string]*queue // by caller
	order   []string          // callers that wait, whose turn is next first
}

// queue is a caller's.
type queue struct {
	running int
	waiting []*turn
}

type turn struct {
	caller string
	given  chan struct{} // closed when it has come
}

// take waits for a turn, which release ends.
func (t *turns) take(ctx context.Context, caller string, patience time.Duration) (release func(), err error) {
	t.mu.Lock()
	q := t.of[caller]
	if q == nil {
		if t.of == nil {
			t.of = map[string]*queue{}
		}
		q = &queue{}
		t.of[caller] = q
	}
	if q.running+len(q.waiting) >= largeWaiting {
		t.mu.Unlock()
		return nil, errTooMany
	}
	mine := &turn{caller: caller, given: make(chan struct{})}
	if q.waiting = append(q.waiting, mine); len(q.waiting) == 1 {
		t.order = append(t.order, caller)
	}
	t.give()
	t.mu.Unlock()
	over := time.NewTimer(patience)
	defer over.Stop()
	select {
	case <-mine.given:
		return sync.OnceFunc(func() { t.end(mine) }), nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-over.C:
		err = errNoTurn
	}
	t.leave(mine)
	return nil, err
}

// give gives turns to who is next; mu is held.
func (t *turns) give() {
	for t.running < largeAtOnce {
		i := slices.IndexFunc(t.order, func(caller string) bool { return t.of[caller].running == 0 })
		if i < 0 {
			return
		}
		caller := t.order[i]
		t.order = slices.Delete(t.order, i, i+1)
		q := t.of[caller]
		next := q.waiting[0]
		if q.waiting = q.waiting[1:]; len(q.waiting) > 0 {
			t.order = append(t.order, caller) // behind all others
		}
		q.running++
		t.running++
		close(next.given)
	}
}

func (t *turns) end(of *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	t.of[of.caller].running--
	t.tidy(of.caller)
	t.give()
}

// leave gives up a turn that was waited for, or that has come meanwhile.
func (t *turns) leave(mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[mine.caller]
	if i := slices.Index(q.waiting, mine); i >= 0 {
		if q.waiting = slices.Delete(q.waiting, i, i+1); len(q.waiting) == 0 {
			t.order = slices.DeleteFunc(t.order, func(caller string) bool { return caller == mine.caller })
		}
	} else {
		t.running--
		q.running--
	}
	t.tidy(mine.caller)
	t.give()
}

// tidy forgets a caller that has nothing here any more; mu is held.
func (t *turns) tidy(caller string) {
	if q := t.of[caller]; q.running == 0 && len(q.waiting) == 0 {
		delete(t.of, caller)
	}
}

// look runs a question to the telemetry that reads as much as that, once it is its turn, and
// ends it with the request or after its time.
func (a *API) look(ctx context.Context, cost int, question func(context.Context) error) error {
	c := callerOf(ctx)
	who := cmp.Or(c.actor, c.remote.String())
	if cost > smallCost {
		release, err := a.turns.take(ctx, who, turnPatience)
		if err != nil {
			return turnProblem(err)
		}
		defer release()
	} else if wait, _ := a.rates.takeN(who, c.actor == "", &lookups, cost, time.Now()); wait > 0 && !a.unheld {
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%s had too many %s read; expected %s", who, lookups.what, lookups.terms()).After(wait)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, largeLongest, errTooSlow)
	defer cancel()
	err := question(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errTooSlow) {
		return turnProblem(errTooSlow)
	}
	return err
}

func turnProblem(err error) error {
	switch {
	case errors.Is(err, errTooMany):
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "expected at most %d large questions to the telemetry of one caller at a time: wait for the answers", largeWaiting).After(5 * time.Second)
	case errors.Is(err, errNoTurn):
		return apitype.Refuse(http.StatusServiceUnavailable, "", "other large questions to the telemetry are being answered").After(10 * time.Second)
	case errors.Is(err, errTooSlow):
		return apitype.Refuse(http.StatusServiceUnavailable, "", "the answer took more than %s: ask for fewer nodes or a shorter time; a step_s that is a multiple of 900 is answered from rollups", largeLongest).After(10 * time.Second)
	}
	return err
}

// inTurns is a source of readings of which each page is a question of its own, so that a
// file that goes over a slow link keeps nobody waiting.
type inTurns struct {
	api *API
	*telemetry.Store
}

var _ format.Source = inTurns{}

// Samples implements format.Source.
func (s inTurns) Samples(ctx context.Context, q telemetry.SampleQuery) (list apitype.SampleList, err error) {
	err = s.turn(ctx, func(ctx context.Context) error {
		list, err = s.Store.Samples(ctx, q)
		return err
	})
	return list, err
}

// Metrics implements format.Source.
func (s inTurns) Metrics(ctx context.Context, from, to time.Time, wanted []string) (list []apitype.Metric, err error) {
	err = s.turn(ctx, func(ctx context.Context) error {
		list, err = s.Store.Metrics(ctx, from, to, wanted)
		return err
	})
	return list, err
}

func (s inTurns) turn(ctx context.Context, f func(context.Context) error) error {
	c := callerOf(ctx)
	release, err := s.api.turns.take(ctx, cmp.Or(c.actor, c.remote.String()), exchangePatience)
	if err != nil {
		return turnProblem(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, largeLongest) // a page ends before
	defer cancel()
	return f(ctx)
}
