package mesh

import (
	"context"
	"errors"
	"sync"
	"time"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model/paths"
)

// agentStream is the check of halo-agent's own graph that tells of its stream to
// the gateway.
const agentStream = "gateway"

// agentView is what halo-agent said last.
type agentView struct {
	mu     sync.Mutex // guards what follows
	asked  bool
	state  health.State
	detail string
	acked  uint64 // batches that the gateway has settled
}

func (a *agentView) last() (asked bool, s health.State, detail string, acked uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked, a.state, a.detail, a.acked
}

// followAgent asks halo-agent how its stream is, until ctx ends: telemetry is the
// last link of the chain, and what the others are for.
func (m *core) followAgent(ctx context.Context) error {
	agent := local.NewAgent(m.path(paths.AgentSocket))
	for {
		state, detail, acked := askAgent(ctx, agent)
		if ctx.Err() != nil {
			return nil
		}
		m.agent.mu.Lock()
		changed := !m.agent.asked || m.agent.state != state || m.agent.acked != acked
		m.agent.asked, m.agent.state, m.agent.detail, m.agent.acked = true, state, detail, acked
		m.agent.mu.Unlock()
		if changed {
			wake(m.past.look)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.watchIn()):
		}
	}
}

// askAgent returns how the stream is. Without it the mesh works, and what is read
// is kept: never worse than degraded.
func askAgent(ctx context.Context, agent *local.Agent) (health.State, string, uint64) {
	r, err := agent.Health(ctx)
	if err != nil {
		return health.Degraded, err.Error(), 0
	}
	state, detail := health.Degraded, ""
	for _, c := range r.Checks {
		if c.Name == agentStream {
			if c.State == health.OK {
				state = health.OK
			}
			detail = c.Detail
		}
	}
	if state != health.OK && detail == "" {
		detail = "halo-agent has no stream to the gateway yet"
	}
	s, err := agent.Status(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		return health.Degraded, err.Error(), 0
	}
	return state, detail, s.Spool.Acked
}

func (m *core) watchTelemetry() {
	asked, state, detail, _ := m.agent.last()
	if asked {
		m.graph.Set(checkTelemetry, state, detail)
	}
}
