package meshlink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
)

// A halo-mesh that has stood down works, and the network is not served: /health says
// so, and that two cards are in use.
func TestStandingDownIsDegraded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := health.New("gateway-api")
		g.Declare(CheckMesh)
		g.Declare(CheckOverlay, CheckMesh)
		mesh := &standing{}
		l := New(Config{
			Client: mesh, Clock: clock.New(time.Now, time.Time{}), Health: g, Missing: health.Failed, Every: local.FollowEvery,
			Peers:     func(context.Context) ([]model.AdmittedPeer, error) { return nil, nil },
			Announce:  func() model.Announce { return model.Announce{APIPort: 8443} },
			Operators: func(context.Context) (model.Operators, error) { return model.Operators{}, nil },
			Names:     func(context.Context) ([]model.BrainName, error) { return nil, nil },
			Revoked:   func(context.Context) ([]string, error) { return nil, nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for _, tc := range []struct {
			twin  *model.GatewayTwin
			aside bool
			want  health.State
		}{
			{nil, false, health.OK}, {&model.GatewayTwin{StandsDown: true, Epoch: 7}, true, health.Degraded},
			{&model.GatewayTwin{Epoch: 7}, false, health.OK}, {nil, false, health.OK},
		} {
			mesh.twin.Store(tc.twin)
			time.Sleep(2 * local.FollowEvery)
			synctest.Wait()
			if r := g.Report(); l.Aside() != tc.aside || r.State != tc.want || tc.aside && !strings.Contains(r.Detail, "switch one of the two off") {
				t.Errorf("%+v: stands down %v, health %s: %s", tc.twin, l.Aside(), r.State, r.Detail)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// standing is a halo-mesh that may have stood down.
type standing struct {
	hanging
	twin atomic.Pointer[model.GatewayTwin]
}

func (s *standing) Brief(context.Context) (model.MeshStatus, error) {
	return model.MeshStatus{OverlayV4: "10.42.0.1", Twin: s.twin.Load()}, nil
}

// hanging is a halo-mesh that stops to answer one question, as its client in
// package local reports it.
type hanging struct {
	at     atomic.Value
	offers []model.TimeOffer
}

// Questions.
const (
	asked  = "when asked"
	taught = "when told something"
)

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return fmt.Errorf("%w: it hangs", local.ErrAbsent)
	}
}

func (h *hanging) Brief(ctx context.Context) (model.MeshStatus, error) {
	if h.at.Load() == asked {
		return model.MeshStatus{}, wait(ctx, local.AnswerWait)
	}
	return model.MeshStatus{OverlayV4: "10.42.0.1"}, nil // announces nothing: it is told so each time
}

func (h *hanging) PutAnnounce(ctx context.Context, _ model.Announce) error {
	if h.at.Load() == taught {
		return wait(ctx, 10*time.Second)
	}
	return nil
}

func (*hanging) PutOperators(context.Context, model.Operators) error  { return nil }
func (*hanging) PutNames(context.Context, []model.BrainName) error    { return nil }
func (*hanging) PutPeers(context.Context, []model.AdmittedPeer) error { return nil }
func (*hanging) PutVisitors(context.Context, []model.Visitor) error   { return nil }
func (*hanging) PutRevoked(context.Context, []string) error           { return nil }
func (*hanging) PutClaimCode(context.Context, string) error           { return nil }
func (*hanging) DeleteClaimCode(context.Context) error                { return nil }

func (h *hanging) OfferTime(ctx context.Context, o model.TimeOffer) error {
	if h.at.Load() == taught {
		return wait(ctx, 10*time.Second)
	}
	h.offers = append(h.offers, o)
	return nil
}

// TestTheTimeOfALogin is handed on while halo-mesh knows none, and keeps nobody waiting.
func TestTheTimeOfALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mesh, c := &hanging{}, clock.New(time.Now, time.Time{})
		l := New(Config{Client: mesh, Clock: c})
		o := model.TimeOffer{Time: time.Now(), User: "anna", Remote: "10.42.0.9"}
		if err := l.OfferTime(t.Context(), o); err != nil || len(mesh.offers) != 1 || mesh.offers[0] != o {
			t.Errorf("got %+v, %v", mesh.offers, err)
		}
		mesh.at.Store(taught)
		began := time.Now()
		if err := l.OfferTime(t.Context(), o); err == nil || time.Since(began) != local.AnswerWait {
			t.Errorf("a halo-mesh that hangs: %v after %s", err, time.Since(began))
		}
		c.SetQuality(model.ClockLogin)
		if err := l.OfferTime(t.Context(), o); err != nil || len(mesh.offers) != 1 {
			t.Errorf("while it knows better: %+v, %v", mesh.offers, err)
		}
	})
}

func TestAHungHaloMeshIsNamedInTime(t *testing.T) {
	for _, question := range []string{asked, taught} {
		t.Run(question, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := health.New("gateway-api")
				g.Declare(CheckMesh)
				g.Declare(CheckOverlay, CheckMesh)
				mesh := &hanging{}
				l := New(Config{
					Client: mesh, Clock: clock.New(time.Now, time.Time{}), Health: g, Missing: health.Failed, Every: local.FollowEvery,
					Peers:     func(context.Context) ([]model.AdmittedPeer, error) { return nil, nil },
					Announce:  func() model.Announce { return model.Announce{APIPort: 8443} },
					Operators: func(context.Context) (model.Operators, error) { return model.Operators{}, nil },
					Names:     func(context.Context) ([]model.BrainName, error) { return nil, nil },
					Revoked:   func(context.Context) ([]string, error) { return nil, nil },
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- l.Run(ctx) }()
				synctest.Wait()
				if r := g.Report(); r.State != health.OK {
					t.Errorf("before: %s, missing %q: %s", r.State, r.Missing, r.Detail)
				}
				mesh.at.Store(question) // right after it has answered: the longest way to the next question
				time.Sleep(5 * time.Second)
				if r := g.Report(); r.State != health.Failed || r.Missing != CheckMesh {
					t.Errorf("5 s after halo-mesh hung: %s, missing %q", r.State, r.Missing)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// refusing is a halo-mesh that does not take the peers.
type refusing struct {
	hanging
	revoked []string
}

func (*refusing) PutPeers(context.Context, []model.AdmittedPeer) error {
	return fmt.Errorf("%w: peer 1: it is none", local.ErrInvalid)
}

func (r *refusing) PutRevoked(_ context.Context, ids []string) error {
	r.revoked = ids
	return nil
}

// TestWhoIsRevokedIsToldWhateverBecomesOfThePeers: what one node says of itself must
// not keep another, or itself, in the network.
func TestWhoIsRevokedIsToldWhateverBecomesOfThePeers(t *testing.T) {
	unread := errors.New("the database is busy")
	for name, peers := range map[string]func(context.Context) ([]model.AdmittedPeer, error){
		"they are refused":    func(context.Context) ([]model.AdmittedPeer, error) { return nil, nil },
		"they cannot be read": func(context.Context) ([]model.AdmittedPeer, error) { return nil, unread },
	} {
		t.Run(name, func(t *testing.T) {
			mesh := &refusing{}
			l := New(Config{
				Client: mesh, Peers: peers, Announce: func() model.Announce { return model.Announce{} },
				Operators: func(context.Context) (model.Operators, error) { return model.Operators{}, nil },
				Names:     func(context.Context) ([]model.BrainName, error) { return nil, nil },
				Revoked:   func(context.Context) ([]string, error) { return []string{"n-aaaaaaaaaaaaaaaaaaaa"}, nil },
			})
			var t0 told
			if err := l.tell(t.Context(), &t0, ""); err == nil || t0.peers {
				t.Errorf("got %v; that the peers were not taken has to be said, and tried again", err)
			}
			if len(mesh.revoked) != 1 {
				t.Errorf("halo-mesh heard of %d revoked nodes, want 1", len(mesh.revoked))
			}
		})
	}
}

// forgetful is a halo-mesh that keeps names in RAM.
type forgetful struct {
	hanging
	mu     sync.Mutex // guards what follows
	names  []model.BrainName
	named  bool
	told   int
	refuse bool
}

func (f *forgetful) set(c func(*forgetful)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c(f)
}

func (f *forgetful) Brief(context.Context) (model.MeshStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := model.Announce{APIPort: 8443}
	return model.MeshStatus{OverlayV4: "10.42.0.1", Announcing: &a, Named: f.named}, nil
}

func (f *forgetful) PutNames(_ context.Context, names []model.BrainName) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told++
	if f.refuse {
		return fmt.Errorf("%w: name 0", local.ErrInvalid)
	}
	f.names, f.named = names, true
	return nil
}

// TestNamesAreToldOnceAndAgain: when they have changed, when they were not taken, and
// when halo-mesh has restarted, however quickly.
func TestNamesAreToldOnceAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := health.New("gateway-api")
		g.Declare(CheckMesh)
		g.Declare(CheckOverlay, CheckMesh)
		mesh := &forgetful{}
		var names atomic.Pointer[[]model.BrainName]
		names.Store(&[]model.BrainName{})
		l := New(Config{
			Client: mesh, Clock: clock.New(time.Now, time.Time{}), Health: g, Missing: health.Failed, Every: local.FollowEvery,
			Peers:     func(context.Context) ([]model.AdmittedPeer, error) { return nil, nil },
			Announce:  func() model.Announce { return model.Announce{APIPort: 8443} },
			Operators: func(context.Context) (model.Operators, error) { return model.Operators{}, nil },
			Names:     func(context.Context) ([]model.BrainName, error) { return *names.Load(), nil },
			Revoked:   func(context.Context) ([]string, error) { return nil, nil },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		one := []model.BrainName{{Name: "brain-sensor-n01", Nodes: []string{"n-a"}}}
		for _, step := range []struct {
			what string
			do   func()
			told int // in three looks
			want int // names that halo-mesh has
			ok   bool
		}{
			{"none", func() {}, 1, 0, true},
			{"nothing new", func() {}, 0, 0, true},
			{"one", func() { names.Store(&one) }, 1, 1, true},
			{"a restart between two looks", func() { mesh.set(func(f *forgetful) { f.names, f.named = nil, false }) }, 1, 1, true},
			{"refused", func() {
				names.Store(&[]model.BrainName{{Name: "mast"}})
				mesh.set(func(f *forgetful) { f.refuse = true })
			}, 3, 1, false},
			{"taken after all", func() { mesh.set(func(f *forgetful) { f.refuse = false }) }, 1, 1, true},
			{"none any more", func() { names.Store(&[]model.BrainName{}) }, 1, 0, true},
		} {
			before := 0
			mesh.set(func(f *forgetful) { before = f.told })
			if step.what != "none" {
				step.do()
				time.Sleep(3 * local.FollowEvery)
			}
			synctest.Wait()
			mesh.set(func(f *forgetful) {
				if f.told-before != step.told || len(f.names) != step.want {
					t.Errorf("%s: told %d times, want %d; it has %v", step.what, f.told-before, step.told, f.names)
				}
			})
			if r := g.Report(); (r.State == health.OK) != step.ok {
				t.Errorf("%s: health %s: %s", step.what, r.State, r.Detail)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
