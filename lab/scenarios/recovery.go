package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// neighbourHeard is how lately a neighbour must have been heard: several of
// batman-adv's intervals.
const neighbourHeard = 5 * time.Second

// view is what is known of a machine at one time.
type view struct {
	status model.MeshStatus
	agent  *model.AgentStatus // nil of the gateway
	err    error              // it did not answer
}

// sight is all that is known at one time.
type sight struct {
	views  map[string]view
	nodes  map[string]apitype.Node
	stored Stored
	err    error // the gateway did not answer
	asked  asked // by the nodes' witnesses, after all else
}

// look asks all members, and the gateway about them, at once, and has the nodes ask
// each other.
func (w *World) look(ctx context.Context) sight {
	s := sight{views: map[string]view{}, nodes: map[string]apitype.Node{}}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, m := range w.Members {
		asking.Go(func() {
			st, agent, err := w.status(ctx, m)
			mu.Lock()
			defer mu.Unlock()
			s.views[m.Name()] = view{st, agent, err}
		})
	}
	asking.Go(func() {
		nodes, err := w.Admin.Nodes(ctx)
		var stored Stored
		if err == nil {
			stored, err = w.Stored(ctx)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, n := range nodes {
			s.nodes[n.Name] = n
		}
		s.stored, s.err = stored, err
	})
	asking.Wait()
	s.err = errors.Join(s.err, s.views[w.gateway().Name()].err)
	s.asked = w.ask(ctx, s.views)
	return s
}

// Outage is what is done to a network, and what has to be there again.
type Outage struct {
	before    sight
	event     int64 // the newest by then
	began     time.Time
	since     time.Time                // recovery is counted from here
	Restarted []*network.Machine       // have to have begun another boot
	Guessed   bool                     // nobody knows the time any more, which all say that they lack
	Links     map[*network.Machine]int // that each has to have at least; those not named have one with every other member
}

// Begin notes how things are, once every member is whole. What is done to the
// network is done after it.
func (w *World) Begin(ctx context.Context) (*Outage, error) {
	o := &Outage{Links: map[*network.Machine]int{}}
	if err := w.needWitnesses(ctx); err != nil {
		return nil, err
	}
	if err := w.eventually(ctx, "all is well before", func() error {
		s := w.look(ctx)
		if s.err != nil {
			return s.err
		}
		for _, m := range w.Members {
			n := m.Name()
			if err := errors.Join(s.views[n].err, addressed(s.views[n].status), online(s, n)); err != nil {
				return err
			}
			// One that has just restarted may be there before its first batch is.
			if boot, is := s.views[n].status.BootCounter, s.stored.Newest(n); is.Boot != boot || is.Count == 0 {
				return fmt.Errorf("expected batches of %s of boot %d, got %+v", n, boot, is)
			}
			if err := w.eachOther(m, func(other *network.Machine) error { return s.asked.answered(m, other) }); err != nil {
				return err
			}
		}
		o.before = s
		return nil
	}); err != nil {
		return nil, err
	}
	var err error
	if o.event, err = w.Admin.LastEvent(ctx); err != nil {
		return nil, err
	}
	o.began, o.since = time.Now(), time.Now()
	return o, nil
}

// Over says that from now on the network can come back.
func (o *Outage) Over() { o.since = time.Now() }

// Recovered returns when all members are back, with nobody touching them, and
// writes into r how long each stage took. What they were found to be lacking last is
// the error when they are not.
func (w *World) Recovered(ctx context.Context, o *Outage, r *Result) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Limit+time.Since(o.began)/4, fmt.Errorf("not within %s", Limit))
	defer cancel()
	if err := w.answers(ctx, o.Restarted...); err != nil {
		return err
	}
	t := newTally(w, o)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	defer func() {
		if time.Since(o.since) > slow {
			w.explain(context.WithoutCancel(ctx), o)
		}
	}()
	told := o.since
	for {
		err := t.take(w.look(ctx), time.Now())
		r.Machines = t.recoveries()
		if err == nil {
			break
		}
		if now := time.Now(); now.Sub(o.since) > slow && now.Sub(told) > slow/4 {
			told = now
			w.diagnose(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
	if o.Guessed {
		return nil
	}
	return w.ready(ctx)
}

// onItsWay is how long after an outage something may still come, or be said, that is
// of before: a status is some two seconds old.
const onItsWay = 2500 * time.Millisecond

// tally keeps since when each machine has passed each stage.
type tally struct {
	w      *World
	o      *Outage
	passed map[string]map[Stage]time.Time
	rx     map[flow]int64    // octets that came before, or were on their way
	last   map[string]uint64 // batches likewise
	told   string            // how far all are, as people know it
}

// flow is what comes through the overlay to a machine, by its name, from a peer, by
// its canonical ID.
type flow struct{ to, from string }

func newTally(w *World, o *Outage) *tally {
	t := &tally{w: w, o: o, passed: map[string]map[Stage]time.Time{}, rx: map[flow]int64{}, last: map[string]uint64{}}
	for _, m := range w.Members {
		t.passed[m.Name()] = map[Stage]time.Time{}
	}
	return t
}

// take takes what is seen at a time, and returns what is lacking.
func (t *tally) take(s sight, now time.Time) error {
	if now.Sub(t.o.since) < onItsWay {
		t.note(s)
	}
	var lacking []error
	for _, m := range t.w.Members {
		name := m.Name()
		for _, stage := range Stages {
			err := t.check(s, m, stage)
			if err != nil {
				delete(t.passed[name], stage)
				lacking = append(lacking, fmt.Errorf("%s is not %s: %w", name, stage, err))
				continue
			}
			if _, ok := t.passed[name][stage]; !ok {
				t.passed[name][stage] = now
			}
		}
	}
	if len(lacking) > 0 {
		t.tell(now, lacking[0])
	}
	return errors.Join(lacking...)
}

// note takes what is there now for what was there before.
func (t *tally) note(s sight) {
	for _, m := range t.w.Members {
		for _, p := range s.views[m.Name()].status.Overlay {
			t.rx[flow{m.Name(), p.Node}] = p.RxBytes
		}
		if b := s.stored.Newest(m.Name()); b.Boot != 0 {
			t.last[m.Name()] = b.Last
		}
	}
}

// tell says how far all are, when that is news.
func (t *tally) tell(now time.Time, lacking error) {
	line := t.line()
	if line == t.told {
		return
	}
	const most = 160
	why := strings.ReplaceAll(lacking.Error(), "\n", "; ")
	if len(why) > most {
		why = why[:most] + "…"
	}
	t.told = line
	t.w.say("  %5.1f s  %s (%s)", now.Sub(t.o.since).Seconds(), line, why)
}

// line says how far each machine is.
func (t *tally) line() string {
	var parts []string
	for _, m := range t.w.Members {
		last := Stage("down")
		for _, s := range Stages {
			if _, ok := t.passed[m.Name()][s]; !ok {
				break
			}
			last = s
		}
		parts = append(parts, m.Name()+" "+string(last))
	}
	return strings.Join(parts, ", ")
}

func (t *tally) recoveries() (list []Recovery) {
	for _, m := range t.w.Members {
		r := Recovery{Machine: m.Name(), Stages: map[Stage]time.Duration{}}
		for stage, at := range t.passed[m.Name()] {
			r.Stages[stage] = max(0, at.Sub(t.o.since))
		}
		list = append(list, r)
	}
	return list
}

func (t *tally) check(s sight, m *network.Machine, stage Stage) error {
	name := m.Name()
	v, was := s.views[name], t.o.before.views[name]
	if v.err != nil {
		return v.err
	}
	restarted := slices.Contains(t.o.Restarted, m)
	switch stage {
	case Up:
		if restarted {
			return expect(v.status.BootCounter > was.status.BootCounter, "a boot after %d, got %d", was.status.BootCounter, v.status.BootCounter)
		}
		return expect(v.status.BootCounter == was.status.BootCounter, "boot %d still, got %d", was.status.BootCounter, v.status.BootCounter)
	case Peered:
		want, ok := t.o.Links[m]
		if !ok {
			want = len(t.w.Members) - 1
		}
		return peered(v.status, want)
	case Addressed:
		if err := addressed(v.status); err != nil {
			return err
		}
		return expect(v.status.Underlay == was.status.Underlay && v.status.OverlayV4 == was.status.OverlayV4 && v.status.OverlayV6 == was.status.OverlayV6,
			"%s, %s and %s as before, got %s, %s and %s", was.status.Underlay, was.status.OverlayV4, was.status.OverlayV6, v.status.Underlay, v.status.OverlayV4, v.status.OverlayV6)
	case Reachable:
		return t.reachable(s, m)
	case Direct:
		return t.direct(s, m)
	default:
		return t.complete(s, m, restarted)
	}
}

// peered checks that a device has so many neighbours that are heard now, and radios
// that have as many links; keys that differ make links over which nothing is heard.
func peered(s model.MeshStatus, want int) error {
	heard, linked := map[string]bool{}, 0
	for _, n := range s.Neighbours {
		if n.LastSeenMS < neighbourHeard.Milliseconds() {
			heard[n.MAC] = true
		}
	}
	for _, r := range s.Radios {
		if r.Member {
			linked += r.Linked()
		}
	}
	proven := 0
	for _, p := range s.Ports {
		proven += len(p.Members)
	}
	return expect(len(heard) >= want && linked+proven >= want, "%d neighbours that are heard now, got %d, with %d links of radios and %d of ports", want, len(heard), linked, proven)
}

// addressed checks that a device's interfaces have the addresses that are its own.
func addressed(s model.MeshStatus) error {
	for _, want := range []struct{ iface, address string }{
		{underlayOf(s), s.Underlay}, {paths.OverlayIface, s.OverlayV4}, {paths.OverlayIface, s.OverlayV6},
	} {
		i := slices.IndexFunc(s.Interfaces, func(i model.Interface) bool { return i.Name == want.iface })
		if i < 0 || want.address == "" {
			return fmt.Errorf("expected %s with the address %q, got %+v", want.iface, want.address, s.Interfaces)
		}
		if !slices.ContainsFunc(s.Interfaces[i].Addresses, func(p netip.Prefix) bool { return p.Addr().String() == want.address }) {
			return fmt.Errorf("expected %s on %s, got %v", want.address, want.iface, s.Interfaces[i].Addresses)
		}
	}
	return leased(s)
}

// leased checks that a device has an address of IPv4 on the mesh, which the gateway's
// DHCP server gives to nodes.
func leased(s model.MeshStatus) error {
	_, err := leaseOn(s)
	return err
}

// underlayOf is the interface that has the addresses of the mesh: bat0, or the bridge
// that joins it to ports.
func underlayOf(s model.MeshStatus) string {
	if slices.ContainsFunc(s.Interfaces, func(i model.Interface) bool { return i.Name == paths.MeshBridge }) {
		return paths.MeshBridge
	}
	return paths.BatIface
}

func online(s sight, name string) error {
	n := s.nodes[name]
	return expect(n.Online && !n.Revoked && !n.Volatile, "%s online, got %+v", name, n)
}

// reachable checks that the gateway's API has the device online, and that since the
// outage octets of it have come through the overlay to the gateway, and octets of the
// gateway to it: WireGuard counts none that it could not open.
func (t *tally) reachable(s sight, m *network.Machine) error {
	if s.err != nil {
		return s.err
	}
	name, gateway := m.Name(), t.w.gateway()
	if err := online(s, name); err != nil {
		return err
	}
	if m == gateway {
		return nil // its own agent has no way to go; that others reach it, they prove
	}
	if n, boot := s.nodes[name], s.views[name].status.BootCounter; n.Boot != boot {
		return fmt.Errorf("expected its stream of boot %d, got one of boot %d", boot, n.Boot)
	}
	return errors.Join(t.came(s, gateway, m), t.came(s, m, gateway))
}

// direct checks that every other node answers a node, through the overlay, and that
// what they say to each other comes by their own session and not by way of the gateway.
// The gateway has no other node: see reachable.
func (t *tally) direct(s sight, m *network.Machine) error {
	return t.w.eachOther(m, func(other *network.Machine) error {
		return errors.Join(s.asked.answered(m, other), t.came(s, m, other))
	})
}

// eachOther calls check with each other node of a node, until it fails.
func (w *World) eachOther(m *network.Machine, check func(other *network.Machine) error) error {
	if m == w.gateway() {
		return nil
	}
	for _, other := range w.nodes() {
		if other == m {
			continue
		}
		if err := check(other); err != nil {
			return fmt.Errorf("%s and %s: %w", m.Name(), other.Name(), err)
		}
	}
	return nil
}

// came is nil when octets of a machine have come to another through the overlay, by
// the word of the latter, since the outage.
func (t *tally) came(s sight, to, from *network.Machine) error {
	id := s.nodes[from.Name()].ID
	peers := s.views[to.Name()].status.Overlay
	i := slices.IndexFunc(peers, func(p model.OverlayPeer) bool { return p.Node == id })
	if id == "" || i < 0 {
		return fmt.Errorf("expected %s %q among the overlay peers of %s, got %d others", from.Name(), id, to.Name(), len(peers))
	}
	p := peers[i]
	if slices.Contains(t.o.Restarted, to) || slices.Contains(t.o.Restarted, from) { // both count anew
		return expect(p.LastHandshake != nil && p.RxBytes > 0, "a handshake, and octets, from %s to %s, got %+v", from.Name(), to.Name(), p)
	}
	f := flow{to.Name(), id}
	before, seen := t.rx[f]
	if !seen || p.RxBytes < before { // it has begun to count anew
		t.rx[f] = p.RxBytes
		return fmt.Errorf("expected octets from %s to %s since the outage, got none yet", from.Name(), to.Name())
	}
	return expect(p.LastHandshake != nil && p.RxBytes > before, "a handshake, and more than %d octets, from %s to %s, got %+v", before, from.Name(), to.Name(), p)
}

// complete checks that what was acknowledged is there, that no batch is missing, and
// that the batches of the outage have arrived and new ones come.
func (t *tally) complete(s sight, m *network.Machine, restarted bool) error {
	if s.err != nil {
		return s.err
	}
	name := m.Name()
	if err := errors.Join(s.stored.holds(t.o.before.stored, name), s.stored.Whole(name)); err != nil {
		return err
	}
	was, is := t.o.before.stored.Newest(name), s.stored.Newest(name)
	v := s.views[name]
	if v.agent != nil && v.agent.Spool.Segments > 0 {
		return fmt.Errorf("expected an empty spool, got %+v", v.agent.Spool)
	}
	if restarted {
		boot := v.status.BootCounter
		return expect(is.Boot == boot && is.Count > 0, "batches of %s of boot %d, which is after %d, got %+v", name, boot, was.Boot, is)
	}
	// It ran all the time: what it made meanwhile must be there. Half, since emulation
	// on busy cores loses time.
	want := max(was.Last+uint64(t.o.since.Sub(t.o.began)/SendEvery/2), t.last[name]+1)
	return expect(is.Boot == was.Boot && is.Last >= want, "batches of boot %d of %s up to %d at least, got %+v", was.Boot, name, want, is)
}
