package agent

import (
	"context"
	"sync"

	"halo.internal/agent/input"
	"halo.internal/agent/spool"
	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Unknown is a device whose halo-mesh never answers: what looks after its buses and its
// power.
type Unknown struct{ a *agent }

// NewUnknown makes one that is turned off by off.
func NewUnknown(c Config, off func(context.Context) error) (Unknown, error) {
	a := &agent{Config: c, settings: defaults(c.Role), graph: health.New("halo-agent"), mesh: local.NewMesh(c.path(paths.MeshSocket))}
	a.graph.Declare(checkIdentity)
	a.where = newWhereabouts(a)
	a.inputs = input.New(input.Config{Board: a.hardware.board, Log: c.Log, Event: a.news.add})
	if err := a.collectors(); err != nil {
		return Unknown{}, err
	}
	a.sensing()
	a.power.off = off
	return Unknown{a}, nil
}

// Run returns when ctx has ended; true: it has heard whose it is.
func (u Unknown) Run(ctx context.Context) (known bool) {
	var running sync.WaitGroup
	running.Go(func() { u.a.sense(ctx) })
	running.Go(func() { u.a.power.watch(ctx) })
	running.Go(func() { u.a.power.shutdowns(ctx) })
	_, known = u.a.whose(ctx)
	running.Wait()
	return known
}

// Power is how it is fed.
func (u Unknown) Power() model.PowerState { return u.a.power.state() }

// Tell hands over what there is to tell.
func (u Unknown) Tell(s *spool.Spool) error { return u.a.news.open(s) }
