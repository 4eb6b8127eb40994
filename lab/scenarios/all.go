package scenarios

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"halo.internal/lab/network"
)

// Plan is which scenarios are run, and how.
type Plan struct {
	Config
	Scenarios []Scenario
	Repeat    int           // how often those that repeat; 0 is once
	Partition time.Duration // how long partitions last; 0 is 200 s
	Done      func(Result)  // told of each; may be nil
}

// Run runs the plan, each kind of network once, and returns how each scenario went.
// After one that failed, those that follow have a fresh network. An error means that
// there was none for them.
func (p Plan) Run(ctx context.Context) (results []Result, err error) {
	for _, mesh := range []network.Mesh{network.ByCable, network.ByAir} {
		if err := p.runOn(ctx, mesh, &results); err != nil {
			return results, err
		}
	}
	return results, nil
}

func (p Plan) runOn(ctx context.Context, mesh network.Mesh, results *[]Result) (err error) {
	var w *World
	end := func() error { return nil }
	defer func() { err = errors.Join(err, end()) }()
	for _, s := range p.Scenarios {
		if s.Mesh != mesh {
			continue
		}
		times := 1
		if s.Repeats {
			times = max(1, p.Repeat)
		}
		for range times {
			if w == nil {
				c := p.Config
				c.Mesh, c.Dir = mesh, filepath.Join(p.Dir, string(mesh))
				if err := os.RemoveAll(c.Dir); err != nil {
					return err
				}
				if err := os.MkdirAll(c.Dir, 0o700); err != nil {
					return err
				}
				opened, closing, err := Open(ctx, c)
				if err != nil {
					return err
				}
				w, end = opened, closing
				if p.Partition > 0 {
					w.Partition = p.Partition
				}
			}
			r := w.Run(ctx, s)
			*results = append(*results, r)
			if p.Done != nil {
				p.Done(r)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !r.OK {
				w.say("%s", w.Consoles())
				if err := end(); err != nil {
					return err
				}
				w, end = nil, func() error { return nil }
			}
		}
	}
	return nil
}
