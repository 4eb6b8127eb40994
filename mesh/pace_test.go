package mesh

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/mesh/batman"
)

// paced is a bat0 that knows others at some times.
type paced struct {
	start   time.Time
	known   func(time.Duration) bool
	refuses int // changes that fail
	set     []paceChange
}

type paceChange struct{ at, every time.Duration }

func (p *paced) Originators() ([]batman.Originator, error) {
	if p.known(time.Since(p.start)) {
		return make([]batman.Originator, 1), nil
	}
	return nil, nil
}

func (p *paced) SetOGMInterval(every time.Duration) error {
	if p.refuses > 0 {
		p.refuses--
		return errors.New("no")
	}
	p.set = append(p.set, paceChange{time.Since(p.start), every})
	return nil
}

func TestPace(t *testing.T) {
	const s = time.Second
	between := func(from, to time.Duration) func(time.Duration) bool {
		return func(at time.Duration) bool { return at >= from && at < to }
	}
	for name, tc := range map[string]struct {
		known   func(time.Duration) bool
		refuses int
		want    []paceChange
	}{
		"nobody":         {between(0, 0), 0, nil},
		"others":         {between(10*s, time.Hour), 0, []paceChange{{11 * s, s}}},
		"others, lost":   {between(10*s, 20*s), 0, []paceChange{{11 * s, s}, {21 * s, s / 4}}},
		"a moment":       {between(10*s, 10*s+s/2), 0, nil},
		"it is refused":  {between(10*s, time.Hour), 2, []paceChange{{12 * s, s}}},
		"from the first": {between(0, time.Hour), 0, []paceChange{{s, s}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				p := &paced{start: time.Now(), known: tc.known, refuses: tc.refuses}
				keepPace(ctx, p, s, slog.New(slog.DiscardHandler))
				if !slices.Equal(p.set, tc.want) {
					t.Errorf("got %v, want %v", p.set, tc.want)
				}
			})
		})
	}
}
