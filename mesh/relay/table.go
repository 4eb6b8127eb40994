package relay

import (
	"net/netip"
	"slices"
	"time"

	"halo.internal/model"
)

// Bounds of what is carried.
const (
	// sourceRate is how many datagrams a second one client may send; the firewall
	// lets some 50 in. Position reports come every few seconds, voice 50 times a second
	// at most.
	sourceRate, sourceBurst = 40, 80
	// memberRate is how many datagrams a second are taken from one member.
	memberRate, memberBurst = 200, 400
	// overhead is what a datagram costs beside its payload: IPv4 and UDP, this
	// package's head, WireGuard over IPv6, batman-adv, the radio.
	overhead = 28 + dataHead + 80 + 24 + 40
	// answerEvery is how often one member gets an answer at most.
	answerEvery = 2 * time.Second
)

// Messages about interest. One takes some 16 ms of a 1 MHz channel over two hops
// (about 190 octets each time, at 300 kbit/s, with preamble and acknowledgement).
// With n members each of which tells all others once an interval, n(n-1) of them
// share it: they are to take half of one per cent of the air. Questions and their
// answers are fewer, since they come once in three intervals.
const (
	messageAir = 16 * time.Millisecond
	airShare   = 200 // one part in
	renewMin   = time.Minute
	renewMax   = time.Hour

	askFirst = 5 * time.Second // until a question is asked again; doubles up to the interval
)

// repeats are when a change is told, since it happened: a message may be lost, or
// overtaken.
var repeats = [...]time.Duration{0, 2 * time.Second, 8 * time.Second}

// changes bounds how often that begins, whatever clients do.
const changeEvery, changeBurst = 20 * time.Second, 6

// Handshakes. WireGuard makes one at least every two minutes while there is
// something to send, and a session ends three minutes after.
const (
	sessionEnds = 210 * time.Second
	vouchWithin = 30 * time.Second
)

// Reasons why something is not carried.
const (
	dropSource   = "not of this network's clients"
	dropUnlisted = "group that is not listed"
	dropLong     = "payload over 8 KiB"
	dropFast     = "too many of one source"
	dropBudget   = "over the budget of the network"
	dropForeign  = "of somebody who is no member"
	dropForged   = "source that is no client of the member"
	dropUnwanted = "nobody here listens"
	dropForm     = "malformed"
	dropSend     = "not sent: the overlay or the bridge is not there"
)

// renewal is how often one of n members tells the others what it wants.
func renewal(n int) time.Duration {
	air := time.Duration(n*max(n-1, 0)) * messageAir * airShare
	return min(max(air, renewMin), renewMax)
}

// peer is what is known of another member.
type peer struct {
	Member
	wants    []netip.AddrPort
	until    time.Time // that holds; zero: not known
	asks     int       // questions since it said something
	askAt    time.Time // not before
	answerAt time.Time // not before
	unproven time.Time // since when it was sent to without a handshake that vouches for it; zero: not at all
	in       bucket
	greet    bool // it is back, and does not know what was told meanwhile
}

// table is who wants what. It does no I/O and has no clock: messages that are to be
// sent are its results.
type table struct {
	listed  []netip.AddrPort // in order
	own     netip.Prefix     // of this device's clients
	wants   []netip.AddrPort // what they listen to
	peers   map[netip.Addr]*peer
	sources map[netip.Addr]*bucket // of own clients; bounded by own, a /24
	budget  bucket                 // octets to others
	changes bucket

	tellAt time.Time // when wants is told to all; zero: not at all
	told   int       // how many of repeats were
	since  time.Time // of the change
}

func newTable(listed []netip.AddrPort, kbit int) *table {
	listed = slices.Clone(listed)
	inOrder(listed)
	rate := float64(kbit) * 1000 / 8
	return &table{
		listed: slices.Compact(listed), peers: map[netip.Addr]*peer{}, sources: map[netip.Addr]*bucket{},
		budget:  bucket{rate: rate, burst: max(2*rate, 4*MaxPayload)},
		changes: bucket{rate: 1 / changeEvery.Seconds(), burst: changeBurst},
	}
}

// set says who the members are. What is known of those that stay is kept; one whose
// address or clients are others is somebody else.
func (t *table) set(own netip.Prefix, members []Member) {
	if own != t.own {
		t.own = own
		clear(t.sources)
	}
	old := t.peers
	t.peers = make(map[netip.Addr]*peer, len(members))
	for _, m := range members {
		p := old[m.Overlay]
		if p == nil || p.Node != m.Node || p.Clients != m.Clients {
			p = &peer{Member: m, in: bucket{rate: memberRate, burst: memberBurst}}
		}
		if p.Away && !m.Away {
			p.greet, p.asks, p.askAt = true, 0, time.Time{}
		}
		p.Away = m.Away
		t.peers[m.Overlay] = p
	}
}

// renew is the interval of this network.
func (t *table) renew() time.Duration { return renewal(len(t.peers) + 1) }

// self is what this device says of itself.
func (t *table) self(ask bool) []byte {
	life := min(3*t.renew()+renewMin/2, maxLifetime).Truncate(time.Second)
	return interest{ask: ask, lifetime: life, groups: t.wants}.marshal()
}

// joined takes what groups hosts on the bridge listen to, of whatever port.
func (t *table) joined(now time.Time, groups []netip.Addr) {
	var wants []netip.AddrPort
	for _, l := range t.listed {
		if slices.Contains(groups, l.Addr()) {
			wants = append(wants, l)
		}
	}
	if slices.Equal(wants, t.wants) {
		return
	}
	t.wants = wants
	t.since = t.changes.ready(now)
	t.changes.spent++
	t.tellAt, t.told = t.since, 0
}

// greets tells whether somebody is back.
func (t *table) greets() bool {
	for _, p := range t.peers {
		if p.greet {
			return true
		}
	}
	return false
}

// missed has what was to be told by now be told as what changes now: nobody could be.
func (t *table) missed(now time.Time) {
	if !t.tellAt.IsZero() && t.tellAt.Before(now) {
		t.since, t.tellAt, t.told = now, now, 0
	}
}

// due returns what is to be told to all at this time, and to whom.
func (t *table) due(now time.Time) (msg []byte, to []netip.Addr) {
	if t.tellAt.IsZero() || now.Before(t.tellAt) {
		for a, p := range t.peers {
			if p.greet && !p.Away {
				to = append(to, a)
			}
			p.greet = false
		}
		return t.self(false), to
	}
	switch t.told++; {
	case t.told < len(repeats):
		t.tellAt = t.since.Add(repeats[t.told])
	case len(t.wants) > 0:
		t.tellAt = now.Add(t.renew())
	default:
		t.tellAt = time.Time{} // who still thinks otherwise, and sends, gets an answer
	}
	ask := false
	for a, p := range t.peers {
		if p.greet = false; p.Away {
			continue
		}
		to = append(to, a)
		// Who listens to a group mostly speaks there too: what the others want is known
		// when that happens.
		ask = ask || t.told == 1 && len(t.wants) > 0 && !now.Before(p.until)
	}
	return t.self(ask), to
}

// offer takes a datagram of an own client and returns whom it goes to, and who is to
// be asked whether it does. reason is why it is not carried.
func (t *table) offer(now time.Time, d datagram) (to, ask []netip.Addr, reason string) {
	from := d.from.Addr()
	switch {
	case !t.own.IsValid() || !t.own.Contains(from):
		return nil, nil, dropSource // what was emitted here, most of all: there is no way round
	case !slices.Contains(t.listed, d.group):
		return nil, nil, dropUnlisted
	case len(d.payload) > MaxPayload:
		return nil, nil, dropLong
	}
	s := t.sources[from]
	if s == nil {
		s = &bucket{rate: sourceRate, burst: sourceBurst}
		t.sources[from] = s
	}
	if !s.take(now, 1) {
		return nil, nil, dropFast
	}
	for a, p := range t.peers {
		switch known := now.Before(p.until); {
		case p.Away:
		case known && slices.Contains(p.wants, d.group):
			to = append(to, a)
		case !known && !now.Before(p.askAt):
			ask = append(ask, a)
			p.askAt = now.Add(min(askFirst<<min(p.asks, 10), t.renew()))
			p.asks++
		}
	}
	if len(to) > 0 && !t.budget.take(now, float64(len(to)*(overhead+len(d.payload)))) {
		return nil, ask, dropBudget
	}
	for _, a := range to {
		if p := t.peers[a]; p.unproven.IsZero() {
			p.unproven = now
		}
	}
	return to, ask, ""
}

// hear takes what another member's clients listen to and tells whether it is to get
// an answer.
func (t *table) hear(now time.Time, from netip.Addr, i interest) (answer bool, reason string) {
	p := t.peers[from]
	if p == nil {
		return false, dropForeign
	}
	p.wants, p.until, p.asks, p.askAt = i.groups, now.Add(i.lifetime), 0, time.Time{}
	return i.ask && p.mayAnswer(now), ""
}

func (p *peer) mayAnswer(now time.Time) bool {
	if now.Before(p.answerAt) {
		return false
	}
	p.answerAt = now.Add(answerEvery)
	return true
}

// take decides about a datagram that another member has sent. Who sends what nobody
// here wants may be told so.
func (t *table) take(now time.Time, from netip.Addr, d datagram) (answer bool, reason string) {
	p := t.peers[from]
	switch {
	case p == nil:
		return false, dropForeign
	case !client(p.Clients, d.from.Addr()):
		return false, dropForged
	case !slices.Contains(t.listed, d.group):
		return false, dropUnlisted
	case !p.in.take(now, 1):
		return false, dropFast
	case !slices.Contains(t.wants, d.group):
		return p.mayAnswer(now), dropUnwanted
	}
	return false, ""
}

// client tells whether an address may be one host's in that network.
func client(network netip.Prefix, a netip.Addr) bool {
	if !network.IsValid() || !network.Contains(a) || a == network.Masked().Addr() {
		return false
	}
	next := a.Next() // that of broadcasts is the last
	return next.IsValid() && network.Contains(next)
}

// unproven tells whether handshakes are to be looked at.
func (t *table) unproven() bool {
	for _, p := range t.peers {
		if !p.unproven.IsZero() {
			return true
		}
	}
	return false
}

// vouch compares whom was sent to with the last handshakes, by canonical ID. One that
// does not answer is forgotten, so that it is asked, ever more rarely, rather than sent
// to: each try to reach it costs the air of all.
func (t *table) vouch(now time.Time, handshakes map[string]time.Time) {
	for _, p := range t.peers {
		switch last, ok := handshakes[p.Node]; {
		case p.unproven.IsZero():
		case ok && model.Recent(now, last, sessionEnds):
			p.unproven = time.Time{}
		case now.Sub(p.unproven) > vouchWithin:
			p.unproven, p.wants, p.until = time.Time{}, nil, time.Time{}
			p.asks, p.askAt = 3, now.Add(askFirst<<3)
		}
	}
}

// groups returns the state of all that is carried.
func (t *table) groups(now time.Time) []model.RelayGroup {
	list := []model.RelayGroup{}
	for _, g := range t.listed {
		r := model.RelayGroup{Group: g, Joined: slices.Contains(t.wants, g)}
		for _, p := range t.peers {
			if now.Before(p.until) && slices.Contains(p.wants, g) {
				r.Members = append(r.Members, p.Node)
			}
		}
		slices.Sort(r.Members)
		list = append(list, r)
	}
	return list
}
