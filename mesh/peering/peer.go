package peering

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

// maxKnown is how many stations' keys are held.
const maxKnown = 256

// maxSecurities is how many PMKSAs of one peer are held, as in package sae.
const maxSecurities = 3

// peer is a station whose frames are taken.
type peer struct {
	mac        dot11.MAC
	aid        uint16
	securities []*security // newest first
	link       *link       // the one that stands, or is being made
	next       *link       // being made beside the one that stands; never without that
	held       *link       // closed, for the holding time
	refused    *link       // of an Open that was refused last
	told       State       // by the last event
	wanted     bool        // this side asked for the link, and tries again
	failures   int
	retry      time.Time // when the next attempt begins; zero: not planned
	riddle     budget    // events of unknown keys
	answers    budget    // frames that repeated ones are answered with
}

// security is a PMKSA: its keys, and the nonces that the peer has used.
type security struct {
	pmkid sae.PMKID
	pmk   sae.PMK
	aek   [sivKeySize]byte
	siv   siv
	seen  []nonce // of Opens; the oldest falls out
}

// maxSeen is how many instances under one PMKSA are known when they come again.
const maxSeen = 64

func (s *security) wipe() {
	clear(s.pmk[:])
	clear(s.aek[:])
	s.siv = siv{}
}

func (s *security) saw(n nonce) bool { return slices.Contains(s.seen, n) }

func (s *security) remember(n nonce) {
	if s.saw(n) {
		return
	}
	if len(s.seen) == maxSeen {
		s.seen = slices.Delete(s.seen, 0, 1)
	}
	s.seen = append(s.seen, n)
}

// Offer makes the engine take a peer's frames under a PMKSA, the newest it has.
// AID is what this station calls the peer, 1 to 2007. A link that stands stays
// as it is: the peer shows by an Open that it has begun anew.
func (e *Engine) Offer(now time.Time, mac dot11.MAC, aid uint16, id sae.PMKID, pmk sae.PMK) error {
	switch {
	case mac == e.c.Own || mac.Group():
		return fmt.Errorf("%s is no peer's address", mac)
	case aid == 0 || aid > 2007:
		return fmt.Errorf("association ID: expected 1 to 2007, got %d", aid)
	case pmk == sae.PMK{}:
		return ErrNoKey
	}
	p := e.peers[mac]
	if p == nil {
		if len(e.peers) >= maxKnown {
			return ErrFull
		}
		p = &peer{mac: mac, answers: budget{rate: 5, burst: 10, have: 10, at: now}, riddle: budget{rate: 1, burst: 5, have: 5, at: now}}
		e.peers[mac] = p
	}
	p.aid = aid
	if p.security(id) != nil {
		return nil
	}
	s := &security{pmkid: id, pmk: pmk, aek: deriveAEK(&pmk, e.c.Own, mac)}
	s.siv = newSIV(&s.aek)
	p.securities = append([]*security{s}, p.securities...)
	if len(p.securities) > maxSecurities {
		i := len(p.securities) - 1 // the oldest that no link is under; there are two links at most
		for p.link.under(p.securities[i]) || p.next.under(p.securities[i]) {
			i--
		}
		e.withdraw(p, i)
	}
	return nil
}

// Withdraw ceases to take frames under a PMKSA, and ends what is under it, and
// what was to take its place, without a word to the peer.
func (e *Engine) Withdraw(mac dot11.MAC, id sae.PMKID) {
	if p := e.peers[mac]; p != nil {
		if i := slices.IndexFunc(p.securities, func(s *security) bool { return s.pmkid == id }); i >= 0 {
			e.withdraw(p, i)
		}
	}
}

func (e *Engine) withdraw(p *peer, i int) {
	s := p.securities[i]
	for _, l := range []**link{&p.link, &p.next, &p.held, &p.refused} {
		if *l != nil && (*l).security == s {
			(*l).wipe()
			*l = nil
		}
	}
	if p.link == nil && p.next != nil {
		p.next.wipe()
		p.next = nil
	}
	e.report(p, p.state(), s)
	s.wipe()
	p.securities = slices.Delete(p.securities, i, i+1)
}

func (p *peer) security(id sae.PMKID) *security {
	for _, s := range p.securities {
		if s.pmkid == id {
			return s
		}
	}
	return nil
}

// age is 0 for the newest.
func (p *peer) age(s *security) int { return slices.Index(p.securities, s) }

// Connect makes a link under the newest PMKSA, and tries until it stands or
// Disconnect is called.
func (e *Engine) Connect(now time.Time, mac dot11.MAC) error {
	p := e.peers[mac]
	if p == nil || len(p.securities) == 0 {
		return ErrNoKey
	}
	if p.link != nil && p.link.state == Estab {
		return ErrLinked
	}
	p.wanted, p.retry = true, time.Time{}
	if p.link != nil && p.link.security == p.securities[0] {
		return nil // under way
	}
	return e.openLink(now, p)
}

// Disconnect closes the link and ends what Connect began. Keys stay: the peer
// may open another.
func (e *Engine) Disconnect(now time.Time, mac dot11.MAC, reason dot11.Reason) {
	p := e.peers[mac]
	if p == nil {
		return
	}
	p.wanted, p.failures, p.retry = false, 0, time.Time{}
	if p.next != nil {
		e.end(now, p, p.next, reason, false)
	}
	if p.link != nil {
		e.end(now, p, p.link, reason, false)
	}
}

// Forget removes all that is known of a peer, its keys included, without a
// word to it.
func (e *Engine) Forget(mac dot11.MAC) {
	p := e.peers[mac]
	if p == nil {
		return
	}
	for len(p.securities) > 0 {
		e.withdraw(p, 0)
	}
	delete(e.peers, mac)
}

// State returns where the link with a peer stands.
func (e *Engine) State(mac dot11.MAC) State {
	if p := e.peers[mac]; p != nil {
		return p.state()
	}
	return Listen
}

func (p *peer) state() State {
	switch {
	case p.link != nil:
		return p.link.state
	case p.held != nil:
		return Holding
	}
	return Listen
}

// Next returns when Advance is due; zero: not before something else happens.
func (e *Engine) Next() time.Time {
	var next time.Time
	for _, p := range e.peers {
		times := []time.Time{p.retry}
		for _, l := range []*link{p.link, p.next, p.held} {
			if l != nil {
				times = append(times, l.timer)
			}
		}
		for _, t := range times {
			if !t.IsZero() && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// Advance does what is due.
func (e *Engine) Advance(now time.Time) {
	reached := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	macs := make([]dot11.MAC, 0, len(e.peers))
	for mac := range e.peers {
		macs = append(macs, mac)
	}
	order.By(macs, func(a, b dot11.MAC) int { return bytes.Compare(a[:], b[:]) })
	for _, mac := range macs {
		p := e.peers[mac]
		if p.held != nil && reached(p.held.timer) {
			e.holding(now, p)
		}
		if p.next != nil && reached(p.next.timer) {
			e.expired(now, p, p.next)
		}
		if p.link != nil && reached(p.link.timer) { // it may have ended with the one beside it
			e.expired(now, p, p.link)
		}
		if reached(p.retry) {
			p.retry = time.Time{}
			if p.wanted && p.link == nil && len(p.securities) > 0 {
				if err := e.openLink(now, p); err != nil {
					p.retry = now.Add(e.c.Timing.PauseMax)
				}
			}
		}
	}
}
