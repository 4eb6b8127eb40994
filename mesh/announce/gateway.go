package announce

import (
	"bytes"
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// Limits of what is answered.
const (
	maxSenders    = 1024
	senderRate    = 1 // answers per second to one node
	senderBurst   = 4
	maxUnanswered = 64          // answers that wait
	settleMost    = time.Second // that they do

	// What one node is told of its past: its first question brings it, and a second where
	// one was lost. Who replays recorded questions has no more sent than this.
	pastRate  = 0.2
	pastBurst = 4
)

// GatewaySide announces a gateway and answers the nodes that ask.
type GatewaySide struct {
	Config
	// Self returns what to announce now; stamp and nonce are filled in.
	Self func() Gateway
	// Heard is told of every authentic message of a node, in order, before it is
	// answered.
	// What an answer sets off may need something to be done before: the answer goes out
	// when what Heard returns is closed, or after a second; nil: at once.
	Heard func(n Node, from netip.Addr) (settled <-chan struct{})
	// Standing, if any, returns what speaks for this gateway where there is another
	// with its key.
	Standing func() Standing
	// Met, if any, is told when another gateway with this one's key is found or gone,
	// and when this one stands down or serves again. It must not wait for Run.
	Met func(Twinned)
	// Announced, if any, is told of every announcement that has gone out to all: one
	// that was asked for may have to wait. It must not wait for Run.
	Announced func(Gateway)
	Counters  Counters

	poke    chan struct{}
	press   chan struct{}
	orders  chan Order
	shows   chan uint64
	heard   atomic.Uint64
	twinned atomic.Pointer[Twinned]
}

// Twinned is how things stand with another gateway that has this one's key.
type Twinned struct {
	Aside bool   // this one has stood down: it announces nothing and answers no node
	Other *Other // the last that gave a sign of life; nil: there is none
}

// instance names the other one; 0: there is none.
func (t Twinned) instance() uint64 {
	if t.Other == nil {
		return 0
	}
	return t.Other.Instance
}

// NewGatewaySide returns a gateway's side; Run makes it work.
func NewGatewaySide(c Config, self func() Gateway, heard func(Node, netip.Addr) <-chan struct{}) *GatewaySide {
	return &GatewaySide{Config: c, Self: self, Heard: heard, poke: make(chan struct{}, 1), press: make(chan struct{}, 1), orders: make(chan Order, 1), shows: make(chan uint64, 1)}
}

// Order sends an order to all. One that cannot be sent at once is lost: the next
// has the time that is right by then.
func (g *GatewaySide) Order(o Order) {
	select {
	case g.orders <- o:
	default:
	}
}

// Changed has the gateway announced at once, or within ten seconds where that was asked
// for often: links that come and go have it done, and whoever can make them.
func (g *GatewaySide) Changed() {
	select {
	case g.poke <- struct{}{}:
	default: // an announcement is due already
	}
}

// Press has the gateway announced within a second, however often Changed was called. It is
// for what only the gateway's own people bring about.
func (g *GatewaySide) Press() {
	select {
	case g.press <- struct{}{}:
	default:
	}
}

// outlet decides when announcements go out beside those of each half minute. The zero
// value but for floods is ready to use.
type outlet struct {
	floods  bucket
	waits   time.Time // since when one waits for room in it; zero: none does
	presses int       // that are still to go out
	pressed time.Time // when the last of these did
}

// ask has one go out when there is room. What waits already waits no longer for it.
func (o *outlet) ask(now time.Time) {
	if o.waits.IsZero() {
		o.waits = now
	}
}

// due tells whether one is to go out now, and counts that it does.
func (o *outlet) due(now time.Time) bool {
	switch {
	case o.presses > 0 && now.Sub(o.pressed) >= pressPause:
		o.presses, o.pressed = o.presses-1, now
	case !o.waits.IsZero() && o.floods.takeAt(now):
	default:
		return false
	}
	return true
}

// next returns when the next may be due; the zero value: when it is asked for.
func (o *outlet) next(now time.Time) (at time.Time) {
	if o.presses > 0 {
		at = o.pressed.Add(pressPause)
	}
	if !o.waits.IsZero() {
		if room := o.floods.room(now); at.IsZero() || room.Before(at) {
			at = room
		}
	}
	return at
}

// Show tells it that the network has something which another card of this gateway has
// signed at that epoch, and which is later than anything of its own.
func (g *GatewaySide) Show(epoch uint64) {
	select {
	case g.shows <- epoch:
	default: // one is looked into already
	}
}

// HeardEpoch returns the highest epoch, its own or a higher one, that another card of
// this gateway has had, as a node has shown by what the network's key signed, and whose
// gateway does not answer. What that one signed at the same epoch goes before what this
// one signs. 0: there was none.
func (g *GatewaySide) HeardEpoch() uint64 { return g.heard.Load() }

// Twinned returns how things stand with another gateway.
func (g *GatewaySide) Twinned() Twinned {
	if t := g.twinned.Load(); t != nil {
		return *t
	}
	return Twinned{}
}

// StandDown has it begin as one that has stood down for another gateway, of that epoch,
// as it had before its process ended. It is called before Run.
func (g *GatewaySide) StandDown(epoch uint64) {
	g.twinned.Store(&Twinned{true, &Other{Twin{Epoch: epoch}, time.Now()}})
}

// sender is what a gateway remembers of one node that it heard.
type sender struct {
	stamp  Stamp
	bucket bucket // of answers
	past   bucket // of words on its past
	heard  time.Time
}

// speaker is the state of a GatewaySide's run.
type speaker struct {
	*GatewaySide
	codec   Codec
	seq     sequence
	senders map[identity.PublicKey]*sender
	twins   *twins
	own     Twin // what speaks for this gateway
	looked  time.Time
	socket  Socket
	out     outlet

	unanswered int        // answers that wait, in this run
	settled    chan reply // those that wait no more
}

// reply is an answer that has to wait.
type reply struct {
	nonce []byte
	to    netip.Addr
	asked time.Time
}

// Run announces and answers until ctx ends.
func (g *GatewaySide) Run(ctx context.Context) error {
	r := &speaker{
		GatewaySide: g, codec: Codec{g.Network}, seq: sequence{since: g.Since}, senders: map[identity.PublicKey]*sender{},
		twins: newTwins(newInstance(), g.Timing),
	}
	before := g.Twinned()
	r.twins.aside, r.twins.other = before.Aside, before.Other
	r.out.floods = bucket{rate: toAllPerSecond, burst: toAllBurst}
	p := proofs{key: g.Key, codec: r.codec, members: map[identity.PublicKey]*prover{}}
	return g.loop(ctx, &g.Counters, p.proven, r.run)
}

func (r *speaker) run(ctx context.Context, s Socket, in <-chan datagram) {
	r.socket = s
	r.unanswered, r.settled = 0, make(chan reply)
	if r.twins.living.IsZero() { // before, nothing could be heard
		r.twins.living = time.Now()
	}
	next := time.NewTimer(0)
	defer next.Stop()
	twin := time.NewTimer(0)
	defer twin.Stop()
	out := time.NewTimer(0)
	defer out.Stop()
	for {
		was := r.twins.aside
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			r.announce(next)
		case <-r.poke:
			r.out.ask(time.Now())
		case <-r.press:
			r.out.presses = pressTimes
		case <-out.C:
		case o := <-r.orders:
			if !r.twins.aside {
				b, err := r.codec.EncodeOrder(r.Key, o)
				r.send("order", b, err, paths.AnnounceGroup) // it is repeated
			}
		case epoch := <-r.shows:
			r.show(epoch)
		case <-twin.C:
			if t, ok := r.twins.tick(time.Now(), r.claim()); ok {
				r.speak(t)
			}
		case a := <-r.settled:
			r.unanswered--
			r.reply(a)
		case d := <-in:
			r.take(ctx, d)
		}
		r.tell()
		if r.out.due(time.Now()) || was && !r.twins.aside {
			r.announce(next)
		}
		out.Stop()
		if now := time.Now(); !r.out.next(now).IsZero() {
			out.Reset(r.out.next(now).Sub(now))
		}
		twin.Stop()
		if at := r.twins.next(); !at.IsZero() {
			twin.Reset(time.Until(at))
		}
	}
}

// send sends a message and tells whether it has gone out. One that is lost is followed
// by another soon.
func (r *speaker) send(what string, b []byte, err error, to netip.Addr) bool {
	if err == nil {
		err = r.socket.Send(b, to)
	}
	if err != nil {
		r.Log.Debug(what+" not sent", "peer", to, "err", err)
	}
	return err == nil
}

func (r *speaker) announce(next *time.Timer) {
	r.out.waits = time.Time{} // whatever that was for, it is said now
	if m, ok := r.say(nil, paths.AnnounceGroup, 0); ok && r.Announced != nil {
		r.Announced(m)
	}
	next.Reset(jitter(interval))
}

// say says what the gateway is, unless it has stood down, and returns what has gone out.
// Who asked takes half of the time until the answer comes for the answer's way: of what it
// was held here, half is taken off its time.
func (r *speaker) say(nonce []byte, to netip.Addr, held time.Duration) (m Gateway, ok bool) {
	if r.twins.aside {
		return m, false
	}
	m = r.Self()
	m.TimeMS -= (held / 2).Milliseconds()
	m.Stamp.Boot, m.Stamp.Seq, m.Steps, m.Nonce, m.Instance = r.Boot, r.seq.next(), r.Steps(), nonce, r.twins.instance
	b, err := r.codec.EncodeGateway(r.Key, m)
	return m, r.send("announcement", b, err, to)
}

// speak speaks to other gateways, which have this one's addresses: to all.
func (r *speaker) speak(t Twin) {
	b, err := r.codec.EncodeTwin(r.Key, t)
	r.send("word to another gateway", b, err, paths.AnnounceGroup)
}

// claim is what speaks for this gateway. It takes a look at the overlay, which is not
// to be had by a flood of recordings.
func (r *speaker) claim() Twin {
	if now := time.Now(); now.Sub(r.looked) >= time.Second {
		r.looked, r.own = now, Twin{Epoch: r.Self().Stamp.Epoch}
		if r.Standing != nil {
			r.own.Standing = r.Standing()
		}
	}
	return r.own
}

// tell tells what has become of other gateways.
func (r *speaker) tell() {
	r.heard.Store(r.twins.heard)
	now, old := Twinned{r.twins.aside, r.twins.other}, r.Twinned()
	if now == old {
		return
	}
	r.twinned.Store(&now)
	if r.Met != nil && (now.Aside != old.Aside || now.instance() != old.instance()) {
		r.Met(now)
	}
}

// answer answers a node, when what that has to wait for is done.
func (r *speaker) answer(ctx context.Context, a reply, settled <-chan struct{}) {
	if settled == nil || r.unanswered == maxUnanswered {
		r.reply(a)
		return
	}
	r.unanswered++
	go func() {
		select {
		case <-settled:
		case <-time.After(settleMost):
		case <-ctx.Done():
		}
		select {
		case r.settled <- a:
		case <-ctx.Done():
		}
	}()
}

// reply says what the gateway is to one that has asked.
func (r *speaker) reply(a reply) { r.say(a.nonce, a.to, time.Since(a.asked)) }

// take takes a datagram.
func (r *speaker) take(ctx context.Context, d datagram) {
	m, err := r.codec.Decode(d.data)
	if err != nil {
		r.Counters.addError(err)
		return
	}
	switch m := m.(type) {
	case Gateway:
		r.learn(m)
	case Twin:
		if m.Instance == r.twins.instance {
			r.Counters.add(ignoredOld) // one of our own that came back
			return
		}
		if t, ok := r.twins.hear(time.Now(), m, r.claim()); ok {
			r.speak(t)
		}
	case Node:
		if r.accept(m, d.from) && !r.twins.aside {
			r.answer(ctx, reply{m.Nonce, d.from, d.at}, r.Heard(m, d.from))
		}
	default:
		r.Counters.add(ignoredOld) // an order of our own, or a word to a node
	}
}

// accept tells whether a node's message is to be answered.
func (r *speaker) accept(n Node, source netip.Addr) bool {
	if own := r.Key.Public(); bytes.Equal(n.Key, own[:]) {
		r.Counters.add(ignoredOld) // one of our own that came back
		return false
	}
	key := identity.PublicKey(n.Key)
	if !speaksFrom(r.Network, key, source) {
		r.Counters.add(ignoredSource)
		return false
	}
	from := r.senders[key]
	if from == nil {
		forget(r.senders)
		from = &sender{bucket: bucket{rate: senderRate, burst: senderBurst}, past: bucket{rate: pastRate, burst: pastBurst}}
		r.senders[key] = from
	} else if !n.Stamp.After(from.stamp) {
		r.Counters.add(ignoredOld)
		r.past(n, source, from)
		return false
	}
	from.stamp, from.heard = n.Stamp, time.Now()
	if !from.bucket.take() {
		r.Counters.add(ignoredRate)
		return false
	}
	return true
}

// past tells a node whose question came too late, or was recorded, of which start it has
// heard. The very question that it has answered is neither: it came by two ways.
func (r *speaker) past(n Node, to netip.Addr, from *sender) {
	if r.twins.aside || len(n.Nonce) != NonceSize || n.Stamp == from.stamp || from.stamp.Boot > MaxBoot || !from.past.take() {
		return
	}
	b, err := r.codec.EncodePast(r.Key, Past{Nonce: n.Nonce, Boot: from.stamp.Boot})
	r.send("word on a start", b, err, to) // the next question has it said again
}

// learn takes a message that the network's key signed. Who brought it does not
// matter, and how old it is does not either: that a living gateway has sent it has
// to be found out.
func (r *speaker) learn(m Gateway) {
	if m.Instance == r.twins.instance {
		r.Counters.add(ignoredOld) // one of our own that came back
		return
	}
	if !r.later(m) || !r.show(m.Stamp.Epoch) {
		r.Counters.add(ignoredOld)
		r.twins.suspect()
	}
}

// show takes that another card of this gateway has had an epoch, and tells whether that
// is news.
func (r *speaker) show(epoch uint64) bool {
	if epoch < r.Self().Stamp.Epoch || epoch <= max(r.twins.heard, r.twins.shown) {
		return false
	}
	r.twins.show(epoch)
	r.Log.Info("the network has heard another card of this gateway, whose epoch was no lower", "epoch", epoch)
	return true
}

// later tells whether a message can only be of another card, and nodes go by that one:
// its epoch is higher, or it is the same and the CA is another, or this gateway has not
// got so far yet.
func (r *speaker) later(m Gateway) bool {
	own := r.Self()
	if own.Stamp.Epoch == m.Stamp.Epoch && len(own.CASHA256) > 0 && len(m.CASHA256) > 0 && !bytes.Equal(own.CASHA256, m.CASHA256) {
		return true
	}
	own.Stamp.Boot, own.Stamp.Seq = r.Boot, max(r.seq.last, r.Since())
	return m.Stamp.After(own.Stamp)
}

// forget makes room in a full table by dropping who was heard longest ago: keys
// cost a stranger nothing, memory must not grow with them.
func forget(senders map[identity.PublicKey]*sender) {
	if len(senders) < maxSenders {
		return
	}
	var oldest identity.PublicKey
	var at time.Time
	for k, s := range senders {
		if at.IsZero() || s.heard.Before(at) {
			oldest, at = k, s.heard
		}
	}
	delete(senders, oldest)
}

// bucket is a token bucket.
type bucket struct {
	rate, burst float64
	used        float64
	at          time.Time
}

func (b *bucket) take() bool { return b.takeAt(time.Now()) }

func (b *bucket) takeAt(now time.Time) bool {
	b.fill(now)
	if b.used+1 > b.burst {
		return false
	}
	b.used++
	return true
}

// owe takes from it what it need not have, up to a debt.
func (b *bucket) owe(now time.Time, most float64) {
	b.fill(now)
	b.used = min(b.used+1, b.burst+most)
}

func (b *bucket) fill(now time.Time) {
	if !b.at.IsZero() {
		b.used = max(0, b.used-now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
}

// room returns when it can be taken from.
func (b *bucket) room(now time.Time) time.Time {
	lacks := b.used + 1 - b.burst
	if !b.at.IsZero() {
		lacks -= now.Sub(b.at).Seconds() * b.rate
	}
	if lacks <= 0 {
		return now
	}
	return now.Add(time.Duration(lacks/b.rate*float64(time.Second)) + time.Millisecond) // rounded up
}
