package spool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/model/wire"
)

// boots of the items that a gateway would get, and the kinds of events.
func offered(t *testing.T, s *Spool) (boots map[uint64]int, events string) {
	t.Helper()
	boots = map[uint64]int{}
	for _, i := range drain(t, s) {
		boots[i.ID.Boot]++
		if i.Kind == Event {
			m, err := wire.Unmarshal(i.Data)
			if err != nil {
				t.Fatal(err)
			}
			events += m.(wire.EventMessage).Event.Kind + " "
		}
	}
	return boots, events
}

func TestAnotherNetworksReadingsStayBehind(t *testing.T) {
	valley, ridge := Owner{"valley-key", "n-one"}, Owner{"ridge-key", "n-one"}
	for _, tc := range []struct {
		name     string
		from, to Owner
		sent     bool
	}{
		{"the same", valley, valley, true},
		{"another network", valley, ridge, false},
		{"another identity", valley, Owner{"valley-key", "n-two"}, false},
		{"the first network", Owner{"", "n-one"}, valley, true},
		{"the bundle is lost", valley, Owner{"", "n-one"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBoard(t)
			b.owner = tc.from
			s := b.open()
			b.add(s, 3)
			if err := s.Flush(time.Now(), true); err != nil {
				t.Fatal(err)
			}
			b.powerCut()
			b.owner = tc.to
			s = b.open()
			b.add(s, 2)
			boots, events := offered(t, s)
			want := 0
			if tc.sent {
				want = 3
			}
			if boots[1] != want {
				t.Errorf("of what was read before: expected %d sent, got %d", want, boots[1])
			}
			if told := strings.Contains(events, "telemetry.spool.aside"); told == tc.sent {
				t.Errorf("told of what was set aside: %t; events %q", told, events)
			}
			// Back in the first network, what was set aside is sent.
			b.powerCut()
			b.owner = tc.from
			if boots, _ := offered(t, b.open()); boots[1] != 3-want {
				t.Errorf("back again: expected %d, got %d", 3-want, boots[1])
			}
		})
	}
}

// A release that knew no owners left the spool: it is taken over.
func TestSpoolWithoutOwnerIsTakenOver(t *testing.T) {
	b := newBoard(t)
	s := b.open()
	b.add(s, 3)
	if err := s.Flush(time.Now(), true); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(b.perm, "spool", ownerFile)); err != nil {
		t.Fatal(err)
	}
	b.powerCut()
	if boots, _ := offered(t, b.open()); boots[1] != 3 {
		t.Errorf("expected 3 sent, got %v", boots)
	}
}

// Only the latest is kept: a card that wanders from network to network must not
// fill up with what nobody will read.
func TestOneSpoolIsSetAside(t *testing.T) {
	b := newBoard(t)
	for _, network := range []string{"a", "b", "c", "d"} {
		b.owner = Owner{network, "n-one"}
		s := b.open()
		b.add(s, 1)
		if err := s.Flush(time.Now(), true); err != nil {
			t.Fatal(err)
		}
		b.powerCut()
	}
	if list, err := os.ReadDir(b.perm); err != nil || len(list) != 2 {
		t.Errorf("expected the spool and one that was set aside, got %v, %v", list, err)
	}
}
