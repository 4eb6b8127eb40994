package mesh

import (
	"net/http"
	"net/netip"

	"halo.internal/identity"
)

// serve adds what nodes fetch, on the overlay alone.
func (p *gatewayProfile) serve(mux *http.ServeMux) {
	answer := func(whole bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			key, ok := p.asker(r.RemoteAddr)
			if !ok {
				http.Error(w, "no member has this address", http.StatusForbidden)
				return
			}
			p.mu.Lock()
			d := p.m.Latest().Document
			p.mu.Unlock()
			if d.Serial == 0 {
				http.Error(w, "there is no profile document yet", http.StatusNotFound)
				return
			}
			if whole && !d.Whole() {
				http.Error(w, "this gateway has not the whole itself yet", http.StatusNotFound)
				return
			}
			if !whole {
				var err error
				if d, err = d.Excerpt(key); err != nil {
					http.Error(w, err.Error(), http.StatusNotFound)
					return
				}
			}
			w.Header().Set("Content-Type", "application/cbor")
			_, _ = w.Write(d.Marshal()) // the node asks again
		}
	}
	mux.HandleFunc("GET "+routeProfile, answer(false))
	mux.HandleFunc("GET "+routeProfileWhole, answer(true))
	mux.HandleFunc("POST "+routeProfileWhole, p.takeWhole)
}

// asker tells who has an overlay address: WireGuard lets nobody else have it.
func (p *gatewayProfile) asker(remote string) (identity.PublicKey, bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return identity.PublicKey{}, false
	}
	p.gateway.mu.Lock()
	defer p.gateway.mu.Unlock()
	for _, k := range p.known.Peers {
		if k.OverlayV4 == ap.Addr().Unmap() {
			key, err := identity.ParsePublicKey(k.IdentityKey)
			return key, err == nil
		}
	}
	return identity.PublicKey{}, false
}
