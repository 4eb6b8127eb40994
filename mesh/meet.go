package mesh

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/batman"
	"halo.internal/model/dot11"
)

// Nobody on the mesh has to be asked for its hardware address. A question of neighbour
// discovery (RFC 4861) goes to all, three times by each: in a mesh of ten on a HaLow
// channel of 1 MHz it takes 270 ms, and where ten begin together, questions were a
// quarter of all that was said. The address of a member's bat0 follows from its key,
// but for the turn that it is at (batman.Turns), and which of them is there routing
// tells by its table of clients. So the kernel is told, as an entry that it does not
// question and that no answer of a member changes.
//
// A member that routing has not heard of has an entry too, by its first turn: what is
// sent to it is dropped by batman-adv, which knows no way, and nobody is asked for one
// who is not there.

// Times between looks whether members are at other turns: for a while after one was
// heard of, since routing knows where he is a little later, and else.
const (
	meetSoon  = 2 * time.Second
	meetLooks = 5
	meetEvery = 15 * time.Second
)

// keepMet has the kernel know the members' hardware addresses, until ctx ends.
func (m *core) keepMet(ctx context.Context, roll func() []identity.PublicKey) error {
	told := false
	for soon := meetLooks; ; soon-- {
		_, err := m.under.Meet(m.acquaintances(roll()), false)
		if err != nil && !told && ctx.Err() == nil {
			m.Log.Warn("the kernel has to ask all for the hardware addresses of members", "err", err)
		}
		told = err != nil
		wait := meetEvery
		if soon > 0 {
			wait = meetSoon
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		case <-m.meetNow:
			soon = meetLooks + 1
		}
	}
}

// meet is keepMet's for one that was just heard, before it is answered, once in each of
// its lives. What goes wrong keepMet tells. It is called by who listens to
// announcements alone.
func (m *core) meet(key identity.PublicKey, boot uint64) {
	if !m.noteLife(key, boot) {
		return
	}
	_, _ = m.under.Meet(m.acquaintances([]identity.PublicKey{key}), true)
	wake(m.meetNow)
}

// noteLife notes in which life a member was heard, and tells whether that is another than
// before.
func (m *core) noteLife(key identity.PublicKey, boot uint64) (anew bool) {
	m.metMu.Lock()
	defer m.metMu.Unlock()
	before, known := m.met[key]
	if known && before.boot == boot {
		return false
	}
	now := life{boot: boot}
	if known {
		now.at = time.Now()
	}
	if m.met == nil {
		m.met = map[identity.PublicKey]life{}
	}
	m.met[key] = now
	return true
}

// life is a member's present one.
type life struct {
	boot uint64
	at   time.Time // when it was heard of first; zero: it may have begun long before
}

// bornWithin is how long before a life is heard of its routing messages may have been
// heard already: longer than two of those that begin one are apart, and shorter than any
// machine takes to start.
const bornWithin = 6 * time.Second

// Acquaintance is a member whose hardware address is wanted.
type Acquaintance struct {
	Key identity.PublicKey
	// Within is how long ago its originator was heard at most. One that is silent for
	// longer is of an earlier life, at another address: routing remembers it for 200 s, and
	// until it has heard of the present one it knows no other.
	Within time.Duration
}

// acquaintances says how long these members have lived, as far as that is known.
func (m *core) acquaintances(members []identity.PublicKey) []Acquaintance {
	m.metMu.Lock()
	defer m.metMu.Unlock()
	list := make([]Acquaintance, 0, len(members))
	for _, key := range members {
		a := Acquaintance{key, math.MaxInt64}
		if l := m.met[key]; !l.at.IsZero() {
			a.Within = time.Since(l.at) + bornWithin
		}
		list = append(list, a)
	}
	return list
}

// meetAndHear takes an authentic message of a node. One that is no member has no entry
// of its own: there is no end of those.
func (g *gateway) meetAndHear(n announce.Node, from netip.Addr) (settled <-chan struct{}) {
	key := identity.PublicKey(n.Key)
	g.mu.Lock()
	admitted := g.known.has(key.ID())
	g.mu.Unlock()
	if admitted {
		g.meet(key, n.Stamp.Boot)
	}
	return g.hear(n)
}

// meetAndHear takes a believed message of the gateway.
func (n *node) meetAndHear(h announce.Heard) {
	n.meet(n.net, h.Stamp.Boot)
	n.hear(h)
}

// roll of a gateway is whom it has admitted.
func (g *gateway) roll() []identity.PublicKey {
	keys, _, _, _ := g.members()
	return keys
}

// roll of a node is the gateway and those on its list.
func (n *node) roll() []identity.PublicKey {
	list := []identity.PublicKey{n.net}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.list.Peers {
		list = append(list, p.Key)
	}
	return list
}

// Times of waiting for a way.
const (
	wayWithin = 2 * time.Second // routing messages of those who just met are a second apart at most
	wayEvery  = 50 * time.Millisecond
)

// awaitWay waits until routing knows a way to a member that was heard, but not for long.
// What is said to all arrives before there is a way back, and a handshake of the overlay
// that is lost is sent again after five seconds.
func (m *core) awaitWay(ctx context.Context, key identity.PublicKey) {
	ctx, cancel := context.WithTimeout(ctx, wayWithin)
	defer cancel()
	t := time.NewTicker(wayEvery)
	defer t.Stop()
	for {
		if known, err := m.under.Meet(m.acquaintances([]identity.PublicKey{key}), true); known || err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Meet asks routing where members are, and tells the kernel.
func (u *batUnderlay) Meet(members []Acquaintance, there bool) (known bool, err error) {
	u.mu.Lock()
	bat := u.bat
	u.mu.Unlock()
	if bat == nil {
		return false, nil // there is nobody yet
	}
	clients, err := bat.Clients()
	if err != nil {
		return false, err
	}
	ways, err := bat.Originators()
	if err != nil {
		return false, err
	}
	own := u.Key.Public()
	if own != u.Network {
		u.noteGateway(bat, clients, ways)
	}
	link, err := netlink.LinkByName(underlayIface(u.Bundle))
	if err != nil {
		return false, fmt.Errorf("underlay: %w", err)
	}
	u.meeting.Lock()
	defer u.meeting.Unlock()
	others := make(map[netip.Addr]seat, len(members))
	at := seats(clients, ways, members)
	known = true
	for _, a := range members {
		if a.Key != own {
			others[identity.Underlay(u.Network, a.Key)] = at[a.Key]
			known = known && at[a.Key].known
		}
	}
	return known, acquaint(link.Attrs().Index, others, there)
}

// seat is the hardware address of a member's bat0.
type seat struct {
	mac   dot11.MAC
	known bool // routing says so, and it is no guess
}

// seats tells which of its addresses each member has. Of several, which it had at
// earlier starts, the one counts whose originator was heard last.
func seats(clients []batman.Client, ways []batman.Originator, members []Acquaintance) map[identity.PublicKey]seat {
	of := make(map[dot11.MAC]Acquaintance, batman.Turns*len(members))
	at := make(map[identity.PublicKey]seat, len(members))
	for _, a := range members {
		for turn := range uint8(batman.Turns) {
			of[dot11.MAC(batman.MAC(a.Key, turn))] = a
		}
		at[a.Key] = seat{mac: dot11.MAC(batman.MAC(a.Key, 0))}
	}
	seen := make(map[dot11.MAC]time.Duration, len(ways)) // how long ago, by the way that was heard last
	for _, w := range ways {
		mac := macOf(w.MAC)
		if last, twice := seen[mac]; !twice || w.LastSeen < last {
			seen[mac] = w.LastSeen
		}
	}
	heard := map[identity.PublicKey]time.Duration{}
	for _, c := range clients {
		a, ok := of[macOf(c.MAC)]
		if !ok || !c.Best {
			continue
		}
		last, ok := seen[macOf(c.Originator)]
		if !ok {
			last = a.Within // one that is just now heard of has no way yet
		}
		if before, twice := heard[a.Key]; last <= a.Within && (!twice || last < before) {
			heard[a.Key], at[a.Key] = last, seat{macOf(c.MAC), true}
		}
	}
	return at
}

// macOf is the address, or zero where it is none.
func macOf(a net.HardwareAddr) (mac dot11.MAC) {
	if len(a) == len(mac) {
		mac = dot11.MAC(a)
	}
	return mac
}

// acquaint gives the interface of that index permanent entries of neighbours, by their
// addresses of the underlay, and by the link-local ones that the kernel makes of
// hardware addresses (RFC 4291, appendix A). A guess takes no entry's place. Of those
// that are there, since they were heard just now, nothing is guessed: routing knows the
// way in a moment, and the kernel keeps what is sent until it has asked.
func acquaint(index int, others map[netip.Addr]seat, there bool) error {
	list, err := netlink.NeighList(index, netlink.FAMILY_V6)
	if err != nil {
		return fmt.Errorf("underlay: list neighbours: %w", err)
	}
	permanent, asked := map[netip.Addr]dot11.MAC{}, map[netip.Addr]bool{}
	for _, n := range list {
		a, ok := netip.AddrFromSlice(n.IP)
		switch {
		case !ok:
		case n.State == netlink.NUD_PERMANENT:
			permanent[a] = macOf(n.HardwareAddr)
		case n.State&(netlink.NUD_FAILED|netlink.NUD_NOARP) == 0:
			asked[a] = true // or has answered
		}
	}
	for addr, s := range others {
		mac, has := permanent[addr]
		what, both := netlink.NeighSet, []netip.Addr{addr, linkLocal(s.mac)}
		switch {
		case s.known && has && mac == s.mac, !s.known && !there && (has || asked[addr]), !s.known && there && !has:
			continue
		case !s.known && there:
			what, both = netlink.NeighDel, both[:1]
			s.mac = mac
		}
		for _, a := range both {
			n := netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V6, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: s.mac[:]}
			if err := what(&n); err != nil {
				return fmt.Errorf("underlay: neighbour %s: %w", a, err)
			}
		}
	}
	return nil
}

// linkLocal is the address that the kernel gives an interface with that hardware
// address: its modified EUI-64.
func linkLocal(mac dot11.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}
