package agent_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"halo.internal/agent"
	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// halo-mesh hangs, at first at the question that comes second in a round. How
// soon that is noticed is tested in package local.
func TestAHungHaloMeshIsNamed(t *testing.T) {
	root := t.TempDir()
	hang, release := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+local.RouteStatus, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(model.MeshStatus{Node: "n-x"})
	})
	mux.HandleFunc("GET "+local.RouteHealth, func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-hang:
			<-release
		default:
			_ = json.NewEncoder(w).Encode(health.Report{Name: "halo-mesh", State: health.OK})
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := local.Serve(ctx, filepath.Join(root, paths.MeshSocket), mux); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		if err := agent.Run(ctx, agent.Config{Root: root, Role: model.RoleNode, BootID: "b", Log: slog.New(slog.DiscardHandler)}); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	defer close(release)

	var r health.Report
	state := func() health.State {
		var err error
		if r, err = local.NewAgent(filepath.Join(root, paths.AgentSocket)).Health(t.Context()); err != nil {
			return ""
		}
		for _, c := range r.Checks {
			if c.Name == "halo-mesh" {
				return c.State
			}
		}
		return ""
	}
	waitFor(t, "halo-mesh is ok", func() bool { return state() == health.OK })
	close(hang)
	waitFor(t, "halo-mesh has failed", func() bool { return state() == health.Failed })
	if r.Missing != "halo-mesh" {
		t.Errorf("missing: %q: %s", r.Missing, r.Detail)
	}
}
