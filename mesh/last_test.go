package mesh

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/mesh/batman"
	"halo.internal/mesh/heal"
	"halo.internal/mesh/wireless"
	"halo.internal/model/paths"
)

// TestADriverThatHangsRestartsTheMachine: only without any link, ever more rarely over the
// restarts, which the card counts, and the next start tells of it.
func TestADriverThatHangsRestartsTheMachine(t *testing.T) {
	s := newSite(t, 0, 0)
	s.under.hangs, s.under.linked = time.Hour, true
	if err := os.MkdirAll(filepath.Join(s.root, paths.State), 0o700); err != nil {
		t.Fatal(err)
	}
	restarted := 0
	start := func() (c *core, until func(time.Duration) time.Duration) {
		_ = os.Remove(filepath.Join(s.root, "events")) // they are of one start
		c = s.core()
		c.id.BootCounter = uint64(1 + restarted)
		c.RestartHung = func(context.Context) error { restarted++; return nil }
		last := c.loadRestarts()
		now := time.Duration(0)
		return c, func(end time.Duration) time.Duration { // it restarts, or that long has passed
			for before := restarted; now < end && restarted == before; {
				now += lastLook
				c.lookLast(t.Context(), now, last)
			}
			return now
		}
	}
	told := func(c *core, kind string) (n int, reason string) {
		for _, e := range c.events.After(0, 0) {
			if e.Kind == kind {
				n, reason = n+1, e.Fields["reason"]+" "+e.Fields["count"]
			}
		}
		return n, reason
	}
	c, until := start()
	if until(24 * time.Hour); restarted != 0 {
		t.Fatal("restarted with a link")
	}
	s.under.linked = false
	for i, want := range []time.Duration{10 * time.Minute, 2 * time.Hour, 8 * time.Hour, 8 * time.Hour} {
		if i > 0 {
			c, until = start()
			if n, why := told(c, EventMachineRestarted); n != 1 || !strings.HasPrefix(why, "radio phy0 had not come back") {
				t.Errorf("start %d: told %d times of the restart: %s", i, n, why)
			}
			_ = c.loadRestarts() // as another process of this start does
			if n, _ := told(c, EventMachineRestarted); n != 1 {
				t.Errorf("start %d: told %d times of the restart", i, n)
			}
		} else {
			want += 24 * time.Hour
		}
		at := until(48 * time.Hour)
		if restarted != i+1 || at < want || at > want+time.Minute {
			t.Errorf("start %d: restarted after %s, want %s", i, at, want)
		}
		if n, _ := told(c, EventMachineRestarts); n != 1 {
			t.Errorf("start %d: told %d times that it restarts", i, n)
		}
	}
	// A day without a hang, and it is as at first.
	s.under.hangs = time.Second
	_, until = start()
	until(25 * time.Hour)
	s.under.hangs = time.Hour
	_, until = start()
	if at := until(48 * time.Hour); at > 11*time.Minute {
		t.Errorf("after a day without a hang: restarted after %s", at)
	}
	// What cannot be read was many.
	if err := os.WriteFile(filepath.Join(s.root, paths.State, paths.Restarts), []byte("00\n{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, until = start()
	if at := until(48 * time.Hour); at < 8*time.Hour {
		t.Errorf("with a damaged count: restarted after %s", at)
	}
}

// TestACardThatKeepsNothing does not make restarts a loop.
func TestACardThatKeepsNothing(t *testing.T) {
	s := newSite(t, 0, 0)
	s.under.hangs = time.Hour
	for range 3 {
		c := s.core()
		c.store.Hold(errors.New("the card is worn out"))
		var at time.Duration
		c.RestartHung = func(context.Context) error { at = 1; return nil }
		last := c.loadRestarts()
		now := time.Duration(0)
		for ; at == 0 && now < 48*time.Hour; now += lastLook {
			c.lookLast(t.Context(), now+lastLook, last)
		}
		if now < 8*time.Hour || now > 8*time.Hour+time.Minute {
			t.Errorf("restarted after %s", now)
		}
	}
}

// TestWhatDoesNotEnd is told, and no mesh interface works meanwhile.
func TestWhatDoesNotEnd(t *testing.T) {
	u := &batUnderlay{wireless: wireless.New(wireless.Config{})}
	bat, next := &batman.Mesh{}, &batman.Mesh{}
	u.set(nil, bat, nil, nil)
	if _, long := u.Hangs(); u.Ready() != nil || long != 0 {
		t.Errorf("at first: %v, %s", u.Ready(), long)
	}
	u.ending(bat)
	time.Sleep(time.Millisecond)
	if what, long := u.Hangs(); u.Ready() == nil || long == 0 || !strings.Contains(what, "the end of the mesh interface") {
		t.Errorf("while it does not end: %v, %s, %s", u.Ready(), what, long)
	}
	u.set(nil, next, nil, nil)
	u.ending(bat) // which has come late
	if _, long := u.Hangs(); u.Ready() != nil || long != 0 {
		t.Errorf("the next: %v, %s", u.Ready(), long)
	}
	if u.set(errors.New("stopped"), nil, nil, nil); u.Carries() {
		t.Error("without a mesh interface somebody is heard")
	}
}

func FuzzRestarts(f *testing.F) {
	f.Add(restarts{3, 7, "radio phy0"}.marshal())
	f.Add([]byte("00\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRestarts(b)
		if err != nil {
			return
		}
		if again, err := parseRestarts(r.marshal()); err != nil || again != r {
			t.Errorf("got %+v, %v, want %+v", again, err, r)
		}
		l := heal.Last{Count: r.Count}
		l.Step(time.Second, true, false)
		l.Step(time.Hour, true, false)
	})
}

// TestForceRestart writes what the kernel goes by, and says where it does not take it.
func TestForceRestart(t *testing.T) {
	dir := t.TempDir()
	if err := forceRestart(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"hung_task_timeout_secs": "300", "hung_task_panic": "1"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
	if err := forceRestart(filepath.Join(dir, "none")); err == nil {
		t.Error("a kernel without hung tasks")
	}
}
