package proof

import (
	"bytes"
	"crypto/hmac"
	"slices"
	"time"

	"github.com/flynn/noise"

	"halo.internal/identity"
)

// Signatures of the two sides differ in context: neither can be sent back.
const (
	contextInitiator = "halo port proof initiator 1"
	contextResponder = "halo port proof responder 1"
)

// start is a handshake that this side began: it owns all repetition.
type start struct {
	noise   *noise.HandshakeState // until the peer responded
	to      nonce
	send    noise.Cipher
	receive noise.Cipher
	hash    []byte
	frame   []byte // what is repeated
	tries   int
	next    time.Time
}

// answer is a handshake that the peer began: this side only repeats what it is
// asked for again.
type answer struct {
	from    nonce
	first   []byte // the frame's body that it answers
	frame   []byte
	send    noise.Cipher
	receive noise.Cipher
	hash    []byte
	expires time.Time
}

// Handle takes a frame that arrived on the port.
func (e *Engine) Handle(now time.Time, from, to MAC, payload []byte) {
	k, body, err := parse(payload)
	if err != nil || from == e.c.MAC || from[0]&1 != 0 {
		return
	}
	if to != e.c.MAC && (to != Broadcast || k != kindHello) {
		return
	}
	if p := e.peers[from]; p != nil && now.Before(p.refused) {
		return
	}
	switch k {
	case kindHello, kindSolicit:
		e.greeted(now, k, from, to, body)
	case kindInitiate:
		e.initiated(now, from, body)
	case kindRespond:
		e.responded(now, from, body)
	case kindAuthenticate:
		e.authenticated(now, from, body)
	case kindConfirm:
		e.confirmed(now, from, body)
	case kindAlive:
		e.heardAlive(now, from, body)
	case kindSealed:
		e.heardSealed(now, from, body)
	}
}

func (e *Engine) heardAlive(now time.Time, from MAC, body []byte) {
	p := e.peers[from]
	if p == nil || p.session == nil {
		return
	}
	ok, asked := p.session.accept(body)
	if !ok {
		return
	}
	p.heard, p.session.heard = now, now
	if asked {
		e.send(from, p.session.alive(false))
	}
}

func (e *Engine) greeting(k kind, to MAC) []byte {
	return build(k, e.nonce[:], e.c.Secret.tag(k, e.c.MAC, to, e.nonce))
}

// greeted begins a handshake where one is needed and it is this side's turn.
func (e *Engine) greeted(now time.Time, k kind, from, to MAC, body []byte) {
	n := nonce(body[:nonceSize])
	if n == e.nonce || !hmac.Equal(body[nonceSize:], e.c.Secret.tag(k, from, to, n)) {
		return
	}
	p := e.known(now, from)
	if p == nil {
		return
	}
	// A solicitation on top of a session is believed only when that is not fresh,
	// or a recorded one would make two members prove themselves without end.
	if s := p.session; s != nil && s.nonce == n && (k == kindHello || now.Sub(s.since) < e.c.Timing.Alive) {
		return
	}
	if bytes.Compare(e.nonce[:], n[:]) < 0 {
		e.initiate(now, p, n)
	} else if now.Sub(p.asked) >= 2*e.c.Timing.Resend {
		p.asked = now
		e.send(from, e.greeting(kindSolicit, from))
	}
}

func (e *Engine) initiate(now time.Time, p *peer, to nonce) {
	// The pause bounds what a recorded greeting, played again, can cost.
	if p.start != nil || now.Sub(p.started) < 2*e.c.Timing.Resend || e.halfOpen() >= maxHalfOpen {
		return
	}
	hs := e.handshake(true, p.mac, e.nonce, to)
	msg, _, _, err := hs.WriteMessage(nil, nil)
	if err != nil {
		return // the system has no randomness: the next greeting tries again
	}
	p.started = now
	p.start = &start{noise: hs, to: to, frame: build(kindInitiate, e.nonce[:], to[:], msg), next: now.Add(e.c.Timing.Resend)}
	e.send(p.mac, p.start.frame)
}

// initiated answers the peer's first message. The frame names this run's nonce,
// so one recorded before a restart is dropped; and what this run has answered
// is not answered anew.
func (e *Engine) initiated(now time.Time, from MAC, body []byte) {
	theirs, ours, msg := nonce(body[:nonceSize]), nonce(body[nonceSize:2*nonceSize]), body[2*nonceSize:]
	if ours != e.nonce || bytes.Compare(theirs[:], ours[:]) >= 0 {
		return
	}
	if p := e.peers[from]; p != nil {
		if p.answer != nil && bytes.Equal(p.answer.first, body) {
			e.send(from, p.answer.frame)
			return
		}
		if slices.ContainsFunc(p.began, func(b []byte) bool { return bytes.Equal(b, msg) }) {
			return
		}
	}
	hs := e.handshake(false, from, theirs, ours)
	if _, _, _, err := hs.ReadMessage(nil, msg); err != nil {
		return // a stranger
	}
	p := e.known(now, from)
	if p == nil || p.answer == nil && e.halfOpen() >= maxHalfOpen {
		return
	}
	reply, receive, send, err := hs.WriteMessage(nil, nil)
	if err != nil {
		return
	}
	if len(p.began) == maxReplayed {
		p.began = p.began[1:]
	}
	p.began = append(p.began, bytes.Clone(msg))
	p.answer = &answer{
		from: theirs, first: bytes.Clone(body), frame: build(kindRespond, reply),
		send: send.Cipher(), receive: receive.Cipher(), hash: hs.ChannelBinding(),
		expires: now.Add((retransmits + 2) * 2 * e.c.Timing.Resend),
	}
	e.send(from, p.answer.frame)
}

func (e *Engine) responded(now time.Time, from MAC, body []byte) {
	p := e.peers[from]
	if p == nil || p.start == nil || p.start.noise == nil {
		return
	}
	a := p.start
	_, send, receive, err := a.noise.ReadMessage(nil, body)
	if err != nil {
		return // forged or late: the true one may still come
	}
	a.send, a.receive, a.hash = send.Cipher(), receive.Cipher(), a.noise.ChannelBinding()
	a.noise = nil
	a.frame = e.statement(kindAuthenticate, contextInitiator, a.send, a.hash)
	a.tries, a.next = 0, now.Add(e.c.Timing.Resend)
	e.send(from, a.frame)
}

func (e *Engine) authenticated(now time.Time, from MAC, body []byte) {
	p := e.peers[from]
	if p == nil {
		return
	}
	a := p.answer
	if a == nil {
		if p.session != nil && p.session.proof != nil && bytes.Equal(p.session.proof, body) {
			e.send(from, p.session.confirm) // the first one was lost
		}
		return
	}
	k, ok := readStatement(kindAuthenticate, contextInitiator, a.receive, a.hash, body)
	if !ok {
		return
	}
	s := newSession(k, a.from, a.send, a.receive)
	s.proof, s.confirm = bytes.Clone(body), e.statement(kindConfirm, contextResponder, a.send, a.hash)
	if e.establish(now, p, s) {
		p.answer = nil
		e.send(from, s.confirm)
	}
}

func (e *Engine) confirmed(now time.Time, from MAC, body []byte) {
	p := e.peers[from]
	if p == nil || p.start == nil || p.start.noise != nil {
		return
	}
	a := p.start
	k, ok := readStatement(kindConfirm, contextResponder, a.receive, a.hash, body)
	if ok && e.establish(now, p, newSession(k, a.to, a.send, a.receive)) {
		p.start = nil
	}
}

// establish makes the peer a member, unless it must not be one.
func (e *Engine) establish(now time.Time, p *peer, s *session) bool {
	err := e.admit(s.peer)
	if err == nil && p.session == nil && len(e.Members()) >= MaxMembers {
		err = ErrFull
	}
	if err != nil {
		e.refuse(now, p, s.peer, err)
		return false
	}
	old := p.session
	if old != nil && old.peer != s.peer {
		e.drop(p, ErrReplaced)
		old = nil
	}
	e.sessions++
	s.id = e.sessions
	s.since, s.heard, s.nextAlive = now, now, now.Add(jitter(e.c.Timing.Alive))
	p.session, p.refusals = s, false
	if old == nil {
		e.events = append(e.events, Event{Kind: Proven, MAC: p.mac, Peer: s.peer})
	}
	return true
}

// handshake returns a Noise state. All that both sides must agree on is in the
// prologue: network, addresses, runs.
func (e *Engine) handshake(initiator bool, peer MAC, first, second nonce) *noise.HandshakeState {
	from, to := e.c.MAC, peer
	if !initiator {
		from, to = peer, e.c.MAC
	}
	hs, err := noise.NewHandshakeState(noise.Config{
		CipherSuite:           noise.NewCipherSuite(noise.DH25519, noise.CipherChaChaPoly, noise.HashSHA256),
		Pattern:               noise.HandshakeNN,
		Initiator:             initiator,
		Prologue:              slices.Concat([]byte("halo port proof 1"), e.c.Network[:], from[:], to[:], first[:], second[:]),
		PresharedKey:          e.c.Secret.psk[:],
		PresharedKeyPlacement: 0,
	})
	if err != nil {
		panic("proof: " + err.Error()) // the pattern is constant, the key has its size
	}
	return hs
}

// statement says who this is, bound to this handshake.
func (e *Engine) statement(k kind, context string, c noise.Cipher, hash []byte) []byte {
	plain := slices.Concat(e.public[:], e.c.Key.Sign(context, hash))
	return build(k, c.Encrypt(nil, 0, build(k), plain))
}

func readStatement(k kind, context string, c noise.Cipher, hash, body []byte) (identity.PublicKey, bool) {
	plain, err := c.Decrypt(nil, 0, build(k), body)
	if err != nil {
		return identity.PublicKey{}, false
	}
	p := identity.PublicKey(plain[:32])
	return p, p.Verify(context, hash, plain[32:])
}
