package mdns

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	names "halo.internal/mesh/dns"
	"halo.internal/model/paths"
)

// Times of RFC 6762, at the sections given.
const (
	probeEvery   = 250 * time.Millisecond // 8.1
	probes       = 3
	announceNext = time.Second // 8.3
	announces    = 2
	tieWait      = time.Second            // 8.2
	againAfter   = time.Second            // 6: between multicasts of one record
	defendAfter  = 250 * time.Millisecond // 6: when it is an answer to a probe
	unicastFor   = 30 * time.Second       // 5.4: a quarter of ttl, in which others may be thought to know
	ttl          = 120                    // seconds, 10
	ttlLegacy    = 10                     // 6.7
)

// Our own.
const (
	waitTaken    = time.Minute // between looks whether a name is free
	manyTaken    = 15          // names taken in so short a time (8.1)
	manyWithin   = 10 * time.Second
	manyWait     = 5 * time.Second
	lastNumber   = 99               // that is added to a name
	tellEvery    = 10 * time.Minute // of conflicts
	maxAddresses = 8
	maxQuestions = 64 // of a message, that are looked at
	unicastBurst = 50 // answers to single askers at once
	unicastEvery = 50 * time.Millisecond
)

type state int

const (
	idle state = iota // there is no address
	probing
	held
	waiting // another has the name, or comes first
)

// claim is one name.
type claim struct {
	base    string // label
	numbers bool   // it gives way by a number
	number  int

	state state
	sent  int       // probes or announcements in this state
	next  time.Time // when there is something to do; zero: nothing

	multicast map[family]time.Time // last
	lost      []time.Time          // when the last conflicts were
	told      time.Time
}

func (c *claim) label() string {
	if c.number < 2 {
		return c.base
	}
	suffix := fmt.Sprint("-", c.number)
	return c.base[:min(len(c.base), 63-len(suffix))] + suffix
}

func (c *claim) name() string { return c.label() + ".local." }

// responder is the protocol without I/O.
type responder struct {
	claims   []*claim
	own      []netip.Prefix
	conflict func(name, by, instead string)
	random   func(time.Duration) time.Duration

	unicasts float64
	unicast  time.Time
}

func newResponder(node string, conflict func(name, by, instead string), random func(time.Duration) time.Duration) *responder {
	r := &responder{conflict: conflict, random: random, claims: []*claim{{base: "halo"}}, unicasts: unicastBurst}
	if label := names.Label(node); label != "" && label != "halo" {
		r.claims = append(r.claims, &claim{base: label, numbers: true, number: 1})
	}
	for _, c := range r.claims {
		c.multicast = make(map[family]time.Time)
	}
	return r
}

// due returns when tick is to be called, zero: not before something else.
func (r *responder) due() (at time.Time) {
	for _, c := range r.claims {
		if !c.next.IsZero() && (at.IsZero() || c.next.Before(at)) {
			at = c.next
		}
	}
	return at
}

// tick does what is due.
func (r *responder) tick(now time.Time) (out []message) {
	for _, c := range r.claims {
		if c.next.IsZero() || c.next.After(now) {
			continue
		}
		switch {
		case c.state == waiting:
			c.state, c.sent = probing, 0
			fallthrough
		case c.state == probing && c.sent < probes:
			c.sent++
			c.next = now.Add(probeEvery)
			out = append(out, message{Msg: r.probe(c)})
		case c.state == probing:
			c.state, c.sent = held, 0
			fallthrough
		case c.state == held:
			out = append(out, r.announce(now, c)...)
		}
	}
	return out
}

// announce says what the name's addresses are, and whether it is to be said
// again.
func (r *responder) announce(now time.Time, c *claim) []message {
	c.next = time.Time{}
	if c.sent++; c.sent < announces {
		c.next = now.Add(announceNext)
	}
	c.multicast[four], c.multicast[six] = now, now
	return []message{{Msg: response(r.addresses(c, ttl))}}
}

// probe begins to look whether the name is free, after a while by which devices that started together
// part.
func (c *claim) probe(now time.Time, random func(time.Duration) time.Duration) {
	c.state, c.sent, c.next = probing, 0, now.Add(random(probeEvery))
}

// addressed takes note of the interface's addresses.
func (r *responder) addressed(now time.Time, own []netip.Prefix) (out []message) {
	if slices.Equal(own, r.own) {
		return nil
	}
	was := r.own
	r.own = own
	var gone []netip.Addr
	for _, p := range was {
		if !r.isOwn(p.Addr()) {
			gone = append(gone, p.Addr())
		}
	}
	for _, c := range r.claims {
		switch {
		case c.state == held:
			if records := addressRecords(c.name(), gone, 0); len(records) > 0 {
				out = append(out, message{Msg: response(records)})
			}
			if len(own) > 0 {
				c.sent = 0
				out = append(out, r.announce(now, c)...)
				continue
			}
			fallthrough
		case len(own) == 0:
			c.state, c.next = idle, time.Time{}
		case c.state == idle:
			c.probe(now, r.random)
		}
	}
	return out
}

func (r *responder) isOwn(a netip.Addr) bool {
	return slices.ContainsFunc(r.own, func(p netip.Prefix) bool { return p.Addr() == a })
}

// onLink tells whether a source is on the interface's link: all that are not are
// ignored (RFC 6762, 11).
func (r *responder) onLink(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || slices.ContainsFunc(r.own, func(p netip.Prefix) bool { return p.Contains(a) })
}

// goodbye takes the names back (10.1).
func (r *responder) goodbye() (out []message) {
	for _, c := range r.claims {
		if c.state == held {
			out = append(out, message{Msg: response(r.addresses(c, 0))})
		}
		c.state, c.next = idle, time.Time{}
	}
	return out
}

// handle takes what somebody sent.
func (r *responder) handle(now time.Time, b []byte, from netip.AddrPort) []message {
	var m dns.Msg
	if !r.onLink(from.Addr()) || r.isOwn(from.Addr()) || m.Unpack(b) != nil || m.Opcode != dns.OpcodeQuery || m.Rcode != 0 {
		return nil
	}
	if m.Response {
		if from.Port() != paths.MDNSPort { // 6
			return nil
		}
		return r.heard(now, &m, from.Addr())
	}
	return r.asked(now, &m, from)
}

// heard looks for our names in another's response.
func (r *responder) heard(now time.Time, m *dns.Msg, by netip.Addr) (out []message) {
	for _, c := range r.claims {
		theirs, ours, free := false, false, false
		for _, list := range [][]dns.RR{m.Answer, m.Extra} {
			for _, rr := range list {
				a, ok := address(rr, c.name())
				switch {
				case !ok:
				case r.isOwn(a):
					ours = ours || rr.Header().Ttl < ttl/2
				case rr.Header().Ttl == 0:
					free = true
				default:
					theirs = true
				}
			}
		}
		switch {
		case theirs && c.state == probing:
			r.lose(now, c, by)
		case theirs && c.state == held: // 9
			c.probe(now, r.random)
		case ours && c.state == held && now.Sub(c.multicast[four]) >= againAfter: // 6.6, 10.1
			c.sent = 0
			out = append(out, r.announce(now, c)...)
		case free && !theirs && c.state == waiting:
			c.next = now.Add(announceNext + r.random(probeEvery)) // 10.1: it is gone a second later
		}
	}
	return out
}

// lose gives the name up for now.
func (r *responder) lose(now time.Time, c *claim, by netip.Addr) {
	was := c.name()
	c.lost = append(c.lost, now)
	if len(c.lost) > manyTaken {
		c.lost = c.lost[1:]
	}
	wait := r.random(probeEvery)
	if len(c.lost) == manyTaken && now.Sub(c.lost[0]) < manyWithin {
		wait = manyWait
	}
	instead := ""
	switch {
	case !c.numbers:
		wait = waitTaken
	case c.number >= lastNumber:
		wait, c.number = waitTaken, 1
	default:
		c.number++
		instead = c.name()
	}
	c.state, c.next = waiting, now.Add(wait)
	if c.told.IsZero() || now.Sub(c.told) >= tellEvery {
		c.told = now
		r.conflict(was, by.String(), instead)
	}
}

// asked answers questions, and sees who probes for what we do.
func (r *responder) asked(now time.Time, m *dns.Msg, from netip.AddrPort) (out []message) {
	questions := m.Question[:min(len(m.Question), maxQuestions)]
	for _, c := range r.claims {
		if c.state == probing {
			r.tie(now, c, m)
		}
		if c.state != held {
			continue
		}
		a := r.answer(c, m, questions)
		if len(a.records) > 0 {
			out = append(out, r.deliver(now, c, m, a, from)...)
		}
	}
	return out
}

// tie decides between two who probe for one name at a time: who has the later
// records wins, and who has lost looks again a second later (8.2).
func (r *responder) tie(now time.Time, c *claim, m *dns.Msg) {
	var theirs [][]byte
	for _, rr := range m.Ns {
		if dns.CanonicalName(rr.Header().Name) == dns.CanonicalName(c.name()) && rr.Header().Class&^flush == dns.ClassINET {
			theirs = append(theirs, sortKey(rr))
		}
	}
	if len(theirs) == 0 {
		return
	}
	var ours [][]byte
	for _, rr := range r.addresses(c, ttl) {
		ours = append(ours, sortKey(rr))
	}
	slices.SortFunc(theirs, bytes.Compare)
	slices.SortFunc(ours, bytes.Compare)
	if slices.CompareFunc(ours, theirs, bytes.Compare) < 0 {
		c.state, c.next = waiting, now.Add(tieWait)
	}
}

// reply is what to say of one name.
type reply struct {
	records, extra []dns.RR
	questions      []dns.Question // that it answers
	unicast        bool           // all of them ask for an answer to the asker alone
	probe          bool
}

// answer makes the reply to those questions that are about the name, but for
// what the asker knows already (7.1).
func (r *responder) answer(c *claim, m *dns.Msg, questions []dns.Question) reply {
	a := reply{unicast: true}
	all := r.addresses(c, ttl)
	types := map[uint16]bool{}
	for _, q := range questions {
		class := q.Qclass &^ flush
		if dns.CanonicalName(q.Name) != dns.CanonicalName(c.name()) || class != dns.ClassINET && class != dns.ClassANY {
			continue
		}
		a.questions = append(a.questions, q)
		a.unicast = a.unicast && q.Qclass&flush != 0
		if q.Qtype == dns.TypeANY {
			types[dns.TypeA], types[dns.TypeAAAA] = true, true
		} else {
			types[q.Qtype] = true
		}
	}
	if len(a.questions) == 0 {
		return reply{}
	}
	a.probe = slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return dns.CanonicalName(rr.Header().Name) == dns.CanonicalName(c.name()) })
	nsec := negative(c.name(), all)
	for _, rr := range all {
		kind := rr.Header().Rrtype
		switch {
		case !types[kind]:
			a.extra = append(a.extra, rr)
		case !known(m.Answer, rr):
			a.records = append(a.records, rr)
		}
	}
	missing := false // a type that was asked for
	for kind := range types {
		missing = missing || !slices.Contains(nsec.TypeBitMap, kind)
	}
	switch {
	case missing && !knownNegative(m.Answer, c.name()):
		a.records = append(a.records, nsec)
	case !missing && len(nsec.TypeBitMap) == 1:
		a.extra = append(a.extra, nsec)
	}
	return a
}

// deliver decides to whom a reply goes.
func (r *responder) deliver(now time.Time, c *claim, m *dns.Msg, a reply, from netip.AddrPort) []message {
	family := familyOf(from.Addr().Is4())
	since := now.Sub(c.multicast[family])
	switch {
	case from.Port() != paths.MDNSPort: // 6.7: a plain resolver
		if !r.mayUnicast(now) {
			return nil
		}
		plain := response(slices.Concat(a.records, a.extra))
		plain.Id = m.Id
		plain.Question = a.questions[:1]
		plain.Question[0].Qclass &^= flush
		plain.Answer, plain.Extra = plain.Answer[:len(a.records)], plain.Answer[len(a.records):]
		for _, list := range [][]dns.RR{plain.Answer, plain.Extra} {
			for _, rr := range list {
				rr.Header().Ttl = ttlLegacy
				rr.Header().Class &^= flush
			}
		}
		return []message{{Msg: plain, to: from}}
	case a.unicast && since < unicastFor && !a.probe:
		if !r.mayUnicast(now) {
			return nil
		}
		single := response(a.records)
		single.Extra = a.extra
		return []message{{Msg: single, to: from}}
	case since < defendAfter || since < againAfter && !a.probe:
		return nil // the group has heard it
	}
	c.multicast[family] = now
	group := response(a.records)
	group.Extra = a.extra
	return []message{{Msg: group, family: family}}
}

func (r *responder) mayUnicast(now time.Time) bool {
	r.unicasts = min(unicastBurst, r.unicasts+float64(now.Sub(r.unicast))/float64(unicastEvery))
	r.unicast = now
	if r.unicasts < 1 {
		return false
	}
	r.unicasts--
	return true
}
