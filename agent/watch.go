package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

const watchEvery = local.FollowEvery

// now is the wall clock, with the quality that halo-mesh gives it.
func (a *agent) now() (time.Time, model.ClockQuality) { return time.Now(), a.seen.quality() }

// every calls f at once and then again and again, until it says that it is
// done or ctx ends; only then it returns false.
func every(ctx context.Context, d time.Duration, f func() (done bool)) bool {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// watchMesh follows halo-mesh.
func (a *agent) watchMesh(ctx context.Context) error {
	there := true // so that its absence is logged
	every(ctx, watchEvery, func() bool {
		before, lookedAt := a.seen.around()
		st, err := a.status(ctx)
		var h health.Report
		if err == nil {
			if h, err = a.mesh.Health(ctx); err != nil && !errors.Is(err, local.ErrAbsent) {
				h, err = health.Report{State: health.Failed, Missing: checkMesh, Detail: err.Error()}, nil // it answers
			}
		}
		if ctx.Err() != nil {
			return false
		}
		if (err == nil) != there {
			there = err == nil
			if there {
				a.Log.Info("halo-mesh answers")
			} else {
				a.Log.Warn("halo-mesh is missing", "err", err)
			}
		}
		if err != nil {
			a.graph.Set(checkMesh, health.Failed, err.Error())
			return false
		}
		a.graph.Set(checkMesh, health.OK, "")
		a.seen.saw(st, h)
		// A brief status does not tell; and while there is a stream, the token would wait
		// for its end, and then have all nodes come back at the same instant.
		if whole, at := a.seen.around(); at != lookedAt && !a.reached.Load() && reach(whole) != reach(before) {
			select {
			case a.retry <- struct{}{}:
			default: // a token waits already
			}
		}
		return false
	})
	return nil
}

// When halo-mesh is asked for what it has to ask the kernel: for reports of what is
// around, every lookEvery, and lookSoonest after the last time where it says that
// something has changed.
const (
	lookEvery   = time.Minute
	lookSoonest = 30 * time.Second
)

// status asks halo-mesh for what is needed of it: while the gateway is not reached, that
// is what says that it can be, too.
func (a *agent) status(ctx context.Context) (model.MeshStatus, error) {
	around, at := a.seen.around()
	if !a.reached.Load() || time.Since(at) >= lookEvery {
		return a.whole(ctx)
	}
	s, err := a.mesh.Brief(ctx)
	if err == nil && s.Around != around.Around && time.Since(at) >= lookSoonest {
		return a.whole(ctx)
	}
	return s, err
}

// whole asks for all.
func (a *agent) whole(ctx context.Context) (model.MeshStatus, error) {
	s, err := a.mesh.Status(ctx)
	if err == nil {
		a.seen.looked(s)
	}
	return s, err
}

// clientsEvery is how often it is looked who is behind the node: what changes of it is
// sent with the whole status, on links that may be slow.
const clientsEvery = 2 * time.Minute

// maxClients of them go into a heartbeat.
const maxClients = 64

// watchClients follows who is behind the node. While halo-mesh does not answer, those
// that were there last are.
func (a *agent) watchClients(ctx context.Context) {
	for {
		wait := watchEvery // halo-mesh may not be there yet
		switch list, err := a.mesh.Clients(ctx); {
		case err == nil:
			a.seen.sawClients(list[:min(len(list), maxClients)])
			wait = clientsEvery
		case errors.Is(err, local.ErrNone):
			a.seen.sawClients(nil) // a device without a network
			wait = clientsEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// reach sums up what says that the gateway can be reached: when it changes, it
// is worth trying at once.
func reach(st model.MeshStatus) string {
	s := fmt.Sprint(st.Joined, st.OverlayV4)
	for _, p := range st.Overlay {
		if p.LastHandshake != nil {
			s += p.Node + p.LastHandshake.String()
		}
	}
	return s
}

// identify waits until halo-mesh has settled who the node is and which boot
// this is. It returns false when ctx ended first.
func (a *agent) identify(ctx context.Context) bool {
	return every(ctx, watchEvery/4, func() bool {
		id, err := a.readIdentity()
		if err != nil {
			a.graph.Set(checkIdentity, health.Starting, err.Error())
			return false
		}
		a.id = id
		a.graph.Set(checkIdentity, health.OK, "")
		return true
	})
}

// network waits until halo-mesh has said which network this is; a device
// without one has an empty key. It is remembered for the boot, so that a restart
// of this process does not need halo-mesh. It returns false when ctx ended first.
func (a *agent) network(ctx context.Context) (key string, ok bool) {
	memory := filepath.Join(a.path(paths.RunAgent), "network")
	ok = every(ctx, watchEvery/4, func() bool {
		st, err := a.mesh.Status(ctx)
		if err != nil {
			b, old := os.ReadFile(memory)
			if old != nil {
				a.graph.Set(checkIdentity, health.Starting, "which network this is: "+err.Error())
				return false
			}
			st.NetworkKey = string(b)
		}
		key = st.NetworkKey
		return true
	})
	if !ok {
		return "", false
	}
	err := os.MkdirAll(filepath.Dir(memory), 0o700)
	if err = errors.Join(err, os.WriteFile(memory, []byte(key), 0o600)); err != nil {
		a.log.Warn("the network is not remembered", "err", err)
	}
	a.graph.Set(checkIdentity, health.OK, "")
	return key, true
}

func (a *agent) readIdentity() (identity.State, error) {
	file := a.path(paths.RunIdentity)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return identity.State{}, fmt.Errorf("%s is not there yet: halo-mesh writes it", file)
	}
	if err != nil {
		return identity.State{}, err
	}
	id, err := identity.Unmarshal(b)
	if err != nil {
		return identity.State{}, fmt.Errorf("%s: %w", file, err)
	}
	if id.BootID != a.BootID {
		return identity.State{}, fmt.Errorf("%s: expected boot %s, got %s", file, a.BootID, id.BootID)
	}
	if id.BootCounter < 1 {
		return identity.State{}, fmt.Errorf("%s: expected a boot counter of 1 or more, got 0", file)
	}
	return id, nil
}

// forwardEvents takes over what halo-mesh has noted. It keeps where it was in
// /run, so that a restart of this process loses and repeats nothing.
func (a *agent) forwardEvents(ctx context.Context) {
	failed := false
	every(ctx, watchEvery, func() bool {
		boot, seq := a.spool.MeshEvents()
		events, err := a.mesh.Events(ctx, boot, seq)
		if err == nil && len(events) > 0 {
			err = a.spool.TakeEvents(events)
		}
		if ctx.Err() == nil && (err != nil) != failed {
			failed = err != nil
			if failed {
				a.log.Warn("events of halo-mesh do not come", "err", err)
			}
		}
		return false
	})
}

// tellConfig makes an event of settings that are wrong.
func (a *agent) tellConfig(wrong error) {
	if wrong == nil {
		return
	}
	err := a.spool.AddEvent("agent.config.invalid", model.Warning, "agent.toml is wrong, the defaults apply", map[string]string{"error": wrong.Error()})
	if err != nil {
		a.log.Warn("event is lost", "err", err)
	}
}
