package clock

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model"
)

var build = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// fake is a machine's clock.
type fake struct {
	now    time.Time
	rtc    time.Time // zero: none
	broken error     // of Set
	sets   int
}

func (f *fake) Now() time.Time { return f.now }

func (f *fake) Set(t time.Time) error {
	if f.broken != nil {
		return f.broken
	}
	f.now, f.sets = t, f.sets+1
	if !f.rtc.IsZero() {
		f.rtc = t
	}
	return nil
}

func (f *fake) RTC() (time.Time, error) {
	if f.rtc.IsZero() {
		return time.Time{}, errors.New("none")
	}
	return f.rtc, nil
}

func days(n int) time.Time { return build.AddDate(0, 0, n) }

func TestStart(t *testing.T) {
	epoch, never := time.Unix(0, 0), time.Time{}
	for _, tc := range []struct {
		name            string
		now, rtc, saved time.Time
		want            time.Time
		quality         model.ClockQuality
	}{
		{"nothing known", epoch, never, never, build, model.ClockNone},
		{"saved", epoch, never, days(3), days(3), model.ClockNone},
		{"saved before the build (new image)", epoch, never, days(-30), build, model.ClockNone},
		{"saved in the far future", epoch, never, build.AddDate(20, 0, 1), build, model.ClockNone},
		{"saved on the last believed day", epoch, never, build.AddDate(20, 0, 0), build.AddDate(20, 0, 0), model.ClockNone},
		{"machine has the time, nobody knows from where", days(5), never, days(3), days(5), model.ClockNone},
		{"machine in the far future", build.AddDate(21, 0, 0), never, days(3), days(3), model.ClockNone},
		{"battery", epoch, days(9), days(3), days(9), model.ClockRTC},
		{"battery, machine follows it", days(9), days(9), days(3), days(9), model.ClockRTC},
		{"battery a little behind the saved clock", epoch, days(3).Add(-time.Minute), days(3), days(3), model.ClockRTC},
		{"battery had stopped", epoch, days(1), days(3), days(3), model.ClockNone},
		{"battery at 1970", epoch, time.Unix(60, 0), never, build, model.ClockNone},
		{"battery in the far future", epoch, build.AddDate(30, 0, 0), days(3), days(3), model.ClockNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sys := &fake{now: tc.now, rtc: tc.rtc}
			c := New(sys, build)
			if _, err := c.Start(tc.saved); err != nil {
				t.Fatal(err)
			}
			if got, q := c.Now(); !got.Equal(tc.want) || q != tc.quality {
				t.Errorf("got %s (%s), want %s (%s)", got, q, tc.want, tc.quality)
			}
			if sys.now.Equal(tc.now) && sys.sets > 0 {
				t.Error("a clock that was right was set")
			}
		})
	}
}

func TestCorrect(t *testing.T) {
	for _, tc := range []struct {
		name    string
		own     model.ClockQuality
		answer  Answer
		want    time.Time
		quality model.ClockQuality
		steps   uint32
		refused bool
	}{
		{"forward", model.ClockNone, Answer{days(10), model.ClockRTC, 0}, days(10), model.ClockGateway, 0, false},
		{"back", model.ClockNone, Answer{days(2), model.ClockRTC, 0}, days(2), model.ClockGateway, 1, false},
		{"half of the way is added", model.ClockNone, Answer{days(10), model.ClockGPS, 4 * time.Second}, days(10).Add(2 * time.Second), model.ClockGateway, 0, false},
		{"right already", model.ClockNone, Answer{days(5).Add(200 * time.Millisecond), model.ClockRTC, 0}, days(5), model.ClockGateway, 0, false},
		{"within the doubt of a slow answer", model.ClockNone, Answer{days(5), model.ClockRTC, 3 * time.Second}, days(5), model.ClockGateway, 0, false},
		{"gateway guesses too", model.ClockNone, Answer{days(2), model.ClockNone, 0}, days(2), model.ClockNone, 1, false},
		{"gateway has it of a login", model.ClockNone, Answer{days(2), model.ClockLogin, 0}, days(2), model.ClockGateway, 1, false},
		{"own battery beats a login", model.ClockRTC, Answer{days(2), model.ClockLogin, 0}, days(5), model.ClockRTC, 0, false},
		{"own battery beats a guess", model.ClockRTC, Answer{days(2), model.ClockNone, 0}, days(5), model.ClockRTC, 0, false},
		{"what the gateway said before beats its guess", model.ClockGateway, Answer{days(2), model.ClockNone, 0}, days(5), model.ClockGateway, 0, false},
		{"gateway beats own battery", model.ClockRTC, Answer{days(6), model.ClockRTC, 0}, days(6), model.ClockGateway, 0, false},
		{"own GPS beats all", model.ClockGPS, Answer{days(6), model.ClockGPS, 0}, days(5), model.ClockGPS, 0, false},
		{"before the build", model.ClockNone, Answer{days(-1), model.ClockGPS, 0}, days(5), model.ClockNone, 0, true},
		{"1970", model.ClockNone, Answer{time.Unix(0, 0), model.ClockNone, 0}, days(5), model.ClockNone, 0, true},
		{"20 years and a day after the build", model.ClockNone, Answer{build.AddDate(20, 0, 1), model.ClockGPS, 0}, days(5), model.ClockNone, 0, true},
		{"too late an answer", model.ClockNone, Answer{days(10), model.ClockGPS, 11 * time.Second}, days(5), model.ClockNone, 0, true},
		{"unknown quality", model.ClockNone, Answer{days(10), "atomic", 0}, days(5), model.ClockNone, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New(&fake{now: days(5)}, build)
			c.Resume(State{Quality: tc.own})
			_, err := c.Correct(tc.answer)
			if errors.Is(err, ErrRefused) != tc.refused || err != nil && !tc.refused {
				t.Errorf("got error %v, want refusal: %v", err, tc.refused)
			}
			if got, q := c.Now(); !got.Equal(tc.want) || q != tc.quality {
				t.Errorf("got %s (%s), want %s (%s)", got, q, tc.want, tc.quality)
			}
			if s := c.State().Steps; s != tc.steps {
				t.Errorf("got %d steps back, want %d", s, tc.steps)
			}
		})
	}
}

func TestOffer(t *testing.T) {
	for _, tc := range []struct {
		name    string
		own     model.ClockQuality
		offer   time.Time
		want    time.Time
		quality model.ClockQuality
		taken   bool
		steps   uint32
		refused bool
	}{
		{"forward", model.ClockNone, days(10), days(10), model.ClockLogin, true, 0, false},
		{"back", model.ClockNone, days(2), days(2), model.ClockLogin, true, 1, false},
		{"right already", model.ClockNone, days(5).Add(4 * time.Second), days(5), model.ClockLogin, true, 0, false},
		{"the build", model.ClockNone, build, build, model.ClockLogin, true, 1, false},
		{"the last believed day", model.ClockNone, build.AddDate(20, 0, 0), build.AddDate(20, 0, 0), model.ClockLogin, true, 0, false},
		{"before the build", model.ClockNone, build.Add(-time.Second), days(5), model.ClockNone, false, 0, true},
		{"1970", model.ClockNone, time.Unix(0, 0), days(5), model.ClockNone, false, 0, true},
		{"20 years and a day after the build", model.ClockNone, build.AddDate(20, 0, 1), days(5), model.ClockNone, false, 0, true},
		{"the end of all time", model.ClockNone, time.Unix(1<<62, 0), days(5), model.ClockNone, false, 0, true},
		{"no time", model.ClockNone, time.Time{}, days(5), model.ClockNone, false, 0, true},
		{"somebody has told it before", model.ClockLogin, days(10), days(5), model.ClockLogin, false, 0, false},
		{"a battery", model.ClockRTC, days(10), days(5), model.ClockRTC, false, 0, false},
		{"the gateway", model.ClockGateway, days(10), days(5), model.ClockGateway, false, 0, false},
		{"GPS", model.ClockGPS, days(10), days(5), model.ClockGPS, false, 0, false},
		{"GPS, and no time", model.ClockGPS, time.Time{}, days(5), model.ClockGPS, false, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New(&fake{now: days(5)}, build)
			c.Resume(State{Quality: tc.own})
			corr, taken, err := c.Offer(tc.offer)
			if errors.Is(err, ErrRefused) != tc.refused || err != nil && !tc.refused || taken != tc.taken {
				t.Errorf("got %v, %v, want it taken: %v, refused: %v", taken, err, tc.taken, tc.refused)
			}
			if got, q := c.Now(); !got.Equal(tc.want) || q != tc.quality {
				t.Errorf("got %s (%s), want %s (%s)", got, q, tc.want, tc.quality)
			}
			if s := c.State().Steps; s != tc.steps || corr.Stepped != (tc.taken && !tc.want.Equal(days(5))) {
				t.Errorf("got %d steps back, want %d; %+v", s, tc.steps, corr)
			}
			if _, at := c.Compared(); at.IsZero() == tc.taken {
				t.Errorf("compared at %s", at)
			}
		})
	}
}

// TestWhatComesAfterAnOffer: whatever knows better still corrects it, and nobody else.
func TestWhatComesAfterAnOffer(t *testing.T) {
	c := New(&fake{now: days(5)}, build)
	for _, at := range []time.Time{days(10), days(11)} {
		if _, _, err := c.Offer(at); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := c.Now(); !got.Equal(days(10)) {
		t.Errorf("two people: got %s, want what the first said", got)
	}
	if _, err := c.Correct(Answer{days(3), model.ClockRTC, 0}); err != nil {
		t.Fatal(err)
	}
	if got, q := c.Now(); !got.Equal(days(3)) || q != model.ClockGateway {
		t.Errorf("then a gateway: got %s (%s)", got, q)
	}
	b := New(&fake{now: days(5), broken: errors.New("not allowed")}, build)
	if _, taken, err := b.Offer(days(10)); err == nil || taken || b.State().Quality != model.ClockNone {
		t.Errorf("a clock that cannot be set: %v, %v, %+v", taken, err, b.State())
	}
}

func TestClockThatCannotBeSetKeepsItsQuality(t *testing.T) {
	c := New(&fake{now: days(5), broken: errors.New("not allowed")}, build)
	if _, err := c.Correct(Answer{Time: days(1), Quality: model.ClockGPS}); err == nil {
		t.Error("a failure to set the clock was not told")
	}
	if s := c.State(); s.Quality != model.ClockNone || s.Steps != 0 {
		t.Errorf("got %+v, want no change", s)
	}
}

func TestStateOutlivesTheProcess(t *testing.T) {
	sys := &fake{now: days(5)}
	c := New(sys, build)
	if _, err := c.Correct(Answer{Time: days(1), Quality: model.ClockRTC}); err != nil {
		t.Fatal(err)
	}
	again := New(sys, build)
	again.Resume(c.State())
	if got, q := again.Now(); !got.Equal(days(1)) || q != model.ClockGateway || again.State().Steps != 1 {
		t.Errorf("got %s (%s), %+v", got, q, again.State())
	}
}

func TestSaved(t *testing.T) {
	at := days(3)
	good := Marshal(at)
	if got, err := Unmarshal(good); err != nil || !got.Equal(at) {
		t.Errorf("got %s, %v, want %s", got, err, at)
	}
	for i := range good[:len(good)-1] { // the line's end carries nothing
		bad := append([]byte{}, good...)
		bad[i] ^= 1
		if _, err := Unmarshal(bad); err == nil {
			t.Errorf("a flipped bit in octet %d was not noticed", i)
		}
		if _, err := Unmarshal(good[:i]); err == nil {
			t.Errorf("a saved clock cut to %d octets was taken", i)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(Marshal(days(3)))
	f.Add([]byte("2026-11-23T00:00:00Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		at, err := Unmarshal(b)
		if err != nil {
			return
		}
		if again, err := Unmarshal(Marshal(at)); err != nil || !again.Equal(at.Truncate(time.Second)) {
			t.Fatalf("%q: %s does not survive: %s, %v", b, at, again, err)
		}
	})
}

// The machine's clock is read here, never set.
func TestMachineReadsTheTime(t *testing.T) {
	before := time.Now()
	got := NewMachine().Now()
	if got.Before(before.Add(-time.Second)) || got.After(time.Now().Add(time.Second)) {
		t.Errorf("got %s, want about %s", got, before)
	}
	if _, err := (Machine{rtc: t.TempDir() + "/rtc0"}).RTC(); err == nil {
		t.Error("a clock that is not there told a time")
	}
}

// TestABatteryThatIsFarOff would keep a node out of its network for good, where the gateway
// has its time of logins: whatever that signs has ended there. It gives way, but never to a
// time before what the device knows to be past.
func TestABatteryThatIsFarOff(t *testing.T) {
	login := func(at time.Time) Answer { return Answer{at, model.ClockLogin, 0} }
	never := time.Time{}
	for _, tc := range []struct {
		name       string
		saved, rtc time.Time
		answer     Answer
		want       time.Time
		quality    model.ClockQuality
	}{
		{"two years ahead, at the first start", never, days(740), login(days(10)), days(10), model.ClockGateway},
		{"two years ahead, since its battery was replaced", days(9), days(740), login(days(10)), days(10), model.ClockGateway},
		{"two years behind", never, days(10), login(days(740)), days(740), model.ClockGateway},
		{"ahead by less than lists hold", never, days(10).Add(Estranged), login(days(10)), days(10).Add(Estranged), model.ClockRTC},
		{"and a gateway that guesses", never, days(740), Answer{days(10), model.ClockNone, 0}, days(740), model.ClockRTC},
		{"somebody sets a gateway back behind what is known", days(400), days(401), login(days(10)), days(401), model.ClockRTC},
		{"and a little behind that", days(10), days(740), login(days(10).Add(-drift - time.Second)), days(740), model.ClockRTC},
		{"a login that makes no sense", never, days(740), login(build.AddDate(21, 0, 0)), days(740), model.ClockRTC},
		{"a login before the build", never, days(740), login(days(-1)), days(740), model.ClockRTC},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New(&fake{rtc: tc.rtc, now: tc.rtc}, build)
			if _, err := c.Start(tc.saved); err != nil {
				t.Fatal(err)
			}
			doubts := c.Doubts(tc.answer.Time, tc.answer.Quality)
			corr, err := c.Correct(tc.answer)
			got, q := c.Now()
			if err != nil || !got.Equal(tc.want) || q != tc.quality || corr.Battery != (q == model.ClockGateway) || doubts != corr.Battery {
				t.Errorf("got %s (%s), %+v, doubts: %v, %v; want %s (%s)", got, q, corr, doubts, err, tc.want, tc.quality)
			}
			past := tc.saved.Equal(days(400)) || tc.saved.Equal(days(10)) || tc.answer.Time.Before(build)
			if again, err := c.Correct(tc.answer); corr.Past != past || again.Past || err != nil {
				t.Errorf("told that it is past: %v, want %v; again: %v, %v", corr.Past, past, again.Past, err)
			}
			agree := tc.answer.Quality == model.ClockLogin && tc.answer.Time.Sub(tc.rtc).Abs() <= Estranged
			if c.Confirmed() != agree || c.Doubts(tc.answer.Time, tc.answer.Quality) {
				t.Errorf("confirmed: %v, want %v; or it is still doubted", c.Confirmed(), agree)
			}
		})
	}
}

// TestAWrongLoginAtABattery is mended by the next that is right: what a login alone has told
// is nothing that the device knows.
func TestAWrongLoginAtABattery(t *testing.T) {
	sys, saved := &fake{rtc: days(10), now: days(10)}, days(5)
	start := func(login time.Time) *Clock {
		t.Helper()
		c := New(sys, build)
		if _, err := c.Start(saved); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Correct(Answer{login, model.ClockLogin, 0}); err != nil {
			t.Fatal(err)
		}
		if c.Confirmed() {
			saved, _ = c.Now()
		}
		return c
	}
	for i, step := range []struct{ login, want, saved time.Time }{
		{days(400), days(400), days(5)}, // a year ahead
		{days(10), days(10), days(5)},
		{days(12), days(10), days(10)}, // they agree
		{days(-20), days(10), days(10)},
		{days(6), days(10), days(10)}, // a few days behind are no reason
		{days(45), days(45), days(10)},
	} {
		login := step.login
		if login.Before(build) {
			login = build.Add(time.Hour)
		}
		c := start(login)
		if got, _ := c.Now(); !got.Equal(step.want) || !saved.Equal(step.saved) {
			t.Errorf("start %d, login of %s: got %s, saved %s, want %s, %s", i, login, got, saved, step.want, step.saved)
		}
	}
	// Within a start that a login has told the time of, the same holds.
	c := start(days(400))
	if _, err := c.Correct(Answer{days(2), model.ClockLogin, 0}); err != nil {
		t.Fatal(err)
	}
	if got, _ := c.Now(); !got.Equal(days(400)) {
		t.Errorf("set back to %s by a second login", got)
	}
	if _, err := c.Correct(Answer{days(20), model.ClockRTC, 0}); err != nil || !c.Confirmed() {
		t.Errorf("by a gateway's battery: %v, confirmed: %v", err, c.Confirmed())
	}
	again := New(sys, build)
	if again.Resume(c.State()); !again.Confirmed() || again.State() != c.State() {
		t.Error("a restart of the process forgets that")
	}
}

func TestSatellites(t *testing.T) {
	second := time.Second
	for _, tc := range []struct {
		name     string
		own      model.ClockQuality
		now, gps time.Time
		age      time.Duration
		accuracy time.Duration
		want     time.Time // of the clock; zero: it was refused
		steps    uint32
	}{
		{"nothing known", model.ClockNone, days(0), days(300), 0, second, days(300), 0},
		{"of a while ago", model.ClockNone, days(0), days(300), 3 * second, second, days(300).Add(3 * second), 0},
		{"back", model.ClockLogin, days(300), days(200), 0, second, days(200), 1},
		{"right already", model.ClockRTC, days(300), days(300).Add(second), 0, second, days(300), 0},
		{"a pulse knows better", model.ClockRTC, days(300), days(300).Add(second), 0, time.Millisecond, days(300).Add(second), 0},
		{"before the build", model.ClockNone, days(0), days(-1), 0, second, time.Time{}, 0},
		{"1024 weeks early", model.ClockNone, days(0), days(100 - 7*1024), 0, second, time.Time{}, 0},
		{"too far ahead", model.ClockNone, days(0), build.AddDate(20, 0, 1), 0, second, time.Time{}, 0},
		{"old", model.ClockNone, days(0), days(300), maxGPSAge + 1, second, time.Time{}, 0},
		{"of the future", model.ClockNone, days(0), days(300), -1, second, time.Time{}, 0},
		{"near what the gateway told", model.ClockGateway, days(300), days(314), 0, second, days(314), 0},
		{"far from what the gateway told", model.ClockGateway, days(300), days(316), 0, second, time.Time{}, 0},
		{"a battery does not stand against it", model.ClockRTC, days(4000), days(300), 0, second, days(300), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sys := &fake{now: tc.now}
			c := New(sys, build)
			c.Resume(State{Quality: tc.own, Unconfirmed: true})
			corr, err := c.Satellites(tc.gps, tc.age, tc.accuracy)
			if tc.want.IsZero() {
				if !errors.Is(err, ErrRefused) || sys.sets != 0 || c.State().Quality != tc.own {
					t.Errorf("got %+v, %v", corr, err)
				}
				return
			}
			if err != nil || !sys.now.Equal(tc.want) || corr.Stepped != !tc.want.Equal(tc.now) {
				t.Errorf("got %+v, %v, and it is %s", corr, err, sys.now)
			}
			if s := c.State(); s.Quality != model.ClockGPS || s.Steps != tc.steps || s.Unconfirmed || !c.Confirmed() {
				t.Errorf("got %+v", s)
			}
			if theirs, at := c.Compared(); theirs != "" || !at.Equal(sys.now) {
				t.Errorf("compared with %q at %s", theirs, at)
			}
			sys.broken = errors.New("not permitted")
			if _, err := c.Satellites(sys.now.AddDate(0, 0, 1), 0, second); err == nil || errors.Is(err, ErrRefused) {
				t.Errorf("a clock that can't be set: %v", err)
			}
		})
	}
}

// TestSatellitesThatFellSilent: their time stands against the gateway's for an hour.
func TestSatellitesThatFellSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sys := &fake{now: days(300)}
		c := New(sys, build)
		if _, err := c.Satellites(days(300), 0, time.Second); err != nil {
			t.Fatal(err)
		}
		gateway := Answer{days(301), model.ClockGPS, 0}
		time.Sleep(holdover)
		if corr, err := c.Correct(gateway); err != nil || corr.Stepped || c.State().Quality != model.ClockGPS {
			t.Errorf("within the hour: %+v, %v", corr, err)
		}
		time.Sleep(time.Second)
		if corr, err := c.Correct(Answer{days(301), model.ClockNone, 0}); err != nil || corr.Stepped {
			t.Errorf("a gateway that does not know: %+v, %v", corr, err)
		}
		if corr, err := c.Correct(gateway); err != nil || !corr.Stepped || c.State().Quality != model.ClockGateway {
			t.Errorf("after it: %+v, %v", corr, err)
		}
	})
}
