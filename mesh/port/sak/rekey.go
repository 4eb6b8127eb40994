package sak

import (
	"slices"
	"time"

	"halo.internal/mesh/port/proof"
)

// offers names what is on offer: the key in use and the next one, or that there
// is none.
func (m *Machine) offers() []taken {
	list := []taken{{m.current.serial, m.current.serial}}
	if m.next != nil {
		list = append(list, taken{m.next.serial, m.current.serial})
	}
	return list
}

func (m *Machine) offer(t taken) offer {
	o := offer{suite: suiteGCMAES128, an: m.current.an, key: m.current.key, serial: t.serial, using: t.using, pn: m.used, sci: m.sci}
	if !m.c.MACsec {
		return offer{suite: suiteNone, serial: t.serial, using: t.using}
	}
	if m.next != nil && t.serial == m.next.serial {
		o.an, o.key, o.pn = m.next.an, m.next.key, 1
	}
	return o
}

// pending returns what the peer has not acknowledged.
func (m *Machine) pending(p *peer) []taken {
	return slices.DeleteFunc(m.offers(), func(t taken) bool { return slices.Contains(p.taken, t) })
}

// rekey draws the next key. One that was handed out and not sent by is replaced
// when it is urgent: whoever was turned away may have it.
func (m *Machine) rekey(now time.Time, urgent bool) {
	if !m.c.MACsec || m.next != nil && !urgent {
		return
	}
	serial := m.current.serial + 1
	if m.next != nil {
		serial = m.next.serial + 1
	} else {
		m.begun = now
	}
	if urgent && !m.urgent {
		m.urgent, m.begun = true, now
	}
	m.next = &own{an: (m.current.an + 1) % numbers, key: draw(), serial: serial}
	m.hasten(now)
}

// hasten has members hear of new offers at once.
func (m *Machine) hasten(now time.Time) {
	offers := m.offers()
	for _, p := range m.peers {
		p.due, p.tries = now, 0
		p.taken = slices.DeleteFunc(p.taken, func(t taken) bool { return !slices.Contains(offers, t) })
	}
}

// deadline is when the next key is sent by, whoever has taken it.
func (m *Machine) deadline() time.Time {
	if m.urgent {
		return m.begun.Add(m.c.Timing.Hurry)
	}
	return m.begun.Add(m.c.Timing.Wait)
}

// ready tells whether all that send by MACsec have taken the next key.
func (m *Machine) ready() bool {
	t := taken{m.next.serial, m.current.serial}
	for _, p := range m.peers {
		if p.said == secure && !slices.Contains(p.taken, t) {
			return false
		}
	}
	return true
}

// Advance does what has become due: call it after all else too.
func (m *Machine) Advance(now time.Time) {
	if m.c.MACsec && m.next == nil && now.Sub(m.since) >= m.c.Timing.Life {
		m.rekey(now, false)
	}
	if m.next != nil && (m.ready() || !now.Before(m.deadline())) {
		m.current, m.next = *m.next, nil
		m.since, m.used, m.urgent, m.changed = now, 1, false, true
		m.event(Rekeyed, proof.Member{}, nil)
		m.hasten(now)
	}
	for mac, p := range m.peers {
		m.changed = p.retire(now) || m.changed
		pending := m.pending(p)
		if len(pending) == 0 || now.Before(p.due) {
			continue
		}
		for _, t := range pending {
			m.messages = append(m.messages, Message{mac, m.offer(t).marshal()})
		}
		p.told = p.told || m.c.MACsec
		p.tries++
		p.due = now.Add(time.Duration(min(p.tries, slowest)) * m.c.Timing.Resend)
	}
}

// Next returns when Advance must be called at the latest.
func (m *Machine) Next() time.Time {
	next := m.since.Add(m.c.Timing.Life)
	if m.next != nil {
		next = m.deadline()
	} else if !m.c.MACsec {
		next = m.since.Add(100 * m.c.Timing.Life) // nothing to replace
	}
	earlier := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	for _, p := range m.peers {
		if len(m.pending(p)) > 0 {
			earlier(p.due)
		}
		for _, k := range p.keys {
			if !k.retire.IsZero() {
				earlier(k.retire)
			}
		}
	}
	return next
}
