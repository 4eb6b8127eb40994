package proof

import (
	"encoding/binary"
	"time"

	"halo.internal/identity"
)

// MessageSize is how many octets members say to each other at once.
const MessageSize = 48

// Message is what a member says to another in their session: encrypted, and
// authenticated as that member's. What it means is the business of whoever owns
// the port.
type Message [MessageSize]byte

// Heard is a message of a member.
type Heard struct {
	From    MAC
	Peer    identity.PublicKey
	Session uint64
	Message Message
}

// Say has the next frames carry a message to a member. It may be lost, as frames
// are; it is never heard twice, nor after one that was said later. False: there is
// no member of that address.
func (e *Engine) Say(to MAC, m Message) bool {
	p := e.peers[to]
	if p == nil || p.session == nil {
		return false
	}
	s := p.session
	s.sent++
	e.send(to, build(kindSealed, binary.BigEndian.AppendUint64(nil, s.sent), s.send.Encrypt(nil, s.sent, build(kindSealed), m[:])))
	return true
}

// Heard returns what members said since the last call.
func (e *Engine) Heard() []Heard {
	h := e.heard
	e.heard = nil
	return h
}

func (e *Engine) heardSealed(now time.Time, from MAC, body []byte) {
	p := e.peers[from]
	if p == nil || p.session == nil {
		return
	}
	s := p.session
	n := binary.BigEndian.Uint64(body)
	if n <= s.received || n >= ask {
		return
	}
	plain, err := s.receive.Decrypt(nil, n, build(kindSealed), body[counterSize:])
	if err != nil {
		return
	}
	s.received = n
	p.heard, s.heard = now, now
	e.heard = append(e.heard, Heard{from, s.peer, s.id, Message(plain)})
}
