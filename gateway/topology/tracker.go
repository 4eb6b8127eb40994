package topology

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/graph"
	"halo.internal/model/order"
)

// Bounds of what a Tracker remembers.
const (
	changesWithin = time.Hour
	maxChanges    = 64   // of one node's next hop: beyond, they count as so many
	maxKeptDeltas = 256  // that a client may go on from
	maxKeptItems  = 8192 // in all of them: a few minutes of 250 nodes
)

var (
	// ErrNotMember is wrapped where a report is not of a member.
	ErrNotMember = errors.New("not a member of the network")
	// ErrOld is wrapped where a later report is there already.
	ErrOld = errors.New("a later report is there")
	// ErrBase is wrapped where a report has the changes since one that is not there:
	// the node has to send a whole one.
	ErrBase = errors.New("the report that it goes on from is not there")
)

// Tracker follows the network: it keeps each member's last report, draws the picture
// when something may have changed, and tells what did. Its methods may be called from
// any goroutine. Pictures and deltas that it hands out are not to be changed.
type Tracker struct {
	run uint64

	mu      sync.Mutex // guards what follows
	members []Member   // by ID
	reports map[string]*prepared
	lives   map[string]life
	hops    map[string]*hopLog
	stale   bool // the picture is not of the present reports and members
	picture graph.Picture
	deltas  []graph.Delta // the last ones, each going on from the one before
	items   int           // in them
}

// NewTracker returns one for a life of the process. run tells it from others, so that
// a client does not take up pictures of another life: a random number will do.
func NewTracker(run uint64) *Tracker {
	return &Tracker{run: run, reports: map[string]*prepared{}, lives: map[string]life{}, hops: map[string]*hopLog{}, picture: graph.Picture{Run: run}}
}

// SetMembers tells who belongs to the network. Reports of others are forgotten.
func (t *Tracker) SetMembers(members []Member) {
	members = slices.Clone(members)
	order.By(members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	members = slices.CompactFunc(members, func(a, b Member) bool { return a.ID == b.ID })
	members = members[:min(len(members), graph.MaxNodes)]
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.EqualFunc(members, t.members, Member.equal) {
		return
	}
	t.members, t.stale = members, true
	for id := range t.reports {
		if !t.isMember(id) {
			delete(t.reports, id)
			delete(t.hops, id)
		}
	}
	for id := range t.lives {
		if !t.isMember(id) {
			delete(t.lives, id)
		}
	}
}

func (m Member) equal(o Member) bool {
	return m.ID == o.ID && m.Name == o.Name && m.Gateway == o.Gateway && slices.Equal(m.Addresses, o.Addresses)
}

func (t *Tracker) isMember(id string) bool {
	_, ok := slices.BinarySearchFunc(t.members, id, func(m Member, id string) int { return strings.Compare(m.ID, id) })
	return ok
}

// Put takes a report that came at the given time from the node that it names, which the
// caller has made sure of. The error says why it is not taken, and wraps one of the
// above where that matters to the node.
func (t *Tracker) Put(at time.Time, r model.Report) error {
	if err := r.Check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isMember(r.Node) {
		return fmt.Errorf("report of %s: %w", r.Node, ErrNotMember)
	}
	held := t.reports[r.Node]
	// A node that lost its card counts boots anew: then what it said before is old.
	if held != nil && held.freshness(at) != graph.Silent &&
		(r.Boot < held.report.Boot || r.Boot == held.report.Boot && r.Seq <= held.report.Seq) {
		return fmt.Errorf("report %d.%d of %s: %w: %d.%d", r.Boot, r.Seq, r.Node, ErrOld, held.report.Boot, held.report.Seq)
	}
	if r.Base != 0 {
		if held == nil || held.report.Boot != r.Boot || held.report.Seq != r.Base {
			return fmt.Errorf("report %d.%d of %s: %w: %d", r.Boot, r.Seq, r.Node, ErrBase, r.Base)
		}
		whole, err := held.report.With(r)
		if err != nil {
			return err
		}
		r = whole
	}
	p := prepare(r, at)
	if p.alive = t.lives[r.Node]; !p.alive.at.IsZero() {
		p.alive.at = at
		t.lives[r.Node] = p.alive
	}
	t.reports[r.Node], t.stale = p, true
	return nil
}

// Alive notes that a node, which says something so often, said something at the given
// time: what it reported last still holds. That it says something once a day is not
// believed.
func (t *Tracker) Alive(at time.Time, node string, every time.Duration) {
	every = min(every, model.MaxReportEveryS*time.Second)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isMember(node) {
		return
	}
	t.lives[node] = life{at, every}
	if r := t.reports[node]; r != nil {
		r.alive = life{at, every}
	}
}

// Shift has all that came have come so much later, since the clock was set by that.
func (t *Tracker) Shift(by time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.reports {
		r.heard, r.alive.at = shift(r.heard, by), shift(r.alive.at, by)
	}
	for id, l := range t.lives {
		t.lives[id] = life{shift(l.at, by), l.every}
	}
	for _, h := range t.hops {
		for i := range h.at {
			h.at[i] = shift(h.at[i], by)
		}
	}
	t.stale = true
}

// shift leaves what was not yet as it is.
func shift(at time.Time, by time.Duration) time.Time {
	if at.IsZero() {
		return at
	}
	return at.Add(by)
}

// quiet tells for how long a node has said nothing, and how often it usually says
// something; ok is false where it has not said anything yet.
func (t *Tracker) quiet(now time.Time, node string) (since, every time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lives[node]
	if r := t.reports[node]; l.at.IsZero() && r != nil {
		l = life{r.heard, time.Duration(r.report.EveryS) * time.Second}
	}
	return now.Sub(l.at).Abs(), l.every, !l.at.IsZero()
}

// Update draws the picture as it is now, and returns what changed since the last one;
// ok is false where nothing did. It costs next to nothing while no report came and
// none has become late.
func (t *Tracker) Update(now time.Time) (d graph.Delta, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stale && !t.aged(now) {
		return graph.Delta{}, false
	}
	t.stale = false
	drawn := draw(now, t.members, t.reports, func(node string) int { return t.hops[node].count(now) })
	for i, m := range drawn.members {
		if next := drawn.nextHopOf(int32(i)); next != nobody {
			log := t.hops[m.ID]
			if log == nil {
				log = new(hopLog)
				t.hops[m.ID] = log
			}
			log.put(now, drawn.id(next))
		}
	}
	p := drawn.picture()
	p.Run, p.Seq = t.run, t.picture.Seq+1
	if d = graph.Diff(t.picture, p); d.Len() == 0 && t.picture.Seq > 0 {
		return graph.Delta{}, false
	}
	t.picture = p
	t.keep(d)
	return d, true
}

// aged tells whether time alone has changed the picture: a report is less fresh than it
// was drawn, or a change of a next hop is longer ago than counts.
func (t *Tracker) aged(now time.Time) bool {
	for _, n := range t.picture.Nodes {
		if r := t.reports[n.ID]; r != nil && r.freshness(now) != n.Report || t.hops[n.ID].count(now) != n.NextHops {
			return true
		}
	}
	return false
}

func (t *Tracker) keep(d graph.Delta) {
	t.deltas, t.items = append(t.deltas, d), t.items+d.Len()
	drop := 0
	for drop < len(t.deltas)-1 && (len(t.deltas)-drop > maxKeptDeltas || t.items > maxKeptItems) {
		t.items -= t.deltas[drop].Len()
		drop++
	}
	t.deltas = slices.Delete(t.deltas, 0, drop)
}

// Picture returns the last one that was drawn; its Seq is 0 while there is none.
func (t *Tracker) Picture() graph.Picture {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.picture
}

// Since returns all that changed since a picture, as one delta; Len is 0 where that is
// the last one. ok is false where the tracker does not remember so far back, or the
// picture is of another run: the client needs the picture whole.
func (t *Tracker) Since(run, seq uint64) (d graph.Delta, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if run != t.run || seq == 0 || seq > t.picture.Seq {
		return graph.Delta{}, false
	}
	p := t.picture
	d = graph.Delta{Run: run, From: seq, Seq: seq, At: p.At, Gateway: p.Gateway, Score: p.Score, Reasons: p.Reasons}
	if seq == p.Seq {
		return d, true
	}
	at := slices.IndexFunc(t.deltas, func(d graph.Delta) bool { return d.From == seq })
	if at < 0 {
		return graph.Delta{}, false
	}
	for _, next := range t.deltas[at:] {
		var err error
		if d, err = d.Then(next); err != nil {
			return graph.Delta{}, false // cannot be: each goes on from the one before
		}
	}
	return d, true
}

// Report returns the last whole report of a node.
func (t *Tracker) Report(node string) (model.Report, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.reports[node]
	if r == nil {
		return model.Report{}, false
	}
	return r.report, true
}

// hopLog is when a node's next hop changed.
type hopLog struct {
	next string
	at   []time.Time
}

// put notes the next hop as it is now. None at all is no change, nor is the same one
// after that.
func (l *hopLog) put(now time.Time, next string) {
	if l.next != "" && l.next != next {
		l.at = append(l.at[max(len(l.at)+1-maxChanges, 0):], now)
	}
	l.next = next
	l.at = slices.DeleteFunc(l.at, func(at time.Time) bool { return !model.Recent(now, at, changesWithin) })
}

// count tells how many changes there were within the last hour.
func (l *hopLog) count(now time.Time) (n int) {
	if l == nil {
		return 0
	}
	for _, at := range l.at {
		if model.Recent(now, at, changesWithin) {
			n++
		}
	}
	return n
}
