package change

import (
	"slices"
	"time"

	"halo.internal/mesh/profile"
	"halo.internal/model/bundle"
)

// mode is what a node does on its profile.
type mode int

const (
	rest  mode = iota // it lives there
	trial             // it was ordered there, and has not heard the gateway yet
	visit             // it looks whether the gateway, or a peer, is there
)

// crossing is for how long after a switch something may be heard that was said
// before it.
const crossing = 10 * time.Second

// Bounds of what strangers can bring about by having the mesh be heard where it is not.
// On another channel of HaLow the driver may have to be loaded anew, twice for each look.
const (
	maxElsewhere = 4   // profiles that are looked at in a round, those that were least often before others
	straysFirst  = 4   // other channels of HaLow that are looked at without a further pause
	straysMost   = 2   // times Longest, that such pauses grow to
	maxLooks     = 128 // profiles of which it is known how often they were: more than there are channels
)

// Heard is what the gateway says of its profile documents, in its epoch.
type Heard struct {
	Epoch uint64
	Using uint64 // serial of the one whose profile it uses; 0: that of its bundle
	Next  uint64 // serial of the one that it prepares; 0: none
}

// Node decides which profile a node uses. It is not safe for concurrent use.
type Node struct {
	t      Timing
	bundle bundle.Mesh     // what held before any document
	home   profile.Opened  // the document that counts; zero: none yet
	next   *profile.Opened // one that is on the card, and not used yet

	on, base bundle.Mesh // in use; and where it goes back to
	mode     mode
	since    time.Time // it came to on
	until    time.Time // end of a trial or visit
	heard    time.Time // the gateway, since then; zero: not
	rejoined bool      // a member has handed over what is tried: peers suffice

	patience time.Duration // without the gateway, among peers
	peers    int
	deserted time.Time // when the last peer was lost, or was there none; zero while there is one
	at       time.Time // of an ordered switch; zero: none

	elsewhere []bundle.Mesh       // our mesh was heard there
	lonely    bool                // it had no peer when it set out to try others
	looks     map[bundle.Mesh]int // how often these were tried since the gateway was heard
	round     []bundle.Mesh       // that were tried since all were
	pause     time.Duration       // on base before the next try
	tryAt     time.Time
	turnAt    time.Time // from when to when it may leave its peers
	turnEnds  time.Time
	strays    int       // other channels of HaLow that were looked at because of what strangers said
	strayAt   time.Time // no other before

	save bool
}

// NewNode returns a node that was just started, with what its bundle says and its
// card keeps.
func NewNode(t Timing, b bundle.Mesh, home profile.Opened, next *profile.Opened, now time.Time) *Node {
	n := &Node{t: t.WithDefaults(), bundle: b.WithDefaults(), home: home, next: next, deserted: now, looks: map[bundle.Mesh]int{}}
	if next != nil && !next.After(home.Document) {
		n.next = nil
	}
	n.base = n.homeMesh()
	n.come(now, n.base, rest)
	return n
}

func (n *Node) homeMesh() bundle.Mesh {
	if n.home.Serial == 0 {
		return n.bundle
	}
	return n.home.Mesh
}

// On returns the profile to use.
func (n *Node) On() bundle.Mesh { return n.on }

// Home returns the document that counts; the zero value: none.
func (n *Node) Home() profile.Opened { return n.home }

// Next returns the document that is not used yet, or nil.
func (n *Node) Next() *profile.Opened { return n.next }

// Latest returns the latest document at hand; the zero value: none.
func (n *Node) Latest() profile.Opened {
	if n.next != nil {
		return *n.next
	}
	return n.home
}

// Using returns the serial of the document whose profile is in use, or 0.
func (n *Node) Using() uint64 {
	switch {
	case n.next != nil && n.on == n.next.Mesh:
		return n.next.Serial
	case n.home.Serial != 0 && n.on == n.home.Mesh:
		return n.home.Serial
	}
	return 0
}

// Save tells whether what the card keeps is out of date, and forgets that it was.
func (n *Node) Save() bool {
	s := n.save
	n.save = false
	return s
}

// Unkept takes that the card has not taken what Save told of: it is told again. A node
// waits for its card with nothing: the others switch without it, and it finds them again
// after a power cut.
func (n *Node) Unkept() { n.save = true }

// Away tells whether the node is not where it lives.
func (n *Node) Away() bool { return n.mode != rest || n.on != n.homeMesh() }

// Seeking tells whether the node should ask the members around it for a later
// document, and whether it has none of them for a peer.
func (n *Node) Seeking(now time.Time) (seeking, alone bool) {
	alone = !n.deserted.IsZero() && now.Sub(n.deserted) >= n.t.Lost
	if n.heard.IsZero() {
		return now.Sub(n.since) >= n.t.Lost, alone
	}
	return alone || now.Sub(n.heard) >= n.t.Silent, alone
}

// come starts to use a profile.
func (n *Node) come(now time.Time, m bundle.Mesh, how mode) {
	n.on, n.mode, n.since, n.heard, n.peers, n.rejoined = m, how, now, time.Time{}, 0, false
	n.at, n.deserted, n.patience = time.Time{}, now, n.t.Jitter(n.t.Quiet)
	n.turnAt, n.turnEnds = time.Time{}, time.Time{}
	switch how {
	case trial:
		n.until = now.Add(n.t.Trial)
	case visit:
		n.until = now.Add(n.t.Visit)
	case rest:
		n.until = time.Time{}
	}
}

// settle makes the profile in use the one to come back to.
func (n *Node) settle() {
	n.base, n.mode, n.until, n.rejoined = n.on, rest, time.Time{}, false
	n.pause, n.round = 0, nil
	n.strays, n.strayAt = 0, time.Time{}
	clear(n.looks)
}

// adopt makes a document the one that counts.
func (n *Node) adopt(d profile.Opened) {
	n.home, n.next, n.at, n.save = d, nil, time.Time{}, true
	n.elsewhere = nil
}

// Wants tells whether a document should be fetched from the gateway.
func (n *Node) Wants(h Heard) bool {
	latest := profile.Document{Epoch: h.Epoch, Serial: max(h.Using, h.Next)}
	return latest.Serial != 0 && latest.After(n.Latest().Document)
}

// Document takes a document that this node has opened. used tells that whoever
// handed it over uses its profile; rejoin, that this was a member and not the
// gateway. It returns whether the document was news.
func (n *Node) Document(now time.Time, d profile.Opened, used, rejoin bool) bool {
	if !d.After(n.Latest().Document) {
		return false
	}
	n.save = true
	if d.Mesh == n.on {
		n.adopt(d)
		n.settle()
		return true
	}
	n.next, n.at = &d, time.Time{}
	if used || rejoin {
		n.come(now, d.Mesh, trial)
		n.rejoined = rejoin
	}
	return true
}

// Complete takes the whole of the document that counts, so that it can be handed on.
func (n *Node) Complete(d profile.Document) {
	if n.home.Serial == 0 || d.Epoch != n.home.Epoch || d.Serial != n.home.Serial || !d.Whole() || n.home.Whole() {
		return
	}
	mesh, former := n.home.Mesh, n.home.Former
	n.home, n.save = profile.Opened{Document: d}, true
	n.home.Mesh, n.home.Former = mesh, former
}

// Order takes the gateway's word that all switch in so long. Of several, the one
// that names the earliest time was under way for the shortest.
func (n *Node) Order(now time.Time, epoch, serial uint64, in time.Duration) {
	if n.next == nil || n.next.Epoch != epoch || n.next.Serial != serial || n.on == n.next.Mesh {
		return
	}
	if at := now.Add(in); n.at.IsZero() || at.Before(n.at) {
		n.at = at
	}
}

// Gateway takes that the gateway was heard, on the profile in use or by a transport
// that has no profile.
func (n *Node) Gateway(now time.Time, h Heard) {
	fresh := n.mode == trial && now.Sub(n.since) < crossing
	if fresh && h.Using != n.Using() {
		return // it was said before the switch
	}
	n.heard = now
	if h.Epoch == n.home.Epoch && h.Using == n.home.Serial && n.on != n.homeMesh() && n.at.IsZero() {
		n.come(now, n.homeMesh(), rest) // it is heard by cable, and is not here
		n.heard = now
	}
	n.settle()
	if n.next == nil || n.next.Epoch != h.Epoch || n.next.Serial != h.Using {
		return
	}
	if n.on == n.next.Mesh {
		n.adopt(*n.next)
	} else if n.at.IsZero() { // by cable, past the order that it missed
		n.come(now, n.next.Mesh, trial)
	}
}

// Return goes back to the profile of the document that counts, to which the gateway comes
// now that was heard on another one.
func (n *Node) Return(now time.Time) {
	n.base = n.homeMesh()
	n.come(now, n.base, rest)
}

// Peers takes how many members this node is linked with.
func (n *Node) Peers(now time.Time, count int) {
	if count > 0 {
		n.deserted = time.Time{}
	} else if n.deserted.IsZero() {
		n.deserted = now
	}
	n.peers = count
}

// Turn takes that from at to end it is this node of those that are linked, and have no
// gateway, that may be away: they are on each other's ways.
func (n *Node) Turn(at, end time.Time) { n.turnAt, n.turnEnds = at, end }

// Elsewhere takes that the mesh was heard on a channel with another profile than
// the one in use. Anybody may say so; it is looked at in its turn. Of more than a round
// takes, those count that were looked at least often: who has it be heard everywhere does
// not hide where it is.
func (n *Node) Elsewhere(m bundle.Mesh) {
	if m == n.on || slices.Contains(n.elsewhere, m) {
		return
	}
	if len(n.elsewhere) < maxElsewhere {
		n.elsewhere = append(n.elsewhere, m)
		return
	}
	for i, e := range n.elsewhere {
		if n.looks[e] > n.looks[m] && !slices.Contains(n.round, e) {
			n.elsewhere[i] = m
			return
		}
	}
}

// strange tells whether a profile is one on another channel of HaLow, by nothing but what
// strangers can say.
func (n *Node) strange(m bundle.Mesh) bool {
	return m.HaLowChannel != n.base.HaLowChannel && slices.Contains(n.elsewhere, m) && !slices.Contains(n.signed(), m)
}

// look notes that a profile is tried.
func (n *Node) look(now time.Time, m bundle.Mesh) {
	if len(n.looks) == maxLooks {
		clear(n.looks)
	}
	n.looks[m]++
	n.round = append(n.round, m)
	if !n.strange(m) {
		return
	}
	if n.strays++; n.strays >= straysFirst {
		n.strayAt = now.Add(min(n.t.Longest<<min(n.strays-straysFirst, 8), straysMost*n.t.Longest))
	}
}

// Forget drops former profiles whose time is over. A clock that is a guess must not
// be asked.
func (n *Node) Forget(wall time.Time) {
	over := func(f profile.Former) bool { return !f.Until.After(wall) }
	n.home.Former = slices.DeleteFunc(slices.Clone(n.home.Former), over)
	if n.next != nil {
		n.next.Former = slices.DeleteFunc(slices.Clone(n.next.Former), over)
	}
}

// Known returns all profiles that this node knows of, each once.
func (n *Node) Known() []bundle.Mesh {
	list := n.signed()
	at := min(len(list), 1) // after the one that counts, and the one that is to
	if n.next != nil {
		at = min(len(list), 2)
	}
	for _, m := range n.elsewhere {
		if !slices.Contains(list, m) {
			list = slices.Insert(list, at, m)
			at++
		}
	}
	return list
}

// signed returns those of the documents and of the bundle.
func (n *Node) signed() []bundle.Mesh {
	var list []bundle.Mesh
	add := func(m bundle.Mesh) {
		if !slices.Contains(list, m) {
			list = append(list, m)
		}
	}
	if n.next != nil {
		add(n.next.Mesh)
	}
	add(n.homeMesh())
	for _, f := range n.home.Former {
		add(f.Mesh)
	}
	if n.next != nil {
		for _, f := range n.next.Former {
			add(f.Mesh)
		}
	}
	return list
}

// untried returns those of them that are to be tried yet in this round: by a node that is
// not alone, those alone for which there is reason.
func (n *Node) untried(now time.Time, alone bool) []bundle.Mesh {
	return slices.DeleteFunc(n.Known(), func(m bundle.Mesh) bool {
		return m == n.base || slices.Contains(n.round, m) || n.strange(m) && now.Before(n.strayAt) || !alone && !n.reason(m)
	})
}

// reason tells whether the gateway may be on a profile while a node has peers and does not
// hear it: its order to go there was missed; the node lives there, and found peers on
// another; or the mesh was heard on that channel. That a profile held once is none. Who
// missed a change on the same channel is told past the mesh (mesh/rejoin), and a gateway
// from an old card asks there; on another one they are heard.
func (n *Node) reason(m bundle.Mesh) bool {
	return n.next != nil && m == n.next.Mesh || m == n.homeMesh() || slices.Contains(n.elsewhere, m)
}

// Advance does what has become due.
func (n *Node) Advance(now time.Time) {
	if !n.at.IsZero() && !now.Before(n.at) {
		n.come(now, n.next.Mesh, trial)
	}
	switch {
	case n.mode == rest:
		n.advanceRest(now)
	case n.rejoined && n.peers > 0:
		if n.next != nil && n.on == n.next.Mesh {
			n.adopt(*n.next)
		}
		n.settle()
	case now.Before(n.until):
	case n.mode == visit && n.peers > 0 && (n.lonely || n.on == n.homeMesh()): // better here than alone, or than away from home
		n.base, n.mode = n.on, rest
		n.tryAt = now.Add(n.pause)
	default:
		n.come(now, n.base, rest)
		n.tryAt = now.Add(n.pause)
	}
}

func (n *Node) advanceRest(now time.Time) {
	quiet := n.since
	if n.heard.After(quiet) {
		quiet = n.heard
	}
	alone := !n.deserted.IsZero() && now.Sub(n.deserted) >= n.t.Alone && now.Sub(quiet) >= n.t.Alone
	if !alone && (now.Sub(quiet) < n.patience || !n.ours(now)) || now.Before(n.tryAt) || !n.at.IsZero() {
		return
	}
	others := n.untried(now, alone)
	if len(others) == 0 {
		n.round = nil
		return
	}
	to := others[0]
	n.look(now, to)
	if len(n.untried(now, alone)) == 0 { // once through them: ever more rarely
		n.pause = min(max(2*n.pause, n.t.Visit), n.t.Longest)
		n.round, n.elsewhere = nil, nil // who is still there is heard again
	} else if n.pause == 0 {
		n.pause = n.t.Visit
	}
	n.pause = min(n.t.Jitter(n.pause), n.t.Longest)
	n.lonely = alone
	n.come(now, to, visit)
}

// ours tells whether a visit that begins now is over before another node's turn.
func (n *Node) ours(now time.Time) bool {
	return !now.Before(n.turnAt) && !now.Add(n.t.Visit).After(n.turnEnds)
}

// Due returns when Advance has to be called at the latest.
func (n *Node) Due(now time.Time) time.Time {
	due := now.Add(time.Second)
	if !n.at.IsZero() && n.at.Before(due) {
		due = n.at
	}
	return due
}
