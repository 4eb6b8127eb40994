package slots

import (
	"strings"
	"testing"
)

func TestBoot(t *testing.T) {
	committed := State{Active: A, Committed: true, Boots: 4}
	trial := State{Active: B, Tries: 2}
	for name, tc := range map[string]struct {
		from             State
		running, written Slot
		want             State
		restart          bool
	}{
		"committed": {
			committed, A, A,
			State{Active: A, Committed: true, Boots: 5}, false},
		"uncommitted costs a try": {
			trial, B, B,
			State{Active: B, Tries: 1, Boots: 1}, false},
		"no try left": {
			State{Active: B, Boots: 2}, B, B,
			State{Active: A, Committed: true, Bad: [2]bool{false, true}, Boots: 2, Reason: "slot b: not healthy within its tries"}, true},
		"no try left and nothing to fall back to": {
			State{Active: B, Bad: [2]bool{true, false}}, B, B,
			State{Active: B, Bad: [2]bool{true, false}, Boots: 1}, false},
		"slot.txt was not written any more": {
			trial, A, A,
			trial, true},
		"firmware could not boot the trial": {
			trial, A, B,
			State{Active: A, Committed: true, Bad: [2]bool{false, true}, Boots: 1, Reason: "slot b: the firmware booted slot a instead"}, false},
		"firmware was told by hand": {
			committed, B, A,
			State{Active: B, Committed: true, Boots: 5, Reason: "slot a: the firmware booted slot b instead"}, false},
		"counter stays at its end": {
			State{Active: A, Committed: true, Boots: 1<<32 - 1}, A, A,
			State{Active: A, Committed: true, Boots: 1<<32 - 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, restart := tc.from.Boot(tc.running, tc.written)
			if got != tc.want || restart != tc.restart {
				t.Errorf("got %+v, restart %v\nwant %+v, restart %v", got, restart, tc.want, tc.restart)
			}
		})
	}
}

func TestFail(t *testing.T) {
	s, ok := New().Fail(A, "modules.img: checksum differs")
	want := State{Active: B, Committed: true, Bad: [2]bool{true, false}, Reason: "slot a: modules.img: checksum differs"}
	if s != want || !ok {
		t.Errorf("first failure: got %+v, %v, want %+v", s, ok, want)
	}
	s, ok = s.Fail(B, "root")
	want.Bad[1] = true
	if s != want || ok {
		t.Errorf("both bad: got %+v, %v, want %+v and no switch", s, ok, want)
	}
	if s = s.Switch(A, "last resort"); s.Active != A {
		t.Errorf("last resort: got %+v", s)
	}
	if s = s.Healthy(A); s.IsBad(A) || !s.IsBad(B) || s.Boots != 0 {
		t.Errorf("healthy: got %+v, want a good and b still bad", s)
	}
}

// TestTrialRunsOut walks an update that never gets healthy: it must end on the
// old slot after exactly its tries, without looping.
func TestTrialRunsOut(t *testing.T) {
	s := State{Active: B, Tries: 3}
	running, restarts := B, 0
	for starts := 1; ; starts++ {
		if starts > 10 {
			t.Fatalf("still not settled after %d starts: %+v", starts, s)
		}
		var restart bool
		s, restart = s.Boot(running, s.Active)
		if restart {
			running, restarts = s.Active, restarts+1
			continue
		}
		if running == A {
			if starts != 5 || restarts != 1 || !s.Committed || !s.IsBad(B) {
				t.Errorf("settled after %d starts, %d restarts in %+v", starts, restarts, s)
			}
			return
		}
	}
}

func TestUnmarshalRefusals(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"empty":       {"", "at least 8"},
		"version":     {"\x02a\x00\x00\x00\x00\x00\x00", "version 1"},
		"slot c":      {"\x01c\x00\x00\x00\x00\x00\x00", "expected a or b"},
		"flags":       {"\x01a\x08\x00\x00\x00\x00\x00", "flags"},
		"long reason": {"\x01a\x00\x00\x00\x00\x00\x00" + strings.Repeat("x", 257), "at most 256"},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			if err := s.UnmarshalBinary([]byte(tc.in)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
	if _, err := (State{}).MarshalBinary(); err == nil {
		t.Error("a state without an active slot was stored")
	}
}

func FuzzState(f *testing.F) {
	for _, s := range []State{New(), {Active: B, Tries: 3, Bad: [2]bool{true, true}, Boots: 1 << 31, Reason: "ü"}} {
		b, err := s.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again State
		if s.UnmarshalBinary(b) != nil {
			return
		}
		stored, err := s.MarshalBinary()
		if err != nil {
			t.Fatalf("accepted %+v, which cannot be stored: %v", s, err)
		}
		if len(stored) > 264 {
			t.Fatalf("%d octets do not fit", len(stored))
		}
		if err := again.UnmarshalBinary(stored); err != nil {
			t.Fatal(err)
		}
		for _, running := range []Slot{A, B} {
			for _, written := range []Slot{A, B} {
				next, restart := s.Boot(running, written)
				if restart && next.Active == running {
					t.Errorf("%+v in %s: restarts into itself", s, running)
				}
			}
		}
	})
}
