package clock

import (
	"context"
	"encoding/json"
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
	s.want(t, 0, noon.Sub(s.now))
	// One that nobody has told the time since the boot runs on for weeks: what is made by it
	// is not of the future.
	s.now = noon
	s.pass(21 * day)
	s.want(t, -21*day, 0)
	s.SetQuality(model.ClockGPS)
	s.want(t, -21*day, 0)
	fresh := newStepped(Span{})
	fresh.SetQuality(model.ClockNone)
	fresh.want(t, 0, 0)
	fresh.now = fresh.now.AddDate(1, 0, 0) // it comes to know the time
	fresh.SetQuality(model.ClockLogin)
	fresh.want(t, 0, 0)
}

// A board whose clock was years ahead once, and that is switched off every night, forgets
// that after so much running, wherever it was cut off.
func TestABoardThatIsOffAtNight(t *testing.T) {
	const on = 5 * time.Hour
	kept := Span{Aged: noon, Ahead: noon.AddDate(20, 0, 0), Seen: noon.AddDate(20, 0, 0)}
	days := 0
	for now := noon; ; now, days = now.Add(day), days+1 {
		s := newStepped(kept)
		for s.now = now; s.ran < on; s.pass(lookEvery) {
			s.Aged()
			if span := s.horizon.Load().span; far(span, kept) {
				kept = wire(t, span)
			}
		}
		if s.Ahead().Equal(s.now) {
			break
		}
		if days > 20 {
			t.Fatalf("after %d days Ahead is %v, and kept is %+v", days, s.Ahead(), kept)
		}
	}
	if days < int(believed/on) || days > 2+int(believed/(on-backStep)) {
		t.Errorf("it took %d days of %s", days, on)
	}
	if kept.Back != 0 || far(kept, Span{Aged: kept.Aged, Ahead: kept.Seen}) {
		t.Errorf("kept is %+v", kept)
	}
}

// A clock that is set back further while the board is off was right before for all that is
// known.
func TestTheClockIsSetBackOverARestart(t *testing.T) {
	s := newStepped(Span{Aged: noon, Ahead: noon.AddDate(1, 0, 0), Seen: noon, Back: believed - time.Minute})
	s.want(t, 0, 365*day)
	s.pass(time.Minute)
	s.want(t, 0, 0)
	s = newStepped(Span{Aged: noon, Ahead: noon.AddDate(1, 0, 0), Seen: noon, Back: believed - time.Minute})
	s.now = noon.Add(-day)
	s.want(t, 0, 366*day)
	s.pass(believed - time.Minute)
	s.want(t, 0, 366*day)
	s.pass(time.Minute)
	s.want(t, 0, 0)
}

// What was kept before Back was is read, and stays for the whole while.
func TestASpanOfBefore(t *testing.T) {
	var kept Span
	if err := json.Unmarshal([]byte(`{"aged":"2026-11-28T12:00:00Z","ahead":"2026-12-28T12:00:00Z"}`), &kept); err != nil {
		t.Fatal(err)
	}
	s := newStepped(kept)
	s.want(t, 0, 30*day)
	s.pass(believed - time.Minute)
	s.want(t, 0, 30*day)
	s.pass(time.Minute)
	s.want(t, 0, 0)
}

// A clock that is slower than the process's is not one that was set back: nothing is written
// for it.
func TestASlowClockIsNotSetBack(t *testing.T) {
	s := newStepped(Span{})
	for range 7 * 24 * 60 {
		s.ran += lookEvery
		s.now = s.now.Add(lookEvery - time.Millisecond)
		if span := s.horizon.Load().Look(); span.Back != 0 || !span.Ahead.Equal(s.now) {
			t.Fatalf("got %+v at %v", span, s.now)
		}
	}
}

// wire is a span as it is read after it was kept.
func wire(t *testing.T, s Span) (kept Span) {
	t.Helper()
	b, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil || kept != s {
		t.Fatalf("kept %s of %+v: %v", b, s, err)
	}
	return kept
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
		for range believed/backStep - 2 {
			time.Sleep(backStep)
		}
		synctest.Wait()
		if last := saved[len(saved)-1]; last.Back < believed-4*backStep || last.Back > believed {
			t.Errorf("it was set back for %s, kept is %s", believed, last.Back)
		}
		time.Sleep(4 * backStep)
		synctest.Wait()
		expect(len(saved), 0, 0)
		n := len(saved)
		time.Sleep(saveStep - 4*backStep)
		expect(n, 0, 0) // and from then on no more often than before
		cancel()
		synctest.Wait()
	})
}

// TestTheHorizonIsKeptAtTheEnd: for less than a minute the clock was ahead by years, and
// what was stamped then is not to be impossible to the next process.
func TestTheHorizonIsKeptAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(time.Now, noon.AddDate(-100, 0, 0))
		var step time.Duration
		c.system = func() time.Time { return time.Now().Add(step) }
		h := c.Follow(Span{}, func() bool { return true }, nil)
		var last Span
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- h.Run(ctx, func(ctx context.Context, s Span) error {
				last = s
				return ctx.Err()
			})
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		step = 9000 * day
		c.Ahead()
		step = 0
		c.Ahead()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		next := New(time.Now, noon.AddDate(-100, 0, 0))
		next.Follow(wire(t, last), func() bool { return true }, nil)
		if got := next.Ahead().Sub(next.Now()); got < 8999*day {
			t.Errorf("to the next process readings are of the future that are more than %v ahead", got)
		}
	})
}
