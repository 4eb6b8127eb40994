package mesh

import (
	"context"
	"slices"
	"strings"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
)

// Devices that have each other for peers, and no gateway, may have been left behind
// on a channel that the mesh is no longer on: those that were off when it moved meet
// again where it was, and none of them is alone. Nothing on their channel tells them
// where it went, so that one of them has to listen on others, which takes its radio
// away from its peers for moments. They do it in turn, by an order that all of them
// know without a word, so that a network whose gateway is merely off has one radio
// away at a time, and ever more rarely. Where it was heard is looked at in such a turn
// too, by who heard it: by one later, as a gateway that is merely off comes back.
const (
	scoutFirst = 3 * time.Minute  // without the gateway, until the first goes
	scoutTurn  = 2 * time.Minute  // between one and the next, the first time round
	scoutMost  = 16 * time.Minute // between them in the end; each round takes twice as long as the one before
	scoutPlace = 30 * time.Second // between two looks at who is there: routing's table is long

	scoutAgain = 10 * time.Second // until a radio that did not listen is asked again; doubles
	scoutScan  = 20 * time.Second // that listening takes at most, so that the next one's turn finds this radio back
)

// scout is a device's place among those that reach each other.
type scout struct{ rank, count int }

// turn tells whether it is this one's turn, of devices that have not heard the gateway
// for so long, and after how long of that its turn began and will end.
func (s scout) turn(silent time.Duration) (began, ends time.Duration, ours bool) {
	if silent < scoutFirst {
		return 0, 0, false
	}
	began, each := scoutFirst, scoutTurn
	for each < scoutMost && silent >= began+time.Duration(s.count)*each {
		began += time.Duration(s.count) * each
		each = min(2*each, scoutMost)
	}
	n := (silent - began) / each
	began += n * each
	return began, began + each, int(n)%s.count == s.rank
}

// scoutAmong returns the place of a device among the members that routing knows a way
// to, those of whose addresses of bat0 are there. It has none where the gateway's is
// there too: the mesh is here, whatever else is the matter. Where there is no telling
// who is there, it takes itself for the only one.
func scoutAmong(own, gateway identity.PublicKey, members []identity.PublicKey, there map[dot11.MAC]bool) (s scout, ok bool) {
	reached := func(key identity.PublicKey) bool {
		for turn := range uint8(batman.Turns) {
			if there[dot11.MAC(batman.MAC(key, turn))] {
				return true
			}
		}
		return false
	}
	if reached(gateway) {
		return s, false
	}
	ids := []string{own.ID()}
	for _, key := range members {
		if key != own && key != gateway && reached(key) {
			ids = append(ids, key.ID())
		}
	}
	slices.SortFunc(ids, strings.Compare)
	return scout{slices.Index(ids, own.ID()), len(ids)}, true
}

// scoutDue tells whether this node is to listen on other channels now, and until when
// it may. p.mu is held.
func (p *nodeProfile) scoutDue(now time.Time) (until time.Time, due bool) {
	silent := now.Sub(p.lost)
	if silent < scoutFirst || now.Sub(p.switched) < scoutFirst {
		return until, false // it is not known yet who is there
	}
	if now.Sub(p.placed) >= scoutPlace {
		p.placed = now
		p.place, p.hasPlace = p.findPlace()
	}
	if !p.hasPlace {
		return until, false
	}
	began, ends, ours := p.place.turn(silent)
	return p.lost.Add(ends), ours && p.scanned.Before(p.lost.Add(began))
}

// findPlace returns this node's place, if it has one. p.mu is held.
func (p *nodeProfile) findPlace() (scout, bool) {
	p.node.mu.Lock()
	members := make([]identity.PublicKey, len(p.list.Peers))
	for i, m := range p.list.Peers {
		members[i] = m.Key
	}
	p.node.mu.Unlock()
	return scoutAmong(p.id.Key.Public(), p.net, members, p.under.Present())
}

// listenElsewhere has each radio look for the mesh on other channels once, until then.
// It is away from its own for a moment at a time. One that does not, since somebody else
// has it scan, or its driver gives up, is asked again: this device's next turn is a long
// time away. That is over when the gateway is heard, or this device goes elsewhere.
func (p *nodeProfile) listenElsewhere(ctx context.Context, on bundle.Mesh, until time.Time) {
	began, wait := time.Now(), scoutAgain
	done := map[string]bool{}
	for !p.listenOnce(ctx, done) && !time.Now().Add(wait+scoutScan).After(until) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		p.mu.Lock()
		over := p.lost.After(began) || p.m.On() != on
		p.mu.Unlock()
		if over {
			return
		}
		wait *= 2
	}
}

// listenOnce has all radios listen that are not done, and tells whether all are then.
func (p *nodeProfile) listenOnce(ctx context.Context, done map[string]bool) (all bool) {
	all = true
	for _, r := range p.under.Radios() {
		if r.Iface == "" || done[r.Name] {
			continue
		}
		s, err := p.under.Scan(ctx, model.ScanRequest{Radio: r.Name})
		if err != nil {
			p.Log.Debug("not listened on other channels", "radio", r.Name, "err", err)
			all = false
			continue
		}
		done[r.Name] = true
		for _, n := range s.Networks {
			// Of HaLow, a channel of 5 GHz by itself says nothing.
			if n.Own && (len(n.S1G) > 0 || r.HaLow == "" && n.Channel != r.Channel) {
				p.Elsewhere(n)
			}
		}
	}
	return all
}
