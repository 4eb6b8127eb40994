package heal

import (
	"strings"
	"testing"
	"time"
)

const lookEvery = 10 * time.Second

// well is a radio of a working driver, alone, at a look: it beacons, the driver
// counts, and reports each of its probes.
func well(look int) Radio {
	n := time.Duration(look)
	return Radio{
		ID: "usb 1-1:1.0", Name: "phy0", Driver: "wifi x", Member: true, Unseen: time.Second, Routed: true,
		Sent: uint64(5 * look), Reported: uint64(5 * look), Survey: Survey{Time: n * lookEvery, Tx: n * 20 * time.Millisecond},
	}
}

// with gives a radio peers of whom it hears.
func with(r Radio, look int, peers ...string) Radio {
	for _, p := range peers {
		r.Stations = append(r.Stations, Station{MAC: p, TxPackets: uint64(100 * look), Inactive: time.Second})
	}
	return r
}

// story steps a machine through looks and returns all actions with the look at
// which each came.
type acted struct {
	Action
	look int
}

func play(looks int, at func(look int) Observation) (all []acted, m *Machine) {
	m = New(DefaultLimits)
	for look := range looks {
		for _, a := range m.Step(time.Duration(look)*lookEvery, at(look)) {
			all = append(all, acted{a, look})
		}
	}
	return all, m
}

func only(all []acted, rung Rung) (list []acted) {
	for _, a := range all {
		if a.Rung == rung {
			list = append(list, a)
		}
	}
	return list
}

// TestEvidence says of each kind what it takes, and what does not do. The fault
// begins at look 30, after five minutes without one.
func TestEvidence(t *testing.T) {
	const from = 30
	for _, tc := range []struct {
		name    string
		change  func(r *Radio, d *Driver, look int) // from that look on
		kind    Kind
		restart bool
		reload  bool
	}{
		{"alone is no fault", func(*Radio, *Driver, int) {}, None, false, false},
		{"peers fall silent together", func(r *Radio, _ *Driver, _ int) { r.Stations = nil }, None, false, false},
		{"frames without a report", func(r *Radio, _ *Driver, look int) { r.Reported = 5 * from; r.Stations = nil }, Unreported, true, true},
		{"frames without a report on a channel that is never free", func(r *Radio, _ *Driver, look int) {
			r.Reported, r.Stations = 5*from, nil
			r.Survey.Busy, r.Survey.Tx = r.Survey.Time, time.Second
		}, None, false, false},
		{"few frames without a report", func(r *Radio, _ *Driver, look int) {
			r.Reported, r.Sent, r.Stations = 5*from, 5*from+uint64(min(look-from, 3)), nil
		}, None, false, false},
		{"half of the reports are late", func(r *Radio, _ *Driver, look int) { r.Reported, r.Stations = r.Reported/2, nil }, None, false, false},
		{"the time on the channel stands", func(r *Radio, _ *Driver, _ int) { r.Survey.Time, r.Stations = from*lookEvery, nil }, Frozen, true, true},
		{"nothing is sent", func(r *Radio, _ *Driver, _ int) { r.Survey.Tx, r.Stations = time.Second, nil }, Mute, true, true},
		{"the driver complains", func(r *Radio, d *Driver, _ int) { d.Sick, r.Stations = "EIO", nil }, Sick, true, true},
		{"the driver of a radio that works complains", func(_ *Radio, d *Driver, _ int) { d.Sick = "EIO" }, None, false, false},
		{"the kernel does not answer", func(r *Radio, _ *Driver, look int) {
			r.Unseen, r.Stations = time.Duration(look-from+1)*lookEvery, nil
		}, Stuck, true, true},
		{"nor of a link", func(r *Radio, _ *Driver, look int) { r.Unseen = time.Duration(look-from+1) * lookEvery }, Stuck, true, false},
		{"joining fails", func(r *Radio, _ *Driver, look int) {
			r.Member, r.Detail, r.Failures, r.Stations = false, "EIO", look-from+1, nil
		}, Failing, false, true},
		{"joining failed four times", func(r *Radio, _ *Driver, look int) {
			r.Member, r.Detail, r.Failures, r.Stations = false, "EIO", min(look-from+1, 4), nil
		}, None, false, false},
		{"joining does not end", func(r *Radio, _ *Driver, _ int) { r.Member, r.Detail, r.Stations = false, "it joins", nil }, Stalled, false, true},
		{"it is refused", func(r *Radio, _ *Driver, _ int) { r.Member, r.Use, r.Stations = false, Spared, nil }, None, false, false},
		{"its firmware crashes", func(r *Radio, _ *Driver, _ int) { r.Crashes, r.Stations = 1, nil }, Crashed, true, false},
		{"its firmware crashes and works again", func(r *Radio, _ *Driver, look int) {
			if r.Crashes = 1; look < from+2 {
				r.Stations = nil
			}
		}, None, false, false},
		{"no peer acknowledges, two are heard", func(r *Radio, _ *Driver, look int) {
			for i := range r.Stations {
				r.Stations[i].TxFailed = uint64(100 * (look - from))
			}
		}, Unacked, true, false},
		{"one of two acknowledges", func(r *Radio, _ *Driver, look int) { r.Stations[0].TxFailed = uint64(100 * (look - from)) }, None, false, false},
		{"no peer acknowledges, none is heard", func(r *Radio, _ *Driver, look int) {
			for i := range r.Stations {
				r.Stations[i].TxFailed, r.Stations[i].Inactive = uint64(100*(look-from)), time.Duration(look-from+1)*lookEvery
			}
		}, None, false, false},
		{"the only peer does not acknowledge", func(r *Radio, _ *Driver, look int) {
			r.Stations = r.Stations[:1]
			r.Stations[0].TxFailed = uint64(100 * (look - from))
		}, UnackedOne, true, false},
		{"routing hears nobody", func(r *Radio, _ *Driver, _ int) { r.Routed = false }, Unrouted, true, false},
		{"routing hears nobody of a radio that is alone", func(r *Radio, _ *Driver, _ int) { r.Routed, r.Stations = false, nil }, None, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seen := None
			m := New(DefaultLimits)
			var all []acted
			for look := range from + 54 { // nine minutes: before loneliness counts
				r, d := with(well(look), look, "a", "b"), Driver{Name: "wifi x"}
				if look >= from {
					tc.change(&r, &d, look)
				}
				for _, a := range m.Step(time.Duration(look)*lookEvery, Observation{Radios: []Radio{r}, Drivers: []Driver{d}, Alone: true}) {
					if all = append(all, acted{a, look}); a.Kind != None {
						seen = a.Kind
					}
				}
				if k := m.States()[0].Kind; k != None {
					seen = k
				}
			}
			restarts, reloads := only(all, Restart), only(all, Reload)
			if seen != tc.kind || (len(restarts) > 0) != tc.restart || (len(reloads) > 0) != tc.reload {
				t.Fatalf("evidence %q, %d restarts, %d reloads; want %q, %v, %v: %+v", seen, len(restarts), len(reloads), tc.kind, tc.restart, tc.reload, all)
			}
			for _, a := range append(restarts, reloads...) {
				if a.Kind != tc.kind || a.Why == "" || a.look < from {
					t.Errorf("at look %d: %+v", a.look, a.Action)
				}
			}
			if tc.restart && tc.reload && reloads[0].look < restarts[0].look+3 {
				t.Errorf("reloaded at look %d, restarted at %d: the restart had no time to help", reloads[0].look, restarts[0].look)
			}
		})
	}
}

// TestNothingIsHeldAgainstADriverThatNeverCounted, whatever it lacks.
func TestNothingIsHeldAgainstADriverThatNeverCounted(t *testing.T) {
	for name, change := range map[string]func(r *Radio, look int){
		"no survey, no reports": func(r *Radio, _ int) { r.Survey, r.Reported = Survey{}, 0 },
		"a survey of zeros":     func(r *Radio, _ int) { r.Survey = Survey{Time: time.Second} },
		"a survey that scans alone move": func(r *Radio, look int) {
			r.Survey = Survey{Time: time.Duration(look/3) * time.Second, Tx: time.Duration(look / 3)}
		},
		"no probe can be sent": func(r *Radio, _ int) { r.Sent, r.Reported = 0, 0 },
	} {
		t.Run(name, func(t *testing.T) {
			all, _ := play(2000, func(look int) Observation {
				r := well(look)
				change(&r, look)
				return Observation{Radios: []Radio{r}, Drivers: []Driver{{Name: "wifi x"}}, Alone: true}
			})
			if got := only(all, Reload); len(got) > 0 {
				t.Errorf("reloaded: %+v", got[0])
			}
			for _, a := range only(all, Restart) {
				if a.Kind != None {
					t.Errorf("restarted for %q", a.Kind)
				}
			}
		})
	}
}

func TestKindsAndRungsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if k.String() == "" || seen[k.String()] || strings.ToLower(k.String()) != k.String() {
			t.Errorf("kind %d is called %q", k, k)
		}
		seen[k.String()] = true
		if _, ok := stands[k]; !ok {
			t.Errorf("%s: nothing says for how long it has to stand", k)
		}
	}
	if len(seen) != int(Unrouted) || Reload.String() != "reload" || Rung(0).String() != "" || Rung(9).String() != "reload" {
		t.Errorf("%d kinds; rungs %q %q %q", len(seen), Reload, Rung(0), Rung(9))
	}
}
