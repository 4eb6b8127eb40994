package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/gateway/telemetry"
	"halo.internal/model/apitype"
)

// An answer is in RAM until its client has read it, for minutes if it likes, and one of
// some megabytes is asked for in a hundred octets. So there is a bound to what all answers
// take that are being made or read, and one to those of a caller. Open ones are not counted:
// they are small, or the same for everybody.
const (
	roomOfAll = 24 << 20 // octets
	roomOfOne = 8 << 20  // of a caller; a larger answer takes it as a whole
	roomless  = 16 << 10 // of an answer that is not counted: its connection takes as much

	roomPatience = 5 * time.Second // until others have been read
	roomAgain    = 2 * time.Second
)

// Octets of an answer for each of what is in it, as it is found and as JSON.
const (
	pointOctets  = 240
	sampleOctets = 256
	usualSeries  = 100 // of a node
)

// rooms is what answers take. The zero value is ready.
type rooms struct {
	mu    sync.Mutex // guards what follows
	all   int        // octets
	of    map[string]int
	freed chan struct{} // closed when there is more; nil: nobody waits
}

// take waits for room, at most that long; false: there was none.
func (r *rooms) take(ctx context.Context, who string, octets int, patience time.Duration) bool {
	over := time.NewTimer(patience)
	defer over.Stop()
	for {
		ok, freed := r.try(who, octets)
		if ok {
			return true
		}
		select {
		case <-freed:
		case <-over.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (r *rooms) try(who string, octets int) (ok bool, freed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all+octets > roomOfAll || r.of[who]+octets > roomOfOne {
		if r.freed == nil {
			r.freed = make(chan struct{})
		}
		return false, r.freed
	}
	if r.of == nil {
		r.of = map[string]int{}
	}
	r.all += octets
	r.of[who] += octets
	return true, nil
}

func (r *rooms) give(who string, octets int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all -= octets
	if r.of[who] -= octets; r.of[who] == 0 {
		delete(r.of, who)
	}
	if r.freed != nil {
		close(r.freed)
		r.freed = nil
	}
}

// makeRoom has the answer of a request take as many octets, in place of what it took before;
// it gives them back when it has been read. Beyond what there is room for within that time,
// it returns the problem "rate-limited".
func (a *API) makeRoom(ctx context.Context, octets int, patience time.Duration) error {
	c := callerOf(ctx)
	if c.actor == "" {
		return nil
	}
	if octets = min(octets, roomOfOne); octets <= roomless {
		octets = 0
	}
	switch more := octets - c.room; {
	case more < 0:
		a.rooms.give(c.actor, -more)
	case more > 0 && !a.rooms.take(ctx, c.actor, more, patience):
		if err := context.Cause(ctx); err != nil {
			return err
		}
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "no room for a further answer: expected those that are under way to be read, of which one caller has %d MiB at most, and all have %d", roomOfOne>>20, roomOfAll>>20).After(roomAgain)
	}
	c.room = octets
	return nil
}

// vacate gives back what the answer of a request took.
func (a *API) vacate(c *caller) {
	if c.room > 0 {
		a.rooms.give(c.actor, c.room)
		c.room = 0
	}
}

// roomOf tells what a page of at most that many series may take, and what it is made of: each
// node is looked at as a whole, whose metrics are not known where they are asked for by pattern.
func roomOf(q telemetry.Query, limit int) int {
	buckets := q.Points
	if q.Step > 0 {
		buckets = int(min(q.To.Sub(q.From)/q.Step+2, telemetry.MaxPoints))
	}
	series := limit
	switch {
	case len(q.Metrics) == 0 || slices.ContainsFunc(q.Metrics, func(m string) bool { return strings.HasSuffix(m, "*") }):
		series = max(limit, usualSeries)
	case len(q.Nodes) > 0:
		series = min(limit, len(q.Nodes)*len(q.Metrics))
	}
	return pointOctets * min(buckets*series, max(buckets, pagePoints))
}
