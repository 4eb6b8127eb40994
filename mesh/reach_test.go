package mesh

import (
	"errors"
	"slices"
	"testing"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/change"
	"halo.internal/model"
)

// TestWhenARotationMayBegin: not before the members that are there had time to be heard.
func TestWhenARotationMayBegin(t *testing.T) {
	const wait = 5 * time.Minute
	for name, tc := range map[string]struct {
		up      time.Duration // when the overlay came up; negative: it did not
		heard   time.Duration // when a member was there last; negative: never
		now     time.Duration
		members int
		online  int
		due     bool
		silent  bool // it is told that it waits
	}{
		"no members":                         {up: -1, heard: -1, now: 0, due: true},
		"the overlay is not up":              {up: -1, heard: -1, now: time.Hour, members: 3},
		"just started":                       {up: 0, heard: -1, now: time.Second, members: 3},
		"all are there":                      {up: 0, heard: time.Second, now: time.Second, members: 3, online: 3, due: true},
		"some are there, others may come":    {up: 0, heard: time.Second, now: wait - 1, members: 3, online: 2},
		"some are there, the others are off": {up: 0, heard: time.Second, now: wait, members: 3, online: 2, due: true},
		"the overlay was late":               {up: time.Minute, heard: 2 * time.Minute, now: wait, members: 3, online: 2},
		"nobody came":                        {up: 0, heard: -1, now: wait, members: 3, silent: true},
		"nobody came for a day":              {up: 0, heard: -1, now: deserted, members: 3, due: true, silent: true},
		"the last one left":                  {up: 0, heard: time.Hour, now: deserted, members: 3, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			r := reach{wait: wait}
			for at := time.Duration(0); at <= tc.now; at += max(tc.now/100, 1) {
				online := 0
				if at <= tc.heard {
					online = 1
				}
				if tc.up >= 0 && at >= tc.up {
					r.look(start.Add(at), true, online)
				}
			}
			now := start.Add(tc.now)
			r.look(now, tc.up >= 0, tc.online)
			if due := r.due(now, tc.members, tc.online); due != tc.due {
				t.Errorf("due: got %v, want %v", due, tc.due)
			}
			if silent := tc.members > 0 && r.silent(now, tc.members, tc.online); silent != tc.silent {
				t.Errorf("silent: got %v, want %v", silent, tc.silent)
			}
			if r.silent(now, tc.members, tc.online) && tc.members > 0 {
				t.Error("it is told twice")
			}
		})
	}
}

// TestARevocationIsCutByAStart: another secret is due when the gateway starts, and no
// node is reached yet.
func TestARevocationIsCutByAStart(t *testing.T) {
	s := newSite(t, 3, 3)
	p := s.g.profiles
	p.kept.Due = true
	steps := func(want string) {
		t.Helper()
		for range 3 {
			p.keepUp()
			p.act()
		}
		if state := p.m.State(); state.Phase != change.Idle || !p.kept.Due {
			t.Fatalf("%s: it is %s, and awaits %v", want, state.Phase, state.Expected)
		}
	}
	steps("the overlay is not up")
	p.reach.look(time.Now(), true, 0)
	steps("the overlay has just come up")
	p.reach.since = time.Now().Add(-p.reach.wait)
	steps("no node came")
	waits := 0
	for _, e := range s.g.events.After(1, 0) {
		if e.Kind == eventSecretWaits {
			waits++
		}
	}
	if waits != 1 {
		t.Errorf("got %d events that it waits, want 1", waits)
	}
	s.uses(3)
	s.g.known.Peers = nil // all are gone: there is nobody to wait for
	p.keepUp()
	if state := p.m.State(); state.Phase != change.Preparing {
		t.Errorf("without members it is %s, want preparing", state.Phase)
	}
}

// TestWhoIsLeftBehindByAChange is asked of who wants one.
func TestWhoIsLeftBehindByAChange(t *testing.T) {
	const wait = 5 * time.Minute
	for name, tc := range map[string]struct {
		up      time.Duration // how long the overlay has been; 0: it is not
		members int
		online  int
		begins  []bool // of one that is asked for so, and anyway
	}{
		"no members":                   {0, 0, 0, []bool{true, true}},
		"all are there":                {time.Second, 3, 3, []bool{true, true}},
		"some are there, just now":     {time.Second, 3, 1, []bool{false, true}},
		"some are there":               {wait, 3, 1, []bool{true, true}},
		"none is there yet":            {time.Second, 3, 0, []bool{false, false}},
		"none came":                    {wait, 3, 0, []bool{false, true}},
		"there is no overlay, for now": {0, 3, 0, []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, tc.members, 3)
			p := s.g.profiles
			now := time.Now()
			if tc.up > 0 {
				p.reach.look(now.Add(-tc.up), true, 0)
			}
			for i, anyway := range []bool{false, true} {
				err := p.mayBegin(now, tc.members, tc.online, anyway)
				if tc.begins[i] != (err == nil) || err != nil && !errors.Is(err, api.ErrBusy) {
					t.Errorf("anyway %v: got %v, want it to begin: %v", anyway, err, tc.begins[i])
				}
			}
		})
	}
	s := newSite(t, 2, 3)
	if err := s.g.PutProfile(model.ProfileChange{Channel: new(6)}); !errors.Is(err, api.ErrBusy) {
		t.Errorf("just after a start: got %v, want that it waits", err)
	}
	s.g.profiles.begun = time.Now().Add(-wait)
	if err := s.g.PutProfile(model.ProfileChange{Channel: new(6), Anyway: true}); err != nil {
		t.Errorf("a profile by which no overlay comes up cannot be changed: %v", err)
	}
	if list := s.g.events.After(1, 0); !slices.ContainsFunc(list, func(e model.Event) bool { return e.Kind == eventProfileStarted }) {
		t.Errorf("nothing is told of it: %+v", list)
	}
}
