package mesh

import (
	"fmt"
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
)

// PutRevoked takes all nodes that were revoked. One that has had the present mesh
// secret makes another one due. Who is shut out is on the card before it is forgotten
// who has had the secret: between the two writes the power may go, and then all is
// taken again.
func (g *gateway) PutRevoked(ids []string) error {
	if len(ids) > maxHad {
		return fmt.Errorf("%w: revoked: expected at most %d, got %d", api.ErrInvalid, maxHad, len(ids))
	}
	for _, id := range ids {
		if !identity.ValidID(id) {
			return fmt.Errorf("%w: revoked: expected canonical IDs, got %.40q", api.ErrInvalid, id)
		}
	}
	fresh := g.profiles.had(ids)
	g.mu.Lock()
	was := g.known.Revoked
	still := slices.DeleteFunc(slices.Clone(was), func(id string) bool { return !slices.Contains(ids, id) || slices.Contains(fresh, id) })
	now := append(fresh, still...)
	g.known.Revoked = now[:min(len(now), peerlist.MaxRevoked)]
	changed := !slices.Equal(was, g.known.Revoked)
	if changed {
		g.signList()
	}
	shut := slices.Concat(g.known.out, now)
	g.mu.Unlock()
	if changed {
		wake(g.overlayNow) // it is out before the card has heard of it
		g.shutOut(shut)
		g.saveRegistry()
	}
	g.profiles.revoked(fresh)
	return nil
}

// had returns which of those nodes have had the present secret.
func (p *gatewayProfile) had(ids []string) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.kept.Had {
		if slices.Contains(ids, id) {
			list = append(list, id)
		}
	}
	return list
}

// revoked makes another secret due, which those nodes do not get, if there are any.
func (p *gatewayProfile) revoked(ids []string) {
	p.acting.Lock()
	p.mu.Lock()
	if len(ids) > 0 {
		p.kept.Had = slices.DeleteFunc(slices.Clone(p.kept.Had), func(id string) bool { return slices.Contains(ids, id) })
		p.kept.Due, p.kept.DueSerial, p.retry = true, 0, time.Time{}
		p.keep()
	}
	p.mu.Unlock()
	p.acting.Unlock()
	if len(ids) > 0 {
		p.events.Add("mesh.secret.due", model.Warning, "a node was revoked that has the mesh secret: another is drawn, and handed to all others")
	}
	wake(p.wake)
}
