package scenarios

import (
	"context"
	"errors"
	"time"

	"halo.internal/lab/ether"
	"halo.internal/lab/network"
)

func nodeRestart(ctx context.Context, w *World, r *Result) error {
	return w.Restart(ctx, r, w.nodes()[0])
}

func gatewayRestart(ctx context.Context, w *World, r *Result) error {
	return w.Restart(ctx, r, w.gateway())
}

func allRestart(ctx context.Context, w *World, r *Result) error {
	return w.Restart(ctx, r, w.Members...)
}

// Restart presses the reset button of machines, all at once.
func (w *World) Restart(ctx context.Context, r *Result, machines ...*network.Machine) error {
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	for _, m := range machines {
		if err := m.Reset(ctx); err != nil {
			return err
		}
	}
	o.Over()
	o.Restarted, r.Since = machines, "the reset"
	return w.Recovered(ctx, o, r)
}

// lost is the share of frames that are, each way.
const lost = 0.3

func loss(ctx context.Context, w *World, r *Result) (err error) {
	each := func(c ether.Condition) (err error) {
		for i, a := range w.Members {
			for _, b := range w.Members[:i] {
				err = errors.Join(err, w.Net.SetLink(a.Name(), b.Name(), c))
			}
		}
		return err
	}
	if err := each(ether.Condition{Loss: lost}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, each(ether.Condition{})) }()
	return w.Restart(ctx, r, w.nodes()[0])
}

// Clocks that are wrong.
const (
	aYear      = 365 * 24 * time.Hour
	fiftyYears = 50 * aYear
)

func clockBack(ctx context.Context, w *World, r *Result) error {
	return w.clocks(ctx, r, -aYear, fiftyYears)
}

func clockAhead(ctx context.Context, w *World, r *Result) error {
	return w.clocks(ctx, r, fiftyYears, -aYear)
}

// clocks starts the gateway and a node with clocks that are so far ahead of the
// time: that goes neither back to before the build nor out of all sense, and the
// network comes back all the same. In the end the gateway starts with a clock that
// is right.
func (w *World) clocks(ctx context.Context, r *Result, gateway, node time.Duration) (err error) {
	g, n := w.gateway(), w.nodes()[0]
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	g.SetClock(true, gateway)
	n.SetClock(true, node)
	defer func() {
		g.SetClock(true, 0)
		n.SetClock(false, 0)
		if err == nil {
			err = errors.Join(g.Reset(ctx), w.answers(ctx, g))
		}
		if err == nil {
			err = w.ready(ctx)
		}
	}()
	if err := errors.Join(g.PowerCut(), n.PowerCut(), w.Net.PowerOn(g), w.Net.PowerOn(n)); err != nil {
		return err
	}
	o.Over()
	o.Restarted, r.Since = []*network.Machine{g, n}, "power is back"
	o.Guessed = true
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	info, err := w.Admin.System(ctx)
	if err != nil {
		return err
	}
	// The clock is saved hourly, and a power cut takes what was not.
	earliest, latest := info.Build.Built, time.Now().Add(time.Hour)
	sane := func(what string, t time.Time) error {
		return expect(!t.Before(earliest) && !t.After(latest), "%s between %s and %s, got %s", what, earliest, latest, t)
	}
	errs := []error{sane("the gateway's time", info.Time)}
	for _, m := range w.Members {
		list, err := w.Admin.Latest(ctx, m.Name(), "")
		errs = append(errs, err)
		for _, reading := range list {
			errs = append(errs, sane(reading.Metric+" of "+m.Name()+" stamped", reading.Time))
		}
	}
	r.note("the gateway's time is %s", info.Time.UTC().Format(time.DateTime))
	return errors.Join(errs...)
}
