package peering

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"halo.internal/model/dot11"
)

// State is that of the finite state machine of 14.4; the numbers are those of
// nl80211's plink states.
type State int

// States.
const (
	Listen  State = iota // IDLE
	OpnSnt               // Open sent
	OpnRcvd              // Open received, Confirm awaited
	CnfRcvd              // Confirm received, Open awaited
	Estab                // the link stands
	Holding              // closed
)

// String names the state as the standard does.
func (s State) String() string {
	return [...]string{"LISTEN", "OPN_SNT", "OPN_RCVD", "CNF_RCVD", "ESTAB", "HOLDING"}[s]
}

// link is one instance of a peering: the pair of link IDs and nonces.
type link struct {
	security  *security
	state     State
	own, peer side // the peer's nonce is zero while unknown
	heard     bool // the peer's nonce is known
	proven    bool // the peer has answered the own nonce
	aid       uint16
	group     *GroupKeys // the peer's, from its Open
	protected bool
	elements  []byte
	timer     time.Time
	wait      time.Duration
	tries     int
	answered  time.Time    // when the peer last said that it has the link
	evidence  time.Time    // when frames under its keys came last
	reason    dot11.Reason // of the Close, while held
	objection error        // to an Open that may have been another's; nil: none
	objected  dot11.Reason
}

func (l *link) wipe() {
	if l.group != nil {
		l.group.wipe()
	}
}

// under tells whether there is an instance that a PMKSA protects.
func (l *link) under(s *security) bool { return l != nil && l.security == s }

// newLink draws link ID and nonce.
func (e *Engine) newLink(p *peer, s *security) (*link, error) {
	l := &link{security: s, own: side{mac: e.c.Own}, peer: side{mac: p.mac}}
	for l.own.link == 0 || e.inUse(l.own.link) {
		var b [2]byte
		if _, err := io.ReadFull(e.c.Rand, b[:]); err != nil {
			return nil, fmt.Errorf("link ID: %w", err)
		}
		l.own.link = binary.LittleEndian.Uint16(b[:])
	}
	for l.own.nonce == (nonce{}) {
		if _, err := io.ReadFull(e.c.Rand, l.own.nonce[:]); err != nil {
			return nil, fmt.Errorf("nonce: %w", err)
		}
	}
	return l, nil
}

func (e *Engine) inUse(id uint16) bool {
	for _, p := range e.peers {
		for _, l := range []*link{p.link, p.next, p.held} {
			if l != nil && l.own.link == id {
				return true
			}
		}
	}
	return false
}

// openLink begins an instance by an Open.
func (e *Engine) openLink(now time.Time, p *peer) error {
	l, err := e.newLink(p, p.securities[0])
	if err != nil {
		return err
	}
	e.begin(p, l)
	e.start(now, p, l, OpnSnt)
	return nil
}

// begin makes an instance the peer's, in place of one that was being made.
func (e *Engine) begin(p *peer, l *link) {
	if p.link != nil {
		p.link.wipe()
	} else {
		e.report(p, Listen, l.security) // what was left of a closed one serves no other
	}
	p.link = l
}

// start enters the state with an Open sent and its timer running.
func (e *Engine) start(now time.Time, p *peer, l *link, s State) {
	l.wait = e.c.Timing.Retry
	l.timer = now.Add(l.wait)
	e.enter(p, l, s)
	e.sendOpen(p, l)
}

// enter changes the state. That of an instance beside a link that stands is no
// news.
func (e *Engine) enter(p *peer, l *link, s State) {
	l.state = s
	if l == p.link {
		e.report(p, s, l.security)
	}
}

// report tells a state of the peer that was not told yet.
func (e *Engine) report(p *peer, to State, s *security) {
	if from := p.told; from != to {
		p.told = to
		e.events = append(e.events, Event{Kind: Changed, Peer: p.mac, PMKID: s.pmkid, From: from, To: to})
	}
}

func (e *Engine) message(p *peer, l *link, a action) *message {
	links := e.Links()
	return &message{
		action: a, capability: capabilityOfMesh, aid: p.aid, meshID: e.c.MeshID, rsn: RSN(e.c.MFP),
		config: MeshConfiguration(links, links < e.c.MaxPeers, e.c.Forwarding),
		local:  l.own.link, peer: l.peer.link, reason: l.reason, pmkid: l.security.pmkid,
	}
}

func (e *Engine) sendFrame(p *peer, l *link, a action, group *GroupKeys) {
	body := e.message(p, l, a).build(&elements{e.c.Rates, e.c.ExtendedRates, e.c.Trailing})
	h := dot11.Header{Subtype: dot11.Action, To: p.mac, From: e.c.Own}
	b := seal(l.security.siv, e.c.Morse, h, body, &ampe{l.own.nonce, l.peer.nonce, group})
	e.frames = append(e.frames, dot11.Frame{To: p.mac, Bytes: b})
}

func (e *Engine) sendOpen(p *peer, l *link)    { e.sendFrame(p, l, open, &e.c.Group) }
func (e *Engine) sendConfirm(p *peer, l *link) { e.sendFrame(p, l, confirm, nil) }
func (e *Engine) sendClose(p *peer, l *link)   { e.sendFrame(p, l, closing, nil) }

// expired is TOR and TOC of 14.4: no answer in time.
func (e *Engine) expired(now time.Time, p *peer, l *link) {
	if l.state == Estab {
		e.check(now, p, l)
		return
	}
	limit := e.c.Timing.Retries
	if l == p.next || l.heard && !e.c.Morse {
		// The peer has already given up the link that stands: do not be the one
		// who goes on with it for want of a frame. Or it is there for certain, may have
		// the link already, and is busy. (On HaLow it may be the wrong link ID, which
		// nothing proves, that it is waited for; and there is time enough before.)
		limit *= 3
	}
	if l.tries >= limit {
		reason := dot11.MeshMaxRetries
		if l.state == CnfRcvd {
			reason = dot11.MeshConfirmTimeout
		}
		if l.objection != nil && l.group == nil {
			reason = l.objected
		}
		e.end(now, p, l, reason, false)
		return
	}
	l.tries++
	l.wait = min(2*l.wait, e.c.Timing.RetryMax)
	l.timer = now.Add(l.wait)
	if l.state != CnfRcvd { // there the peer's Open is missing, which it repeats
		e.sendOpen(p, l)
	}
}

// alive notes that the peer says that it has the link.
func (e *Engine) alive(now time.Time, l *link) {
	if l.state != Estab || !l.evidence.IsZero() && now.Sub(l.evidence) > doubt*e.checkEvery(l) {
		return
	}
	l.tries, l.answered = 0, now
	l.timer = now.Add(e.checkEvery(l))
}

// doubt is for how many checks a peer of whom frames came under the link's keys may be
// without any, and still be believed what it says of the link: an Open or a Confirm that
// somebody has recorded is as good as a new one, and would keep the link with one that
// has lost its power for ever. Batman-adv is never silent for that long. The link ends,
// and one made anew, with another nonce, proves that its peer is there.
const doubt = 4

// checkEvery is after what time without a sign a peer is asked whether it has the link:
// one of both asks, which shows the other as much.
func (e *Engine) checkEvery(l *link) time.Duration {
	check := e.c.Timing.Check
	if bytes.Compare(l.own.mac[:], l.peer.mac[:]) > 0 {
		check += check / 4
	}
	return check
}

// Heard notes that frames of a peer came under the keys of the link that stands. One
// that has begun anew has other keys; one that has closed the link, without being
// heard, goes on sending to all by the keys that it had. So the link is good without a
// question for a while, and does not end because questions or answers are lost, as
// they are on a channel that is full; but not for ever.
func (e *Engine) Heard(now time.Time, mac dot11.MAC) {
	if p := e.peers[mac]; p != nil && p.link != nil && p.link.state == Estab {
		p.link.evidence = now
	}
}

// check asks the peer of a link that stands, by the Open of this instance, for
// its Confirm. A peer that has begun anew, and did not seek this side again, has
// no other way to be found out: its beacons come as before, and frames under old
// keys are dropped without a word.
func (e *Engine) check(now time.Time, p *peer, l *link) {
	every := e.checkEvery(l)
	heard := !l.evidence.IsZero() && now.Sub(l.evidence) < every
	patience := e.c.Timing.Patience
	if heard && l.tries == 0 && now.Sub(l.answered) < time.Duration(patience)*every {
		l.timer = now.Add(every)
		return
	}
	if l.tries >= checks && (!heard || l.tries >= patience*checks) {
		e.end(now, p, l, dot11.MeshMaxRetries, false)
		return
	}
	l.tries++
	l.timer = now.Add(e.c.Timing.Check / checks)
	e.sendOpen(p, l)
}

// checks is how often the peer of a link that stands is asked in vain, over the
// time that passes between two checks: there is no hurry to take a flood of
// forged frames for its end.
const checks = 8

// establish makes the instance the link.
func (e *Engine) establish(now time.Time, p *peer, l *link) {
	again := l == p.next
	if again {
		p.link.wipe()
		p.link, p.next = l, nil
		l.state = Estab // as the link was
	}
	p.wanted, p.failures, p.retry = false, 0, time.Time{}
	keys := &Keys{MTK: deriveMTK(&l.security.pmk, l.own, l.peer), Peer: *l.group, Protected: l.protected}
	if !l.protected {
		keys.Peer.IGTK, keys.Peer.IPN, keys.Peer.HasIGTK = Key{}, [6]byte{}, false // nobody checks it
	}
	l.group.wipe() // the radio has them
	e.events = append(e.events, Event{
		Kind: Established, Peer: p.mac, PMKID: l.security.pmkid, Again: again, AID: l.aid, Keys: keys, Elements: l.elements,
	})
	e.enter(p, l, Estab) // after the keys: so mac80211 wants it
	e.alive(now, l)
}

// end closes an instance: a Close goes out, and the instance is held for a while
// to answer what is still on its way. An instance beside a link that stood goes on
// as the peer's only one.
func (e *Engine) end(now time.Time, p *peer, l *link, reason dot11.Reason, byPeer bool) {
	stood := l.state == Estab
	l.reason = reason
	if byPeer {
		l.reason = dot11.MeshCloseReceived
	}
	e.sendClose(p, l)
	l.wipe()
	ev := Event{Kind: Failed, Peer: p.mac, PMKID: l.security.pmkid, ByPeer: byPeer, Reason: reason}
	if l == p.next {
		p.next = nil // the link stands
		if p.held == nil {
			p.held = l
			l.state, l.timer, l.tries = Holding, now.Add(e.c.Timing.Holding), 0
		}
		ev.Err = fmt.Errorf("the peer's new instance came to nothing: %v", reason)
		e.tell(now, ev)
		if l.proven && !byPeer {
			e.end(now, p, p.link, reason, false) // it has gone on without us; next is never without link
		}
		return
	}
	e.enter(p, l, Holding)
	p.link, p.held = nil, l
	l.timer, l.tries = now.Add(e.c.Timing.Holding), 0
	if stood {
		ev.Kind = Closed
		e.events = append(e.events, ev)
		if next := p.next; next != nil {
			p.next = nil
			e.begin(p, next)
			e.enter(p, next, next.state)
		}
		return
	}
	if p.wanted {
		p.failures++
		ev.Failures = p.failures
		ev.Retry = e.c.Timing.PauseMax
		if shift := p.failures - 1; shift < 16 {
			ev.Retry = min(ev.Retry, e.c.Timing.Pause<<shift)
		}
		p.retry = now.Add(ev.Retry)
	}
	ev.Err = fmt.Errorf("no peering: %v", reason)
	if l.objection != nil && reason == l.objected {
		ev.Err = l.objection
	}
	e.events = append(e.events, ev)
}

// closes is how often a Close is sent that the peer does not answer by its own.
const closes = 3

// holding is TOH of 14.4.
func (e *Engine) holding(now time.Time, p *peer) {
	l := p.held
	if l.tries++; l.tries >= closes || l.reason == dot11.MeshCloseReceived {
		e.release(p)
		return
	}
	l.timer = now.Add(e.c.Timing.Holding)
	e.sendClose(p, l)
}

// release forgets the held instance.
func (e *Engine) release(p *peer) {
	l := p.held
	p.held = nil
	e.report(p, p.state(), l.security)
}
