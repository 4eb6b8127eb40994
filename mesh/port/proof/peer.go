package proof

import (
	"time"

	"halo.internal/identity"
)

// peer is what is known of one address. Only frames made with the secret
// create one.
type peer struct {
	mac      MAC
	session  *session
	start    *start   // handshake that this side began
	answer   *answer  // handshake that the peer began
	began    [][]byte // the peer's latest Noise messages 1, to know them again
	heard    time.Time
	started  time.Time // last start
	asked    time.Time // last solicit
	refused  time.Time // ignored until then
	refusals bool      // told once; silent until it is admitted
}

func (e *Engine) advancePeer(now time.Time, p *peer) {
	if s := p.session; s != nil {
		switch {
		case now.Sub(s.heard) >= e.c.Timing.Lost:
			e.drop(p, ErrSilent)
		case !now.Before(s.nextAlive):
			// A peer that is late is asked, and more often: on a bad cable it is the
			// frames that die, not the device.
			late := now.Sub(s.heard) > e.c.Timing.Alive*5/4
			e.send(p.mac, s.alive(late))
			s.nextAlive = now.Add(jitter(e.c.Timing.Alive))
			if late {
				s.nextAlive = now.Add(jitter(e.c.Timing.Alive / 5))
			}
		}
	}
	if a := p.start; a != nil && !now.Before(a.next) {
		if a.tries++; a.tries > retransmits {
			p.start = nil
		} else {
			e.send(p.mac, a.frame)
			a.next = now.Add(e.c.Timing.Resend)
		}
	}
	if p.answer != nil && !now.Before(p.answer.expires) {
		p.answer = nil
	}
}

// known returns the peer of that address, made when there is room.
func (e *Engine) known(now time.Time, mac MAC) *peer {
	p := e.peers[mac]
	if p == nil {
		if len(e.peers) >= maxPeers {
			return nil
		}
		p = &peer{mac: mac}
		e.peers[mac] = p
	}
	p.heard = now
	return p
}

func (e *Engine) halfOpen() (n int) {
	for _, p := range e.peers {
		if p.start != nil {
			n++
		}
		if p.answer != nil {
			n++
		}
	}
	return n
}

func (e *Engine) admit(k identity.PublicKey) error {
	if k == e.public {
		return ErrOwnKey
	}
	if e.c.Admit == nil {
		return nil
	}
	return e.c.Admit(k)
}

func (e *Engine) refuse(now time.Time, p *peer, k identity.PublicKey, err error) {
	p.start, p.answer = nil, nil
	p.refused = now.Add(e.c.Timing.Hold)
	if p.session != nil && p.session.peer == k {
		e.drop(p, err)
	}
	if !p.refusals {
		p.refusals = true
		e.events = append(e.events, Event{Refused, p.mac, k, err})
	}
}

func (e *Engine) drop(p *peer, why error) {
	e.events = append(e.events, Event{Lost, p.mac, p.session.peer, why})
	p.session = nil
}
