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
const refreshEvery = local.FollowEvery

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
	var meshHealth, agentHealth *health.Report
	var both sync.WaitGroup // at a time: one that hangs must not hide what the other does
	both.Go(func() { d.Mesh, meshHealth = ask(ctx, v.graph, checkMesh, v.mesh.Status, v.mesh.Health) })
	both.Go(func() { d.Agent, agentHealth = ask(ctx, v.graph, checkAgent, v.agent.Status, v.agent.Health) })
	both.Wait()
	for _, h := range []*health.Report{meshHealth, agentHealth} {
		if h != nil {
			d.Health = append(d.Health, *h)
		}
	}
	d.State = judge(d.Mesh, meshHealth)
	d.Advice = advice[d.State]
	d.Health = append(d.Health, v.graph.Report())
	v.mu.Lock()
	defer v.mu.Unlock()
	v.diag = d
}

// ask asks a process how it is, and notes in the graph whether it answered both
// times. What it did not answer is nil.
func ask[S any](ctx context.Context, g *health.Graph, check string, status func(context.Context) (S, error), report func(context.Context) (health.Report, error)) (*S, *health.Report) {
	st, err := status(ctx)
	if err == nil {
		var h health.Report
		if h, err = report(ctx); err == nil {
			g.Set(check, health.OK, "")
			return &st, &h
		}
	}
	if ctx.Err() == nil {
		g.Set(check, health.Failed, err.Error())
	}
	return nil, nil
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
