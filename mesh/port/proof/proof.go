// Package proof is the protocol by which two devices on an Ethernet segment
// prove to each other that they are members of the same HALO network, before
// either lets the mesh run over the port. It is a state machine without
// sockets, clocks or goroutines: frames and the time go in, frames and events
// come out.
//
// A device broadcasts a hello with a random nonce of its run. The side with the
// lower nonce then starts Noise NNpsk0, keyed from the mesh secret; when both
// have the keys, each sends its identity key and a signature over the handshake
// hash, encrypted. The pre-shared key keeps strangers out and identities
// hidden; the signatures say which member it is, and that nobody sits between,
// not even another member. Sessions live on authenticated keep-alives.
//
//	hello      →  all     nonce, tag
//	solicit    →  one     nonce, tag: "I have no session with you, begin"
//	initiate   →          both nonces, Noise message 1
//	           ←  respond Noise message 2
//	authentic. →          identity key, signature   (encrypted)
//	           ←  confirm identity key, signature   (encrypted)
//	alive     ←→          counter, tag
//	sealed    ←→          counter, what members say to each other (encrypted)
//
// What the proof does not give: it speaks of the moment and of a MAC address.
// A stranger who shares the segment with proven members can borrow a member's
// address; batman frames are not themselves authenticated by it.
package proof

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"time"

	"halo.internal/identity"
	"halo.internal/model/order"
)

// MAC is an Ethernet address.
type MAC [6]byte

// String returns the usual notation.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Broadcast is the address that hellos go to.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Limits of what one port keeps, whatever comes in.
const (
	MaxMembers  = 64      // sessions
	maxHalfOpen = 32      // handshakes under way
	maxPeers    = 2 * 64  // addresses remembered at all
	maxReplayed = 8       // handshakes of a peer that are known when they come again
	retransmits = 6       // of one handshake message
	frameMin    = 60 - 14 // octets of payload that Ethernet pads to
)

// Timing holds the protocol's intervals; a zero field stands for its default.
type Timing struct {
	Search time.Duration // between hellos while no member is known
	Hello  time.Duration // between hellos otherwise
	Alive  time.Duration // between keep-alives
	Lost   time.Duration // without one the session ends
	Resend time.Duration // between copies of a handshake message
	Hold   time.Duration // how long a refused device is ignored
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Search, 2 * time.Second},
		{&t.Hello, 10 * time.Second},
		{&t.Alive, 10 * time.Second},
		{&t.Lost, 35 * time.Second},
		{&t.Resend, 500 * time.Millisecond},
		{&t.Hold, time.Minute},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Config says who proves what to whom.
type Config struct {
	Key     identity.Key
	Network identity.PublicKey
	Secret  Secret
	MAC     MAC                            // of the port
	Admit   func(identity.PublicKey) error // nil: whoever proves the secret; must not block
	Timing  Timing
}

// Frame is one to be sent.
type Frame struct {
	To      MAC
	Payload []byte
}

// EventKind tells what happened to a peer.
type EventKind int

// Kinds of events.
const (
	Proven  EventKind = iota + 1 // became a member
	Lost                         // was a member
	Refused                      // proved the secret and was turned away
)

// Event is a transition of one peer.
type Event struct {
	Kind EventKind
	MAC  MAC
	Peer identity.PublicKey
	Err  error // why lost or refused
}

// Reasons in events.
var (
	ErrSilent   = errors.New("no keep-alive came")
	ErrReplaced = errors.New("another device proved itself from the same address")
	ErrOwnKey   = errors.New("the device has this node's own key: the cable leads back here, or the identity was copied")
	ErrFull     = fmt.Errorf("the port has %d members already", MaxMembers)
)

// Member is a proven peer.
type Member struct {
	MAC     MAC
	Peer    identity.PublicKey
	Session uint64 // another one when the peer proved itself anew, such as after a restart
}

// Engine runs the protocol on one port. It is not safe for concurrent use: the
// goroutine that owns the port calls it.
type Engine struct {
	c         Config
	public    identity.PublicKey
	nonce     nonce
	peers     map[MAC]*peer
	nextHello time.Time
	lastHello time.Time
	frames    []Frame
	events    []Event
	heard     []Heard
	sessions  uint64 // how many there were
}

// New returns an engine that sends its first hello at once.
func New(c Config, now time.Time) *Engine {
	c.Timing = c.Timing.withDefaults()
	e := &Engine{c: c, public: c.Key.Public(), peers: make(map[MAC]*peer), nextHello: now}
	rand.Read(e.nonce[:])
	return e
}

// Take returns what is to be sent and what happened since the last call.
func (e *Engine) Take() ([]Frame, []Event) {
	f, v := e.frames, e.events
	e.frames, e.events = nil, nil
	return f, v
}

// Members returns the proven peers, ordered by address.
func (e *Engine) Members() []Member {
	var list []Member
	for _, p := range e.peers {
		if p.session != nil {
			list = append(list, Member{p.mac, p.session.peer, p.session.id})
		}
	}
	order.By(list, func(a, b Member) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return list
}

// Sessions counts the sessions that there have been. It changes with what Members
// returns, also where no event tells of it: a member that restarted has another
// session.
func (e *Engine) Sessions() uint64 { return e.sessions }

// Wake sends a hello soon: the link came up.
func (e *Engine) Wake(now time.Time) {
	if t := e.lastHello.Add(e.c.Timing.Resend); now.Before(t) {
		now = t
	}
	if now.Before(e.nextHello) {
		e.nextHello = now
	}
}

// Recheck asks Admit again about every member, after a revocation.
func (e *Engine) Recheck(now time.Time) {
	for _, p := range e.peers {
		if p.session == nil {
			continue
		}
		if err := e.admit(p.session.peer); err != nil {
			e.refuse(now, p, p.session.peer, err)
		}
	}
}

// Advance does what has become due.
func (e *Engine) Advance(now time.Time) {
	for mac, p := range e.peers {
		e.advancePeer(now, p)
		if p.session == nil && p.start == nil && p.answer == nil && now.Sub(p.heard) > 2*e.c.Timing.Hold {
			delete(e.peers, mac)
		}
	}
	if !now.Before(e.nextHello) {
		e.send(Broadcast, e.greeting(kindHello, Broadcast))
		e.lastHello = now
		e.nextHello = now.Add(e.helloInterval())
	}
}

// Next returns when Advance must be called at the latest.
func (e *Engine) Next() time.Time {
	next := e.nextHello
	earlier := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	for _, p := range e.peers {
		if p.session != nil {
			earlier(p.session.nextAlive)
			earlier(p.session.heard.Add(e.c.Timing.Lost))
		}
		if p.start != nil {
			earlier(p.start.next)
		}
		if p.answer != nil {
			earlier(p.answer.expires)
		}
	}
	return next
}

// helloInterval varies by a tenth, so that devices that were switched on
// together do not stay in step.
func (e *Engine) helloInterval() time.Duration {
	for _, p := range e.peers {
		if p.session != nil {
			return jitter(e.c.Timing.Hello)
		}
	}
	return jitter(e.c.Timing.Search)
}

func jitter(d time.Duration) time.Duration { return d - d/10 + mrand.N(d/10+1) }

func (e *Engine) send(to MAC, payload []byte) { e.frames = append(e.frames, Frame{to, payload}) }
