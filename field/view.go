package field

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// Diag is the answer to GET /api/diag.
type Diag struct {
	Time   time.Time          `json:"time"`
	Build  version.Info       `json:"build"`
	State  State              `json:"state"`
	Advice string             `json:"advice"`
	Mesh   *model.MeshStatus  `json:"mesh,omitempty"`
	Agent  *model.AgentStatus `json:"agent,omitempty"`
	Boot   *model.BootReport  `json:"boot,omitempty"`
	Health []health.Report    `json:"health"` // of every process that answers
}

// refreshEvery is how often the other processes are asked, whoever looks: a
// crowd of browsers costs no more than one.
const refreshEvery = 2 * time.Second

// view follows the processes of this node.
type view struct {
	mesh  *local.Mesh
	agent *local.Agent
	boot  string // file of the boot report
	graph *health.Graph

	mu   sync.Mutex // guards what follows
	diag Diag
}

func (v *view) latest() Diag {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.diag
}

func (v *view) follow(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		v.refresh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (v *view) refresh(ctx context.Context) {
	d := Diag{Time: time.Now().UTC(), Build: version.Get(), Boot: readBoot(v.boot)}
	var meshHealth *health.Report
	if st, err := v.mesh.Status(ctx); err == nil {
		d.Mesh = &st
		v.graph.Set(checkMesh, health.OK, "")
		if h, err := v.mesh.Health(ctx); err == nil {
			meshHealth = &h
			d.Health = append(d.Health, h)
		}
	} else if ctx.Err() == nil {
		v.graph.Set(checkMesh, health.Failed, err.Error())
	}
	if st, err := v.agent.Status(ctx); err == nil {
		d.Agent = &st
		v.graph.Set(checkAgent, health.OK, "")
		if h, err := v.agent.Health(ctx); err == nil {
			d.Health = append(d.Health, h)
		}
	} else if ctx.Err() == nil {
		v.graph.Set(checkAgent, health.Failed, err.Error())
	}
	d.State = judge(d.Mesh, meshHealth)
	d.Advice = advice[d.State]
	d.Health = append(d.Health, v.graph.Report())
	v.mu.Lock()
	defer v.mu.Unlock()
	v.diag = d
}

func readBoot(file string) *model.BootReport {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil // not started by halo-init
	}
	var r model.BootReport
	if json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

func newView(root func(string) string, g *health.Graph) *view {
	return &view{
		mesh: local.NewMesh(root(paths.MeshSocket)), agent: local.NewAgent(root(paths.AgentSocket)),
		boot: root(paths.BootReport), graph: g,
	}
}
