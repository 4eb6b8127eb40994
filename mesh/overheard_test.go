package mesh

import (
	"context"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"halo.internal/mesh/announce"
	"halo.internal/mesh/change"
	"halo.internal/mesh/peerlist"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// slowCard is a vault whose writes of the profile end when the test lets them.
type slowCard struct{ writing, end chan struct{} }

func (slowCard) Get(string) ([]byte, error) { return nil, fs.ErrNotExist }

func (c slowCard) Put(name string, _ []byte) error {
	if name == paths.VaultProfile {
		c.writing <- struct{}{}
		<-c.end
	}
	return nil
}

// during has something written to a slow card, and f done meanwhile; who waits for
// the card then waits for ever.
func (c slowCard) during(t *testing.T, write, f func()) {
	t.Helper()
	written, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(written); write() }()
	<-c.writing
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it waits for the card")
	}
	close(c.end)
	<-written
}

// TestWhatIsHeardWaitsForNoCard: a radio's loop hands over what was said past the
// mesh, and keeps its links by the same loop.
func TestWhatIsHeardWaitsForNoCard(t *testing.T) {
	s := newSite(t, 2, 3)
	card := slowCard{make(chan struct{}), make(chan struct{})}
	s.g.store = state.New(s.g.store.Dir(), card)
	s.g.overheard = make(chan overheard, maxOverheard)
	p := s.g.profiles
	node := s.nodes[0].Public()
	p.reach.look(time.Now().Add(-deserted), true, 0) // nobody is awaited
	p.kept.Due = true
	p.keepUp()
	before := p.said
	card.during(t, p.act, func() {
		for range 3 * maxOverheard { // more than wait are lost
			s.g.strange(Stranger{Iface: "eth9"}, []byte("whatever"))
		}
		if using, next, _ := p.announced(); [2]uint64{using, next} != before {
			t.Errorf("document %d is announced before it is on the card", next)
		}
		p.hear(announce.Node{Key: node[:], Held: 3}, true)
		if _, err := s.g.Profile(); err != nil {
			t.Error(err)
		}
	})
	if _, next, _ := p.announced(); next != p.m.Next().Serial {
		t.Errorf("document %d is announced, want %d", next, p.m.Next().Serial)
	}

	ctx, cancel := context.WithCancel(t.Context())
	heard := 0
	s.g.listenOverheard(ctx, func(from Stranger, payload []byte) {
		if heard++; from.Iface != "eth9" || string(payload) != "whatever" {
			t.Errorf("got %q from %+v", payload, from)
		}
		if heard == maxOverheard {
			cancel()
		}
	})
	if heard != maxOverheard {
		t.Errorf("%d were handed over, want the first %d", heard, maxOverheard)
	}
}

// TestANodeSaysWhatItsCardHas, and does not wait for the card to say it.
func TestANodeSaysWhatItsCardHas(t *testing.T) {
	s := newSite(t, 1, 0)
	c := s.core()
	c.id.Key, c.Role = s.nodes[0], model.RoleNode
	card := slowCard{make(chan struct{}), make(chan struct{})}
	c.store = state.New(paths.Dir(t.TempDir()), card)
	n := &node{core: c, list: peerlist.List{}}
	n.profiles = newNodeProfile(n, kept{})
	p := n.profiles
	x, err := s.document(3).Excerpt(s.nodes[0].Public())
	if err != nil {
		t.Fatal(err)
	}
	if !p.take(x, false) {
		t.Fatal("the document was not taken")
	}
	says := func(want [2]uint64) {
		t.Helper()
		if held, using := p.said(); [2]uint64{held, using} != want {
			t.Errorf("it says that it has document %d, and uses %d; want %v", held, using, want)
		}
	}
	says([2]uint64{0, 0})
	card.during(t, func() { p.advance(time.Now()) }, func() {
		says([2]uint64{0, 0})
		p.hear(announce.Gateway{Stamp: announce.Stamp{Epoch: 1}, Next: 3})
		p.strange(Stranger{}, []byte("whatever"))
		if got, err := n.Profile(); err != nil || got.Phase != string(change.Preparing) {
			t.Error(fmt.Errorf("got %+v, %w", got, err))
		}
	})
	says([2]uint64{3, 0})
	p.bar(3, fs.ErrInvalid)
	says([2]uint64{0, 0})
}
