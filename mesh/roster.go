package mesh

import (
	"time"

	"halo.internal/identity"
	"halo.internal/model"
)

// members returns the keys and IDs of all members, the gateway first among the keys,
// and the epoch; ok is false until gateway-api has said it.
func (g *gateway) members() (keys []identity.PublicKey, ids []string, epoch uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys = []identity.PublicKey{g.net}
	for _, p := range g.known.members() {
		if key, err := identity.ParsePublicKey(p.IdentityKey); err == nil { // setPeers has checked it
			keys, ids = append(keys, key), append(ids, p.Node)
		}
	}
	if g.known.Announce == nil {
		return keys, ids, 0, false
	}
	return keys, ids, g.known.Announce.Epoch, true
}

// told tells whether gateway-api has said who the members are.
func (g *gateway) told() bool {
	_, _, _, ok := g.members()
	return ok
}

// nodes returns the IDs of all members but the gateway.
func (g *gateway) nodes() []string {
	_, ids, _, _ := g.members()
	return ids
}

// sessionOver is when there is no session with a peer any more: WireGuard takes no
// packet of one that is older than 180 s (REJECT_AFTER_TIME), and makes another after
// 120.
const sessionOver = 200 * time.Second

// online returns which of those nodes have shaken hands with the overlay so lately, and
// whether that is up.
func (p *gatewayProfile) online(ids []string, within time.Duration) (list []string, up bool) {
	hands, up := p.hands()
	return lately(ids, hands, within), up
}

// hands returns the overlay's handshakes, and whether it is up.
func (p *gatewayProfile) hands() (list []model.OverlayPeer, up bool) {
	p.gateway.mu.Lock()
	wg := p.wg
	p.gateway.mu.Unlock()
	if wg == nil {
		return nil, false
	}
	list, _ = wg.Handshakes() // without them, nobody is there
	return list, true
}

// lately returns which of those nodes have shaken hands so lately.
func lately(ids []string, hands []model.OverlayPeer, within time.Duration) []string {
	there := shaken(hands, time.Now(), within)
	list := []string{}
	for _, id := range ids {
		if there[id] {
			list = append(list, id)
		}
	}
	return list
}
