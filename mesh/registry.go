package mesh

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/join"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// maxPeers bounds what gateway-api may hand over; a network has 250 nodes.
const maxPeers = 1024

// registry is what gateway-api has handed over, kept in peers.json so that the
// overlay returns before gateway-api does, and the latest incarnation of each
// node, so that no old announcement takes one back.
type registry struct {
	Announce *model.Announce `json:"announce,omitempty"`
	Peers    []knownPeer     `json:"peers"`
	// Operators is who may no longer come in at the doors.
	Operators model.Operators `json:"operators"`
	Revoked   []string        `json:"revoked,omitempty"` // canonical IDs
	// out is who is no member though gateway-api says so: an adopted profile document
	// does not count them. It is kept with that (keptProfile).
	out []string
}

type knownPeer struct {
	model.AdmittedPeer
	overlay.Incarnation
	Next string `json:"next,omitempty"` // overlay key that it will have, base64
	Was  string `json:"was,omitempty"`  // the one that it had before, while gateway-api has that on record
}

func (m *core) loadRegistry() registry {
	var r registry
	_, err := m.store.Get(paths.Peers, "", func(b []byte) error {
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		list := make([]model.AdmittedPeer, len(r.Peers))
		for i, p := range r.Peers {
			list[i] = p.AdmittedPeer
		}
		admitted, err := checkAdmitted(list, m.net)
		if err = errors.Join(peerlist.CheckOperators(r.Operators), err); err == nil {
			r.Peers = r.claims(admitted)
		}
		return err
	})
	if err == nil {
		return r
	}
	if !errors.Is(err, fs.ErrNotExist) {
		m.events.Add("overlay.peers-damaged", model.Warning, "kept list of peers is damaged, waiting for gateway-api's: "+err.Error())
	}
	return registry{}
}

// saveRegistry writes peers.json as things are by then. g.mu is not held: what is
// announced, answered and let in does not wait for the card.
func (g *gateway) saveRegistry() {
	g.saving.Lock()
	defer g.saving.Unlock()
	g.mu.Lock()
	g.lives.unsaved = time.Time{}
	b, err := json.MarshalIndent(g.known, "", "  ")
	g.mu.Unlock()
	if err != nil {
		panic("mesh: registry: " + err.Error()) // strings, numbers and addresses
	}
	if _, err := g.store.Keep(paths.Peers, "", append(b, '\n')); err != nil {
		g.Log.Warn("peers not kept yet", "err", err)
	}
}

// setPeers replaces the peers after checking each; incarnations stay with their
// nodes. The gateway's own entry is left out. It fails for what gateway-api says
// alone: what nodes have said of their keys gives way to that, or one of them could
// keep all others from being admitted and revoked.
//
// Once gateway-api has said the key that a node changed to, what it says next is
// later: also the former one again, with which a node joins whose card is an old one.
func (r *registry) setPeers(list []model.AdmittedPeer, network identity.PublicKey) error {
	admitted, err := checkAdmitted(list, network)
	if err != nil {
		return err
	}
	r.Peers = r.claims(admitted)
	for i, p := range admitted {
		if r.Peers[i].WireGuardKey == p.WireGuardKey {
			r.Peers[i].Was = ""
		}
	}
	return nil
}

// checkAdmitted returns the peers without the gateway, checked each and against each
// other.
func checkAdmitted(list []model.AdmittedPeer, network identity.PublicKey) ([]model.AdmittedPeer, error) {
	if len(list) > maxPeers {
		return nil, fmt.Errorf("peers: expected at most %d, got %d", maxPeers, len(list))
	}
	seen := map[string]string{} // by whom
	admitted := make([]model.AdmittedPeer, 0, len(list))
	for i, p := range list {
		if p.Node == network.ID() {
			continue
		}
		if err := checkPeer(&p, network); err != nil {
			return nil, fmt.Errorf("peer %d, %.40q: %w", i, p.Node, err)
		}
		uniques := []string{p.Node, p.WireGuardKey, p.OverlayV4.String()}
		if p.Clients.IsValid() {
			uniques = append(uniques, p.Clients.String())
		}
		for _, unique := range uniques {
			if other, dup := seen[unique]; dup {
				return nil, fmt.Errorf("peer %d, %s: has %q in common with %s", i, p.Node, unique, other)
			}
			seen[unique] = p.Node
		}
		admitted = append(admitted, p)
	}
	return admitted, nil
}

// checkPeer checks p and writes its WireGuard key in the one usual way, so that
// keys can be compared as texts.
func checkPeer(p *model.AdmittedPeer, network identity.PublicKey) error {
	key, err := identity.ParsePublicKey(p.IdentityKey)
	if err != nil {
		return fmt.Errorf("identity_key: %w", err)
	}
	if p.Node != key.ID() {
		return fmt.Errorf("node: expected %s, which follows from the key, got %q", key.ID(), p.Node)
	}
	raw, err := base64.StdEncoding.DecodeString(p.WireGuardKey)
	if err != nil || len(raw) != 32 {
		return fmt.Errorf("wireguard_key: expected 32 octets in base64, got %d characters", len(p.WireGuardKey))
	}
	p.WireGuardKey = base64.StdEncoding.EncodeToString(raw)
	if !p.OverlayV4.Is4() || !paths.OverlayNet.Contains(p.OverlayV4) || p.OverlayV4 == paths.OverlayGateway {
		return fmt.Errorf("overlay_v4: expected an address in %s other than the gateway's, got %s", paths.OverlayNet, p.OverlayV4)
	}
	if want := identity.Overlay(network, key); p.OverlayV6 != want {
		return fmt.Errorf("overlay_v6: expected %s, which follows from the key, got %s", want, p.OverlayV6)
	}
	if len(p.Name) > peerlist.MaxName {
		return fmt.Errorf("name: expected at most %d octets, got %d", peerlist.MaxName, len(p.Name))
	}
	if p.Clients.IsValid() {
		return join.CheckClients(p.Clients)
	}
	return nil
}

// clientNetworks returns what belongs to a node's clients: its IPv4 network, and
// the IPv6 one that follows from it.
func clientNetworks(network identity.PublicKey, v4 netip.Prefix) []netip.Prefix {
	if !v4.IsValid() {
		return nil
	}
	return []netip.Prefix{v4, identity.Clients(network, v4)}
}

// reborn records a node's incarnation and tells whether it is a later one.
func (r *registry) reborn(node string, now overlay.Incarnation) bool {
	for i := range r.Peers {
		p := &r.Peers[i]
		if p.Node == node && now.After(p.Incarnation) {
			p.Incarnation = now
			return true
		}
	}
	return false
}

// has tells whether a node is admitted.
func (r *registry) has(node string) bool {
	return slices.ContainsFunc(r.Peers, func(p knownPeer) bool { return p.Node == node })
}

// counts tells whether a node is a member: admitted, and not revoked meanwhile.
func (r *registry) counts(node string) bool {
	return r.has(node) && !slices.Contains(r.out, node) && !slices.Contains(r.Revoked, node)
}

// sameMembers tells whether both say the same of peers but their lives and keys.
func sameMembers(a, b []knownPeer) bool {
	return slices.EqualFunc(a, b, func(a, b knownPeer) bool {
		a.WireGuardKey = b.WireGuardKey
		return a.AdmittedPeer == b.AdmittedPeer
	})
}

// members returns the peers without those who were revoked meanwhile: that holds
// even if gateway-api could not say who is left.
func (r *registry) members() []knownPeer {
	shut := r.shut()
	return slices.DeleteFunc(slices.Clone(r.Peers), func(p knownPeer) bool { return slices.Contains(shut, p.Node) })
}

// shut returns who may prove nothing any more.
func (r *registry) shut() []string { return slices.Concat(r.out, r.Revoked) }

func (r *registry) overlayPeers(network identity.PublicKey) []overlay.Peer {
	out := make([]overlay.Peer, 0, len(r.Peers))
	for _, p := range r.members() {
		key, errKey := identity.ParsePublicKey(p.IdentityKey)
		wg, errWG := base64.StdEncoding.DecodeString(p.WireGuardKey)
		if errKey != nil || errWG != nil || len(wg) != 32 {
			panic("mesh: peer was not checked") // setPeers does
		}
		out = append(out, overlay.Peer{
			Node: p.Node, Key: [32]byte(wg), Next: keyOf(p.Next), Incarnation: p.Incarnation,
			Endpoint: netip.AddrPortFrom(identity.Underlay(network, key), paths.WireGuardPort),
			Allowed:  append([]netip.Prefix{netip.PrefixFrom(p.OverlayV4, 32), netip.PrefixFrom(p.OverlayV6, 128)}, clientNetworks(network, p.Clients)...),
		})
	}
	return out
}
