package mesh

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
)

// A node that starts asks for the gateway, by a signed question to all, which carries
// its boot counter and how often its clock went back since. The other nodes hear it as
// well, and begin anew with that peer at once, whether there is a gateway or not. They
// would go on to send under a session that it has forgotten, for as long as WireGuard
// is patient, and refuse the handshakes that it begins itself while its clock is
// behind what it was before: it is saved hourly. That costs the mesh nothing, since
// the question is asked anyway.
//
// Nobody but the node can sign it, and nothing but a later life than the one that is
// known counts: a recording ends a session once for each life that was missed. Whoever
// claims lives as he likes ends sessions with himself, and has the others begin anew
// no more often than this.
const (
	lifeBurst = 4           // lives of one member that are believed at once, after quiet
	lifeEvery = time.Minute // between two of them, else

	// sessionEnds is when WireGuard drops a session: what is sent later begins another.
	sessionEnds = 3 * time.Minute

	// greetOctets is what a handshake takes of the mesh: three messages with all their
	// headers.
	greetOctets = 700
)

// greetSpread is the time in which the members of a network of that size greet one
// that has restarted, at the rate at which all fetch a list: 0.6 s for ten, 14 s for
// 250.
func greetSpread(members int) time.Duration {
	return time.Duration(members) * greetOctets * 8 * time.Second / listRate
}

// claims is how many lives each member may have, by identity. The zero value is ready.
type claims map[identity.PublicKey]allowance

// take tells whether another life of a member is believed.
func (c *claims) take(key identity.PublicKey, now time.Time) bool {
	maps.DeleteFunc(*c, func(_ identity.PublicKey, a allowance) bool { return !a.full.After(now) })
	if *c == nil {
		*c = claims{}
	}
	a := (*c)[key]
	ok := a.take(now, lifeEvery, lifeBurst)
	(*c)[key] = a
	return ok
}

// hearOther takes another node's question to the gateway. What is not believed now is
// in the gateway's list, or in the node's next question.
func (n *node) hearOther(q announce.Node) {
	key := identity.PublicKey(q.Key)
	n.mu.Lock()
	l, news := n.list.Reborn(key, q.Stamp.Boot, q.Steps)
	if news = news && n.lives.take(key, time.Now()); news {
		n.list = l
	}
	n.mu.Unlock()
	if news {
		n.Log.Debug("another node has restarted, or its clock went back", "peer", key.ID(), "peer_boot", q.Stamp.Boot)
		n.noteLife(key, q.Stamp.Boot)
		wake(n.meetNow)
		wake(n.overlayNow)
	}
}

// begun returns those of the peers whose life is another than when they were set last,
// and with which there is a session.
func (o *overlayOf) begun(peers []overlay.Peer) []overlay.Peer {
	peers = slices.DeleteFunc(slices.Clone(peers), func(p overlay.Peer) bool {
		life, known := o.lives[p.Node]
		return !known || life == p.Incarnation
	})
	if len(peers) == 0 {
		return nil
	}
	status, err := o.dev.Handshakes()
	if err != nil {
		return nil // what is sent to them begins a session
	}
	return slices.DeleteFunc(peers, func(p overlay.Peer) bool { return !inSession(status, p.Node) })
}

// inSession tells whether a peer has shaken hands so lately that there is a session.
func inSession(status []model.OverlayPeer, node string) bool {
	return shaken(status, time.Now(), sessionEnds)[node]
}

// greeting is a peer that is to be greeted, unless something else is sent to it first.
type greeting struct {
	node string
	addr netip.Addr
}

// greetLater has peers greeted. Each is once at most among those that wait.
func (n *node) greetLater(peers []overlay.Peer) {
	if len(peers) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range peers {
		if g := (greeting{p.Node, p.Allowed[0].Addr()}); !slices.Contains(n.greets, g) {
			n.greets = append(n.greets, g)
		}
	}
	wake(n.greetNow)
}

// keepGreeting shakes hands with peers that have begun anew while there was a session,
// one after the other and not when all others do: this end has ended what the peer may
// have taken up again by then, and would hear nothing of what that one sends.
func (n *node) keepGreeting(ctx context.Context) error {
	for {
		n.mu.Lock()
		waits, spread := len(n.greets) > 0, greetSpread(len(n.list.Peers))
		n.mu.Unlock()
		if !waits {
			select {
			case <-ctx.Done():
				return nil
			case <-n.greetNow:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rand.N(spread + 1)):
		}
		n.mu.Lock()
		g, dev := n.greets[0], n.wg
		n.greets = n.greets[1:]
		n.mu.Unlock()
		if dev == nil { // one that is opened anew has no session to end
			continue
		}
		if status, err := dev.Handshakes(); err != nil || !inSession(status, g.node) {
			greetPeers(g.addr)
		}
	}
}
