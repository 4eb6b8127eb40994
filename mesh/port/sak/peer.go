package sak

import (
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/port/proof"
)

// said is what a member has said of itself.
type said int

const (
	nothing said = iota
	none         // its kernel has no MACsec
	secure       // it sends by MACsec
)

// peer is a member.
type peer struct {
	member proof.Member
	said   said
	sci    SCI
	keys   []theirs
	owed   []taken // acknowledgements that wait for the kernel

	told     bool    // it has a key of this device
	taken    []taken // what it acknowledged, of what is still on offer
	due      time.Time
	tries    int
	refusals bool // told once
}

// theirs is a key of a member's.
type theirs struct {
	Association
	serial uint32
	retire time.Time // zero: not dead
}

// renew begins a new session with a member. If it has restarted, its keys of
// before are older than any that it names now; what they were numbered, it does
// not know any more.
func (p *peer) renew(now time.Time, is proof.Member) {
	p.member, p.due, p.tries, p.taken, p.owed = is, now, 0, nil, nil
	for i := range p.keys {
		p.keys[i].serial = 0
	}
}

// Handle takes what a member said in that session.
func (m *Machine) Handle(now time.Time, h proof.Heard) {
	p := m.peerOf(h.From, h.Peer, h.Session)
	if p == nil {
		return
	}
	message, err := parse(h.Message)
	if err != nil {
		m.refuse(p, err)
		return
	}
	switch x := message.(type) {
	case taken:
		m.acknowledged(p, x)
	case offer:
		m.offered(now, p, x)
	}
}

// refuse tells once of a member that says what makes no sense.
func (m *Machine) refuse(p *peer, err error) {
	if !p.refusals {
		p.refusals = true
		m.event(Refused, p.member, err)
	}
}

func (m *Machine) acknowledged(p *peer, t taken) {
	if slices.Contains(m.offers(), t) && !slices.Contains(p.taken, t) {
		p.taken = append(p.taken, t)
	}
}

func (m *Machine) offered(now time.Time, p *peer, o offer) {
	if o.suite == suiteNone || !m.c.MACsec {
		m.inTheClear(p, o)
		return
	}
	if err := m.acceptable(p, o.sci); err != nil {
		m.refuse(p, err)
		return
	}
	if p.said != secure || p.sci != o.sci {
		p.keys = nil // of another interface
	}
	was := p.said
	p.said, p.sci, p.refusals = secure, o.sci, false
	m.changed = p.take(now, o, m.c.Timing.Grace) || m.changed
	p.owe(taken{o.serial, o.using})
	if was != secure {
		m.event(Secured, p.member, nil)
	}
}

// inTheClear takes a member's word that it has no MACsec, or tells it that this
// device has none.
func (m *Machine) inTheClear(p *peer, o offer) {
	was := p.said
	p.said, p.refusals = none, false
	if o.suite != suiteNone {
		p.said = secure
	}
	if len(p.keys) > 0 {
		p.keys, m.changed = nil, true
	}
	p.owe(taken{o.serial, o.using})
	if was != p.said {
		m.changed = true
		m.event(Clear, p.member, nil)
	}
}

// acceptable tells whether a channel can be that member's: one that names
// another's would take that one's frames for its own.
func (m *Machine) acceptable(p *peer, sci SCI) error {
	mac := sci.MAC()
	if mac[0]&1 != 0 || mac == (proof.MAC{}) || sci != NewSCI(mac) {
		return ErrAddress
	}
	if mac == m.c.MAC {
		return ErrTaken
	}
	for _, other := range m.peers {
		if other != p && (other.member.MAC == mac || len(other.keys) > 0 && other.sci == sci) {
			return ErrTaken
		}
	}
	return nil
}

// take adds a key, and has the dead ones retire. It tells whether the kernel's
// are others now.
func (p *peer) take(now time.Time, o offer, grace time.Duration) (changed bool) {
	i := slices.IndexFunc(p.keys, func(k theirs) bool { return k.AN == o.an })
	switch {
	case i < 0:
		p.keys = append(p.keys, theirs{Association: Association{o.an, o.key, o.pn}, serial: o.serial})
		changed = true
	case p.keys[i].Key == o.key: // the kernel knows better how far it is
		p.keys[i].serial, p.keys[i].retire = o.serial, time.Time{}
	default:
		p.keys[i] = theirs{Association: Association{o.an, o.key, o.pn}, serial: o.serial}
		changed = true
	}
	for i := range p.keys {
		if k := &p.keys[i]; k.serial < o.using && k.retire.IsZero() {
			k.retire = now.Add(grace)
		}
	}
	return changed
}

// retire drops the keys that are dead, and tells whether there were any.
func (p *peer) retire(now time.Time) bool {
	n := len(p.keys)
	p.keys = slices.DeleteFunc(p.keys, func(k theirs) bool { return !k.retire.IsZero() && !now.Before(k.retire) })
	return len(p.keys) < n
}

func (p *peer) owe(t taken) {
	if !slices.Contains(p.owed, t) && len(p.owed) < numbers {
		p.owed = append(p.owed, t)
	}
}

// Peer returns which member sends by that channel.
func (m *Machine) Peer(mac proof.MAC) (identity.PublicKey, bool) {
	for _, p := range m.peers {
		if len(p.keys) > 0 && p.sci.MAC() == mac {
			return p.member.Peer, true
		}
	}
	return identity.PublicKey{}, false
}
