// Package sak agrees on the keys of MACsec (IEEE 802.1AE) among the members of
// an Ethernet segment: each draws a secure association key (SAK) of its own at
// random, by which it alone sends, and hands it to every member that proved
// itself, in the session of the proof. There is no key server and no MKA: who
// is a member, the proof has settled, and a message of the session is that
// member's word. It is a state machine without sockets, clocks or goroutines:
// members, their messages and the time go in; messages, and the state that the
// kernel is to have, come out.
//
//	offer  →  my MACsec, or that my kernel has none; my key, where it begins,
//	          and which of my keys are dead
//	taken  ←  I have put that into my kernel
//
// A key is replaced long before its packet numbers end, after a day, and when
// somebody who had it is no member any more. The next one is handed to all
// first; when all have taken it, it is sent by, and then the last one is said to
// be dead. Whoever does not answer is not waited for: who was turned away reads
// on for two seconds at most.
//
// Which member has MACsec is said in the session too, where nobody between can
// change or hide it: a member that has said nothing is not carried at all. To one
// whose kernel has none, and to that one alone, the mesh runs in the clear.
package sak

import (
	"bytes"
	"crypto/rand"
	"errors"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/port/proof"
	"halo.internal/model/order"
)

// SCI is a secure channel identifier: the address of the MACsec interface that
// sends, and a port number.
type SCI [8]byte

// endStation is the port number of an interface with one sender.
const endStation = 1

// NewSCI returns the identifier of the channel by which that interface sends.
func NewSCI(mac proof.MAC) (s SCI) {
	copy(s[:], mac[:])
	s[7] = endStation
	return s
}

// MAC returns the address of the interface that sends.
func (s SCI) MAC() proof.MAC { return proof.MAC(s[:6]) }

// Key is a SAK of GCM-AES-128. It prints as nothing.
type Key [16]byte

// String hides the key.
func (Key) String() string { return "(key)" }

// GoString hides the key.
func (Key) GoString() string { return "(key)" }

// numbers is how many association numbers there are.
const numbers = 4

// Association is a key in a channel.
type Association struct {
	AN  uint8 // association number, 0 to 3
	Key Key
	PN  uint32 // of packets that come in under it: the lowest number to take
}

// Channel is what one member sends by.
type Channel struct {
	SCI          SCI
	Associations []Association // by AN
}

// State is what the kernel is to have.
type State struct {
	Transmit Association
	Receive  []Channel // by SCI
}

// Timing holds the intervals; a zero field stands for its default.
type Timing struct {
	Resend time.Duration // between copies of what was not acknowledged; ever rarer
	Hurry  time.Duration // how long a new key waits for members when one was turned away or lost
	Wait   time.Duration // otherwise
	Grace  time.Duration // how long a dead key still opens what is under way
	Life   time.Duration // of a key
	Limit  uint32        // packet number at which a key is replaced
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Resend, 500 * time.Millisecond},
		{&t.Hurry, 2 * time.Second},
		{&t.Wait, 30 * time.Second},
		{&t.Grace, 2 * time.Second},
		{&t.Life, 24 * time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if t.Limit == 0 {
		// Half of all numbers: at the highest rate of a gigabit the other half is 24
		// minutes.
		t.Limit = 1 << 31
	}
	return t
}

// slowest is the longest pause between copies, in intervals.
const slowest = 10

// Config says what this device has.
type Config struct {
	MACsec bool      // else all members are carried in the clear
	MAC    proof.MAC // of its MACsec interface
	Timing Timing
}

// EventKind tells what happened.
type EventKind int

// Kinds of events.
const (
	Secured EventKind = iota + 1 // a member's key is known
	Clear                        // a member is carried in the clear
	Refused                      // what a member said is not acceptable
	Rekeyed                      // this device sends by a new key
)

// Event is a transition.
type Event struct {
	Kind   EventKind
	Member proof.Member // none when rekeyed
	Err    error        // why refused
}

// Reasons of refusals.
var (
	ErrAddress = errors.New("its MACsec interface has no address that could be one member's alone")
	ErrTaken   = errors.New("its MACsec interface has the address of another member")
)

// Machine agrees on the keys of one port. It is not safe for concurrent use.
type Machine struct {
	c        Config
	sci      SCI
	current  own
	next     *own // handed out, not sent by yet
	since    time.Time
	begun    time.Time // when the first next one was, that was not sent by since
	urgent   bool
	used     uint32 // next packet number of current
	peers    map[proof.MAC]*peer
	changed  bool
	messages []Message
	events   []Event
}

// own is a key of this device. Serials count its keys, from 1.
type own struct {
	an     uint8
	key    Key
	serial uint32
}

// Message is one to be said to a member.
type Message struct {
	To      proof.MAC
	Message proof.Message
}

// New draws the first key. It is sent by at once: whoever knew one of before
// learns the new one in its next session.
func New(c Config, now time.Time) *Machine {
	c.Timing = c.Timing.withDefaults()
	m := &Machine{c: c, sci: NewSCI(c.MAC), since: now, used: 1, peers: make(map[proof.MAC]*peer), changed: true}
	m.current = own{key: draw(), serial: 1}
	return m
}

func draw() (k Key) {
	rand.Read(k[:])
	return k
}

// SCI returns the identifier of the channel by which this device sends.
func (m *Machine) SCI() SCI { return m.sci }

// Since returns when the key in use was begun with.
func (m *Machine) Since() time.Time { return m.since }

// State returns what the kernel is to have, and whether that changed since
// Applied was called.
func (m *Machine) State() (State, bool) {
	s := State{Transmit: Association{AN: m.current.an, Key: m.current.key, PN: 1}}
	for _, p := range m.peers {
		if len(p.keys) == 0 {
			continue
		}
		c := Channel{SCI: p.sci}
		for _, k := range p.keys {
			c.Associations = append(c.Associations, k.Association)
		}
		order.By(c.Associations, func(a, b Association) int { return int(a.AN) - int(b.AN) })
		s.Receive = append(s.Receive, c)
	}
	order.By(s.Receive, func(a, b Channel) int { return bytes.Compare(a.SCI[:], b.SCI[:]) })
	return s, m.changed
}

// Applied says that the kernel has what State returned last: members learn that
// their keys are in use.
func (m *Machine) Applied() {
	m.changed = false
	for mac, p := range m.peers {
		for _, t := range p.owed {
			m.messages = append(m.messages, Message{mac, t.marshal()})
		}
		p.owed = nil
	}
}

// Take returns what is to be said and what happened since the last call.
func (m *Machine) Take() ([]Message, []Event) {
	msgs, events := m.messages, m.events
	m.messages, m.events = nil, nil
	return msgs, events
}

// Secured returns the members whose keys are known, by the addresses of their
// MACsec interfaces.
func (m *Machine) Secured() map[proof.MAC]proof.Member {
	list := make(map[proof.MAC]proof.Member)
	for _, p := range m.peers {
		if len(p.keys) > 0 {
			list[p.sci.MAC()] = p.member
		}
	}
	return list
}

// Clear returns the members that are carried in the clear.
func (m *Machine) Clear() (list []proof.Member) {
	return m.listed(func(p *peer) bool { return p.said == none || p.said == secure && !m.c.MACsec })
}

// Silent returns the members that have not said yet what they have.
func (m *Machine) Silent() []proof.Member {
	return m.listed(func(p *peer) bool { return p.said == nothing })
}

func (m *Machine) listed(is func(*peer) bool) (list []proof.Member) {
	for _, p := range m.peers {
		if is(p) {
			list = append(list, p.member)
		}
	}
	order.By(list, func(a, b proof.Member) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return list
}

// Members says who is a member now, after every change of that.
func (m *Machine) Members(now time.Time, list []proof.Member) {
	here := make(map[proof.MAC]bool, len(list))
	for _, is := range list {
		here[is.MAC] = true
		p := m.peers[is.MAC]
		if p != nil && p.member.Peer != is.Peer {
			m.lose(now, p) // another device at the same address
			p = nil
		}
		switch {
		case p == nil:
			m.peers[is.MAC] = &peer{member: is, due: now}
		case p.member.Session != is.Session:
			p.renew(now, is)
		}
	}
	for mac, p := range m.peers {
		if !here[mac] {
			m.lose(now, p)
		}
	}
}

// lose forgets a member, and has what it can read ended.
func (m *Machine) lose(now time.Time, p *peer) {
	delete(m.peers, p.member.MAC)
	m.changed = m.changed || len(p.keys) > 0
	if p.told {
		m.rekey(now, true)
	}
}

// Used says how far the packet numbers of the key in use have come.
func (m *Machine) Used(now time.Time, pn uint32) {
	if pn < m.used {
		return
	}
	m.used = pn
	if pn >= m.c.Timing.Limit && m.next == nil {
		m.rekey(now, false)
	}
}

func (m *Machine) event(k EventKind, p proof.Member, err error) {
	m.events = append(m.events, Event{k, p, err})
}

// peerOf returns a member by its key, which the address alone is not.
func (m *Machine) peerOf(from proof.MAC, key identity.PublicKey, session uint64) *peer {
	p := m.peers[from]
	if p == nil || p.member.Peer != key || p.member.Session != session {
		return nil
	}
	return p
}
