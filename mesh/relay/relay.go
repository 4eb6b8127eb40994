// Package relay carries listed multicast groups, such as those of TAK, between the
// networks of clients of all members, which are routed and would not hear each other
// otherwise. A device listens on br0 for datagrams of its own clients to these
// groups, and hands each by unicast over the overlay, encrypted, to those members
// whose clients have joined the group; these emit it on their br0 as it came, under
// the client's own address. Nothing goes to whom nobody listens.
//
// Loops are impossible: what is taken up comes from a client of the device's own
// network, and what is emitted never does. A member speaks for its own clients alone:
// WireGuard vouches for its address, the signed list of members for its clients.
//
// Who listens, the bridge knows by asking (IGMP); members tell it to each other: all
// when it changes, thrice, then ever more rarely, and again when they are asked, which
// somebody does who has something to send. See table for what that costs. A network
// without clients says nothing.
package relay

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/model"
)

// Config says what is carried, and how much.
type Config struct {
	Groups []netip.AddrPort // of IPv4, each with its UDP port; none: nothing is carried
	Kbit   int              // kbit/s that this device sends to others at most, in the long run, all copies and headers counted
	// Handshakes returns the last ones of WireGuard, by canonical ID; nil: not known.
	Handshakes func() map[string]time.Time
	Log        *slog.Logger
}

// Member is another member of the network.
type Member struct {
	Node    string       // canonical ID
	Overlay netip.Addr   // IPv4
	Clients netip.Prefix // those that it speaks for; the zero value: none
	Away    bool         // there is no way to it on the mesh: nothing is sent to it, not even to find out
}

// Wanted is between whom it is carried.
type Wanted struct {
	Overlay netip.Addr   // of this device; the zero value: it is no member yet
	Clients netip.Prefix // of this device; the zero value: it has none, and nothing is carried
	Members []Member     // all others
}

func (w Wanted) equal(o Wanted) bool { return w.here(o) && slices.Equal(w.Members, o.Members) }

// here tells whether both need the same sockets.
func (w Wanted) here(o Wanted) bool { return w.Overlay == o.Overlay && w.Clients == o.Clients }

// Relay may be used from any goroutine.
type Relay struct {
	Config
	changed chan struct{} // other sockets are needed
	now     chan struct{} // something is to be told

	mu      sync.Mutex // guards what follows
	wanted  Wanted
	table   *table
	out     sender  // to members; nil: not there
	emit    emitter // to clients; nil: not there
	counts  model.RelayCounts
	dropped map[string]uint64
}

// sender sends a message to a member.
type sender interface {
	send(msg []byte, to netip.Addr) error
}

// emitter emits a datagram to the device's own clients.
type emitter interface {
	emit(datagram) error
}

// New returns a relay that is told by Set between whom it carries.
func New(c Config) *Relay {
	return &Relay{Config: c, changed: make(chan struct{}, 1), now: make(chan struct{}, 1), table: newTable(c.Groups, c.Kbit), dropped: map[string]uint64{}}
}

// Set says between whom it is carried from now on.
func (r *Relay) Set(w Wanted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wanted.equal(w) {
		return
	}
	anew := !r.wanted.here(w)
	r.wanted = w
	r.table.set(w.Clients, w.Members)
	if anew {
		wake(r.changed)
	}
	if r.table.greets() {
		wake(r.now)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // awake already
	}
}

// Status returns what is carried, and what became of it.
func (r *Relay) Status() model.RelayStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return model.RelayStatus{Groups: r.table.groups(time.Now()), Counts: r.counts, Dropped: maps.Clone(r.dropped)}
}

// Run carries until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	if len(r.Groups) == 0 {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		r.mu.Lock()
		w := r.wanted
		r.mu.Unlock()
		turn, cancel := context.WithCancel(ctx)
		var owned sync.WaitGroup
		if w.Overlay.IsValid() && w.Clients.IsValid() {
			owned.Go(func() { r.serveMembers(turn, w) })
			owned.Go(func() { r.serveClients(turn, w) })
			owned.Go(func() { r.tell(turn) })
		}
		select {
		case <-ctx.Done():
		case <-r.changed:
		}
		cancel()
		owned.Wait()
	}
	return nil
}

// vouchEvery is how often handshakes are looked at while there is a reason to.
const vouchEvery = 15 * time.Second

// tell tells the others what is to be told, when it is.
func (r *Relay) tell(ctx context.Context) {
	timer, check := time.NewTimer(0), time.NewTicker(vouchEvery)
	defer timer.Stop()
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.now:
		case <-timer.C:
		case <-check.C:
			r.vouch()
			continue
		}
		now := time.Now()
		r.mu.Lock()
		if r.out == nil { // nobody would hear it: reach wakes
			r.mu.Unlock()
			continue
		}
		msg, to := r.table.due(now)
		next := r.table.tellAt
		r.mu.Unlock()
		r.send(msg, to, &r.counts.Told)
		if !next.IsZero() {
			timer.Reset(max(time.Until(next), time.Millisecond))
		}
	}
}

// reach has the others be reached by out from now on, nil: not at all.
func (r *Relay) reach(out sender) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out = out; out != nil {
		r.table.missed(time.Now())
		wake(r.now)
	}
}

// vouch forgets members that do not answer.
func (r *Relay) vouch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Handshakes == nil || !r.table.unproven() {
		return
	}
	r.mu.Unlock() // it asks the kernel
	h := r.Handshakes()
	r.mu.Lock()
	if h != nil {
		r.table.vouch(time.Now(), h)
	}
}

// send sends a message to members and counts them.
func (r *Relay) send(msg []byte, to []netip.Addr, counter *uint64) {
	if len(to) == 0 {
		return
	}
	r.mu.Lock()
	out := r.out
	r.mu.Unlock()
	var sent, failed uint64
	for _, a := range to {
		if out == nil || out.send(msg, a) != nil {
			failed++
		} else {
			sent++
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	*counter += sent
	r.drop(dropSend, failed)
}

// drop counts what is not carried; r.mu is held.
func (r *Relay) drop(reason string, n uint64) {
	if reason != "" && n > 0 {
		r.dropped[reason] += n
	}
}

// joined takes what groups the hosts on br0 listen to.
func (r *Relay) joined(groups []netip.Addr) {
	r.mu.Lock()
	r.table.joined(time.Now(), groups)
	due := r.table.tellAt
	r.mu.Unlock()
	if !due.IsZero() {
		wake(r.now)
	}
}

// fromClient carries a datagram of one of the device's own clients.
func (r *Relay) fromClient(d datagram) {
	r.mu.Lock()
	to, ask, reason := r.table.offer(time.Now(), d)
	if r.drop(reason, 1); reason == "" {
		r.counts.Heard++
	}
	question := r.table.self(true)
	r.mu.Unlock()
	if reason == "" {
		r.send(d.marshal(), to, &r.counts.Sent)
	}
	r.send(question, ask, &r.counts.Told)
}

// fromMember takes a message of another member, or of who has its address.
func (r *Relay) fromMember(b []byte, from netip.Addr) {
	d, i, err := parse(b)
	now := time.Now()
	r.mu.Lock()
	var answer bool
	reason := dropForm
	switch {
	case err != nil:
	case i != nil:
		answer, reason = r.table.hear(now, from, *i)
	default:
		answer, reason = r.table.take(now, from, *d)
	}
	r.drop(reason, 1)
	emit := r.emit
	var self []byte
	if answer {
		self = r.table.self(false)
	}
	r.mu.Unlock()
	if d != nil && reason == "" {
		r.give(emit, *d)
	}
	if answer {
		r.send(self, []netip.Addr{from}, &r.counts.Told)
	}
}

func (r *Relay) give(to emitter, d datagram) {
	failed := to == nil || to.emit(d) != nil
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed {
		r.drop(dropSend, 1)
	} else {
		r.counts.Emitted++
	}
}
