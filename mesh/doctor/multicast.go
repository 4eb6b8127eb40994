package doctor

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"halo.internal/model/paths"
)

// reach tells how what this device sends to all arrives at one peer.
type reach int

const (
	reachUnknown  reach = iota // the peer did not say
	reaches                    // it does
	reachFiltered              // it arrives, and the peer's kernel drops it
	reachQuiet                 // it arrives only where somebody is known to listen: devices that do not say so hear nothing
	reachNot                   // nothing arrives
)

// String names it as the API does.
func (r reach) String() string {
	switch r {
	case reaches:
		return "yes"
	case reachFiltered:
		return "filtered"
	case reachQuiet, reachNot:
		return "no"
	}
	return ""
}

// judge says what came of probes to both groups, of which a peer has seen these.
func judge(seen [groups]uint8) reach {
	heard, flooded := seen[groupJoined] != 0, seen[groupFlood] != 0
	switch {
	case heard && flooded:
		return reaches
	case heard:
		return reachQuiet
	case flooded:
		return reachFiltered
	}
	return reachNot
}

// diagnosis says in words what is wrong, and whose it is.
func (r reach) diagnosis() string {
	switch r {
	case reachFiltered:
		return "what this device sends to all arrives at the peer, whose kernel does not pass it on: it has lost the group, or a rule there drops it"
	case reachQuiet:
		return "what this device sends to all reaches only those that are known to listen: devices behind the mesh that do not say so hear nothing"
	}
	return "nothing of what this device sends to all arrives at the peer"
}

// Bounds of one round of multicast. Each probe is flooded through the whole mesh.
const (
	mostProbes   = 4  // to each group
	mostPeers    = 16 // that are asked in a round; others have their turn in the next
	betweenProbe = 300 * time.Millisecond
)

// listener is a peer in a round.
type listener struct {
	peer  Peer
	armed bool
	seen  [groups]uint8
	told  bool // what it has seen was heard after the last probe
}

// complain tells peers that what was sent to all did not arrive there as it should.
func complain(ctx context.Context, w *wire, peers []Peer) {
	question := message{kind: kindWatch, id: randomID(), deaf: true}
	rand.Read(question.key[:])
	var all sync.WaitGroup
	defer all.Wait()
	for _, p := range peers[:min(len(peers), mostPeers)] {
		all.Go(func() { _, _, _ = w.ask(ctx, p.Overlay, question, firstWait) }) // what comes of it, the next round shows
	}
}

// reachAll sends to all and asks peers what has come.
func reachAll(ctx context.Context, w *wire, peers []Peer) (map[string]reach, error) {
	id := randomID()
	var key [keySize]byte
	rand.Read(key[:])
	list := make([]*listener, 0, len(peers))
	for _, p := range peers[:min(len(peers), mostPeers)] {
		list = append(list, &listener{peer: p})
	}
	question := message{kind: kindWatch, id: id, key: key}
	each := func(tries int, f func(l *listener, answer message)) {
		var all sync.WaitGroup
		defer all.Wait()
		for _, l := range list {
			all.Go(func() {
				for range tries {
					if answer, _, err := w.ask(ctx, l.peer.Overlay, question, firstWait); err == nil {
						f(l, answer)
						return
					}
				}
			})
		}
	}
	each(3, func(l *listener, _ message) { l.armed = true })
	for i := range mostProbes {
		for group, to := range map[uint8]netip.Addr{groupJoined: paths.DoctorGroup, groupFlood: paths.DoctorFlood} {
			m := message{kind: kindToAll, id: id, index: uint16(i), group: group}
			if err := w.probe(m.sealed(key), to); err != nil {
				return nil, fmt.Errorf("probe to all: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(betweenProbe):
		}
		missing, tries := false, 1
		if i+1 == mostProbes {
			tries = 3 // what counts is what they say after the last
		}
		for _, l := range list {
			l.told = false
		}
		each(tries, func(l *listener, answer message) { l.seen, l.told = answer.seen, true })
		for _, l := range list {
			missing = missing || l.armed && judge(l.seen) != reaches
		}
		if !missing {
			break
		}
	}
	out := map[string]reach{}
	for _, l := range list {
		if r := judge(l.seen); l.armed && (r == reaches || l.told) {
			out[l.peer.Node] = r
		}
	}
	return out, nil
}
