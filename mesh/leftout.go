package mesh

import (
	"io"
	"net/http"
	"slices"

	"halo.internal/identity"
	"halo.internal/mesh/profile"
	"halo.internal/model"
)

// A gateway that runs from an old card does not know who was revoked since. Of the
// document of the mesh profile that nodes have it gets an excerpt at first, by which it
// comes to their profile, and signs nothing; then a node hands it the whole, which says
// who the members are: whoever was one by the card and is not counted there is none any
// more, and stays out whatever is signed then. Who is admitted later is a member, as is
// one of those whom an admin approves anew: for gateway-api, which learns of them by the
// status, they are revoked until then.

// eventLeftOut is that a node is a member no more by the document of another card.
const eventLeftOut = "mesh.member.left-out" // field peer

// readmitted forgets that those are out whom gateway-api has admitted anew: they were
// not among its peers before.
func (r *registry) readmitted(was []knownPeer) {
	r.out = slices.DeleteFunc(slices.Clone(r.out), func(id string) bool {
		is := func(p knownPeer) bool { return p.Node == id }
		return slices.ContainsFunc(r.Peers, is) && !slices.ContainsFunc(was, is)
	})
}

// out returns who is left out, and all who may prove nothing. p.gateway.mu is not held.
func (p *gatewayProfile) out() (out, shut []string) {
	p.gateway.mu.Lock()
	defer p.gateway.mu.Unlock()
	return slices.Clone(p.known.out), p.known.shut()
}

// doubt notes who was a member by the card when a document was adopted. p.mu is held.
func (p *gatewayProfile) doubt(ids []string) {
	for _, id := range ids {
		if len(p.kept.Doubted) < maxHad && !slices.Contains(p.kept.Doubted, id) {
			p.kept.Doubted = append(p.kept.Doubted, id)
		}
	}
	p.weigh()
}

// weigh leaves those out whom the adopted document does not count, once that is whole.
// Those who are out already may be members again by a later one. p.mu is held.
func (p *gatewayProfile) weigh() {
	force := p.m.Force()
	if !force.Whole() || len(p.kept.Doubted) == 0 {
		return
	}
	var fresh []string
	p.gateway.mu.Lock()
	was := p.known.out
	out := slices.Clone(was)
	for _, k := range p.known.Peers {
		key, err := identity.ParsePublicKey(k.IdentityKey)
		doubted, isOut := slices.Contains(p.kept.Doubted, k.Node), slices.Contains(was, k.Node)
		switch counts := err == nil && force.Has(key); {
		case counts && isOut:
			out = slices.DeleteFunc(out, func(id string) bool { return id == k.Node })
		case !counts && doubted && !isOut:
			out, fresh = append(out, k.Node), append(fresh, k.Node)
		}
	}
	p.known.out = out
	shut := p.known.shut()
	if !slices.Equal(was, out) {
		p.signList()
	}
	p.gateway.mu.Unlock()
	// They have not the present secret: to revoke them is no reason for another.
	p.kept.Had = slices.DeleteFunc(slices.Clone(p.kept.Had), func(id string) bool { return slices.Contains(out, id) })
	p.kept.Doubted = nil
	if slices.Equal(was, out) {
		return
	}
	p.shutOut(shut)
	wake(p.overlayNow)
	wake(p.serveNow)
	for _, id := range fresh {
		p.events.Add(eventLeftOut, model.Warning, "a node that is a member by this gateway's card is none by the mesh profile that another card of it has signed since: it is left out until an admin approves it anew", "peer", id)
	}
}

// leftOut returns who is left out and still a member for gateway-api. g.mu is held.
func (g *gateway) leftOut() (ids []string) {
	for _, p := range g.known.Peers {
		if slices.Contains(g.known.out, p.Node) {
			ids = append(ids, p.Node)
		}
	}
	return ids
}

// takeWhole takes the whole of an adopted document from a node that has it.
func (p *gatewayProfile) takeWhole(w http.ResponseWriter, r *http.Request) {
	if _, ok := p.asker(r.RemoteAddr); !ok {
		http.Error(w, "no member has this address", http.StatusForbidden)
		return
	}
	if _, _, lacks := p.announced(); lacks { // else somebody was faster
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, profile.MaxSize))
		if err == nil {
			var d profile.Document
			if d, err = profile.Parse(p.net, raw); err == nil {
				p.complete(d)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// complete takes the whole of the document that this gateway has adopted.
func (p *gatewayProfile) complete(d profile.Document) {
	p.mu.Lock()
	done := p.m.Complete(d)
	if done {
		p.weigh()
	}
	p.mu.Unlock()
	if done {
		p.Log.Info("a node has handed over the whole mesh profile", "members", d.Members)
		p.act()
	}
}
