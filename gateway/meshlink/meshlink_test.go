package meshlink

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
)

// hanging is a halo-mesh that stops to answer, as its client in package local
// reports it.
type hanging struct {
	status, announce bool
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return fmt.Errorf("%w: it hangs", local.ErrAbsent)
	}
}

func (h *hanging) Status(ctx context.Context) (model.MeshStatus, error) {
	if h.status {
		return model.MeshStatus{}, wait(ctx, local.AnswerWait)
	}
	return model.MeshStatus{OverlayV4: "10.42.0.1"}, nil // announces nothing: it is told so each time
}

func (h *hanging) PutAnnounce(ctx context.Context, _ model.Announce) error {
	if h.announce {
		return wait(ctx, 10*time.Second)
	}
	return nil
}

func (*hanging) PutPeers(context.Context, []model.AdmittedPeer) error { return nil }
func (*hanging) PutClaimCode(context.Context, string) error           { return nil }
func (*hanging) DeleteClaimCode(context.Context) error                { return nil }

func TestAHungHaloMeshIsNamedInTime(t *testing.T) {
	for name, hang := range map[string]hanging{"when asked": {status: true}, "when told something": {announce: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := health.New("gateway-api")
				g.Declare(CheckMesh)
				g.Declare(CheckOverlay, CheckMesh)
				mesh := &hanging{}
				l := New(Config{
					Client: mesh, Clock: clock.New(time.Now, time.Time{}), Health: g, Missing: health.Failed, Every: local.FollowEvery,
					Peers: func(context.Context) ([]model.AdmittedPeer, error) { return nil, nil },
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- l.Run(ctx) }()
				synctest.Wait()
				if r := g.Report(); r.State != health.OK {
					t.Errorf("before: %s, missing %q: %s", r.State, r.Missing, r.Detail)
				}
				*mesh = hang // right after it has answered: the longest way to the next question
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
