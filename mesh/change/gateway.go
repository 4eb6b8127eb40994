package change

import (
	"maps"
	"slices"
	"time"

	"halo.internal/mesh/profile"
	"halo.internal/model/bundle"
)

// Phase is how far a change is.
type Phase string

// Phases.
const (
	Idle      Phase = "idle"
	Preparing Phase = "preparing" // the nodes get the document
	Ordered   Phase = "ordered"   // the countdown runs
	Settling  Phase = "settling"  // all have switched; the nodes are awaited
	Recalling Phase = "recalling" // too few came: the nodes get the document that calls them back
	Recalled  Phase = "recalled"  // the countdown back runs
)

// maxStarts is how often a gateway may start while it awaits the nodes on a new
// profile; then that is to blame.
const maxStarts = 2

// Progress is how far one node is.
type Progress struct {
	Held, Using uint64    // serials of documents
	At          time.Time // when it said so
}

// State is what the gateway's card keeps of a change; the documents beside it.
type State struct {
	Phase    Phase    `json:"phase"`
	Starts   int      `json:"starts,omitempty"`   // since the switch
	Expected []string `json:"expected,omitempty"` // nodes that are awaited
	Anyway   bool     `json:"anyway,omitempty"`   // nodes that do not get the document do not stop the change
	Alone    bool     `json:"alone,omitempty"`    // nobody is awaited: it began so
}

// Gateway leads changes. It is not safe for concurrent use.
type Gateway struct {
	t      Timing
	bundle bundle.Mesh
	force  profile.Opened  // the document that counts; zero: none yet
	next   *profile.Opened // the one that is under way, or calls back
	failed *bundle.Mesh    // the profile that all are called back from
	tried  uint64          // serial of its document
	s      State
	on     bundle.Mesh
	nodes  map[string]Progress

	began time.Time // the phase
	at    time.Time // of the switch
	order time.Time // when the next is due
	want  bool      // a document that takes the change back
	save  bool

	unkept  bool // the card did not take what Save told of last
	ordered bool // in this countdown, an order was given
}

// NewGateway returns a gateway that was just started. A change that the power cut
// interrupted before the switch was ordered is taken back; after it, goes on.
func NewGateway(t Timing, b bundle.Mesh, force profile.Opened, next *profile.Opened, s State, now time.Time) *Gateway {
	g := &Gateway{t: t.WithDefaults(), bundle: b.WithDefaults(), force: force, next: next, s: s, nodes: map[string]Progress{}, began: now}
	g.on = g.forceMesh()
	if g.next != nil && !g.next.After(g.force.Document) {
		g.next = nil
	}
	switch {
	case g.next == nil:
		g.s = State{Phase: Idle}
	case s.Phase == Ordered, s.Phase == Settling:
		g.s.Phase, g.on, g.save = Settling, g.next.Mesh, true
		if g.s.Starts++; g.s.Starts > maxStarts {
			g.fail()
			g.on = g.forceMesh()
		}
	case s.Phase == Recalling, s.Phase == Recalled:
		g.commit()
	default:
		g.want = true
	}
	return g
}

func (g *Gateway) forceMesh() bundle.Mesh {
	if g.force.Serial == 0 {
		return g.bundle
	}
	return g.force.Mesh
}

// On returns the profile to use.
func (g *Gateway) On() bundle.Mesh { return g.on }

// Force returns the document that counts, and Next the one under way, or nil.
func (g *Gateway) Force() profile.Opened { return g.force }

// Next returns the document that is under way, or nil.
func (g *Gateway) Next() *profile.Opened { return g.next }

// State returns what the card has to keep.
func (g *Gateway) State() State { return g.s }

// Save tells whether what the card keeps is out of date, and forgets that it was.
// What follows of it must not be told before it is kept.
func (g *Gateway) Save() bool {
	s := g.save
	g.save, g.unkept = false, false
	return s
}

// Unkept takes that the card has not taken what Save told of: it is told again. Until the
// card takes it no switch is ordered, unless the change is to come about in any case, and
// one that was not ordered in time is given up. After the order nothing waits for the
// card: the nodes have switched.
func (g *Gateway) Unkept() { g.save, g.unkept = true, true }

// Announce returns the serials that announcements have to carry.
func (g *Gateway) Announce() (using, next uint64) {
	using = g.force.Serial
	if g.next == nil {
		return using, 0
	}
	switch {
	case g.failed != nil && g.on == *g.failed && g.want:
		return g.tried, 0
	case g.failed != nil && g.on == *g.failed:
		return g.tried, g.next.Serial
	case g.s.Phase == Settling:
		return g.next.Serial, 0
	}
	return using, g.next.Serial
}

// Latest returns the latest document, which nodes get; the zero value: none.
func (g *Gateway) Latest() profile.Opened {
	if g.next != nil {
		return *g.next
	}
	return g.force
}

// Start begins a change to the profile of a document. online are the nodes that
// are reached, and awaited; anyway has the change go on without those that do not
// get the document. Without any nobody is awaited: that there is nobody, the caller has
// to know.
func (g *Gateway) Start(now time.Time, d profile.Opened, online []string, anyway bool) {
	g.next, g.s, g.began, g.save = &d, State{Phase: Preparing, Expected: online, Anyway: anyway, Alone: len(online) == 0}, now, true
	if d.Mesh == g.on { // new members, another epoch: nothing to switch
		g.commit()
	}
}

// Adopt takes a document that the network has come to since this card was written, or
// which a card before it made, and tells whether it counts now: only one that is
// later than what is at hand does, and none while a change is under way.
func (g *Gateway) Adopt(d profile.Opened) bool {
	if g.s.Phase != Idle || g.next != nil || !d.After(g.force.Document) {
		return false
	}
	g.force, g.on, g.save = d, d.Mesh, true
	return true
}

// Complete takes the whole of the document that counts, and tells whether it lacked that.
func (g *Gateway) Complete(d profile.Document) bool {
	if !g.Lacks() || d.Epoch != g.force.Epoch || d.Serial != g.force.Serial || !d.Whole() {
		return false
	}
	mesh, former := g.force.Mesh, g.force.Former
	g.force, g.save = profile.Opened{Document: d}, true
	g.force.Mesh, g.force.Former = mesh, former
	return true
}

// Lacks tells whether it has an excerpt alone of the document that counts: an adopted
// one, of whose members it knows nothing.
func (g *Gateway) Lacks() bool { return g.force.Serial != 0 && !g.force.Whole() }

// Wanted tells that a document is to be made that takes the change back: of the
// profile that held before, with failed, if any, among the former ones. Back takes
// it.
func (g *Gateway) Wanted() (mesh bundle.Mesh, failed *bundle.Mesh, wanted bool) {
	return g.forceMesh(), g.failed, g.want
}

// Back takes the document that Wanted asked for.
func (g *Gateway) Back(now time.Time, d profile.Opened) {
	g.want, g.save = false, true
	var there []string // nodes that are on the new profile, and have to be told
	if g.failed != nil && g.on == *g.failed {
		for id, p := range g.nodes {
			if p.Using == g.tried {
				there = append(there, id)
			}
		}
	}
	g.next, g.began = &d, now
	if len(there) == 0 {
		g.commit()
		return
	}
	slices.Sort(there)
	g.s = State{Phase: Recalling, Expected: there, Anyway: true}
}

// commit makes the document under way the one that counts.
func (g *Gateway) commit() {
	g.force, g.next, g.failed = *g.next, nil, nil
	g.on, g.s, g.save = g.force.Mesh, State{Phase: Idle}, true
}

// Report takes what a node says of its documents.
func (g *Gateway) Report(now time.Time, node string, held, using uint64) {
	g.nodes[node] = Progress{Held: held, Using: using, At: now}
}

// Forget drops what is known of nodes that are members no more.
func (g *Gateway) Forget(member func(node string) bool) {
	maps.DeleteFunc(g.nodes, func(id string, _ Progress) bool { return !member(id) })
	if n := len(g.s.Expected); n > 0 {
		g.s.Expected = slices.DeleteFunc(slices.Clone(g.s.Expected), func(id string) bool { return !member(id) })
		g.save = g.save || len(g.s.Expected) != n
	}
}

// Lose has those not awaited who went off while the change was prepared, before they
// had the document, and returns them: they come back by themselves, as those do who
// were off before. While nobody else is there, the gateway may be the one that is cut
// off, and all are awaited still.
func (g *Gateway) Lose(reached func(node string) bool) (lost []string) {
	if g.s.Phase != Preparing || g.next == nil {
		return nil
	}
	var kept []string
	for _, id := range g.s.Expected {
		if g.nodes[id].Held == g.next.Serial || reached(id) {
			kept = append(kept, id)
		} else {
			lost = append(lost, id)
		}
	}
	if len(kept) == 0 || len(lost) == 0 {
		return nil
	}
	g.s.Expected, g.save = kept, true
	return lost
}

// Nodes returns how far each node is.
func (g *Gateway) Nodes() map[string]Progress { return maps.Clone(g.nodes) }

// counts returns how many of the awaited nodes have the document, and use it.
func (g *Gateway) counts() (held, using int) {
	for _, id := range g.s.Expected {
		p := g.nodes[id]
		if p.Held == g.next.Serial {
			held++
		}
		if p.Using == g.next.Serial {
			using++
		}
	}
	return held, using
}

// secretAlone tells whether the change leaves the radios where they are: whoever
// misses it is still heard, and rejoins.
func (g *Gateway) secretAlone() bool {
	a, b := g.next.Mesh, g.forceMesh()
	a.PSK, b.PSK = "", ""
	return a == b
}

// every tells whether a count is of all that are awaited. None of none is not, where
// some were and are members no more: there may be others, who were not reached.
func (g *Gateway) every(count int) bool {
	return count == len(g.s.Expected) && (count > 0 || g.s.Alone)
}

// Advance does what has become due, and tells whether an order is to be sent now,
// and for when.
func (g *Gateway) Advance(now time.Time) (serial uint64, in time.Duration, order bool) {
	if g.next == nil || g.want {
		return 0, 0, false
	}
	held, using := g.counts()
	all := len(g.s.Expected)
	switch g.s.Phase {
	case Preparing:
		switch late := now.Sub(g.began) >= g.t.Prepare; {
		case g.unkept && !g.s.Anyway && !late:
		case g.unkept && !g.s.Anyway:
			g.want = true
		case g.every(held):
			g.countdown(now, Ordered)
		case late && (g.s.Anyway || g.secretAlone()) && held > 0:
			g.countdown(now, Ordered)
		case late:
			g.want = true
		}
	case Recalling:
		if held == all || now.Sub(g.began) >= g.t.Recall {
			g.countdown(now, Recalled)
		}
	case Ordered, Recalled:
		return g.tick(now)
	case Settling:
		switch late := now.Sub(g.began) >= g.t.Settle; {
		case g.every(using):
			g.commit()
		case late && all > 0 && 2*using >= all, late && g.secretAlone() && (using > 0 || all == 0):
			g.commit()
		case late:
			g.fail()
		}
	}
	return 0, 0, false
}

// fail gives the profile up that all have switched to.
func (g *Gateway) fail() { g.failed, g.tried, g.want = new(g.next.Mesh), g.next.Serial, true }

func (g *Gateway) countdown(now time.Time, p Phase) {
	g.s.Phase, g.at, g.order, g.ordered, g.save = p, now.Add(g.t.Countdown), now, false, true
}

// tick sends orders until it is time, and switches then.
func (g *Gateway) tick(now time.Time) (serial uint64, in time.Duration, order bool) {
	if !now.Before(g.at) {
		if g.s.Phase == Recalled {
			g.commit()
			return 0, 0, false
		}
		if !g.ordered && g.unkept && !g.s.Anyway {
			g.want = true
			return 0, 0, false
		}
		if !g.ordered { // it slept, and so did nobody switch
			g.countdown(now, Ordered)
			return 0, 0, false
		}
		// Awaited is who had the document.
		g.s.Expected = slices.DeleteFunc(slices.Clone(g.s.Expected), func(id string) bool { return g.nodes[id].Held != g.next.Serial })
		g.s.Phase, g.on, g.began, g.save = Settling, g.next.Mesh, now, true
		return 0, 0, false
	}
	waits := g.save && !g.ordered && !(g.unkept && g.s.Anyway) // nothing is told before it is kept
	if now.Before(g.order) || waits {
		return 0, 0, false
	}
	g.order, g.ordered = now.Add(g.t.Repeat), true
	return g.next.Serial, g.at.Sub(now), true
}

// idleLook is how often a gateway looks at itself while nothing changes: whoever begins
// something has it look at once.
const idleLook = 3 * time.Second

// Due returns when Advance has to be called at the latest.
func (g *Gateway) Due(now time.Time) time.Time {
	due := now.Add(time.Second)
	if g.s.Phase == Idle {
		due = now.Add(idleLook)
	}
	if g.s.Phase == Ordered || g.s.Phase == Recalled {
		for _, t := range []time.Time{g.order, g.at} {
			if t.Before(due) {
				due = t
			}
		}
	}
	return due
}
