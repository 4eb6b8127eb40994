package secure

import (
	"time"

	"halo.internal/mesh/peering"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// collect passes on what either machine has to send and to say, and lets the
// one act on what the other said.
func (e *Engine) collect(now time.Time) {
	for {
		frames, saeEvents := e.sae.Take()
		e.frames = append(e.frames, frames...)
		for _, ev := range saeEvents {
			e.events = append(e.events, Event{SAE: &ev})
			e.authenticated(now, &ev)
		}
		frames, links := e.peering.Take()
		e.frames = append(e.frames, frames...)
		for _, ev := range links {
			e.events = append(e.events, Event{Peering: &ev})
			e.linked(now, &ev)
		}
		if len(saeEvents) == 0 && len(links) == 0 {
			return
		}
	}
}

// authenticated hands a new PMKSA to peering.
func (e *Engine) authenticated(now time.Time, ev *sae.Event) {
	if ev.Kind == sae.Expired && e.peering.State(ev.Peer) == peering.Listen {
		e.peering.Withdraw(ev.Peer, ev.PMKID) // nothing is under it
	}
	if ev.Kind != sae.Accepted {
		return
	}
	n, err := e.neighbor(ev.Peer)
	if err != nil {
		e.sae.Forget(ev.Peer)
		return
	}
	pmk, ok := e.sae.PMK(ev.Peer, ev.PMKID)
	if !ok {
		return
	}
	err = e.peering.Offer(now, ev.Peer, n.aid, ev.PMKID, pmk)
	clear(pmk[:])
	if err != nil {
		return
	}
	n.pending, n.failed = false, 0
	if n.wanted {
		// A link that stands stays: the peer that began anew opens another.
		if e.link(now, ev.Peer, n) != nil {
			n.relink = now.Add(againAfter)
		}
	}
}

// linked acts on what became of a link.
func (e *Engine) linked(now time.Time, ev *peering.Event) {
	n := e.neighbors[ev.Peer]
	if n == nil {
		return
	}
	switch ev.Kind {
	case peering.Established:
		n.failed = 0
		e.sae.Hold(ev.Peer, ev.PMKID)
	case peering.Closed:
		e.sae.Hold(ev.Peer, sae.PMKID{}) // none
		if n.wanted {
			n.relink = now.Add(relinkAfter)
		}
	case peering.Failed:
		if !n.wanted || e.peering.State(ev.Peer) == peering.Estab {
			return
		}
		if ev.Reason == dot11.MeshMaxPeers {
			return // it knows the key, and either side has peers enough
		}
		if n.failed++; n.failed >= doubts && !n.pending {
			if e.authenticate(now, ev.Peer, n) != nil {
				n.relink = now.Add(againAfter)
			}
		}
	case peering.UnknownKey:
		e.unknownKey(now, ev, n)
	}
}

// persistent is for how long a peer has to speak under an unknown PMKSA until a
// link that stands is doubted.
const persistent = time.Second

// unknownKey is a peer that speaks under a PMKSA that is not held: it accepted
// an exchange whose end this side did not hear, or somebody forges. SAE finds
// out. It hurts no link between stations of ours; wpa_supplicant gives its own
// up on the first Commit, so one frame alone is no reason there.
func (e *Engine) unknownKey(now time.Time, ev *peering.Event, n *neighbor) {
	stands := e.peering.State(ev.Peer) == peering.Estab
	if n.pending || !n.wanted && !stands {
		return
	}
	if n.unknown != ev.PMKID || now.Sub(n.heard) > againAfter {
		n.unknown, n.heard = ev.PMKID, now
	}
	if stands && now.Sub(n.heard) < persistent || !n.asked.IsZero() && now.Sub(n.asked) < againAfter {
		return
	}
	n.asked = now
	if e.authenticate(now, ev.Peer, n) != nil {
		n.relink = now.Add(againAfter)
	}
}
