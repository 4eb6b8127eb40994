package gateway

import (
	"context"

	"halo.internal/gateway/commands"
	"halo.internal/gateway/events"
	"halo.internal/gateway/jobs"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/speedtest"
	"halo.internal/model/paths"
)

// work is what takes longer than a request, and who does it.
type work struct {
	jobs     *jobs.Engine
	commands *commands.Engine
	speed    *speedtest.Engine
}

// jobs opens the jobs and takes up what the last process left.
func (d *daemon) jobs(ctx context.Context, p *prepared, log *events.Log, nodes *registry.Registry) (work, error) {
	boot := p.identity.BootCounter
	if d.Alone {
		boot = 0 // a laptop's clock goes on while this process does not
	}
	w := work{commands: commands.New(commands.Config{Key: p.identity.Key, Epoch: p.epoch.Now, Boot: boot, Clock: d.clock, Events: log, Log: d.Log})}
	w.speed = speedtest.New(speedtest.Config{Commands: w.commands, Registry: nodes})
	var err error
	w.jobs, err = jobs.New(ctx, jobs.Config{
		DB: p.config, Clock: d.clock, Epoch: p.epoch.Now, Boot: boot, Files: d.State.File(paths.JobsDir), Log: d.Log,
		Kinds: append(w.commands.Kinds(), w.speed.Kind()),
	})
	if err != nil {
		return w, err
	}
	w.commands.Start(w.jobs)
	w.speed.Start(w.jobs)
	return w, nil
}
