package ingest

import (
	"net/netip"
	"sync"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// Connections that have not shown their key yet. An overlay address is a node's own, which
// WireGuard vouches for: it takes many captured ones to keep others out.
const (
	maxUnproven     = 128
	maxUnprovenEach = 3 // of one address: a node that comes again has not heard that the connection before is dead
)

// unproven counts them. The zero value is ready.
type unproven struct {
	mu   sync.Mutex // guards what follows
	of   map[netip.Addr]int
	many int
}

// enter counts a connection until leave is called, which may be once; false: there are too
// many.
func (u *unproven) enter(source netip.Addr) (leave func(), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.many >= maxUnproven || u.of[source] >= maxUnprovenEach {
		return nil, false
	}
	if u.of == nil {
		u.of = map[netip.Addr]int{}
	}
	u.many++
	u.of[source]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.many--
		if u.of[source]--; u.of[source] == 0 {
			delete(u.of, source)
		}
	}, true
}

// mayBeNode tells whether an address may be a node's at all: one of the overlay, or the
// loopback, from which the gateway's own agent comes. Nobody else gets as far as a
// challenge, wherever the API is open to him.
func (s *Server) mayBeNode(remote netip.Addr) bool {
	if remote.IsLoopback() {
		return true
	}
	if remote.Is4() {
		return paths.OverlayNet.Contains(remote) && !paths.OverlayVisitors.Contains(remote)
	}
	return s.overlay.Contains(remote)
}

// overlayOf is the IPv6 addresses of a network's nodes in the overlay.
func overlayOf(network identity.PublicKey) netip.Prefix {
	return netip.PrefixFrom(identity.Overlay(network, identity.PublicKey{}), 64).Masked()
}
