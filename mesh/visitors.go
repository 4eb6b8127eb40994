package mesh

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// maxVisitors is how many addresses they have.
const maxVisitors = 254

// PutVisitors takes who besides members has a place in the overlay. They are kept in
// RAM alone: gateway-api says anew after each start, so that none comes back whose
// time has ended. One whose key a member has, or will have, is left out: whatever
// people register, a member's place is its own.
func (g *gateway) PutVisitors(list []model.Visitor) error {
	if len(list) > maxVisitors {
		return fmt.Errorf("%w: visitors: expected at most %d, got %d", api.ErrInvalid, maxVisitors, len(list))
	}
	seen := map[string]bool{}
	var checked []model.Visitor
	for i, v := range list {
		key, err := checkVisitor(v)
		if err != nil {
			return fmt.Errorf("%w: visitor %d, %.40q: %w", api.ErrInvalid, i, v.ID, err)
		}
		v.WireGuardKey = base64.StdEncoding.EncodeToString(key[:])
		for _, unique := range []string{v.ID, v.WireGuardKey, v.Overlay.String()} {
			if seen[unique] {
				return fmt.Errorf("%w: visitor %d, %s: has %q in common with another", api.ErrInvalid, i, v.ID, unique)
			}
			seen[unique] = true
		}
		checked = append(checked, v)
	}
	g.mu.Lock()
	changed := !slices.Equal(g.visitors, checked)
	g.visitors = checked
	g.mu.Unlock()
	if changed {
		wake(g.overlayNow)
	}
	var net netip.Prefix
	if len(checked) > 0 {
		net = paths.OverlayVisitors
	}
	return g.lan.SetVisitors(net)
}

func checkVisitor(v model.Visitor) (key [32]byte, err error) {
	raw, err := base64.StdEncoding.DecodeString(v.WireGuardKey)
	if err != nil || len(raw) != len(key) || [32]byte(raw) == [32]byte{} {
		return key, fmt.Errorf("wireguard_key: expected 32 octets in base64, got %d characters", len(v.WireGuardKey))
	}
	last := paths.OverlayVisitors.Addr().As4()
	last[3] = 255
	if !paths.OverlayVisitors.Contains(v.Overlay) || v.Overlay == paths.OverlayVisitors.Addr() || v.Overlay == netip.AddrFrom4(last) {
		return key, fmt.Errorf("overlay: expected an address of a host in %s, got %s", paths.OverlayVisitors, v.Overlay)
	}
	if v.ID == "" || len(v.ID) > peerlist.MaxName || len(v.Name) > peerlist.MaxName {
		return key, fmt.Errorf("id, name: expected at most %d octets, and an ID", peerlist.MaxName)
	}
	return [32]byte(raw), nil
}

// visiting are the visitors whose time has not ended as overlay peers; g.mu is held.
// Where they are, their own handshakes tell.
func (g *gateway) visiting(members []overlay.Peer) (peers []overlay.Peer) {
	now, _ := g.clock.Now()
	own, next := g.keys.public()
	for _, v := range g.visitors {
		key, err := checkVisitor(v)
		if err != nil {
			panic("mesh: visitor was not checked") // PutVisitors does
		}
		taken := string(key[:]) == string(own) || string(key[:]) == string(next) ||
			slices.ContainsFunc(members, func(p overlay.Peer) bool { return p.Key == key || p.Next == key })
		if taken || !now.Before(time.UnixMilli(v.ExpiresMS)) {
			continue
		}
		peers = append(peers, overlay.Peer{Node: v.ID, Key: key, Allowed: []netip.Prefix{netip.PrefixFrom(v.Overlay, 32)}})
	}
	return peers
}

// PutVisitors refuses.
func (n *node) PutVisitors([]model.Visitor) error { return api.ErrRole }
