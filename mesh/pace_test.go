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
	"halo.internal/model/bundle"
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
		"others, lost":   {between(10*s, 20*s), 0, []paceChange{{11 * s, s}, {20 * s, s / 4}}},
		"a moment":       {between(10*s, 10*s+s/2), 0, nil},
		"it is refused":  {between(10*s, time.Hour), 2, []paceChange{{12 * s, s}}},
		"from the first": {between(0, time.Hour), 0, []paceChange{{s, s}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				p := &paced{start: time.Now(), known: tc.known, refuses: tc.refuses}
				keepPace(ctx, p, s/4, func() pace { return pace{s, 4 * s, time.Millisecond} }, nil, slog.New(slog.DiscardHandler))
				if !slices.Equal(p.set, tc.want) {
					t.Errorf("got %v, want %v", p.set, tc.want)
				}
			})
		})
	}
}

func TestPaceOfMany(t *testing.T) {
	wifi, halow := paceOf(bundle.Mesh{Channel: 6}), paceOf(bundle.Mesh{HaLowChannel: 1})
	for _, tc := range []struct {
		pace  pace
		heard int
		want  time.Duration
	}{
		{halow, 1, 2 * time.Second},
		{halow, 9, 2 * time.Second},
		{halow, 21, 4410 * time.Millisecond},
		{halow, 81, 17010 * time.Millisecond},
		{halow, 5000, 20 * time.Second},
		{wifi, 60, time.Second},
		{wifi, 400, 4 * time.Second},
		{wifi, 5000, 4 * time.Second},
	} {
		if got := tc.pace.among(tc.heard); got.Round(time.Millisecond) != tc.want {
			t.Errorf("%d messages, %+v: got %s, want %s", tc.heard, tc.pace, got, tc.want)
		}
	}
	for p, want := range map[pace]time.Duration{wifi: 250 * time.Millisecond, halow: 1008 * time.Millisecond} {
		if got := p.eager(); got != want {
			t.Errorf("alone, %+v: got %s, want %s", p, got, want)
		}
	}
}

// crowd is a bat0 that hears ever more.
type crowd struct {
	paced
	ways func(time.Duration) int
}

func (c *crowd) Originators() ([]batman.Originator, error) {
	return make([]batman.Originator, c.ways(time.Since(c.start))), nil
}

func TestPaceFollowsHowManyThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const s = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		c := &crowd{paced: paced{start: time.Now()}, ways: func(at time.Duration) int {
			switch {
			case at < 3*time.Minute:
				return 81
			case at < 6*time.Minute:
				return 84 // hardly more
			}
			return 4
		}}
		p := pace{5 * s, 20 * s, 4200 * time.Microsecond}
		keepPace(ctx, c, p.eager(), func() pace { return p }, nil, slog.New(slog.DiscardHandler))
		want := []paceChange{{5 * s, 17010 * time.Millisecond}, {6*time.Minute + 5*s, 5 * s}}
		got := slices.Clone(c.set)
		for i := range got {
			got[i].every = got[i].every.Round(time.Millisecond)
		}
		if len(got) != 2 || got[0] != want[0] || got[1].every != want[1].every || got[1].at < 6*time.Minute || got[1].at > 7*time.Minute {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// TestPaceFollowsTheProfile where only radios begin anew: a HaLow channel has no room for
// Wi-Fi's pace, and Wi-Fi would be slow to go around what is lost with HaLow's.
func TestPaceFollowsTheProfile(t *testing.T) {
	const (
		s  = time.Second
		at = time.Minute
	)
	wifi := bundle.Mesh{Channel: 6, Routing: batman.IV}.WithDefaults()
	halow := wifi
	halow.HaLowChannel = 1
	slow := paceOf(halow)
	for name, tc := range map[string]struct {
		from, to bundle.Mesh
		known    time.Duration // since when others are
		ways     int
		want     time.Duration
	}{
		"to HaLow":           {wifi, halow, s, 81, slow.among(81)},
		"to HaLow, alone":    {wifi, halow, time.Hour, 0, slow.eager()},
		"to HaLow, in haste": {wifi, halow, at - s/2, 81, slow.eager()},
		"to Wi-Fi":           {halow, wifi, s, 81, paceOf(wifi).among(81)},
		"to Wi-Fi, alone":    {halow, wifi, time.Hour, 0, paceOf(wifi).eager()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := NewUnderlay(UnderlayConfig{Bundle: bundle.Bundle{Mesh: tc.from}, Log: slog.New(slog.DiscardHandler)}).(*batUnderlay)
				c := &crowd{paced: paced{start: time.Now()}, ways: func(d time.Duration) int {
					if d < tc.known {
						return 0
					}
					return tc.ways
				}}
				ctx, cancel := context.WithTimeout(t.Context(), at+10*time.Millisecond)
				defer cancel()
				time.AfterFunc(at, func() { u.Switch(tc.to) })
				keepPace(ctx, c, u.pace().eager(), u.pace, u.paced, u.Log)
				if n := len(c.set); n == 0 || c.set[n-1] != (paceChange{at, tc.want}) {
					t.Errorf("got %v, want %s at the switch", c.set, tc.want)
				}
			})
		})
	}
}
