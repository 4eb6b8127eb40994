package sae

import (
	"fmt"
	"slices"
	"time"

	"filippo.io/nistec"

	"halo.internal/model/dot11"
)

// A peer may make this side compute so many exchanges at once, and then per
// second, and all known ones together. A real one needs one, or two when it began
// anew; but others may forge Commits under its address, and it must not drown
// among them.
const (
	peerBurst = 20
	peerRate  = 20
	allRate   = 100
)

// peer is a station that is wanted, has a PMKSA, or is in an exchange.
type peer struct {
	mac      dot11.MAC
	wanted   bool
	pwe      *nistec.P256Point // derived once
	attempt  *attempt
	former   *attempt       // of the newest PMKSA, for as long as its values serve another
	sas      []*association // newest first
	failures int
	doubted  bool      // the last exchange failed by Confirms that did not verify
	retry    time.Time // when the next exchange begins, if wanted; zero: not planned
	work     budget
}

// maxAssociations of one peer: the newest, one before it, and the one whose link
// is up.
const maxAssociations = 3

// known tells that this side has its own reason to hear the peer. The number of
// those is bounded, so no token is asked of them.
func (p *peer) known() bool { return p.wanted || len(p.sas) > 0 }

// association is a PMKSA.
type association struct {
	own, peer values
	keys      keys
	since     time.Time
	linger    time.Time // until then repeated Confirms are answered; zero: no more
	received  uint16    // the peer's highest send-confirm
	replies   int
	held      bool // the link is under it
}

// State is where the exchange with a peer stands (12.4.8.3).
type State int

// States. A peer may be Accepted and in an exchange anew; it is Accepted then.
const (
	Nothing State = iota
	Committed
	Confirmed
	Authenticated
)

// String names the state as the standard does.
func (s State) String() string {
	return [...]string{"Nothing", "Committed", "Confirmed", "Accepted"}[s]
}

// State returns where the exchange with a peer stands.
func (e *Engine) State(mac dot11.MAC) State {
	switch p := e.peers[mac]; {
	case p == nil:
		return Nothing
	case len(p.sas) > 0:
		return Authenticated
	case p.attempt == nil:
		return Nothing
	case len(p.attempt.candidates) > 0:
		return Confirmed
	}
	return Committed
}

// Start begins an exchange with a station and repeats it, with back-off, until
// one succeeds or Stop is called. The error is ErrFull or one of randomness.
func (e *Engine) Start(now time.Time, mac dot11.MAC) error {
	if mac == e.c.Own || mac.Group() {
		return fmt.Errorf("%s is no peer's address", mac)
	}
	p := e.peers[mac]
	if p == nil || !p.known() {
		if e.count((*peer).known) >= e.c.Limits.Peers && !e.evict() {
			return ErrFull
		}
	}
	if p == nil {
		p = e.add(now, mac)
	}
	p.wanted = true
	p.retry = time.Time{}
	err := e.drive(now, p)
	if err != nil {
		p.retry = now.Add(e.c.Timing.RetryMax)
	}
	return err
}

// Stop ends what Start began. A PMKSA stays.
func (e *Engine) Stop(mac dot11.MAC) {
	p := e.peers[mac]
	if p == nil {
		return
	}
	p.wanted, p.failures, p.doubted, p.retry = false, 0, false, time.Time{}
	if p.attempt != nil && p.attempt.active {
		e.endAttempt(p)
	}
	e.tidy(p)
}

// Forget removes all that is known of a station, its keys included.
func (e *Engine) Forget(mac dot11.MAC) {
	if p := e.peers[mac]; p != nil {
		e.drop(p)
	}
}

// Discard removes one PMKSA, one that its owner has ceased to honour.
func (e *Engine) Discard(mac dot11.MAC, id PMKID) {
	p := e.peers[mac]
	if p == nil {
		return
	}
	for i, sa := range p.sas {
		if sa.keys.pmkid == id {
			sa.keys.wipe()
			p.sas = slices.Delete(p.sas, i, i+1)
			break
		}
	}
	e.tidy(p)
}

// Hold says that the link is under this PMKSA: however many come after it, as
// forged Commits may make happen, it stays until another is held.
func (e *Engine) Hold(mac dot11.MAC, id PMKID) {
	if p := e.peers[mac]; p != nil {
		for _, sa := range p.sas {
			sa.held = sa.keys.pmkid == id
		}
	}
}

// PMK returns the key of a PMKSA.
func (e *Engine) PMK(mac dot11.MAC, id PMKID) (PMK, bool) {
	if p := e.peers[mac]; p != nil {
		for _, sa := range p.sas {
			if sa.keys.pmkid == id {
				return sa.keys.pmk, true
			}
		}
	}
	return PMK{}, false
}

// Newest returns the PMKID of the newest PMKSA with a station.
func (e *Engine) Newest(mac dot11.MAC) (PMKID, bool) {
	if p := e.peers[mac]; p != nil && len(p.sas) > 0 {
		return p.sas[0].keys.pmkid, true
	}
	return PMKID{}, false
}

// keepFormer ends the exchange under way, one Commit of which was accepted. Until the time
// of its own values is over, they and the other Commits serve a peer that began anew before
// it heard an answer.
func (p *peer) keepFormer(accepted *candidate) {
	p.forgetFormer()
	a := p.attempt
	others := slices.DeleteFunc(a.candidates, func(c *candidate) bool { return c == accepted })
	accepted.keys.wipe()
	p.attempt, p.former = nil, &attempt{own: a.own, secrets: a.secrets, committed: a.committed, until: a.until, candidates: others}
	a.secrets.wipe()
}

func (p *peer) forgetFormer() {
	if p.former != nil {
		p.former.wipe()
		p.former = nil
	}
}

func (e *Engine) add(now time.Time, mac dot11.MAC) *peer {
	p := &peer{mac: mac, work: newBudget(peerRate, peerBurst, now)}
	e.peers[mac] = p
	return p
}

func (e *Engine) count(f func(*peer) bool) (n int) {
	for _, p := range e.peers {
		if f(p) {
			n++
		}
	}
	return n
}

// tidy removes a peer of which nothing is left.
func (e *Engine) tidy(p *peer) {
	if !p.known() && p.attempt == nil {
		e.drop(p)
	}
}

func (e *Engine) drop(p *peer) {
	e.endAttempt(p)
	p.forgetFormer()
	for _, sa := range p.sas {
		sa.keys.wipe()
	}
	p.sas = nil
	if p.pwe != nil {
		p.pwe.Set(nistec.NewP256Point())
	}
	delete(e.peers, p.mac)
}

// element returns the password element for a peer.
func (e *Engine) element(p *peer) (*nistec.P256Point, error) {
	if p.pwe != nil {
		return p.pwe, nil
	}
	var err error
	if e.c.Method == HashToElement {
		p.pwe, err = elementFor(e.pt, e.c.Own, p.mac)
	} else {
		p.pwe, err = hunt(e.c.Password, e.c.Own, p.mac)
	}
	return p.pwe, err
}

// accept makes a candidate the newest PMKSA.
func (e *Engine) accept(now time.Time, p *peer, c *candidate, counter uint16) {
	sa := &association{
		own: p.attempt.own, peer: c.values, keys: c.keys,
		since: now, linger: now.Add(e.c.Timing.Linger), received: counter,
	}
	ev := Event{Kind: Accepted, Peer: p.mac, PMKID: c.keys.pmkid, Active: p.attempt.active, Again: len(p.sas) > 0}
	p.keepFormer(c)
	if len(p.sas) == 0 && !p.wanted && e.count((*peer).known) >= e.c.Limits.Peers {
		e.evict()
	}
	p.sas = append([]*association{sa}, p.sas...)
	if i := len(p.sas) - 1; i >= maxAssociations {
		if p.sas[i].held {
			i--
		}
		e.expire(p, i)
	}
	p.wanted, p.failures, p.doubted, p.retry = false, 0, false, time.Time{}
	e.events = append(e.events, ev)
}

// expire wipes a PMKSA and tells so.
func (e *Engine) expire(p *peer, i int) {
	e.events = append(e.events, Event{Kind: Expired, Peer: p.mac, PMKID: p.sas[i].keys.pmkid})
	p.sas[i].keys.wipe()
	p.sas = slices.Delete(p.sas, i, i+1)
}

// evict removes the peer whose newest PMKSA is the oldest, of those without a
// link, to make room. It tells whether there was one.
func (e *Engine) evict() bool {
	var oldest *peer
	for _, p := range e.peers {
		held := slices.ContainsFunc(p.sas, func(sa *association) bool { return sa.held })
		if len(p.sas) > 0 && !p.wanted && !held && (oldest == nil || p.sas[0].since.Before(oldest.sas[0].since)) {
			oldest = p
		}
	}
	if oldest == nil {
		return false
	}
	for len(oldest.sas) > 0 {
		e.expire(oldest, 0)
	}
	e.drop(oldest)
	return true
}
