package heal

import (
	"math/rand/v2"
	"testing"
	"time"
)

// fate is a machine over its restarts: what it keeps, and when it restarted.
type fate struct {
	kept     int
	unkept   bool // nothing outlives a restart
	now      time.Duration
	restarts []time.Duration
}

// live runs the machine until that time; look says what is seen so long after its start.
func (f *fate) live(until time.Duration, look func(up time.Duration) (hangs, linked bool)) {
	for f.now < until {
		begun := f.now
		l := &Last{Count: f.kept, Unkept: f.unkept}
		for f.now < until {
			f.now += lookEvery
			hangs, linked := look(f.now - begun)
			switch l.Step(f.now-begun, hangs, linked) {
			case Forgive:
				f.kept = l.Count
			case Reboot:
				if !f.unkept {
					f.kept = l.Count
				}
				f.restarts = append(f.restarts, f.now)
			default:
				continue
			}
			if len(f.restarts) > 0 && f.restarts[len(f.restarts)-1] == f.now {
				break
			}
		}
	}
}

// inADay is the most restarts in any day.
func (f *fate) inADay() (most int) {
	for i, at := range f.restarts {
		n := 0
		for _, other := range f.restarts[i:] {
			if other-at < 24*time.Hour {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestTheLastRung(t *testing.T) {
	const week = 7 * 24 * time.Hour
	always := func(is bool) func(time.Duration) bool { return func(time.Duration) bool { return is } }
	after := func(d time.Duration) func(time.Duration) bool {
		return func(up time.Duration) bool { return up > d }
	}
	for name, tc := range map[string]struct {
		unkept        bool
		hangs, linked func(up time.Duration) bool
		first         time.Duration
		least, most   int // in a week
	}{
		"it hangs from the start":            {hangs: always(true), linked: always(false), first: 10 * time.Minute, least: 20, most: 23},
		"and nothing is kept":                {unkept: true, hangs: always(true), linked: always(false), first: 8 * time.Hour, least: 20, most: 21},
		"it hangs after half an hour":        {hangs: after(30 * time.Minute), linked: always(false), first: 40 * time.Minute, least: 18, most: 22},
		"it hangs after a day":               {hangs: after(25 * time.Hour), linked: always(false), first: 25*time.Hour + 10*time.Minute, least: 6, most: 7},
		"there is a cable":                   {hangs: always(true), linked: always(true)},
		"it is alone, and nothing hangs":     {hangs: always(false), linked: always(false)},
		"it hangs for nine minutes of ten":   {hangs: func(up time.Duration) bool { return up%(10*time.Minute) < 9*time.Minute }, linked: always(false)},
		"a link comes about each nine":       {hangs: always(true), linked: func(up time.Duration) bool { return up%(9*time.Minute) == 0 }},
		"the link goes an hour after a hang": {hangs: always(true), linked: func(up time.Duration) bool { return up < time.Hour }, first: 70 * time.Minute, least: 18, most: 21},
	} {
		f := &fate{unkept: tc.unkept}
		f.live(week, func(up time.Duration) (bool, bool) { return tc.hangs(up), tc.linked(up) })
		n := len(f.restarts)
		if n < tc.least || n > tc.most || f.inADay() > 4 {
			t.Errorf("%s: %d restarts in a week, %d in a day: %v", name, n, f.inADay(), f.restarts)
			continue
		}
		if n > 0 && (f.restarts[0] < tc.first || f.restarts[0] > tc.first+2*lookEvery) {
			t.Errorf("%s: the first after %s, want %s", name, f.restarts[0], tc.first)
		}
	}
}

// TestTheLastRungForgives: after a day without a hang the waits begin anew.
func TestTheLastRungForgives(t *testing.T) {
	f := &fate{kept: 5}
	f.live(23*time.Hour, func(time.Duration) (bool, bool) { return false, false })
	if f.kept != 5 {
		t.Errorf("forgiven too soon")
	}
	f = &fate{kept: 5}
	f.live(25*time.Hour, func(time.Duration) (bool, bool) { return false, false })
	if f.kept != 0 || len(f.restarts) > 0 {
		t.Errorf("kept %d, restarts %v", f.kept, f.restarts)
	}
}

// TestWhatIsNotKeptIsSaidAgain by the wait that then holds.
func TestWhatIsNotKeptIsSaidAgain(t *testing.T) {
	l := &Last{}
	said := []time.Duration{}
	for now := lookEvery; now < 12*time.Hour; now += lookEvery {
		since, _ := l.Since()
		if l.Step(now, true, false) != Reboot {
			continue
		}
		if said = append(said, now); len(said) == 1 {
			l.NotKept(since)
			l.Unkept = true
		}
	}
	if len(said) != 2 || said[0] > 11*time.Minute || said[1] < 8*time.Hour || said[1] > 8*time.Hour+time.Minute || l.Count != 1 {
		t.Errorf("said at %v, count %d", said, l.Count)
	}
}

// TestAnyFate: whatever happens, no day has more than four restarts, also where power is cut
// at any time.
func TestAnyFate(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 7))
		f := &fate{unkept: seed%5 == 0}
		for f.now < 14*24*time.Hour {
			hang := time.Duration(random.Int64N(int64(3 * time.Hour)))
			link := random.IntN(3) == 0
			f.live(f.now+time.Duration(random.Int64N(int64(40*time.Hour))), func(up time.Duration) (bool, bool) {
				return up > hang, link && up < 2*hang
			}) // and the power is cut
		}
		if n := f.inADay(); n > 4 {
			t.Errorf("seed %d: %d restarts in a day: %v", seed, n, f.restarts)
		}
	}
}
