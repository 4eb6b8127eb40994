package mesh

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/change"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// worn is the vault of a card that takes nothing while it is told to, beside a folder
// that takes nothing ever.
type worn struct {
	mu    sync.Mutex
	works bool
	value []byte
	tries int
}

var errWorn = errors.New("input/output error")

func (w *worn) Get(string) ([]byte, error) { return nil, fs.ErrNotExist }

func (w *worn) Put(name string, value []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name != paths.VaultProfile {
		return nil
	}
	w.tries++
	if !w.works {
		return errWorn
	}
	w.value = state.Unseal(value)
	return nil
}

func (w *worn) set(works bool) { w.mu.Lock(); defer w.mu.Unlock(); w.works = works }

// has returns what the card has.
func (w *worn) has(t *testing.T) keptProfile {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.value == nil {
		return keptProfile{}
	}
	k, err := parseKeptProfile(w.value)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// over returns a store on that card.
func (w *worn) over(t *testing.T) *state.Store {
	t.Helper()
	file := filepath.Join(t.TempDir(), "no folder")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return state.New(paths.Dir(filepath.Join(file, "state")), w)
}

func tellsOf(c *core, kind string) (n int) {
	for _, e := range c.events.After(0, 0) {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// TestANodeWhoseCardTakesNothing says for a while that it has nothing, goes where all go
// nevertheless, and has its card hear of it once that works.
func TestANodeWhoseCardTakesNothing(t *testing.T) {
	for name, ordered := range map[string]time.Duration{"ordered at once": time.Second, "ordered later": 2 * cardPatience} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 1, 0)
				c := s.core()
				c.id.Key, c.Role = s.nodes[0], model.RoleNode
				w := &worn{}
				c.store = w.over(t)
				n := &node{core: c}
				n.profiles = newNodeProfile(n, kept{})
				p := n.profiles
				x, err := s.document(3).Excerpt(s.nodes[0].Public())
				if err != nil {
					t.Fatal(err)
				}
				p.hear(announce.Gateway{Stamp: announce.Stamp{Epoch: 1}, Next: 3})
				if !p.take(x, false) {
					t.Fatal("the document was not taken")
				}
				began := time.Now()
				uses := func() bool { s.under.mu.Lock(); defer s.under.mu.Unlock(); return s.under.on == s.mesh(3) }
				until := func(d time.Duration) {
					for time.Since(began) < d {
						p.advance(time.Now())
						time.Sleep(time.Second / 4)
					}
				}
				until(ordered)
				if held, _ := p.said(); (held == 3) != (ordered > cardPatience) {
					t.Errorf("after %s it says that it has document %d", ordered, held)
				}
				p.order(announce.Order{Epoch: 1, Serial: 3, InMS: 1000})
				if until(ordered + 2*time.Second); !uses() {
					t.Error("it did not switch with the others")
				}
				p.hear(announce.Gateway{Stamp: announce.Stamp{Epoch: 1}, Profile: 3})
				until(3 * cardPatience)
				if held, using := p.said(); held != 3 || using != 3 {
					t.Errorf("it says that it has document %d, and uses %d, want 3", held, using)
				}
				if n := tellsOf(c, eventProfileUnkept); n != 1 {
					t.Errorf("it told %d times that its card takes nothing, want once", n)
				}
				until(time.Hour)
				if w.tries > 75 {
					t.Errorf("the card was tried %d times in an hour", w.tries)
				}
				w.set(true)
				if until(time.Hour + 2*cardLongest); len(w.has(t).Home) == 0 {
					t.Error("the card was not told once it works")
				}
			})
		})
	}
}

// TestAGatewayWhoseCardTakesNothing begins nothing that people ask for, unless they want
// it anyway, and rotates the secret after a revocation.
func TestAGatewayWhoseCardTakesNothing(t *testing.T) {
	change6 := model.ProfileChange{Channel: new(6)}
	begin := func(t *testing.T) (*site, *worn) {
		s, w := newSite(t, 1, 3), &worn{}
		s.g.store = w.over(t)
		s.g.profiles.reach.look(time.Now().Add(-deserted), true, 0)
		s.g.known.Peers = nil // nobody is awaited
		return s, w
	}
	leads := func(s *site) change.Phase {
		p := s.g.profiles
		for range 100 {
			if p.act(); p.m.State().Phase == change.Idle {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return p.m.State().Phase
	}
	t.Run("asked for", func(t *testing.T) {
		s, w := begin(t)
		err := s.g.PutProfile(change6)
		if !errors.Is(err, api.ErrBusy) || !errors.Is(err, errWorn) || !strings.Contains(err.Error(), "anyway") {
			t.Errorf("got %v", err)
		}
		if _, next, _ := s.g.profiles.announced(); next != 0 || s.g.profiles.m.Next() != nil {
			t.Error("it is announced")
		}
		w.set(true)
		if err := s.g.PutProfile(change6); err != nil {
			t.Errorf("with another card: %v", err)
		}
		if phase := leads(s); phase != change.Idle || s.under.on.Channel != 6 {
			t.Errorf("with another card: %s, channel %d", phase, s.under.on.Channel)
		}
	})
	t.Run("asked for anyway", func(t *testing.T) {
		s, _ := begin(t)
		c := change6
		c.Anyway = true
		if err := s.g.PutProfile(c); err != nil {
			t.Fatal(err)
		}
		if phase := leads(s); phase != change.Idle || s.under.on.Channel != 6 || tellsOf(s.g.core, eventProfileUnkept) != 1 {
			t.Errorf("%s, channel %d, told %d times", phase, s.under.on.Channel, tellsOf(s.g.core, eventProfileUnkept))
		}
	})
	t.Run("the card fails meanwhile", func(t *testing.T) {
		s, w := begin(t)
		w.set(true)
		if err := s.g.profiles.tryCard(); err != nil {
			t.Fatal(err)
		}
		p := s.g.profiles
		w.set(false)
		p.mu.Lock()
		target := p.m.On()
		target.Channel = 6
		_, err := p.start(time.Now(), target, nil, false)
		p.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if leads(s); s.under.on.Channel == 6 || p.m.On().Channel == 6 {
			t.Errorf("it went to channel %d by a document that its card does not have: %s", p.m.On().Channel, p.m.State().Phase)
		}
		if _, next, _ := p.announced(); next != 0 {
			t.Error("it is announced")
		}
	})
	for name, there := range map[string]bool{"the change fails": false, "the change fails, and one is called back": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, w := newSite(t, 3, 3), &worn{works: true}
				s.g.store = w.over(t)
				p := s.g.profiles
				nodes := s.g.nodes()
				p.mu.Lock()
				home, target := p.m.On(), p.m.On()
				target.Channel = 6
				d, err := p.start(time.Now(), target, nodes, false)
				for _, id := range nodes {
					p.m.Report(time.Now(), id, d.Serial, 0)
				}
				p.mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
				went := false
				for began := time.Now(); !went || p.m.State().Phase != change.Idle; time.Sleep(time.Second / 4) {
					if p.act(); p.m.On() == target {
						went = true
					}
					using, _, _ := p.announced()
					if dead := using == d.Serial; dead != (p.m.On() == target) {
						t.Fatalf("on channel %d it announces document %d, and that of channel 6 is %d", p.m.On().Channel, using, d.Serial)
					}
					if p.m.State().Phase == change.Recalled || !there {
						w.set(!went)
					}
					if there && went {
						p.mu.Lock()
						p.m.Report(time.Now(), nodes[0], p.m.Latest().Serial, d.Serial)
						p.mu.Unlock()
					}
					if time.Since(began) > time.Hour {
						t.Fatalf("it is %s for ever", p.m.State().Phase)
					}
				}
				if using, _, _ := p.announced(); p.m.On() != home || using != p.m.Force().Serial || p.card.fails.IsZero() {
					t.Errorf("on channel %d it announces document %d, want %d", p.m.On().Channel, using, p.m.Force().Serial)
				}
			})
		})
	}
	t.Run("a revocation", func(t *testing.T) {
		s, _ := begin(t)
		p := s.g.profiles
		before := p.m.On().PSK
		p.kept.Due = true
		p.keepUp()
		if phase := leads(s); phase != change.Idle || s.under.on.PSK == "" || s.under.on.PSK == before {
			t.Errorf("%s, and the secret is not another", phase)
		}
	})
}
