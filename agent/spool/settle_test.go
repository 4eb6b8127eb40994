package spool

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// settle plays the gateway's word, and tells whether the stream is to begin anew.
func (b *board) settle(s *Spool, used uint64) bool {
	b.t.Helper()
	renamed, err := s.Settle(used)
	if err != nil {
		b.t.Fatal(err)
	}
	return renamed
}

// TestAStartThatIsCountedTwice: what was made in it before the gateway said so, in RAM, on
// disk and as events, has the other number, and so has what comes; nothing is lost, and
// what is of other starts stays as it is.
func TestAStartThatIsCountedTwice(t *testing.T) {
	b := newBoard(t)
	b.boot = 6
	s := b.open()
	b.add(s, 2)
	if err := s.Flush(time.Now(), true); err != nil {
		t.Fatal(err)
	}
	b.powerCut()
	s = b.open()
	b.add(s, 3)
	if err := s.Flush(time.Now(), true); err != nil {
		t.Fatal(err)
	}
	if err := s.AddEvent("agent.test", model.Info, "own", nil); err != nil {
		t.Fatal(err)
	}
	mesh := func(seq uint64) []model.Event {
		return []model.Event{{Boot: 7, Seq: seq, Kind: "node.started", Severity: model.Info, Time: time.UnixMilli(5).UTC()}}
	}
	if err := s.TakeEvents(mesh(1)); err != nil {
		t.Fatal(err)
	}
	b.add(s, 1)
	s.Backlog(Batch) // of an earlier stream

	if !b.settle(s, 8) || s.Boot() != 9 {
		t.Fatalf("it goes on as start %d, want 9", s.Boot())
	}
	b.add(s, 1)
	s = b.open() // the process starts anew
	if s.Boot() != 9 {
		t.Fatalf("after a start of the process it is start %d, want 9", s.Boot())
	}
	if b.settle(s, 8) {
		t.Error("it has another number once more")
	}
	if b.settle(s, 40) || s.Boot() != 9 {
		t.Error("it has another number when it has sent something already")
	}
	if boot, seq := s.MeshEvents(); boot != 7 || seq != 1 {
		t.Errorf("events of halo-mesh are taken up to %d.%d, want 7.1", boot, seq)
	}
	if err := s.TakeEvents(mesh(2)); err != nil {
		t.Fatal(err)
	}
	b.add(s, 1)
	want := batches(6, 1, 2) + " " + batches(9, 1, 3) + " " + batches(9, 4, 6) + fmt.Sprintf(" 3:9.1 3:9.2 3:9.%d 3:9.%d", model.AgentEvents+1, model.AgentEvents+2)
	got := drain(t, s)
	if a, b := strings.Fields(names(got)), strings.Fields(want); len(a) != len(b) {
		t.Errorf("got %q, want %q", a, b)
	}
	for _, name := range strings.Fields(want) {
		if !strings.Contains(" "+names(got)+" ", " "+name+" ") {
			t.Errorf("%s is missing in %s", name, names(got))
		}
	}
	for _, i := range got {
		if again, err := parseItem(i.Kind, i.Data); err != nil || again.ID != i.ID {
			t.Errorf("%v bears the name %v in itself: %v", i.ID, again.ID, err)
		}
	}

	// With a card that works the next start has nothing of all that.
	b.powerCut()
	if s = b.open(); s.Boot() != 8 {
		t.Errorf("the next start is %d, want 8", s.Boot())
	}
}

// TestSettledWhereTheGatewayHasNothing changes nothing.
func TestSettledWhereTheGatewayHasNothing(t *testing.T) {
	for name, used := range map[string]uint64{"a former start": 6, "none": 0, "more than there are": wire.MaxCounter} {
		b := newBoard(t)
		b.boot = 7
		s := b.open()
		b.add(s, 1)
		if b.settle(s, used) || s.Boot() != 7 {
			t.Errorf("%s: it is start %d, want 7", name, s.Boot())
		}
		if b.settle(s, 7) {
			t.Errorf("%s: its own readings have it take another number", name)
		}
		if got := names(drain(t, s)); got != batches(7, 1, 1) {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// TestKilledWhileItNames: whatever file a process that died has left, each item is there
// once, under the new name.
func TestKilledWhileItNames(t *testing.T) {
	for _, left := range []string{"the old file alone", "both files", "the new file alone"} {
		b := newBoard(t)
		b.boot = 7
		s := b.open()
		b.add(s, 3)
		old := map[string][]byte{}
		for _, i := range s.Items() {
			b, err := os.ReadFile(s.live.file(i.key()))
			if err != nil {
				t.Fatal(err)
			}
			old[s.live.file(i.key())] = b
		}
		if !b.settle(s, 7) {
			t.Fatal("it has no other number")
		}
		second := filepath.Join(s.live.dir, "batch-8.2")
		if left != "the new file alone" {
			name := filepath.Join(s.live.dir, "batch-7.2")
			if err := os.WriteFile(name, old[name], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if left == "the old file alone" {
			if err := os.Remove(second); err != nil {
				t.Fatal(err)
			}
		}
		s = b.open()
		b.add(s, 1)
		if b.settle(s, 7) {
			t.Errorf("%s: it has another number once more", left)
		}
		var got []Item
		for _, i := range drain(t, s) {
			if i.Kind == Batch {
				got = append(got, i)
			}
		}
		if names(got) != batches(8, 1, 4) {
			t.Errorf("%s: got %s, want %s", left, names(got), batches(8, 1, 4))
		}
	}
}
