package heal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// wedged is a radio whose driver takes everything and does nothing, since the look
// from.
func wedged(look, from int) Radio {
	r := well(look)
	if look >= from {
		r.Reported, r.Survey = well(from).Reported, well(from).Survey
	}
	return r
}

// TestAWedgedDriver is found whether or not it ever had a peer, the rungs come in
// their order, and ever more rarely while nothing helps.
func TestAWedgedDriver(t *testing.T) {
	const from = 10
	for name, peers := range map[string][]string{"alone": nil, "with peers": {"a", "b"}} {
		all, m := play(6*360, func(look int) Observation { // six hours
			r := wedged(look, from)
			if look < from+3 { // silence has to be noticed
				r = with(r, min(look, from), peers...)
			}
			return Observation{Radios: []Radio{r}, Drivers: []Driver{{Name: "wifi x"}}, Alone: true}
		})
		restarts, reloads := only(all, Restart), only(all, Reload)
		if len(restarts) == 0 || len(reloads) == 0 || restarts[0].look > from+10 || reloads[0].look > from+20 || reloads[0].look < restarts[0].look {
			t.Fatalf("%s: restarts %+v, reloads %+v", name, restarts, reloads)
		}
		if n := len(reloads); n < 12 || n > 20 { // 1, 2, 4, 8, 16, 30, 30 … minutes
			t.Errorf("%s: %d reloads in six hours", name, n)
		}
		if len(only(all, Search)) == 0 {
			t.Errorf("%s: peers were never sought anew", name)
		}
		s := m.States()[0]
		if s.Rung != Reload || s.Reloads != uint64(len(reloads)) || s.Restarts != uint64(len(restarts)) {
			t.Errorf("%s: state %+v", name, s)
		}
	}
}

// TestARestartHelps ends it: nothing more is done, and the ladder says so.
func TestARestartHelps(t *testing.T) {
	mended := 1 << 30
	m := New(DefaultLimits)
	var all []acted
	for look := range 200 {
		r := wedged(look, 10)
		if look >= mended {
			r = with(well(look), look, "a")
			r.Sent, r.Reported = uint64(look-mended), uint64(look-mended) // counted anew
		}
		for _, a := range m.Step(time.Duration(look)*lookEvery, Observation{Radios: []Radio{r}, Drivers: []Driver{{Name: "wifi x"}}, Alone: true}) {
			if all = append(all, acted{a, look}); a.Rung == Restart {
				mended = look + 1
			}
		}
	}
	if len(only(all, Restart)) != 1 || len(only(all, Reload)) != 0 {
		t.Errorf("got %+v", all)
	}
	if s := m.States()[0]; s.Rung != 0 || s.Kind != None || s.Restarts != 1 {
		t.Errorf("state %+v", s)
	}
}

// TestADriverOfTwoRadios is left alone while the other may be fine.
func TestADriverOfTwoRadios(t *testing.T) {
	for _, tc := range []struct {
		name   string
		other  func(look int) Radio
		reload bool
	}{
		{"wedged as well", func(look int) Radio { return wedged(look, 10) }, true},
		{"alone", well, false},
		{"linked", func(look int) Radio { return with(well(look), look, "a") }, false},
		{"in use by others", func(look int) Radio { return Radio{Use: Spared, Detail: "an access point"} }, false},
		{"joining", func(look int) Radio { return Radio{Detail: "it joins", Failures: 1} }, false},
		{"without a route", func(look int) Radio { r := with(well(look), look, "a"); r.Routed = false; return r }, false},
		{"of another driver", func(look int) Radio { r := well(look); r.Driver = "wifi y"; return r }, true},
	} {
		all, _ := play(360, func(look int) Observation {
			other := tc.other(look)
			other.ID, other.Name = "usb 1-2:1.0", "phy1"
			if other.Driver == "" {
				other.Driver = "wifi x"
			}
			return Observation{Radios: []Radio{wedged(look, 10), other}, Drivers: []Driver{{Name: "wifi x"}, {Name: "wifi y"}}}
		})
		got := only(all, Reload)
		if (len(got) > 0) != tc.reload || slices.ContainsFunc(got, func(a acted) bool { return a.Driver != "wifi x" }) {
			t.Errorf("%s: reloads %+v, want %v", tc.name, got, tc.reload)
		}
	}
}

// TestOneOfTwoRadiosIsGivenBack: where others of the driver have no fault, the device of the
// one that has is given to the driver anew, ever more rarely.
func TestOneOfTwoRadiosIsGivenBack(t *testing.T) {
	hung := func(look int) Radio {
		r := well(look)
		if look >= 10 {
			r = Radio{ID: r.ID, Name: r.Name, Driver: r.Driver, Detail: "it hangs", Hung: true, Failures: 1}
		}
		return r
	}
	for _, tc := range []struct {
		name     string
		one      func(look int) Radio // nil: there is none, and its device is there
		soldered bool                 // its device is not known
		other    func(look int) Radio
		want     bool
		reload   bool
	}{
		{name: "wedged", one: func(look int) Radio { return wedged(look, 10) }, other: well, want: true},
		{name: "hung", one: hung, other: well, want: true},
		{name: "vanished", other: well, want: true},
		{name: "the other is linked", one: hung, other: func(look int) Radio { return with(well(look), look, "a") }, want: true},
		{name: "its device is not known", one: hung, soldered: true, other: well},
		{name: "well", one: well, other: well},
		{name: "the other is hung too", one: hung, other: hung, reload: true},
		{name: "in use by others", one: func(int) Radio { return Radio{Use: Spared, Detail: "an access point"} }, other: well},
	} {
		all, m := play(6*360, func(look int) Observation {
			d := Driver{Name: "wifi x"}
			other := tc.other(look)
			other.ID, other.Name, other.Driver, other.Seat = "usb 1-2:1.0", "phy1", "wifi x", true
			o := Observation{Radios: []Radio{other}}
			if tc.one != nil {
				r := tc.one(look)
				r.ID, r.Name, r.Driver, r.Seat = "usb 1-1:1.0", "phy0", "wifi x", !tc.soldered
				o.Radios = append(o.Radios, r)
			} else {
				d.Vanished = []string{"usb 1-1:1.0"}
			}
			o.Drivers = []Driver{d}
			return o
		})
		got := only(all, Rebind)
		if (len(got) > 0) != tc.want || len(got) > 20 || tc.want && len(got) < 8 || (len(only(all, Reload)) > 0) != tc.reload {
			t.Errorf("%s: %d times given back, %d times loaded anew", tc.name, len(got), len(only(all, Reload)))
		}
		for _, a := range got {
			if a.Radio != "usb 1-1:1.0" || a.Driver != "wifi x" || !a.Kind.OfDriver() {
				t.Errorf("%s: %+v", tc.name, a)
			}
		}
		for _, s := range m.States() {
			if want := uint64(len(got)); s.ID == "usb 1-1:1.0" && s.Rebinds != want || s.ID != "usb 1-1:1.0" && s.Rebinds != 0 {
				t.Errorf("%s: state %+v", tc.name, s)
			}
		}
	}
}

// TestARadioThatVanished has its driver loaded anew, not one that was unplugged,
// nor one whose driver is at it already.
func TestARadioThatVanished(t *testing.T) {
	for _, tc := range []struct {
		name   string
		driver Driver
		want   int
	}{
		{"its device is there", Driver{Gone: true}, 5},
		{"unplugged", Driver{}, 0},
		{"at it already", Driver{Gone: true, Busy: true}, 0},
	} {
		all, _ := play(180, func(int) Observation { tc.driver.Name = "wifi x"; return Observation{Drivers: []Driver{tc.driver}} })
		if got := only(all, Reload); len(got) != tc.want || tc.want > 0 && (got[0].look != 3 || got[0].Kind != Vanished) {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

// TestALonelyRadio searches each half minute, scans while the whole device is
// alone, is restarted ever more rarely, and its driver is never touched.
func TestALonelyRadio(t *testing.T) {
	const hours = 24
	lonely := func(alone bool) ([]acted, *Machine) {
		return play(hours*360, func(look int) Observation {
			return Observation{Radios: []Radio{well(look)}, Drivers: []Driver{{Name: "wifi x"}}, Alone: alone}
		})
	}
	all, m := lonely(true)
	searches, scans, restarts := only(all, Search), only(all, Scan), only(all, Restart)
	if n := len(searches); n < hours*110 || n > hours*120 {
		t.Errorf("%d searches in a day", n)
	}
	if n := len(scans); n < hours*25 || n > hours*32 || scans[0].look > 8 {
		t.Errorf("%d scans in a day, the first at look %d", n, scans[0].look)
	}
	if n := len(restarts); n < 20 || n > 30 || restarts[0].look != 60 {
		t.Errorf("%d restarts in a day, the first at look %d", n, restarts[0].look)
	}
	if len(only(all, Reload)) > 0 {
		t.Errorf("the driver of a radio that is alone was loaded anew")
	}
	if s := m.States()[0]; s.Searches != uint64(len(searches)) || s.Scans != uint64(len(scans)) || s.Restarts != uint64(len(restarts)) || s.Kind != None {
		t.Errorf("state %+v", s)
	}
	if all, _ = lonely(false); len(only(all, Scan)) > 0 || len(only(all, Search)) == 0 {
		t.Errorf("of a device that has peers by cable: %d scans", len(only(all, Scan)))
	}
}

// TestALostPeerIsMissedForAWhile: who has fewer links than a while ago searches.
func TestALostPeerIsMissedForAWhile(t *testing.T) {
	seen := func(look int) Observation {
		r := with(well(look), look, "a", "b")
		if look >= 20 {
			r = with(well(look), look, "a")
		}
		return Observation{Radios: []Radio{r}, Drivers: []Driver{{Name: "wifi x"}}, Alone: true}
	}
	all, _ := play(200, seen)
	if len(only(all, Search)) != len(all) || len(all) < 18 || len(all) > 21 || all[0].look != 21 || all[len(all)-1].look > 80 {
		t.Errorf("%d actions, the last at look %d: %+v", len(all), all[len(all)-1].look, all)
	}
	// It is one search, of which one event tells.
	m, begun, was := New(DefaultLimits), 0, Rung(0)
	for look := range 200 {
		m.Step(time.Duration(look)*lookEvery, seen(look))
		now := m.States()[0].Rung
		if was == 0 && now == Search {
			begun++
		}
		was = now
	}
	if begun != 1 || was != 0 {
		t.Errorf("%d searches began, and the rung is %v in the end, want 1 and none", begun, was)
	}
}

// TestOneScanAtATime: two radios of a lonely device take turns.
func TestOneScanAtATime(t *testing.T) {
	seen := map[string]int{}
	m := New(DefaultLimits)
	for look := range 100 {
		a, b := well(look), well(look)
		b.ID, b.Name = "usb 1-2:1.0", "phy1"
		scans := 0
		for _, a := range m.Step(time.Duration(look)*lookEvery, Observation{Radios: []Radio{a, b}, Alone: true}) {
			if a.Rung == Scan {
				scans++
				seen[a.Radio]++
			}
		}
		if scans > 1 {
			t.Fatalf("look %d: %d scans at once", look, scans)
		}
	}
	if len(seen) != 2 {
		t.Errorf("scans by %v", seen)
	}
}

// TestManyRadiosAreForgotten: what is plugged in again and again takes no room.
func TestManyRadiosAreForgotten(t *testing.T) {
	_, m := play(1000, func(look int) Observation {
		r := well(look)
		r.ID = fmt.Sprint(look)
		return Observation{Radios: []Radio{r}}
	})
	if n := len(m.States()); n > maxKept {
		t.Errorf("%d radios are kept", n)
	}
	m.Step(1000*lookEvery+2*forgotten, Observation{})
	if n := len(m.States()); n != 0 {
		t.Errorf("%d radios are kept after two days", n)
	}
}

// TestAnyStory plays random lives of radios and drivers, and holds that the ladder
// keeps to its word in each.
func TestAnyStory(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 5))
		m := New(DefaultLimits)
		now := time.Duration(0)
		lives := []*life{{random: random, id: 0}, {random: random, id: 1}, {random: random, id: 2}}
		last := map[string]time.Duration{} // of actions, by rung and target
		sick, busy := "", false
		for look := range 500 {
			now += lookEvery + time.Duration(random.IntN(3000))*time.Millisecond
			if random.IntN(40) == 0 {
				sick = []string{"", "EIO"}[random.IntN(2)]
			}
			busy = random.IntN(30) == 0
			o := Observation{Drivers: []Driver{{Name: "x", Sick: sick, Busy: busy}, {Name: "y", Gone: random.IntN(8) > 0}}, Alone: random.IntN(3) > 0}
			for _, l := range lives {
				o.Radios = append(o.Radios, l.look())
			}
			todo := m.Step(now, o)
			by := map[string]int{}
			for _, a := range todo {
				by[a.Radio+a.Driver]++
				key := fmt.Sprint(a.Rung, a.Radio, a.Driver)
				at, before := last[key]
				last[key] = now
				least := map[Rung]time.Duration{Search: DefaultLimits.Search, Scan: DefaultLimits.Scan.First, Restart: 0, Reload: DefaultLimits.Reload.First}[a.Rung]
				if before && now-at < least {
					t.Fatalf("seed %d, look %d: %s again after %s", seed, look, key, now-at)
				}
				if a.Rung != Reload {
					r := o.Radios[slices.IndexFunc(o.Radios, func(r Radio) bool { return r.ID == a.Radio })]
					if r.Use != Ours || !r.Member && a.Rung != Restart || a.Rung == Scan && len(r.Stations) > 0 {
						t.Fatalf("seed %d, look %d: %s of %+v", seed, look, a.Rung, r)
					}
					continue
				}
				if a.Driver == "y" {
					if !o.Drivers[1].Gone {
						t.Fatalf("seed %d, look %d: a driver was loaded anew whose radio was unplugged", seed, look)
					}
					continue
				}
				for i, r := range o.Radios {
					if busy || r.Use != Ours || len(r.Stations) > 0 || !lives[i].guilty() && sick == "" {
						t.Fatalf("seed %d, look %d: reload (%s) in spite of %+v, %s", seed, look, a.Why, r, lives[i].state)
					}
				}
			}
			for of, n := range by {
				if n > 1 {
					t.Fatalf("seed %d, look %d: %d actions on %s: %+v", seed, look, n, of, todo)
				}
			}
		}
	}
}

// life is a radio that goes from one state to another at random.
type life struct {
	random *rand.Rand
	id     int
	state  string
	age    int
	r      Radio
}

func (l *life) guilty() bool {
	return l.state == "wedged" || l.state == "failing"
}

func (l *life) look() Radio {
	if l.age++; l.state == "" || l.random.IntN(25) == 0 {
		states := []string{"linked", "alone", "wedged", "failing", "spared", "joining"}
		l.state, l.age = states[l.random.IntN(len(states))], 0
	}
	r := &l.r
	r.ID, r.Name, r.Driver = fmt.Sprint(l.id), fmt.Sprintf("phy%d", l.id), "x"
	r.Use, r.Member, r.Detail, r.Failures, r.Stations, r.Routed = Ours, true, "", 0, nil, true
	counts := func() {
		n := l.random.Uint64N(6)
		r.Sent, r.Reported = r.Sent+n, r.Reported+n
		r.Survey.Time += lookEvery
		r.Survey.Tx += 10 * time.Millisecond
	}
	switch l.state {
	case "linked":
		counts()
		for i := range 1 + l.random.IntN(3) {
			r.Stations = append(r.Stations, Station{MAC: fmt.Sprint(i), TxPackets: r.Sent, Inactive: time.Duration(l.random.IntN(20)) * time.Second})
		}
	case "alone":
		counts()
		r.Heard = l.random.IntN(3)
	case "wedged":
		r.Sent += 5
	case "failing":
		r.Member, r.Detail, r.Failures = false, "EIO", 1+l.age
	case "spared":
		r.Member, r.Use = false, Spared
	case "joining":
		r.Member, r.Failures = false, 1
	}
	return *r
}
