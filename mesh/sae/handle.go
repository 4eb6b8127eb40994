package sae

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"slices"
	"time"

	"halo.internal/model/dot11"
)

// Handle takes an Authentication frame that the interface heard, header
// included. Others, and those for others, are ignored.
func (e *Engine) Handle(now time.Time, frame []byte) {
	h, body, err := dot11.ParseManagement(frame)
	if err != nil || h.Subtype != dot11.Authentication || h.To != e.c.Own {
		return
	}
	if h.From == e.c.Own {
		e.stats.Reflected++
		return
	}
	f, err := parse(body)
	var group groupError
	switch {
	case errors.Is(err, errForeign):
		return
	case errors.As(err, &group):
		e.stats.OtherGroup++
		e.refuse(now, h.From, demand{status: dot11.UnsupportedGroup, group: group.group})
		return
	case err != nil:
		e.stats.Malformed++
		return
	}
	switch f := f.(type) {
	case commitFrame:
		e.committed(now, h.From, &f)
	case demand:
		e.demanded(now, h.From, f)
	case confirmFrame:
		e.confirmed(now, h.From, f)
	case refusal:
		e.hint(h.From, ErrRefused)
	}
}

// refuse sends a Commit with a status and no values, within the budget.
func (e *Engine) refuse(now time.Time, to dot11.MAC, d demand) {
	if e.refusals.take(now) {
		e.send(to, d.appendFor(e.c.Method))
	}
}

// committed takes a Commit: Com of 12.4.8.6.
func (e *Engine) committed(now time.Time, from dot11.MAC, f *commitFrame) {
	if f.method != e.c.Method {
		e.stats.OtherMethod++
		e.hint(from, ErrMethod)
		return
	}
	p := e.peers[from]
	if p != nil && e.seen(now, p, &f.values) {
		return
	}
	if !bytes.Equal(f.identifier, e.c.Identifier) {
		e.hint(from, ErrIdentifier)
		e.refuse(now, from, demand{status: dot11.UnknownPasswordIdentifier, group: Group})
		return
	}
	if err := f.values.check(); err != nil {
		e.stats.Malformed++
		return
	}
	if (p == nil || !p.known()) && !e.admit(now, from, p, f) {
		return
	}
	if p == nil {
		p = e.add(now, from)
	}
	if !p.work.take(now) || p.known() && !e.familiar.take(now) {
		e.stats.OverCapacity++
		e.tidy(p)
		return
	}
	if p.attempt == nil {
		if err := e.begin(now, p, false); err != nil {
			return
		}
	}
	e.addCandidate(now, p, f)
}

// seen handles values that are not new: our own, those of a PMKSA, or those of
// the exchange under way, which is a peer that did not hear our answer.
func (e *Engine) seen(now time.Time, p *peer, v *values) bool {
	for _, sa := range p.sas {
		if v.scalar == sa.own.scalar || v.element == sa.own.element {
			e.stats.Reflected++
			return true
		}
		if v.scalar == sa.peer.scalar || v.element == sa.peer.element {
			e.stats.Replayed++
			return true
		}
	}
	if p.former.serves(now) && p.former.has(v) {
		e.stats.Replayed++ // the peer has confirmed another since
		return true
	}
	a := p.attempt
	if a == nil {
		return false
	}
	if v.scalar == a.own.scalar || v.element == a.own.element {
		e.stats.Reflected++
		return true
	}
	for _, c := range a.candidates {
		if c.values == *v {
			if !a.said && !now.Before(a.committed.Add(commitPause)) && e.reply(a) {
				e.sendCommit(now, p)
				e.sendConfirm(p, c)
			}
			return true
		}
	}
	return false
}

// admit decides whether a stranger's Commit is computed. It asks for a token
// when many are about, and makes room for one.
func (e *Engine) admit(now time.Time, from dot11.MAC, p *peer, f *commitFrame) bool {
	strangers := e.count(func(p *peer) bool { return !p.known() })
	if strangers >= e.c.Limits.Tokens && !e.tokens.valid(now, from, &f.values, f.token) {
		e.stats.TokensAsked++
		if t, err := e.tokens.issue(now, from, &f.values); err == nil {
			e.refuse(now, from, demand{status: dot11.AntiCloggingTokenRequired, group: Group, token: t})
		}
		return false
	}
	if !e.strange.take(now) {
		e.stats.OverCapacity++
		return false
	}
	if p != nil || strangers < e.c.Limits.Pending {
		return true
	}
	var oldest *peer
	for _, s := range e.peers {
		if !s.known() && (oldest == nil || s.attempt.deadline.Before(oldest.attempt.deadline)) {
			oldest = s
		}
	}
	e.drop(oldest)
	return true
}

// demanded takes a Commit without values.
func (e *Engine) demanded(now time.Time, from dot11.MAC, d demand) {
	p := e.peers[from]
	if p == nil || p.attempt == nil || !p.attempt.active {
		return
	}
	a := p.attempt
	switch d.status {
	case dot11.AntiCloggingTokenRequired:
		t, err := d.tokenFor(e.c.Method)
		if err != nil {
			e.stats.Malformed++
			return
		}
		if len(a.candidates) == 0 && e.reply(a) {
			a.token = t
			e.sendCommit(now, p)
		}
	case dot11.UnsupportedGroup:
		if d.group == Group {
			a.hint = ErrGroup
		}
	case dot11.UnknownPasswordIdentifier:
		a.hint = ErrIdentifier
	default:
		a.hint = ErrRefused
	}
}

// confirmed takes a Confirm: Con of 12.4.8.6.
func (e *Engine) confirmed(now time.Time, from dot11.MAC, f confirmFrame) {
	p := e.peers[from]
	if p == nil {
		return
	}
	a := p.attempt
	if a == nil && p.former.serves(now) && p.former.confirmed(f) != nil {
		a = e.resume(now, p)
	}
	if c := a.confirmed(f); c != nil {
		if c.counter == 0 {
			e.sendConfirm(p, c)
		}
		e.accept(now, p, c, f.counter)
		return
	}
	for _, sa := range p.sas {
		if !sa.linger.IsZero() && verifies(sa.keys.kck[:], f, &sa.peer, &sa.own) {
			e.reconfirm(p, sa, f.counter)
			return
		}
	}
	switch {
	case a == nil:
		e.stats.Unverified++
	case a.said, len(a.candidates) > 0:
		// All may be forged, so the exchange goes on for as long as a real one takes.
		e.stats.Unverified++
		a.doubts++
	case e.reply(a):
		e.sendCommit(now, p) // the peer's own was lost: have it sent again
	}
}

// reconfirm answers an accepted peer that did not hear our Confirm.
func (e *Engine) reconfirm(p *peer, sa *association, counter uint16) {
	const accepted = 0xffff // send-confirm of a side that needs no answer
	if counter == accepted || counter <= sa.received || sa.replies >= e.c.Limits.Sync {
		e.stats.Replayed++
		return
	}
	sa.received = counter
	sa.replies++
	e.send(p.mac, confirmFrame{accepted, confirm(sa.keys.kck[:], accepted, &sa.own, &sa.peer)}.append())
}

func verifies(kck []byte, f confirmFrame, peer, own *values) bool {
	expected := confirm(kck, f.counter, peer, own)
	return hmac.Equal(f.confirm[:], expected[:])
}

// sorted returns the peers by address, so that the same input gives the same
// output.
func (e *Engine) sorted() []*peer {
	list := make([]*peer, 0, len(e.peers))
	for _, p := range e.peers {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *peer) int { return bytes.Compare(a.mac[:], b.mac[:]) })
	return list
}
