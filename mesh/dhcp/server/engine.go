package server

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"halo.internal/model"
)

// Bounds of what is kept.
const (
	maxLeases   = 4096 // those that have ended and are remembered included
	maxOffers   = 256
	maxPerMAC   = 4 // leases of one MAC under several identifiers: firmware, loader, system
	maxClientID = 136
	offerFor    = 15 * time.Second
	tries       = 3 // addresses that are probed for one message
	rareEvent   = time.Hour
)

// mac is a 48-bit MAC address.
type mac [6]byte

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// client is who a lease belongs to. RFC 2131 knows a client by its identifier
// alone; but anybody can send another's, and machines that are copies of each
// other do.
type client struct {
	mac mac    // as Config.SameClient has it
	id  string // option 61 or empty, as it came
}

// lease is an address and whose it is, or was.
type lease struct {
	addr    netip.Addr
	client  client
	mac     mac           // the one that it came with last
	host    string        // hostname of the client
	name    string        // unique, may be empty
	granted time.Duration // from each time that it was given
	until   time.Time
	loaded  time.Time // when it was read from the file
	heard   bool      // since
	ended   bool      // expired or given back: remembered until somebody else needs it
}

// offer is an address that a client is to have, after a probe, or may have.
type offer struct {
	client client
	addr   netip.Addr
	until  time.Time
	tried  int // addresses, this one included

	m    *dhcpv4.DHCPv4 // to be answered when nobody has the address; nil: is answered
	sent int            // probes
	due  time.Time      // the next, or the end of listening
}

func (o *offer) probing() bool { return o.m != nil }

// output is what an engine has to send and to tell.
type output struct {
	replies []reply
	probes  []netip.Addr
	events  []model.Event
	changed bool // leases are others than before
	dirty   bool // the file is not what it should be
}

// engine decides, without I/O. Its times are of one clock that never steps.
type engine struct {
	c        Config
	network  netip.Prefix
	byAddr   map[netip.Addr]*lease
	byClient map[client]*lease
	reserved map[netip.Addr]Reservation
	byMAC    map[mac]netip.Addr    // reservations
	byID     map[string]netip.Addr // reservations
	offers   map[client]*offer
	aside    map[netip.Addr]time.Time // in use by somebody else, until
	poolSize int
	expiry   time.Time // no lease expires before; zero: none does

	fresh, again, known, stateless, declines, conflicts bucket
	memory                                              *memory
	ignored                                             map[string]uint64

	full       time.Time // when the last event told so
	turnedAway int       // since
	out        output
}

func newEngine(c Config) *engine {
	e := &engine{
		c: c, network: c.Address.Masked(),
		byAddr: map[netip.Addr]*lease{}, byClient: map[client]*lease{},
		offers: map[client]*offer{}, aside: map[netip.Addr]time.Time{},
		// New clients, each of which costs three frames to all. A network of 250
		// that starts all at once is through in half a minute.
		fresh: bucket{rate: 5, burst: 32}, again: bucket{rate: 5, burst: 32}, known: bucket{rate: 10, burst: 64},
		stateless: bucket{rate: 10, burst: 32},
		declines:  bucket{rate: 0.1, burst: 8}, conflicts: bucket{rate: 1.0 / 60, burst: 8},
		memory: newMemory(time.Now()), ignored: map[string]uint64{},
	}
	e.reserve(c.Reservations)
	return e
}

// same returns the MAC by which the client with this one is known.
func (e *engine) same(m mac) mac {
	if e.c.SameClient == nil {
		return m
	}
	return mac(e.c.SameClient(m[:]))
}

// reserve makes these the reservations there are.
func (e *engine) reserve(list []Reservation) {
	e.c.Reservations = list
	e.reserved, e.byMAC, e.byID = map[netip.Addr]Reservation{}, map[mac]netip.Addr{}, map[string]netip.Addr{}
	for _, r := range list {
		e.reserved[r.Address] = r
		if len(r.ClientID) > 0 {
			e.byID[string(r.ClientID)] = r.Address
		} else {
			e.byMAC[e.same(mac(r.MAC))] = r.Address
		}
	}
	e.poolSize = int(number(e.c.Last)-number(e.c.First)) + 1
	for a := range e.reserved {
		if e.inPool(a) {
			e.poolSize--
		}
	}
	if e.inPool(e.c.Address.Addr()) {
		e.poolSize--
	}
}

// holder returns who has an address, or is to have it in a moment, instead of the
// client of a reservation; ok is false when nobody does.
func (e *engine) holder(now time.Time, r Reservation) (who client, until time.Time, ok bool) {
	its := func(c client) bool {
		if len(r.ClientID) > 0 {
			return c.id == string(r.ClientID)
		}
		return c.mac == e.same(mac(r.MAC))
	}
	if l := e.byAddr[r.Address]; l != nil && !l.ended && now.Before(l.until) && !its(l.client) {
		return l.client, l.until, true
	}
	for c, o := range e.offers {
		if o.addr == r.Address && now.Before(o.until) && !its(c) {
			return c, o.until, true
		}
	}
	return client{}, time.Time{}, false
}

func number(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

func (e *engine) inPool(a netip.Addr) bool { return !a.Less(e.c.First) && !e.c.Last.Less(a) }

// reservation returns the address that is the client's own, or the zero Addr.
func (e *engine) reservation(c client) netip.Addr {
	if a, ok := e.byID[c.id]; ok {
		return a
	}
	return e.byMAC[c.mac]
}

// allowed tells whether the configuration lets the client have that address.
func (e *engine) allowed(c client, a netip.Addr) bool {
	own := e.reservation(c)
	if _, reserved := e.reserved[a]; reserved || a == e.c.Address.Addr() {
		return a == own
	}
	return e.inPool(a) && isHost(e.network, a)
}

// free tells whether nobody else has the address or is to have it. One of a
// lease that has ended is.
func (e *engine) free(now time.Time, c client, a netip.Addr) bool {
	if l := e.byAddr[a]; l != nil && !l.ended && l.client != c {
		return false
	}
	return !e.offeredToOther(now, c, a) && !e.isAside(now, a)
}

func (e *engine) isAside(now time.Time, a netip.Addr) bool { return now.Before(e.aside[a]) }

// choose returns the address for a client that has none, or the zero Addr.
func (e *engine) choose(now time.Time, c client, wish netip.Addr) netip.Addr {
	if own := e.reservation(c); own.IsValid() && e.free(now, c, own) {
		return own
	}
	if l := e.byClient[c]; l != nil && e.allowed(c, l.addr) && e.free(now, c, l.addr) {
		return l.addr
	}
	if wish.IsValid() && e.allowed(c, wish) && e.byAddr[wish] == nil && e.free(now, c, wish) {
		return wish
	}
	if a := e.unused(now, c); a.IsValid() {
		return a
	}
	return e.reclaim(now, c)
}

// unused looks for an address that nobody remembers, from a place on that
// depends on the client: it finds the same one again, also after its lease was
// lost.
func (e *engine) unused(now time.Time, c client) netip.Addr {
	if len(e.byAddr) >= maxLeases {
		return netip.Addr{}
	}
	taken := map[netip.Addr]bool{}
	for _, o := range e.offers {
		taken[o.addr] = true
	}
	h := fnv.New32a()
	h.Write(c.mac[:])
	h.Write([]byte(c.id))
	first, size := number(e.c.First), number(e.c.Last)-number(e.c.First)+1
	start := h.Sum32() % size
	for i := range size {
		a := address(first + (start+i)%size)
		if e.byAddr[a] == nil && !taken[a] && e.allowed(c, a) && !e.isAside(now, a) {
			if _, reserved := e.reserved[a]; !reserved {
				return a
			}
		}
	}
	return netip.Addr{}
}

// reclaim takes the address whose lease ended first; when there is none, that
// of a client which would have renewed by now, had it outlived the restart.
func (e *engine) reclaim(now time.Time, c client) netip.Addr {
	var best *lease
	for _, l := range e.byAddr {
		gone := l.ended || !l.heard && now.Sub(l.loaded) > l.granted*5/8
		_, reserved := e.reserved[l.addr]
		if !gone || reserved || !e.allowed(c, l.addr) || e.isAside(now, l.addr) || e.offeredToOther(now, c, l.addr) {
			continue
		}
		if best == nil || l.ended && !best.ended || l.ended == best.ended && l.until.Before(best.until) {
			best = l
		}
	}
	if best == nil {
		return netip.Addr{}
	}
	if !best.ended {
		e.end(now, best)
	}
	return best.addr
}

func (e *engine) offeredToOther(now time.Time, c client, a netip.Addr) bool {
	for _, o := range e.offers {
		if o.addr == a && o.client != c && now.Before(o.until) {
			return true
		}
	}
	return false
}

// admit bounds how many clients are taken up that have no lease.
func (e *engine) admit(now time.Time, c client) bool {
	e.tidy(now)
	switch {
	case len(e.offers) >= maxOffers:
		return false
	case e.byClient[c] != nil || e.reservation(c).IsValid():
		return e.known.take(now)
	}
	return e.fresh.take(now) || e.memory.again(now, c.mac) && e.again.take(now)
}

func (e *engine) tidy(now time.Time) {
	for c, o := range e.offers {
		if !now.Before(o.until) {
			delete(e.offers, c)
		}
	}
	for a, until := range e.aside {
		if !now.Before(until) {
			delete(e.aside, a)
		}
	}
}

// probe asks whether anybody has the address, and answers m afterwards.
func (e *engine) probe(now time.Time, c client, a netip.Addr, m *dhcpv4.DHCPv4, tried int) {
	listening := time.Duration(e.c.timing.probes) * e.c.timing.probeEvery
	o := &offer{client: c, addr: a, until: now.Add(listening + offerFor), tried: tried, m: m, due: now}
	e.offers[c] = o
	e.push(now, o)
}

func (e *engine) push(now time.Time, o *offer) {
	if o.sent < e.c.timing.probes {
		o.sent++
		o.due = now.Add(e.c.timing.probeEvery)
		e.out.probes = append(e.out.probes, o.addr)
		return
	}
	m := o.m
	o.m = nil
	if m.MessageType() == dhcpv4.MessageTypeRequest || e.rapid(m) {
		e.acknowledge(now, o.client, o.addr, m)
		return
	}
	e.reply(m, dhcpv4.MessageTypeOffer, o.addr, e.duration(o.client))
}

// hear is told of every ARP message from another host.
func (e *engine) hear(now time.Time, h heard) {
	for _, o := range e.offers {
		if o.probing() && o.addr == h.addr && o.client.mac != e.same(h.mac) {
			e.conflict(now, o, h.mac)
			return
		}
	}
}

// conflict looks for another address in place of one that is in use.
func (e *engine) conflict(now time.Time, o *offer, holder mac) {
	delete(e.offers, o.client)
	e.setAside(now, o.client, o.addr, map[string]string{"holder": holder.String()},
		fmt.Sprintf("%s on %s is in use by %s: give it to that host by a reservation, or take it out of the pool", o.addr, e.c.Iface, holder))
	if l := e.byAddr[o.addr]; l != nil && (l.ended || l.client == o.client) {
		e.forget(l)
	}
	if o.m.MessageType() == dhcpv4.MessageTypeRequest {
		e.refuse(now, o.m)
		return
	}
	if o.tried < tries {
		if a := e.choose(now, o.client, netip.Addr{}); a.IsValid() {
			e.probe(now, o.client, a, o.m, o.tried+1)
		} else {
			e.exhausted(now)
		}
	}
}

// setAside leaves an address unused for a time. Never more than a quarter of the
// pool: whoever claims to have them all does not stop the server for good.
func (e *engine) setAside(now time.Time, c client, a netip.Addr, fields map[string]string, message string) {
	e.tidy(now)
	if len(e.aside) >= max(1, e.poolSize/4) {
		var first netip.Addr
		for a, until := range e.aside {
			if !first.IsValid() || until.Before(e.aside[first]) {
				first = a
			}
		}
		delete(e.aside, first)
	}
	e.aside[a] = now.Add(e.c.timing.quarantine)
	if e.conflicts.take(now) {
		fields["address"], fields["mac"] = a.String(), c.mac.String()
		e.event(EventConflict, model.Warning, message, fields)
	}
}

func (e *engine) event(kind string, s model.Severity, message string, fields map[string]string) {
	if fields == nil {
		fields = map[string]string{}
	}
	fields["iface"] = e.c.Iface
	e.out.events = append(e.out.events, model.Event{Kind: kind, Severity: s, Message: message, Fields: fields})
}

// exhausted tells at once that a client was turned away, and then rarely.
func (e *engine) exhausted(now time.Time) {
	e.turnedAway++
	if !e.full.IsZero() && now.Sub(e.full) < rareEvent {
		return
	}
	e.event(EventExhausted, model.Warning,
		fmt.Sprintf("no address is free on %s, from %s to %s: make the pool larger or the leases shorter", e.c.Iface, e.c.First, e.c.Last),
		map[string]string{"clients": fmt.Sprint(e.turnedAway)})
	e.full, e.turnedAway = now, 0
}

// duration is how long a lease is to be. While most of the pool is in use, a
// newcomer has to come back soon to keep what it got.
func (e *engine) duration(c client) time.Duration {
	if l := e.byClient[c]; l != nil && !l.ended || e.reservation(c).IsValid() {
		return e.c.Lease
	}
	used := len(e.aside)
	for _, l := range e.byAddr {
		if !l.ended && e.inPool(l.addr) {
			used++
		}
	}
	size := min(e.poolSize, maxLeases)
	if size-used > size/4 {
		return e.c.Lease
	}
	return min(e.c.Lease, max(e.c.Lease/8, ShortestLease))
}

// bind gives the address to the client.
func (e *engine) bind(now time.Time, c client, hw mac, a netip.Addr, host string) *lease {
	d := e.duration(c)
	delete(e.offers, c)
	l := e.byClient[c]
	if l != nil && l.addr != a {
		e.forget(l)
		l = nil
	}
	if before := e.byAddr[a]; before != nil && before != l {
		e.forget(before)
	}
	name := e.name(c, host)
	if l == nil {
		e.makeRoom(c)
		l = &lease{addr: a, client: c, ended: true}
		e.byAddr[a], e.byClient[c] = l, l
	}
	other := l.ended || l.mac != hw || l.host != host || l.name != name
	e.out.changed = e.out.changed || other || !l.heard
	e.out.dirty = e.out.dirty || other || l.granted != d
	l.mac, l.host, l.name, l.granted, l.until, l.heard, l.ended = hw, host, name, d, now.Add(d), true, false
	e.expiry = sooner(e.expiry, l.until)
	return l
}

// makeRoom forgets what one more lease must not come on top of.
func (e *engine) makeRoom(c client) {
	var same, all []*lease
	for _, l := range e.byAddr {
		if l.client.mac == c.mac {
			same = append(same, l)
		}
		if l.ended {
			all = append(all, l)
		}
	}
	for ; len(same) >= maxPerMAC; same = same[1:] {
		slices.SortFunc(same, byAge)
		e.forget(same[0])
	}
	if len(e.byAddr) >= maxLeases && len(all) > 0 {
		e.forget(slices.MinFunc(all, byAge))
	}
}

// byAge puts what has ended before what has not, and the longest unheard first.
func byAge(a, b *lease) int {
	if a.ended != b.ended {
		if a.ended {
			return -1
		}
		return 1
	}
	return cmp.Or(a.until.Add(-a.granted).Compare(b.until.Add(-b.granted)), a.addr.Compare(b.addr))
}

func (e *engine) end(now time.Time, l *lease) {
	l.ended, l.name = true, ""
	if now.Before(l.until) {
		l.until = now
	}
	e.out.changed, e.out.dirty = true, true
}

func (e *engine) forget(l *lease) {
	delete(e.byAddr, l.addr)
	if e.byClient[l.client] == l {
		delete(e.byClient, l.client)
	}
	e.out.changed, e.out.dirty = true, true
}

// advance does what is due.
func (e *engine) advance(now time.Time) {
	for _, o := range e.offers {
		if o.probing() && !now.Before(o.due) {
			e.push(now, o)
		}
	}
	e.expire(now)
}

func (e *engine) expire(now time.Time) {
	if e.expiry.IsZero() || now.Before(e.expiry) {
		return
	}
	e.expiry = time.Time{}
	for _, l := range e.byAddr {
		switch {
		case l.ended:
		case now.Before(l.until):
			e.expiry = sooner(e.expiry, l.until)
		default:
			e.end(now, l)
		}
	}
}

// sooner returns the earlier of two times, of which the zero time is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// next tells when to advance; never, the zero time.
func (e *engine) next() time.Time {
	due := e.expiry
	for _, o := range e.offers {
		if o.probing() {
			due = sooner(due, o.due)
		}
	}
	return due
}

func (e *engine) take() output {
	out := e.out
	e.out = output{}
	return out
}
