package mesh

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/change"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

// Profile tells of the mesh profile, and how far a change of it is.
func (g *gateway) Profile() (model.MeshProfile, error) {
	p := g.profiles
	ids := g.nodes()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := profileStatus(p.m.On(), p.m.Force())
	state, latest := p.m.State(), p.m.Latest()
	s.Phase, s.Secret, s.Outcome = string(state.Phase), p.kept.Due, p.outcome
	if next := p.m.Next(); next != nil {
		t := parametersOf(next.Mesh)
		s.Target, s.Secret = &t, s.Secret || next.Mesh.PSK != p.m.Force().Mesh.PSK && p.m.Force().Serial != 0 || p.m.Force().Serial == 0 && next.Mesh.PSK != p.bundle.Mesh.PSK
	}
	progress := p.m.Nodes()
	for _, id := range ids {
		n := model.NodeProfile{Node: id, Awaited: slices.Contains(state.Expected, id)}
		if q, ok := progress[id]; ok {
			n.Prepared, n.Switched, n.Said = q.Held == latest.Serial, q.Using == latest.Serial, &q.At
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s, nil
}

// MeshSecret returns the profile in use with its secret, for new cards.
func (g *gateway) MeshSecret() (bundle.Mesh, error) {
	g.profiles.mu.Lock()
	defer g.profiles.mu.Unlock()
	return g.profiles.m.On(), nil
}

// PutProfile begins a change. One that asks for what is under way, or holds
// already, changes nothing.
func (g *gateway) PutProfile(c model.ProfileChange) error {
	p := g.profiles
	if p.standsDown() {
		return fmt.Errorf("%w: another gateway with this one's key serves, and this one has stood down: ask that one, or switch it off", api.ErrBusy)
	}
	ids := g.nodes()
	online, _ := p.online(ids, handshakeStale)
	p.mu.Lock()
	held, next, phase := p.m.On(), p.m.Next(), p.m.State().Phase
	p.mu.Unlock()
	target := apply(held, c)
	if err := errors.Join(target.Check(), target.CheckChosen()); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if phase != change.Idle {
		same := next != nil && parametersOf(next.Mesh) == parametersOf(apply(next.Mesh, c)) && (!c.RotateSecret || next.Mesh.PSK != held.PSK || phase == change.Settling)
		if same {
			return nil
		}
		return fmt.Errorf("%w: another change of the mesh profile is %s; wait until it is over (haloctl mesh profile show)", api.ErrBusy, phase)
	}
	if c.RotateSecret {
		target.PSK = rand.Text()
	}
	if target == held {
		return nil
	}
	if err := g.under.Permit(target); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if err := p.mayBegin(time.Now(), len(ids), len(online), c.Anyway); err != nil {
		return err
	}
	if !c.Anyway {
		if err := p.tryCard(); err != nil {
			return fmt.Errorf("%w: the gateway's card takes nothing, and after a power cut would not know of the change: give it a good one first, or change it anyway: %w", api.ErrBusy, err)
		}
	}
	p.mu.Lock()
	if p.m.State().Phase != change.Idle {
		p.mu.Unlock()
		return fmt.Errorf("%w: another change of the mesh profile has just begun", api.ErrBusy)
	}
	_, err := p.start(time.Now(), target, online, c.Anyway)
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrBusy, err)
	}
	p.act()
	return nil
}

// mayBegin says why a change that somebody asks for would leave behind nodes which
// may be there, or nothing. Who asks for it anyway is let to once they had their time,
// also where no overlay comes up by the profile that is to be changed.
func (p *gatewayProfile) mayBegin(now time.Time, members, online int, anyway bool) error {
	p.mu.Lock()
	known := p.reach.known(now, members, online)
	p.mu.Unlock()
	known = known || anyway && now.Sub(p.begun) >= p.reach.wait
	switch {
	case online >= members, online > 0 && anyway, known && (online > 0 || anyway):
		return nil
	case known:
		return fmt.Errorf("%w: none of %d nodes is reached: wait until some are, or change it anyway: they come back by themselves, later", api.ErrBusy, members)
	}
	return fmt.Errorf("%w: the gateway has just started, and reaches %d of %d nodes: wait until the others are there, %s at most", api.ErrBusy, online, members, p.reach.wait)
}

// apply returns the profile with what a change names.
func apply(m bundle.Mesh, c model.ProfileChange) bundle.Mesh {
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	number := func(to *int, from *int) {
		if from != nil {
			*to = *from
		}
	}
	set(&m.Routing, c.Routing)
	set(&m.MFP, c.MFP)
	set(&m.SAE, c.SAE)
	set(&m.HaLowScheme, c.HaLowScheme)
	number(&m.HopPenalty, c.HopPenalty)
	number(&m.Channel, c.Channel)
	number(&m.Width, c.Width)
	number(&m.BeaconInterval, c.BeaconInterval)
	number(&m.HaLowChannel, c.HaLowChannel)
	return m.WithDefaults()
}
