package clock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model"
)

const day = 24 * time.Hour

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// stepped is a clock that a test sets, besides letting time pass.
type stepped struct {
	*Clock
	now time.Time
	ran time.Duration
}

func newStepped(kept Span) *stepped {
	s := &stepped{now: noon}
	s.Clock = New(func() time.Time { return s.now }, noon.AddDate(-1, 0, 0))
	s.SetQuality(model.ClockGPS)
	s.Follow(kept, func() bool { return s.Quality() != model.ClockNone }, func() time.Duration { return s.ran })
	return s
}

func (s *stepped) pass(d time.Duration) { s.now, s.ran = s.now.Add(d), s.ran+d }

func (s *stepped) want(t *testing.T, aged, ahead time.Duration) {
	t.Helper()
	if a, b := s.Aged().Sub(s.now), s.Ahead().Sub(s.now); a != aged || b != ahead {
		t.Errorf("Aged is %v off, Ahead %v; want %v and %v", a, b, aged, ahead)
	}
}

func TestWithoutAHorizonTheClockIsBelieved(t *testing.T) {
	c := New(func() time.Time { return noon }, noon.Add(-time.Hour))
	if !c.Aged().Equal(noon) || !c.Ahead().Equal(noon) {
		t.Errorf("got %v and %v", c.Aged(), c.Ahead())
	}
}

func TestStepsMoveTheHorizonSlowly(t *testing.T) {
	s := newStepped(Span{})
	s.want(t, 0, 0)
	s.pass(1000 * time.Hour)
	s.want(t, 0, 0)

	s.now = s.now.AddDate(30, 0, 0) // decades ahead, for an hour
	far := s.now.Sub(s.Aged())
	s.pass(time.Hour)
	s.want(t, -far-time.Hour+pace*time.Hour, 0)
	s.now = s.now.AddDate(-30, 0, 0)
	ahead := s.Ahead().Sub(s.now)
	if s.want(t, 0, ahead); ahead < 29*365*day {
		t.Errorf("after it was put right, Ahead is %v ahead", ahead)
	}
	s.pass(believed - time.Minute)
	s.want(t, 0, ahead)
	s.pass(time.Minute)
	s.want(t, 0, 0)

	s.now = s.now.AddDate(30, 0, 0) // again, and then too far back before that is forgotten
	s.want(t, -s.now.Sub(s.Aged()), 0)
	s.now = s.now.AddDate(-30, 0, 0)
	s.pass(believed - time.Minute)
	s.Aged()
	s.now = s.now.Add(-day)
	ahead = s.Ahead().Sub(s.now)
	s.pass(time.Hour)
	s.want(t, 0, ahead)
	s.now = s.now.Add(day)
	s.want(t, -day, ahead-day)
	s.pass(believed)
	s.want(t, 0, 0)

	s.now = s.now.Add(-200 * day) // set back: what came a moment ago is not of the future
	s.want(t, 0, 200*day)
	s.pass(time.Hour)
	s.want(t, 0, 200*day)
	s.now = s.now.Add(200 * day) // and put right: it is as old as it was
	s.want(t, -200*day, 0)
	s.pass(20 * day)
	s.want(t, -200*day+(pace-1)*20*day, 0)
	s.pass(20 * day)
	s.want(t, 0, 0)
}

// A board that was off for a year, or whose clock is another one after a start.
func TestTheHorizonGoesOnOverARestart(t *testing.T) {
	s := newStepped(Span{Aged: noon.AddDate(-1, 0, 0), Ahead: noon.AddDate(-1, 0, 0)})
	s.want(t, -365*day, 0)
	s.pass(365 * day / (pace - 1))
	s.pass(time.Hour)
	s.want(t, 0, 0)
	s = newStepped(Span{Aged: noon.Add(20 * day), Ahead: noon.Add(20 * day)})
	s.want(t, 0, 20*day)
}

// A guess moves nothing, however it is set.
func TestAGuessMovesNoHorizon(t *testing.T) {
	s := newStepped(Span{Aged: noon, Ahead: noon})
	s.SetQuality(model.ClockNone)
	s.now = s.now.AddDate(0, -6, 0)
	s.pass(day)
	if !s.Aged().Equal(noon) || !s.Ahead().Equal(noon) {
		t.Errorf("got %v and %v", s.Aged(), s.Ahead())
	}
	fresh := newStepped(Span{})
	fresh.SetQuality(model.ClockNone)
	fresh.want(t, 0, 0)
	fresh.now = fresh.now.AddDate(1, 0, 0) // it comes to know the time
	fresh.SetQuality(model.ClockLogin)
	fresh.want(t, 0, 0)
}

func TestTheHorizonIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(time.Now, noon.AddDate(-100, 0, 0))
		var step time.Duration
		c.system = func() time.Time { return time.Now().Add(step) }
		h := c.Follow(Span{}, func() bool { return true }, nil)
		var saved []Span
		broken := true
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_ = h.Run(ctx, func(_ context.Context, s Span) error {
				if broken {
					return errors.New("full")
				}
				saved = append(saved, s)
				return nil
			})
		}()
		expect := func(n int, aged, ahead time.Duration) {
			t.Helper()
			synctest.Wait()
			if len(saved) != n {
				t.Fatalf("it was kept %d times, want %d", len(saved), n)
			}
			if n == 0 {
				return
			}
			last, now := saved[n-1], c.Now()
			if a, b := last.Aged.Sub(now), last.Ahead.Sub(now); (a-aged).Abs() > saveStep || (b-ahead).Abs() > saveStep {
				t.Errorf("kept were %v and %v, want %v and %v", a, b, aged, ahead)
			}
		}
		expect(0, 0, 0)
		broken = false
		time.Sleep(2 * lookEvery)
		expect(1, 0, 0)
		time.Sleep(saveStep - 4*lookEvery)
		expect(1, 0, 0)
		time.Sleep(8 * lookEvery)
		expect(2, 0, 0)
		step = 400 * day
		time.Sleep(2 * lookEvery)
		expect(3, -400*day, 0)
		step = -day
		time.Sleep(2 * lookEvery)
		expect(4, 0, 401*day)
		cancel()
		synctest.Wait()
	})
}
