package change

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/mesh/profile"
	"halo.internal/model/bundle"
)

// A story is a network of machines in a world of which the story decides: who is in
// reach of whom, what is lost, whose power goes. One step is a quarter of a second.
const step = 250 * time.Millisecond

type board struct {
	id      string
	node    *Node    // nil: it is off, or the gateway
	lead    *Gateway // the gateway's
	on      bool
	power   time.Time // since when
	kept    keptNode
	keptG   keptGateway
	revoked bool
	came    time.Time // on its profile
	was     bundle.Mesh
	asked   time.Time
	there   map[int]time.Time // when there was a way to others
	turn    int64             // the last that it had
}

type keptNode struct {
	home profile.Opened
	next *profile.Opened
}

type keptGateway struct {
	force profile.Opened
	next  *profile.Opened
	state State
}

type world struct {
	t      *testing.T
	r      *rand.Rand
	now    time.Time
	boards []*board // the first is the gateway
	air    map[[2]int]bool
	cable  map[[2]int]bool
	loss   float64
	serial uint64
	said   []string
	told   map[string]time.Time
}

var bundled = bundle.Mesh{SSID: "M", PSK: "secret of the bundle", Routing: "BATMAN_IV"}.WithDefaults()

func newWorld(t *testing.T, seed uint64, nodes int) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), now: time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC), air: map[[2]int]bool{}, cable: map[[2]int]bool{}, told: map[string]time.Time{}}
	for i := range nodes + 1 {
		w.boards = append(w.boards, &board{id: fmt.Sprint("n", i)})
		w.boards[i].keptG.state.Phase = Idle
		w.powerOn(i)
	}
	return w
}

func (w *world) say(format string, args ...any) {
	w.said = append(w.said, w.now.Format("15:04:05.00 ")+fmt.Sprintf(format, args...))
}

func (w *world) timing() Timing {
	return Timing{Jitter: func(d time.Duration) time.Duration { return d - d/10 + time.Duration(w.r.Int64N(int64(d/5+1))) }}
}

func (w *world) powerOn(i int) {
	b := w.boards[i]
	b.on, b.power, b.came, b.was, b.there = true, w.now, w.now, bundle.Mesh{}, map[int]time.Time{}
	if i == 0 {
		b.lead = NewGateway(w.timing(), bundled, b.keptG.force, b.keptG.next, b.keptG.state, w.now)
	} else {
		b.node = NewNode(w.timing(), bundled, b.kept.home, b.kept.next, w.now)
	}
	w.say("%s on", b.id)
}

func (w *world) powerOff(i int) {
	b := w.boards[i]
	b.on, b.node, b.lead = false, nil, nil
	w.say("%s off", b.id)
}

func (b *board) profile() bundle.Mesh {
	if b.lead != nil {
		return b.lead.On()
	}
	return b.node.On()
}

// linked tells whether two boards are linked: by air on the same profile, by cable
// with the same secret, and only some seconds after they came to it.
func (w *world) linked(i, k int) bool {
	a, b := w.boards[i], w.boards[k]
	if !a.on || !b.on || a.revoked || b.revoked || w.now.Sub(a.came) < 4*time.Second || w.now.Sub(b.came) < 4*time.Second {
		return false
	}
	pair := [2]int{min(i, k), max(i, k)}
	return w.air[pair] && a.profile() == b.profile() || w.cable[pair] && a.profile().PSK == b.profile().PSK
}

// reached returns who has a way to the gateway.
func (w *world) reached(linked func(i, k int) bool) []bool { return w.from(0, linked) }

// from returns who has a way to a board.
func (w *world) from(board int, linked func(i, k int) bool) []bool {
	there := make([]bool, len(w.boards))
	there[board] = w.boards[board].on
	for again := there[board]; again; {
		again = false
		for i := range w.boards {
			for k := range w.boards {
				if there[i] && !there[k] && linked(i, k) {
					there[k], again = true, true
				}
			}
		}
	}
	return there
}

func (w *world) lost() bool { return w.r.Float64() < w.loss }

// cut tells whether the power goes before what was decided is written.
func (w *world) cut() bool { return w.r.Float64() < w.loss*w.loss }

// document is one of the gateway's, opened.
func (w *world) document(m bundle.Mesh, former []profile.Former) profile.Opened {
	w.serial++
	return profile.Opened{Document: profile.Document{Epoch: 1, Serial: w.serial, Issued: w.now, Mesh: m, Former: former}}
}

func (w *world) online(there []bool) []string {
	var list []string
	for i, b := range w.boards[1:] {
		if there[i+1] && !b.revoked {
			list = append(list, b.id)
		}
	}
	return list
}

func (w *world) start(m bundle.Mesh) {
	g := w.boards[0].lead
	if g == nil || g.State().Phase != Idle || g.On() == m {
		return
	}
	d := w.document(m, Former(g.On(), g.Force().Former, nil, m, w.now))
	w.say("change to channel %d, %s", m.Channel, m.PSK)
	g.Start(w.now, d, w.online(w.reached(w.linked)), false)
}

// advance is one step. What is decided is kept, unless the power goes just then.
func (w *world) advance() {
	w.now = w.now.Add(step)
	there := w.reached(w.linked)
	g := w.boards[0]
	var order *Heard
	var in time.Duration
	if g.on {
		serial, left, send := g.lead.Advance(w.now)
		if mesh, failed, want := g.lead.Wanted(); want {
			g.lead.Back(w.now, w.document(mesh, Former(mesh, g.lead.Force().Former, failed, mesh, w.now)))
			w.say("taken back")
		}
		if g.lead.Save() {
			if w.cut() {
				w.powerOff(0) // before it was written
			} else {
				g.keptG = keptGateway{g.lead.Force(), g.lead.Next(), g.lead.State()}
				w.say("gateway: %s, uses channel %d, %s", g.lead.State().Phase, g.lead.On().Channel, g.lead.On().PSK)
			}
		}
		if g.on && send {
			order, in = &Heard{Epoch: 1, Using: serial}, left
		}
	}
	for i, b := range w.boards[1:] {
		if b.on {
			w.live(i+1, b, there[i+1] && g.on, order, in)
		}
	}
	for _, b := range w.boards {
		if b.on && b.profile() != b.was {
			b.was, b.came = b.profile(), w.now
			w.say("%s uses channel %d, %s", b.id, b.was.Channel, b.was.PSK)
		}
	}
}

// live is a node's step.
func (w *world) live(i int, b *board, reached bool, order *Heard, in time.Duration) {
	n, g := b.node, w.boards[0].lead
	peers := 0
	for k := range w.boards {
		if k != i && w.linked(i, k) {
			peers++
		}
	}
	n.Peers(w.now, peers)
	if reached {
		using, next := g.Announce()
		h := Heard{Epoch: 1, Using: using, Next: next}
		if w.r.IntN(40) == 0 && !w.lost() { // every ten seconds
			n.Gateway(w.now, h)
			g.Report(w.now, b.id, n.Latest().Serial, n.Using())
		}
		if n.Wants(h) && w.r.IntN(8) == 0 && !w.lost() {
			d := g.Latest()
			if n.Document(w.now, d, d.Serial == using, false) {
				w.say("%s has document %d", b.id, d.Serial)
			}
		}
		if order != nil && !w.lost() {
			n.Order(w.now, order.Epoch, order.Using, in)
		}
	}
	if seeking, _ := n.Seeking(w.now); seeking && w.now.Sub(b.asked) > 10*time.Second {
		b.asked = w.now
		w.rejoin(i, b)
	}
	if peers == 0 && w.r.IntN(400) == 0 || peers > 0 && w.scouts(i, b) {
		w.scan(i, n)
	}
	n.Advance(w.now)
	if n.Save() {
		if w.cut() {
			w.powerOff(i)
			return
		}
		b.kept = keptNode{n.Home(), n.Next()}
	}
}

// rejoin asks those around for a later document: on the same channel, or by cable.
func (w *world) rejoin(i int, b *board) {
	for k, o := range w.boards {
		pair := [2]int{min(i, k), max(i, k)}
		if k == i || !o.on || o.revoked || w.lost() || !(w.air[pair] && sameAir(o.profile(), b.profile()) || w.cable[pair]) {
			continue
		}
		var d profile.Opened
		if o.lead != nil {
			using, _ := o.lead.Announce()
			if d = o.lead.Latest(); d.Serial != using {
				d = o.lead.Force()
			}
		} else {
			d = o.node.Home()
		}
		if !b.revoked && b.node.Document(w.now, d, true, true) {
			w.say("%s rejoins by %s with document %d", b.id, o.id, d.Serial)
			return
		}
	}
}

// A turn is as long as those of mesh/scout.go are in the end.
const turn = 16 * time.Minute

// scouts tells whether a board has just got its turn to be away, among those to which it
// has had a way within what routing remembers.
func (w *world) scouts(i int, b *board) bool {
	if w.now.Nanosecond() != 0 {
		return false
	}
	for k, is := range w.from(i, w.linked) {
		if is {
			b.there[k] = w.now
		}
	}
	seeking, _ := b.node.Seeking(w.now)
	if !seeking || w.now.Sub(b.came) < 3*time.Minute || w.now.Sub(b.there[0]) < 200*time.Second {
		return false
	}
	rank, count := 0, 0
	for k := range w.boards {
		if w.now.Sub(b.there[k]) >= 200*time.Second {
			continue
		}
		if k < i {
			rank++
		}
		count++
	}
	number := w.now.Unix() / int64(turn.Seconds())
	if int(number)%count != rank || b.turn == number {
		return false
	}
	b.turn = number
	b.node.Turn(w.now.Add(20*time.Second), time.Unix((number+1)*int64(turn.Seconds()), 0))
	return true
}

// scan hears members on other channels.
func (w *world) scan(i int, n *Node) {
	for k, o := range w.boards {
		pair := [2]int{min(i, k), max(i, k)}
		if k == i || !o.on || !w.air[pair] || sameAir(o.profile(), n.On()) || w.lost() {
			continue
		}
		m := n.On()
		m.Channel, m.HaLowChannel = o.profile().Channel, o.profile().HaLowChannel
		n.Elsewhere(m)
	}
}

// sameAir tells whether radios hear each other by two profiles.
func sameAir(a, b bundle.Mesh) bool {
	return a.Channel == b.Channel && a.HaLowChannel == b.HaLowChannel
}

// run advances for so long, or until done.
func (w *world) run(d time.Duration, done func() bool) bool {
	for end := w.now.Add(d); w.now.Before(end); {
		w.advance()
		if done != nil && done() {
			return true
		}
	}
	return done == nil
}

// agreed tells that all who can reach the gateway are on its profile.
func (w *world) agreed() bool {
	g := w.boards[0]
	if !g.on || g.lead.State().Phase != Idle {
		return false
	}
	physical := func(i, k int) bool {
		pair := [2]int{min(i, k), max(i, k)}
		return w.boards[i].on && w.boards[k].on && !w.boards[i].revoked && !w.boards[k].revoked && (w.air[pair] || w.cable[pair])
	}
	for i, can := range w.reached(physical) {
		if can && i > 0 && (w.boards[i].node.On() != g.lead.On() || w.boards[i].node.Home().Serial != g.lead.Force().Serial) {
			return false
		}
	}
	return true
}

func (w *world) tell() {
	for _, b := range w.boards {
		switch {
		case b.lead != nil:
			w.t.Logf("%s %v: on %v, force %d, former %v, next %v", b.id, b.lead.State(), b.lead.On(), b.lead.Force().Serial, b.lead.Force().Document.Former, b.lead.Next() != nil)
		case b.node != nil:
			w.t.Logf("%s: on %v, home %d %v former %v, next %v, elsewhere %v, mode %d", b.id, b.node.On(), b.node.Home().Serial, b.node.Home().Document.Mesh, b.node.Home().Document.Former, b.node.Next() != nil, b.node.elsewhere, b.node.mode)
		}
	}
	for _, s := range w.said[max(0, len(w.said)-120):] {
		w.t.Log(s)
	}
}

func (w *world) line() {
	for i := range len(w.boards) - 1 {
		w.air[[2]int{i, i + 1}] = true
	}
}

func other(channel int, psk string) bundle.Mesh {
	m := bundled
	m.Channel, m.PSK = channel, psk
	return m
}

func halow(channel int, psk string) bundle.Mesh {
	m := bundled
	m.HaLowChannel, m.PSK = channel, psk
	return m
}

func TestAChangeOfAllThatAreThere(t *testing.T) {
	for name, m := range map[string]bundle.Mesh{"channel": other(6, bundled.PSK), "secret": other(1, "the new secret"), "both": other(11, "the new secret")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1, 4)
			w.line()
			w.run(10*time.Second, nil)
			w.start(m)
			began := w.now
			if !w.run(5*time.Minute, func() bool { return w.boards[0].lead.On() == m && w.agreed() }) {
				w.tell()
				t.Fatal("it did not come about")
			}
			first, last := w.boards[0].came, w.boards[0].came
			for _, b := range w.boards {
				if b.came.Before(first) {
					first = b.came
				}
				if b.came.After(last) {
					last = b.came
				}
			}
			if last.Sub(first) > time.Second {
				t.Errorf("they switched within %s, want a second", last.Sub(first))
			}
			if took := w.now.Sub(began); took > 90*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// TestWhoWasOffComesBack: a node that was off during one change, or two.
func TestWhoWasOffComesBack(t *testing.T) {
	for name, changes := range map[string][]bundle.Mesh{
		"secret":               {other(1, "the new secret")},
		"two secrets":          {other(1, "the new secret"), other(1, "a newer secret")},
		"channel":              {other(6, bundled.PSK)},
		"channel, then secret": {other(6, bundled.PSK), other(6, "the new secret")},
		"HaLow":                {halow(28, bundled.PSK)},
		"HaLow, then secret":   {halow(28, bundled.PSK), halow(28, "the new secret")},
		"HaLow, twice":         {halow(28, bundled.PSK), halow(44, bundled.PSK)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, 3)
			w.line()
			w.run(10*time.Second, nil)
			w.powerOff(3)
			for _, m := range changes {
				w.start(m)
				if !w.run(time.Hour, func() bool { return w.boards[0].lead.On() == m && w.agreed() }) {
					w.tell()
					t.Fatal("the change did not come about")
				}
			}
			w.powerOff(0) // the document comes from any member
			w.powerOn(3)
			if !w.run(time.Hour, func() bool { return w.linked(2, 3) }) {
				w.tell()
				t.Fatal("it did not come back")
			}
		})
	}
}

// TestAGroupThatWasOffComesBack: nodes that were off during a change are peers of each
// other where the mesh was, so that none of them is alone. So are those that missed the
// order to switch.
func TestAGroupThatWasOffComesBack(t *testing.T) {
	for name, m := range map[string]bundle.Mesh{
		"secret":             other(1, "the new secret"),
		"channel":            other(6, bundled.PSK),
		"channel and secret": other(6, "the new secret"),
		"HaLow":              halow(28, bundled.PSK),
	} {
		for _, missed := range []string{"the change", "the order", "the change, and the gateway is off"} {
			t.Run(name+", missed "+missed, func(t *testing.T) {
				w := newWorld(t, 2, 7)
				group := []int{5, 6, 7}
				reach := func(is bool) {
					for _, i := range group {
						w.air[[2]int{4, i}] = is
					}
				}
				w.line()
				w.run(10*time.Second, nil)
				if missed == "the order" {
					w.start(m)
					if !w.run(time.Hour, func() bool { return w.boards[0].lead.State().Phase == Ordered }) {
						t.Fatal("no order came about")
					}
				}
				for _, i := range group {
					w.powerOff(i)
				}
				w.start(m)
				if !w.run(time.Hour, func() bool { return w.boards[0].lead.On() == m && w.agreed() }) {
					w.tell()
					t.Fatal("the change did not come about")
				}
				reach(false) // they are a mesh before the others are in reach
				for _, i := range group {
					w.powerOn(i)
				}
				w.run(5*time.Minute, nil)
				if !w.linked(5, 6) || !w.linked(6, 7) || w.linked(4, 5) {
					w.tell()
					t.Fatal("they are no group: the test proves nothing")
				}
				reach(true)
				if missed == "the change, and the gateway is off" {
					w.powerOff(0) // the document comes from any member
				}
				began := w.now
				if !w.run(4*time.Hour, func() bool { return w.boards[4].profile() == m && w.linked(4, 5) && w.linked(4, 6) && w.linked(4, 7) }) {
					w.tell()
					t.Fatal("they did not come back")
				}
				t.Logf("back after %s", w.now.Sub(began))
			})
		}
	}
}

// TestAMeshWhoseGatewayIsOff stays one: what held before a change is no reason to leave
// it. Where an order may have been missed, one node at a time looks, and rarely.
func TestAMeshWhoseGatewayIsOff(t *testing.T) {
	const long = 6 * time.Hour
	for name, m := range map[string]bundle.Mesh{"secret": other(1, "the new secret"), "channel": other(6, bundled.PSK)} {
		for _, ordered := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, ordered %v", name, ordered), func(t *testing.T) {
				w := newWorld(t, 5, 5)
				w.line()
				w.run(10*time.Second, nil)
				w.start(m)
				home, done := m, func() bool { return w.boards[0].lead.On() == m && w.agreed() }
				if !ordered {
					home, done = bundled, func() bool {
						return !slices.ContainsFunc(w.boards[1:], func(b *board) bool { return b.node.Next() == nil })
					}
				}
				if !w.run(time.Hour, done) || w.boards[1].profile() != home {
					w.tell()
					t.Fatal("it did not come so far")
				}
				w.powerOff(0)
				var away time.Duration // of all together
				w.run(long, func() bool {
					gone := 0
					for _, b := range w.boards[1:] {
						if b.node.On() != home {
							gone++
						}
					}
					if gone > 1 {
						w.tell()
						t.Fatalf("%d nodes are away at once", gone)
					}
					away += time.Duration(gone) * step
					return false
				})
				if most := long / 10; ordered && away > 0 || away > most || !ordered && away == 0 {
					w.tell()
					t.Errorf("nodes were away for %s of %s", away, long)
				}
				for i := 2; i < len(w.boards); i++ {
					if ordered && !w.linked(i-1, i) {
						t.Errorf("%s and %s are no peers", w.boards[i-1].id, w.boards[i].id)
					}
				}
				w.powerOn(0)
				if !w.run(time.Hour, w.agreed) {
					w.tell()
					t.Error("with the gateway back, not all are on its profile")
				}
			})
		}
	}
}

// TestBackHomeWithoutTheGateway: two that were cut off have found each other on a profile
// of before, each having had nobody. They come to their mesh again when it is in reach.
func TestBackHomeWithoutTheGateway(t *testing.T) {
	for name, m := range map[string]bundle.Mesh{"secret": other(1, "the new secret"), "channel": other(6, bundled.PSK)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 6, 4)
			w.line()
			w.run(10*time.Second, nil)
			w.start(m)
			if !w.run(time.Hour, func() bool { return w.boards[0].lead.On() == m && w.agreed() }) {
				t.Fatal("the change did not come about")
			}
			air := w.air
			w.air = map[[2]int]bool{{0, 1}: true, {1, 2}: true}
			w.powerOff(0)
			cut := w.now
			if !w.run(time.Hour, func() bool {
				// In reach of each other only while both are there.
				w.air[[2]int{3, 4}] = w.boards[3].profile() == bundled && w.boards[4].profile() == bundled
				return w.linked(3, 4)
			}) {
				w.tell()
				t.Fatal("they have not met: the test proves nothing")
			}
			w.run(2*time.Minute, nil)
			if w.boards[3].profile() != bundled || !w.linked(3, 4) {
				w.tell()
				t.Fatal("they have not stayed: the test proves nothing")
			}
			t.Logf("met after %s", w.now.Sub(cut))
			w.air = air
			back := func() bool { return w.boards[3].profile() == m && w.linked(2, 3) && w.linked(3, 4) }
			if !w.run(3*time.Hour, back) {
				w.tell()
				t.Fatal("they did not come back")
			}
			if w.run(3*time.Hour, func() bool { return !back() }) {
				w.tell()
				t.Error("they did not stay")
			}
		})
	}
}

// TestARevokedNodeGetsNothing: it stays where it was.
func TestARevokedNodeGetsNothing(t *testing.T) {
	w := newWorld(t, 3, 2)
	w.line()
	w.run(10*time.Second, nil)
	w.boards[2].revoked = true
	w.start(other(1, "the new secret"))
	w.run(2*time.Hour, nil)
	if w.boards[0].lead.On().PSK != "the new secret" || w.boards[1].node.On().PSK != "the new secret" {
		t.Error("the others did not change")
	}
	if w.boards[2].node.On().PSK != bundled.PSK {
		t.Error("a revoked node got the secret")
	}
}

// TestAProfileThatDoesNotWork: nobody hears anybody there.
func TestAProfileThatDoesNotWork(t *testing.T) {
	w := newWorld(t, 4, 3)
	w.line()
	w.run(10*time.Second, nil)
	dead := other(14, bundled.PSK)
	air := w.air
	w.start(dead)
	back := func() bool {
		w.air = air
		if w.boards[0].lead.On() == dead {
			w.air = map[[2]int]bool{}
		}
		return w.boards[0].lead.State().Phase == Idle && w.boards[0].lead.On() == bundled && w.agreed()
	}
	w.run(30*time.Second, func() bool { return back() && false })
	if !w.run(time.Hour, back) {
		w.tell()
		t.Fatal("they did not go back")
	}
}

// TestStories: losses, power cuts, partitions and changes at random; then all is
// well, and within a limit all that can reach the gateway are on its profile.
func TestStories(t *testing.T) {
	stories := 300
	if testing.Short() {
		stories = 40
	}
	for seed := range uint64(stories) {
		story(t, seed)
	}
}

func story(t *testing.T, seed uint64) {
	w := newWorld(t, seed, 2+int(seed%4))
	n := len(w.boards)
	shuffle := func() {
		w.air, w.cable = map[[2]int]bool{}, map[[2]int]bool{}
		for i := range n {
			for k := range i {
				if w.r.IntN(2) == 0 {
					w.air[[2]int{k, i}] = true
				} else if w.r.IntN(5) == 0 {
					w.cable[[2]int{k, i}] = true
				}
			}
		}
	}
	w.line()
	w.loss = []float64{0, 0.1, 0.4, 0.7}[w.r.IntN(4)]
	secrets := 0
	for range 2 + w.r.IntN(12) {
		w.run(time.Duration(w.r.IntN(240*4))*step, nil)
		switch w.r.IntN(6) {
		case 0, 1:
			m := bundled
			if g := w.boards[0].lead; g != nil {
				m = g.On()
			}
			if w.r.IntN(2) == 0 {
				m.Channel = 1 + w.r.IntN(11)
			}
			if w.r.IntN(2) == 0 {
				secrets++
				m.PSK = fmt.Sprintf("secret number %d", secrets)
			}
			w.start(m)
		case 2:
			shuffle()
		default:
			i := w.r.IntN(n)
			if w.boards[i].on {
				w.powerOff(i)
			} else {
				w.powerOn(i)
			}
		}
	}
	w.loss = 0.05
	w.air, w.cable = map[[2]int]bool{}, map[[2]int]bool{}
	w.line()
	w.say("all is well")
	for i, b := range w.boards {
		if !b.on {
			w.powerOn(i)
		}
	}
	began := w.now
	ok := w.run(10*time.Hour, func() bool {
		for i, b := range w.boards { // losses cut the power at times
			if !b.on {
				w.powerOn(i)
			}
		}
		return w.agreed()
	})
	if !ok {
		w.tell()
		t.Fatalf("story %d: not all are on the gateway's profile after %s", seed, w.now.Sub(began))
	}
}

// TestAnOldCardOfTheGateway is told of what it missed by who has it, in any order, and
// by nobody of what was before.
func TestAnOldCardOfTheGateway(t *testing.T) {
	document := func(epoch, serial uint64) profile.Opened {
		return profile.Opened{Document: profile.Document{Epoch: epoch, Serial: serial, Mesh: other(1, fmt.Sprintf("secret %d of epoch %d", serial, epoch))}}
	}
	type told struct {
		epoch, serial uint64
		taken         bool
	}
	for name, tc := range map[string]struct {
		card profile.Opened // zero: a fresh one
		told []told
		want profile.Opened
	}{
		"a fresh card":                 {profile.Opened{}, []told{{1, 2, true}}, document(1, 2)},
		"a fresh card, of two":         {profile.Opened{}, []told{{1, 2, true}, {1, 5, true}, {1, 4, false}}, document(1, 5)},
		"an old card, the older last":  {document(1, 3), []told{{1, 7, true}, {1, 5, false}}, document(1, 7)},
		"an old card, the older first": {document(1, 3), []told{{1, 5, true}, {1, 7, true}}, document(1, 7)},
		"a later epoch":                {document(1, 3), []told{{2, 1, true}, {1, 9, false}}, document(2, 1)},
		"a revoked node's":             {document(2, 3), []told{{2, 2, false}, {1, 9, false}, {2, 3, false}}, document(2, 3)},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGateway(Timing{}, bundled, tc.card, nil, State{Phase: Idle}, time.Now())
			for _, d := range tc.told {
				if taken := g.Adopt(document(d.epoch, d.serial)); taken != d.taken || g.Save() != d.taken {
					t.Errorf("document %d of epoch %d: taken %v, want %v, and the card to hear of it if so", d.serial, d.epoch, taken, d.taken)
				}
			}
			if f := g.Force(); f.Epoch != tc.want.Epoch || f.Serial != tc.want.Serial || g.On() != tc.want.Mesh {
				t.Errorf("it is at document %d of epoch %d, and uses %q; want %d of %d", f.Serial, f.Epoch, g.On().PSK, tc.want.Serial, tc.want.Epoch)
			}
		})
	}
	g := NewGateway(Timing{}, bundled, document(1, 3), nil, State{Phase: Idle}, time.Now())
	g.Start(time.Now(), document(1, 4), []string{"n1"}, false)
	if g.Adopt(document(1, 7)) || g.State().Phase != Preparing {
		t.Error("a change that was under way ended by what a stranger handed over")
	}
}

// TestWhoIsAwaitedIsRevoked: nobody is left of whom the gateway waits for, and others
// were not reached. That none of none is missing says nothing of them.
func TestWhoIsAwaitedIsRevoked(t *testing.T) {
	for name, tc := range map[string]struct {
		target  bundle.Mesh
		waiting Phase // in which the node is revoked
		want    bundle.Mesh
	}{
		"channel, while it gets ready":  {other(6, bundled.PSK), Preparing, bundled},
		"secret, while it gets ready":   {other(1, "the new secret"), Preparing, bundled},
		"channel, after the switch":     {other(6, bundled.PSK), Settling, bundled},
		"secret, after the switch":      {other(1, "the new secret"), Settling, other(1, "the new secret")},
		"channel, and nobody was there": {other(6, bundled.PSK), Idle, other(6, bundled.PSK)},
		"secret, and nobody was there":  {other(1, "the new secret"), Idle, other(1, "the new secret")},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			d := func(serial uint64, m bundle.Mesh) profile.Opened {
				return profile.Opened{Document: profile.Document{Epoch: 1, Serial: serial, Mesh: m}}
			}
			g := NewGateway(Timing{}, bundled, d(1, bundled), nil, State{Phase: Idle}, now)
			var online []string
			if tc.waiting != Idle {
				online = []string{"n1"}
			}
			g.Start(now, d(2, tc.target), online, false)
			began := now
			for g.State().Phase != Idle {
				if g.State().Phase == tc.waiting {
					g.Forget(func(id string) bool { return id != "n1" })
				} else if g.State().Phase == Preparing {
					g.Report(now, "n1", 2, 1)
				}
				now = now.Add(step)
				g.Advance(now)
				if mesh, _, wanted := g.Wanted(); wanted {
					g.Back(now, d(3, mesh))
				}
				g.Save()
				if len(online) > 0 && g.State().Phase == Ordered && tc.waiting == Preparing {
					t.Fatal("all were ordered to switch")
				}
				if now.Sub(began) > time.Hour {
					t.Fatalf("it is %s for ever", g.State().Phase)
				}
			}
			if g.On() != tc.want {
				t.Errorf("it ended on channel %d with %q, want %d with %q", g.On().Channel, g.On().PSK, tc.want.Channel, tc.want.PSK)
			}
		})
	}
}

// TestWhoGoesOffIsNotAwaited: of nodes that were there when the change began, those
// that went off before they had the document do not stop it; unless all did.
func TestWhoGoesOffIsNotAwaited(t *testing.T) {
	for name, tc := range map[string]struct {
		held, reached, lost []string
		want                Phase
	}{
		"one goes off":                   {[]string{"n1"}, []string{"n1"}, []string{"n2"}, Ordered},
		"one goes off with the document": {[]string{"n1", "n2"}, []string{"n1"}, nil, Ordered},
		"one is slow":                    {[]string{"n1"}, []string{"n1", "n2"}, nil, Preparing},
		"nobody is reached":              {nil, nil, nil, Preparing},
		"all go off, one has it":         {[]string{"n1"}, nil, []string{"n2"}, Ordered},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			d := func(serial uint64, m bundle.Mesh) profile.Opened {
				return profile.Opened{Document: profile.Document{Epoch: 1, Serial: serial, Mesh: m}}
			}
			g := NewGateway(Timing{}, bundled, d(1, bundled), nil, State{Phase: Idle}, now)
			g.Start(now, d(2, other(6, bundled.PSK)), []string{"n1", "n2"}, false)
			g.Save()
			for _, id := range tc.held {
				g.Report(now, id, 2, 1)
			}
			lost := g.Lose(func(id string) bool { return slices.Contains(tc.reached, id) })
			if !slices.Equal(lost, tc.lost) || g.Save() != (len(lost) > 0) {
				t.Errorf("lost are %v, want %v, and the card to hear of it", lost, tc.lost)
			}
			g.Advance(now.Add(step))
			if g.State().Phase != tc.want {
				t.Errorf("it is %s, want %s", g.State().Phase, tc.want)
			}
			if g.Lose(func(string) bool { return false }) != nil && tc.want == Ordered {
				t.Error("one is lost after the order")
			}
		})
	}
}

// TestACardThatTakesNothing keeps a gateway from having all switch, unless they are to in
// any case; and from nothing once they have.
func TestACardThatTakesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		anyway      bool
		from        Phase // in which the card begins to fail
		ordered     bool
		want        bundle.Mesh
		atLeast, in time.Duration // when it is over
	}{
		"all the time":             {false, Preparing, false, bundled, 3 * time.Minute, 4 * time.Minute},
		"all the time, anyway":     {true, Preparing, true, other(6, bundled.PSK), 0, time.Minute},
		"when it is to be ordered": {false, Ordered, false, bundled, 5 * time.Second, 10 * time.Second},
		"then, anyway":             {true, Ordered, true, other(6, bundled.PSK), 0, time.Minute},
		"once all have switched":   {false, Settling, true, other(6, bundled.PSK), 0, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			d := func(serial uint64, m bundle.Mesh) profile.Opened {
				return profile.Opened{Document: profile.Document{Epoch: 1, Serial: serial, Mesh: m}}
			}
			g := NewGateway(Timing{}, bundled, d(1, bundled), nil, State{Phase: Idle}, now)
			g.Start(now, d(2, other(6, bundled.PSK)), []string{"n1"}, tc.anyway)
			fails, ordered, using := false, false, uint64(1)
			began := now
			for g.State().Phase != Idle || now == began {
				now = now.Add(step)
				if now.Sub(began) > time.Second {
					g.Report(now, "n1", 2, using)
				}
				_, _, order := g.Advance(now)
				if mesh, _, wanted := g.Wanted(); wanted {
					g.Back(now, d(3, mesh))
				}
				for g.Save() {
					if fails = fails || g.State().Phase == tc.from; fails {
						g.Unkept()
						break
					}
					_, _, again := g.Advance(now)
					order = order || again
				}
				if order {
					ordered = true
				}
				if ordered && g.On().Channel == 6 {
					using = 2
				}
				if now.Sub(began) > time.Hour {
					t.Fatalf("it is %s for ever", g.State().Phase)
				}
			}
			if took := now.Sub(began); ordered != tc.ordered || g.On() != tc.want || took < tc.atLeast || took > tc.in {
				t.Errorf("ordered %v, ended on channel %d after %s; want %v, channel %d, within %s to %s", ordered, g.On().Channel, took, tc.ordered, tc.want.Channel, tc.atLeast, tc.in)
			}
		})
	}
}

// TestWhatWaitsIsNotDue: whoever looks when something is due would look without a pause
// while an order waits for the card, and while nobody makes the document that takes the
// change back.
func TestWhatWaitsIsNotDue(t *testing.T) {
	now := time.Now()
	d := func(serial uint64, m bundle.Mesh) profile.Opened {
		return profile.Opened{Document: profile.Document{Epoch: 1, Serial: serial, Mesh: m}}
	}
	g := NewGateway(Timing{}, bundled, d(1, bundled), nil, State{Phase: Idle}, now)
	g.Start(now, d(2, other(6, bundled.PSK)), []string{"n1"}, false)
	g.Save()
	g.Report(now, "n1", 2, 1)
	g.Advance(now)
	looks := 0
	for end := now.Add(30 * time.Second); now.Before(end) && looks < 1000; looks++ {
		if g.Advance(now); g.Save() {
			g.Unkept()
		}
		now = slices.MaxFunc([]time.Time{now, g.Due(now)}, time.Time.Compare)
	}
	if _, _, wanted := g.Wanted(); looks > 40 || !wanted {
		t.Errorf("it looked %d times in 30 s, and wants to take it back: %v", looks, wanted)
	}
}

// TestAGatewayThatStartsTooOften on a profile is off it, and says so before the document
// is there that takes the change back.
func TestAGatewayThatStartsTooOften(t *testing.T) {
	now := time.Now()
	d := func(serial uint64, m bundle.Mesh) profile.Opened {
		return profile.Opened{Document: profile.Document{Epoch: 1, Serial: serial, Mesh: m}}
	}
	next := d(2, other(6, bundled.PSK))
	for starts, want := range map[int]uint64{0: 2, maxStarts: 1} {
		g := NewGateway(Timing{}, bundled, d(1, bundled), &next, State{Phase: Settling, Starts: starts}, now)
		if using, prepared := g.Announce(); using != want || prepared != 0 || (g.On() == next.Mesh) != (want == 2) {
			t.Errorf("after %d starts it is on channel %d, and announces %d and %d", starts, g.On().Channel, using, prepared)
		}
	}
}

// TestACardThatTakesItLater: what waited goes on.
func TestACardThatTakesItLater(t *testing.T) {
	now := time.Now()
	d := func(serial uint64, m bundle.Mesh) profile.Opened {
		return profile.Opened{Document: profile.Document{Epoch: 1, Serial: serial, Mesh: m}}
	}
	g := NewGateway(Timing{}, bundled, d(1, bundled), nil, State{Phase: Idle}, now)
	g.Start(now, d(2, other(6, bundled.PSK)), []string{"n1"}, false)
	g.Save()
	g.Unkept()
	g.Report(now, "n1", 2, 1)
	for range 40 { // ten seconds
		now = now.Add(step)
		if g.Advance(now); !g.Save() || g.State().Phase != Preparing {
			t.Fatalf("it is %s, and nothing is to be kept", g.State().Phase)
		}
		g.Unkept()
	}
	g.Save()
	g.Advance(now)
	if g.State().Phase != Ordered {
		t.Errorf("once the card has taken it, it is %s, want %s", g.State().Phase, Ordered)
	}
}

// TestAGatewayThatSlept through the countdown begins it anew: it has ordered nobody.
func TestAGatewayThatSlept(t *testing.T) {
	now := time.Now()
	d := func(serial uint64, m bundle.Mesh) profile.Opened {
		return profile.Opened{Document: profile.Document{Epoch: 1, Serial: serial, Mesh: m}}
	}
	g := NewGateway(Timing{}, bundled, d(1, bundled), nil, State{Phase: Idle}, now)
	g.Start(now, d(2, other(6, bundled.PSK)), []string{"n1"}, false)
	g.Report(now, "n1", 2, 1)
	g.Save()
	g.Advance(now)
	g.Save()
	now = now.Add(time.Minute)
	g.Advance(now)
	if g.On().Channel == 6 || g.State().Phase != Ordered {
		t.Fatalf("it is %s on channel %d, and has ordered nothing", g.State().Phase, g.On().Channel)
	}
	g.Save()
	if _, in, order := g.Advance(now.Add(step)); !order || in <= 0 {
		t.Errorf("ordered %v in %s", order, in)
	}
}

// TestWhatStrangersHaveLookedAt plays two days of a node that is alone, and in whose
// mesh's name somebody beacons on other channels all the time: how often it goes there,
// and when it has been where the mesh is, which is heard now and then.
func TestWhatStrangersHaveLookedAt(t *testing.T) {
	const long = 48 * time.Hour
	home := halow(1, bundled.PSK)
	at := func(n int) bundle.Mesh { m := home; m.HaLowChannel = n; return m }
	wifi := func(n int) bundle.Mesh { m := home; m.Channel = n; return m }
	former := other(9, "a former secret")
	for name, tc := range map[string]struct {
		forged []bundle.Mesh
		most   int // looks at these in the two days
		within time.Duration
	}{
		"nobody":               {nil, 0, 30 * time.Minute},
		"one channel of HaLow": {[]bundle.Mesh{at(3)}, 4 + 2*48, 30 * time.Minute},
		"all of HaLow": {func() (all []bundle.Mesh) {
			for n := 3; n < 99; n += 2 {
				all = append(all, at(n))
			}
			return all
		}(), 4 + 2*48, 36 * time.Hour},
		"five of Wi-Fi": {[]bundle.Mesh{wifi(2), wifi(3), wifi(4), wifi(5), wifi(6)}, 48 * 4, 4 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, 1))
			now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
			began := now
			d := profile.Opened{Document: profile.Document{Epoch: 1, Serial: 1, Mesh: home, Former: []profile.Former{{Mesh: former, Until: now.Add(profile.Keep)}}}}
			n := NewNode(Timing{Jitter: func(d time.Duration) time.Duration { return d }}, bundled, d, nil, now)
			mesh := at(2)
			looks := map[bundle.Mesh]int{}
			var first time.Duration // after which it was where the mesh is
			on := n.On()
			for now.Sub(began) < long {
				now = now.Add(5 * time.Second)
				if now.Sub(began)%(90*time.Second) == 0 && n.On() == home {
					for _, i := range r.Perm(len(tc.forged)) { // the strongest first
						n.Elsewhere(tc.forged[i])
					}
					n.Elsewhere(mesh)
				}
				n.Peers(now, 0)
				n.Advance(now)
				if m := n.On(); m != on {
					if on = m; m != home {
						looks[m]++
					}
					if m == mesh && first == 0 {
						first = now.Sub(began)
					}
				}
			}
			forged := 0
			for _, m := range tc.forged {
				forged += looks[m]
			}
			if forged > tc.most {
				t.Errorf("it went %d times where strangers said, want at most %d", forged, tc.most)
			}
			if first == 0 || first > tc.within {
				t.Errorf("it was where the mesh is after %s, want it within %s", first, tc.within)
			}
			if looks[former] < 30 {
				t.Errorf("it tried the profile of before %d times", looks[former])
			}
		})
	}
}
