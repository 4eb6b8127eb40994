package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"halo.internal/lab/admin"
	"halo.internal/lab/network"
	"halo.internal/model"
)

// doubleFor is how long two gateways are on the air.
const doubleFor = time.Minute

// changeLimit is how long a change of the mesh profile may take.
const changeLimit = 12 * time.Minute

// channelChange moves the mesh to another channel while a node is off. It comes by
// itself when it is on again.
func channelChange(ctx context.Context, w *World, r *Result) error {
	m := w.nodes()[len(w.nodes())-1]
	was, err := w.Admin.Channel(ctx)
	if err != nil {
		return err
	}
	to := 6
	if was.Channel == to {
		to = 1
	}
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	if err := m.PowerCut(); err != nil {
		return err
	}
	// One that is taken for there would be waited for.
	if err := w.eventually(ctx, m.Name()+" is missed", func() error {
		n, err := w.Admin.Node(ctx, m.Name())
		if err != nil {
			return err
		}
		return expect(!n.Online, "%s offline", m.Name())
	}); err != nil {
		return err
	}
	if err := w.Admin.MoveTo(ctx, to); err != nil {
		return err
	}
	if err := w.changed(ctx, fmt.Sprintf("the mesh is on channel %d", to), func(now admin.Channel) error {
		return expect(now.Channel == to, "channel %d, got %+v", to, now)
	}); err != nil {
		return err
	}
	r.note("from channel %d to %d after %.0f s", was.Channel, to, time.Since(o.began).Seconds())
	if err := w.Net.PowerOn(m); err != nil {
		return err
	}
	o.Over()
	o.Restarted, r.Since = []*network.Machine{m}, "the node is on again"
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	return w.everywhere(ctx, to)
}

// changed returns when a change of the mesh profile is over and check is content with
// what came of it. One that was taken back is not waited for.
func (w *World) changed(ctx context.Context, what string, check func(admin.Channel) error) error {
	phase, undone := "", error(nil)
	err := w.within(ctx, changeLimit, what, func() error {
		now, err := w.Admin.Channel(ctx)
		if err != nil {
			return err
		}
		began := phase != "" && phase != "idle"
		if now.Phase != phase {
			phase = now.Phase
			w.say("  the change is %s", phase)
		}
		err = errors.Join(expect(phase == "idle", "the change to be over, got %s", phase), check(now))
		if began && phase == "idle" {
			undone, err = err, nil
		}
		return err
	})
	return errors.Join(err, undone)
}

// everywhere checks that all members' radios are on a channel.
func (w *World) everywhere(ctx context.Context, channel int) error {
	for _, m := range w.Members {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		for _, radio := range s.Radios {
			if err := expect(radio.Channel == channel, "%s on channel %d, got %+v", m.Name(), channel, radio); err != nil {
				return err
			}
		}
	}
	return nil
}

// revokedLimit is within which what a revoked node had ends, wherever the list of members
// can reach.
const revokedLimit = 5 * time.Second

// revoked expels a node: its way to the API and the overlay ends at once, and then
// the mesh itself shuts it out, by another secret; the others notice nothing.
func revoked(ctx context.Context, w *World, r *Result) error {
	spares, err := w.needSpares(ctx, 1)
	if err != nil {
		return err
	}
	m := spares[0]
	n, err := w.Admin.Node(ctx, m.Name())
	if err != nil {
		return err
	}
	was, err := w.Admin.Channel(ctx)
	if err != nil {
		return err
	}
	its, _, err := w.status(ctx, m)
	if err != nil {
		return err
	}
	knows := func(s model.MeshStatus) bool {
		return slices.ContainsFunc(s.Overlay, func(p model.OverlayPeer) bool { return p.Node == n.ID })
	}
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	if err := w.Admin.Revoke(ctx, m.Name()); err != nil {
		return err
	}
	o.Over()
	for _, part := range []struct {
		what  string
		check func() error
	}{
		{"its stream to the API is down", func() error {
			n, err := w.Admin.Node(ctx, n.ID) // its name is free for another
			if err != nil {
				return err
			}
			return expect(n.Revoked && !n.Online, "%s revoked and offline, got %+v", m.Name(), n.Node)
		}},
		{"it is no peer of the overlay", func() error {
			for _, o := range w.Members {
				s, _, err := w.status(ctx, o)
				if err != nil {
					return err
				}
				if err := expect(!knows(s), "%s not to have it", o.Name()); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		after, err := ended(ctx, o.since, revokedLimit, part.what, part.check)
		if err != nil {
			return err
		}
		r.note("%s after %.1f s", part.what, after.Seconds())
	}
	if err := w.changed(ctx, "the mesh has another secret", func(now admin.Channel) error {
		return expect(now.Serial > was.Serial && !now.Secret, "a document after %d, and no other secret due, got %+v", was.Serial, now)
	}); err != nil {
		return err
	}
	r.note("the mesh has another secret after %.1f s", time.Since(o.since).Seconds())
	r.Since = "the revocation"
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	if err := w.eventually(ctx, "it is nobody's neighbour", func() error { return w.unheard(ctx, its.Radios) }); err != nil {
		return err
	}
	after, err := w.Admin.Node(ctx, n.ID)
	if err != nil {
		return err
	}
	w.added.spares = slices.DeleteFunc(w.added.spares, func(s *network.Machine) bool { return s == m })
	return errors.Join(expect(!after.Online, "%s offline still", m.Name()), m.PowerCut())
}

// unheard is nil when no member has one of those radios for a neighbour that is
// heard now.
func (w *World) unheard(ctx context.Context, radios []model.Radio) error {
	for _, m := range w.Members {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		for _, n := range s.Neighbours {
			its := slices.ContainsFunc(radios, func(r model.Radio) bool { return r.MAC == n.MAC })
			if its && n.LastSeenMS < neighbourHeard.Milliseconds() {
				return fmt.Errorf("expected %s not to hear %s, got %+v", m.Name(), n.MAC, n)
			}
		}
	}
	return nil
}
