package peering

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"halo.internal/model/dot11"
)

// Handle takes an Action frame that the interface heard, header included.
// Others, and those for others, are ignored.
func (e *Engine) Handle(now time.Time, frame []byte) {
	h, body, err := dot11.ParseManagement(frame)
	if err != nil || h.Subtype != dot11.Action || h.To != e.c.Own || h.From == e.c.Own {
		return
	}
	m, err := parse(body)
	switch {
	case errors.Is(err, errForeign):
		return
	case err != nil:
		e.stats.Malformed++
		return
	}
	p := e.peers[h.From]
	var s *security
	if p != nil {
		s = p.security(m.pmkid)
	}
	if s == nil {
		e.stats.UnknownKey++
		of := &e.riddle
		if p != nil { // strangers do not mute what a member says
			of = &p.riddle
		}
		if of.take(now) {
			e.events = append(e.events, Event{Kind: UnknownKey, Peer: h.From, PMKID: m.pmkid})
		}
		return
	}
	a, err := m.unseal(s.siv, e.c.Morse, h)
	if err != nil {
		e.stats.Unverified++
		e.tell(now, Event{Kind: Unverified, Peer: h.From, PMKID: m.pmkid, Err: fmt.Errorf("%v: %w", m.action, err)})
		return
	}
	switch m.action {
	case open:
		e.opened(now, p, s, m, &a)
	case confirm:
		e.confirmed(now, p, s, m, &a)
	case closing:
		e.closed(now, p, s, m, &a)
	}
}

// mismatch reports an authentic frame that fits no instance.
func (e *Engine) mismatch(now time.Time, p *peer, m *message, format string, args ...any) {
	e.stats.Mismatched++
	e.tell(now, Event{Kind: Mismatch, Peer: p.mac, PMKID: m.pmkid, Err: fmt.Errorf("%v: "+format, append([]any{m.action}, args...)...)})
}

// opened takes an authentic Open: OPN_ACPT of 14.4.
func (e *Engine) opened(now time.Time, p *peer, s *security, m *message, a *ampe) {
	defer a.group.wipe()
	if m.local == 0 {
		e.mismatch(now, p, m, "link ID is zero")
		return
	}
	for _, l := range []*link{p.link, p.next} {
		if l == nil || l.security != s || !l.heard || l.peer.nonce != a.sender {
			continue
		}
		if l.peer.link != m.local || a.receiver != (nonce{}) && a.receiver != l.own.nonce {
			e.mismatch(now, p, m, "of link %d, expected %d, or for another instance", m.local, l.peer.link)
			return
		}
		e.acceptOpen(now, p, l, m, a)
		return
	}
	if s.saw(a.sender) {
		e.stats.Replayed++
		for _, l := range []*link{p.held, p.refused} {
			if l != nil && l.security == s && l.peer.nonce == a.sender && p.answers.take(now) {
				e.sendClose(p, l) // the peer did not hear it
				break
			}
		}
		return
	}
	if l := p.link; l != nil && l.security == s && !l.heard && (a.receiver == nonce{} || a.receiver == l.own.nonce) {
		if e.admit(p) != nil {
			e.end(now, p, l, dot11.MeshMaxPeers, false)
			return
		}
		e.acceptOpen(now, p, l, m, a)
		return
	}
	if a.receiver != (nonce{}) {
		e.mismatch(now, p, m, "answers an instance that is over")
		return
	}
	if l := p.link; l != nil && l.state != Estab && p.age(s) > p.age(l.security) {
		// Both begin at once under different keys: the newer wins, or fails first.
		e.mismatch(now, p, m, "under an older key than the link that is being made")
		return
	}
	e.answer(now, p, s, m, a)
}

// answer begins an instance because the peer did.
func (e *Engine) answer(now time.Time, p *peer, s *security, m *message, a *ampe) {
	l, err := e.newLink(p, s)
	if err != nil || !e.agreed(now, p, l, m, a) {
		return
	}
	switch {
	case p.link == nil:
		if err := e.admit(p); err != nil {
			s.remember(a.sender)
			e.refuse(now, p, l, m, a, dot11.MeshMaxPeers, err)
			return
		}
		e.begin(p, l)
	case p.link.state == Estab:
		if p.next != nil {
			p.next.wipe()
		}
		p.next = l
	default:
		// The peer has begun anew in the middle of it: so does this side.
		if p.link.heard {
			e.mismatch(now, p, m, "link %d takes the place of %d", m.local, p.link.peer.link)
		}
		e.begin(p, l)
	}
	e.acceptOpen(now, p, l, m, a)
}

// refuse answers an Open by a Close, without an instance.
func (e *Engine) refuse(now time.Time, p *peer, l *link, m *message, a *ampe, reason dot11.Reason, err error) {
	l.peer.link, l.peer.nonce, l.reason = m.local, a.sender, reason
	p.refused = l
	e.sendClose(p, l)
	e.tell(now, Event{Kind: Failed, Peer: p.mac, PMKID: m.pmkid, Reason: reason, Err: err})
}

// acceptOpen goes on with the instance that an Open is of.
func (e *Engine) acceptOpen(now time.Time, p *peer, l *link, m *message, a *ampe) {
	if !e.agreed(now, p, l, m, a) {
		return
	}
	if l.state != Estab {
		if l.group != nil {
			l.group.wipe()
		}
		group := *a.group
		l.group, l.elements = &group, bytes.Clone(m.clear)
		l.protected, _ = agreeRSN(e.c.MFP, m.rsn)
	}
	l.security.remember(a.sender)
	l.heard, l.peer.nonce, l.peer.link = true, a.sender, m.local
	l.proven = l.proven || a.receiver == l.own.nonce
	switch l.state {
	case Listen:
		e.start(now, p, l, OpnRcvd)
	case OpnSnt:
		e.enter(p, l, OpnRcvd)
	case CnfRcvd:
		e.establish(now, p, l)
	case OpnRcvd, Estab:
		e.alive(now, l)
		if !p.answers.take(now) {
			return
		}
	}
	e.sendConfirm(p, l)
}

// agreed tells whether the peer's Open means the same mesh, and refuses it if not.
// Where AMPE does not authenticate what they disagree about, anybody may have put
// that into the frame: it is dropped, and if no better one comes, the end of the
// attempt tells why.
func (e *Engine) agreed(now time.Time, p *peer, l *link, m *message, a *ampe) bool {
	reason, err := e.agree(m, a)
	switch {
	case err == nil:
		return true
	case l.group != nil: // by an earlier Open of this instance
		e.mismatch(now, p, m, "%w; it was agreed on otherwise", err)
	case e.c.Morse:
		e.mismatch(now, p, m, "%w", err)
		l.objection, l.objected = err, reason
	default:
		l.security.remember(a.sender)
		e.refuse(now, p, l, m, a, reason, err)
		e.dropLink(now, p, l)
	}
	return false
}

// dropLink forgets an instance that was refused.
func (e *Engine) dropLink(now time.Time, p *peer, l *link) {
	l.wipe()
	switch l {
	case p.next:
		p.next = nil
	case p.link:
		p.link = nil
		e.report(p, p.state(), l.security)
		if p.wanted {
			p.failures++
			p.retry = now.Add(e.c.Timing.PauseMax)
		}
	}
}

// agree checks that both mean the same mesh.
func (e *Engine) agree(m *message, a *ampe) (dot11.Reason, error) {
	if !bytes.Equal(m.meshID, e.c.MeshID) {
		return dot11.MeshInconsistentParameters, fmt.Errorf("mesh ID: expected %q, got %q", e.c.MeshID, m.meshID)
	}
	if len(m.config) < len(configuration) || !bytes.Equal(m.config[:len(configuration)], configuration) {
		return dot11.MeshConfigPolicyViolation, fmt.Errorf("mesh configuration: expected %x, got %x", configuration, m.config)
	}
	protected, err := agreeRSN(e.c.MFP, m.rsn)
	if err != nil {
		return dot11.MeshInvalidSecurityCapacity, err
	}
	if protected && !a.group.HasIGTK {
		return dot11.MeshInvalidGTK, errors.New("the peer protects management frames and sends no IGTK")
	}
	return 0, nil
}

// confirmed takes an authentic Confirm: CNF_ACPT of 14.4.
func (e *Engine) confirmed(now time.Time, p *peer, s *security, m *message, a *ampe) {
	for _, l := range []*link{p.link, p.next} {
		if l == nil || l.security != s || l.own.nonce != a.receiver {
			continue
		}
		switch {
		case m.peer != l.own.link:
			e.mismatch(now, p, m, "for link %d, expected %d", m.peer, l.own.link)
			return
		case m.local == 0 || l.heard && (l.peer.nonce != a.sender || l.peer.link != m.local):
			e.mismatch(now, p, m, "of link %d, expected %d, or of another instance", m.local, l.peer.link)
			return
		}
		l.aid = m.aid
		switch l.state {
		case OpnSnt:
			if e.admit(p) != nil {
				e.end(now, p, l, dot11.MeshMaxPeers, false)
				return
			}
			l.heard, l.peer.nonce, l.peer.link = true, a.sender, m.local
			l.tries, l.wait = 0, e.c.Timing.Retry
			l.timer = now.Add(l.wait)
			e.enter(p, l, CnfRcvd)
		case OpnRcvd:
			e.establish(now, p, l)
		case Estab:
			e.alive(now, l)
		}
		return
	}
	e.mismatch(now, p, m, "for link %d, an instance that is over", m.peer)
}

// closed takes an authentic Close: CLS_ACPT of 14.4. The nonces decide which
// instance it ends. Link IDs that do not fit them are reported and no reason to
// go on with a peer that has closed.
func (e *Engine) closed(now time.Time, p *peer, s *security, m *message, a *ampe) {
	if l := p.held; l != nil && l.security == s && (l.own.nonce == a.receiver || l.heard && l.peer.nonce == a.sender) {
		e.release(p)
		return
	}
	for _, l := range []*link{p.link, p.next} {
		if l == nil || l.security != s {
			continue
		}
		forUs := a.receiver == l.own.nonce
		of := l.heard && l.peer.nonce == a.sender
		if !(forUs && (of || !l.heard)) && !(of && a.receiver == nonce{}) {
			continue
		}
		if m.peer != l.own.link && m.peer != 0 || l.heard && m.local != l.peer.link {
			e.mismatch(now, p, m, "of link %d for %d, expected %d for %d", m.local, m.peer, l.peer.link, l.own.link)
		}
		e.end(now, p, l, m.reason, true)
		return
	}
	e.mismatch(now, p, m, "of link %d for %d, an instance that is over", m.local, m.peer)
}
