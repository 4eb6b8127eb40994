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

const (
	askFirst = time.Second      // wait after the first question; doubles
	askMost  = time.Minute      // longest wait while no answer comes
	askAgain = 30 * time.Minute // while all is well: for the clock, and so that a new gateway learns of us
	askWait  = 10 * time.Second // an answer that takes longer is not fresh

	// doubt is how long a node goes on asking, when another gateway than its own has
	// answered, whether its own does: four or five questions.
	doubt = 12 * time.Second
	// room is how long it goes on where the other one has had nodes on no higher epoch
	// than its own had: so long one needs that is to raise it, before it has any.
	room = 2 * time.Minute
	// stay is how long its own gateway's answer is good against another one.
	stay = time.Minute
)

// While no gateway is heard, a question to all is in vain for as long as there is none,
// and each device of the mesh passes it on, three times. What each node asks once a minute
// would grow with the square of their number. So what is heard of others counts as much
// as what is asked, and all together ask no more than takes a part of the channel. It
// costs nothing: a gateway that returns announces itself.
const (
	questionAir   = 28 * time.Millisecond // what a question to all takes of a channel of 1 MHz, for each device of the mesh
	questionShare = 0.01                  // of the channel, for the questions of all nodes
	questionBurst = 4                     // asked in the mesh at once, after quiet
	questionDebt  = 16                    // that are remembered, of those asked beyond: all that start at once ask once

	countedFor = time.Second // what was found out of the number of devices holds
)

// Heard is a believed message of the gateway.
type Heard struct {
	Gateway
	// RoundTrip is the time from our question to this answer; 0 when the gateway
	// spoke unasked, and its time proves nothing.
	RoundTrip time.Duration
}

// NodeSide searches and follows the gateway.
type NodeSide struct {
	Config
	WireGuardKey []byte
	// Floor is the highest epoch known when the process starts: lower ones are
	// refused.
	Floor uint64
	// Heard is told of every believed message, in order.
	Heard func(Heard)
	// Refused, if any, is told of a living gateway, since it answers a question,
	// that is refused for its epoch.
	Refused func(epoch, floor uint64)
	// Home is the SHA-256 of the CA of the gateway that the node has joined, empty if it
	// has joined none: while that one answers, it stays with it.
	Home []byte
	// Twin, if any, is told of a living gateway beside the node's own, since both have
	// answered.
	Twin func(Gateway)
	// Keys, if any, returns the overlay's public key that the node has now, in place
	// of WireGuardKey, and the one that it will have with the proof that it has it, or
	// nothing.
	Keys func() (now, next, proof []byte)
	// Others, if any, is told of every authentic question of another node, recorded
	// ones too. The first of a start goes to all.
	Others func(Node)
	// Devices, if any, returns how many devices the mesh has, this one among them.
	Devices func() int
	// Raised, if any, is told that the gateway has heard this node in a later start than
	// Boot, and as which start it goes on.
	Raised func(boot uint64)
	// Profiles, if any, returns which profile documents the node has, for what it
	// says of itself.
	Profiles func() (held, using uint64)
	// Ordered, if any, is told of every order of the gateway, recorded ones too:
	// what has no place any more is its own to tell.
	Ordered func(Order)
	// Evidence is the gateway's message, as it came, that showed the highest epoch
	// before the process started; nil: there is none. A gateway that is refused, or
	// is another with that very epoch, gets it.
	Evidence []byte
	// Proved, if any, is told of a believed message that takes its place.
	Proved   func(evidence []byte)
	Counters Counters

	poke chan struct{}
}

// NewNodeSide returns a node's side; Run makes it work.
func NewNodeSide(c Config, wireGuardKey []byte, floor uint64, heard func(Heard)) *NodeSide {
	return &NodeSide{Config: c, WireGuardKey: wireGuardKey, Floor: floor, Heard: heard, poke: make(chan struct{}, 1)}
}

// Ask has the gateway asked at once: the mesh has changed, or this node has.
func (n *NodeSide) Ask() {
	select {
	case n.poke <- struct{}{}:
	default: // a question is due already
	}
}

// question is an open one; only one is open at a time.
type question struct {
	nonce   []byte
	sent    time.Time
	says    profiles
	refuted bool // evidence went to a gateway that answered
}

// profiles are the documents that a node says it has.
type profiles struct{ held, using uint64 }

// search is the state of a NodeSide's run.
type search struct {
	*NodeSide
	t       Timing
	codec   Codec
	seq     sequence
	boot    uint64 // of its questions: Boot, or what it was raised to
	known   bool   // an answer to a nonce has come: stamp is fresh
	stamp   Stamp  // of the last message believed
	at      time.Time
	proof   []byte // evidence of proven: the latest message with the highest epoch
	proven  Gateway
	asked   *question
	open    atomic.Pointer[[]byte] // its nonce, for who receives
	secret  []byte                 // that the gateway has too; nil: there is none
	wait    time.Duration
	home    home
	homed   time.Time // when it last answered a question
	done    *question // the question that it answered
	other   *rival
	told    profiles // what the gateway was told when it last answered
	saying  bool     // a question is due soon, since that is so no more
	toAll   bool     // the next question goes to every gateway that there may be
	floods  bucket
	vain    bucket       // of the mesh's questions while no gateway is heard
	met     bool         // a question of this start had somebody to hear it
	devices int          // of the mesh, at counted
	counted time.Time    // zero: never
	named   atomic.Int64 // when something came from its address last, whatever it was; Unix nanoseconds, for who receives
	spoke   time.Time    // when a gateway, or who replays one, was heard last
	timer   *time.Timer
	socket  Socket
}

// home is which gateway a node has: of one that has started anew the CA is the same,
// of one that has made another CA since, the instance.
type home struct {
	instance uint64
	ca       []byte
}

// known tells whether there is one to stay with. A gateway without a CA cannot be told
// from itself after a restart, and has admitted nobody.
func (h home) known() bool { return len(h.ca) > 0 }

func (h home) is(g Gateway) bool {
	return h.instance != 0 && g.Instance == h.instance || len(h.ca) > 0 && bytes.Equal(h.ca, g.CASHA256)
}

// take has it be that gateway. One that has no CA to tell of yet keeps its own.
func (h *home) take(g Gateway) {
	if len(g.CASHA256) > 0 || !h.is(g) {
		h.ca = g.CASHA256
	}
	h.instance = g.Instance
}

// rival is another gateway that answers, while it is asked whether the own one does.
type rival struct {
	Gateway
	since time.Time
}

// Run asks and listens until ctx ends.
func (n *NodeSide) Run(ctx context.Context) error {
	r := &search{NodeSide: n, t: n.Timing.WithDefaults(), codec: Codec{n.Network}, seq: sequence{since: n.Since}}
	r.boot = n.Boot
	r.floods, r.vain = bucket{rate: toAllPerSecond, burst: toAllBurst}, bucket{burst: questionBurst}
	r.stamp.Epoch, r.home.ca = n.Floor, n.Home
	r.secret, _ = n.Key.Agree(n.Network, proofContext, proofSecret) // without, nothing is proved
	if m, err := r.codec.Decode(n.Evidence); err == nil {
		if g, ok := m.(Gateway); ok {
			r.proof, r.proven = n.Evidence, g
		}
	}
	// The one that it has heard last need not have admitted it yet.
	if r.home.known() && len(r.proven.CASHA256) > 0 && r.proven.Stamp.Epoch >= n.Floor {
		r.home.ca = r.proven.CASHA256
	}
	return n.loop(ctx, &n.Counters, r.answered, r.run)
}

func (r *search) run(ctx context.Context, s Socket, in <-chan datagram) {
	r.socket, r.wait, r.timer = s, 0, time.NewTimer(0)
	silence := time.NewTimer(Silence)
	defer r.timer.Stop()
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.timer.C:
			r.ask()
		case <-r.poke:
			// One that was lost is looked for as before: what is asked it alone nobody else hears.
			if !r.known || r.near(time.Now()) {
				r.wait = 0
			}
			r.ask()
		case <-silence.C:
			if r.known { // the gateway is gone or cannot be heard: search as at the start
				r.lose()
			}
		case d := <-in:
			if r.handle(d) {
				silence.Reset(Silence)
			}
		}
	}
}

// answered tells whether a datagram from the gateway's address has the nonce of the last
// question, which nobody else has been told that was asked alone.
func (r *search) answered(from Owner, b []byte) bool {
	if from.Kin == KinGateway {
		r.named.Store(time.Now().UnixNano())
	}
	nonce := r.open.Load()
	if from.Kin != KinGateway || nonce == nil {
		return false
	}
	answer, ok := r.codec.peekAnswer(b)
	return ok && bytes.Equal(answer, *nonce)
}

// lose begins a search. All lose a gateway at the same instant, and what each asks it
// alone the others do not hear: they have so much time that together they take no more
// than their part. One that is heard and not believed is asked at once, and so is one in
// whose name something comes: a flood of that may be all that it is lost in.
func (r *search) lose() {
	now := time.Now()
	r.wait = 0
	if every := r.every(); every > 0 && !r.near(now) && now.Sub(time.Unix(0, r.named.Load())) >= Silence {
		r.timer.Reset(Within(time.Duration(r.devices) * every))
		return
	}
	r.ask()
}

// near tells whether a gateway is heard.
func (r *search) near(now time.Time) bool {
	return !r.spoke.IsZero() && now.Sub(r.spoke) < Silence
}

// every returns how much time is between two questions of the mesh while no gateway is
// heard; 0: there is nobody whom they could disturb.
func (r *search) every() time.Duration {
	if now := time.Now(); r.Devices != nil && (r.counted.IsZero() || now.Sub(r.counted) >= countedFor) {
		r.devices, r.counted = r.Devices(), now
	}
	if r.devices < 2 {
		return 0
	}
	every := time.Duration(float64(r.devices) * float64(questionAir) / questionShare)
	r.vain.rate = 1 / every.Seconds()
	return every
}

// mayAsk tells whether all may be asked now, or how long to wait: not for as long as the
// others do. By the first question of a start they learn of that.
func (r *search) mayAsk(now time.Time) (wait time.Duration, ok bool) {
	every := r.every()
	if every == 0 {
		return 0, true
	}
	first := !r.met
	r.met = true
	switch {
	case r.near(now) || r.vain.takeAt(now):
		return 0, true
	case first:
		r.vain.owe(now, questionDebt)
		return 0, true
	}
	return r.vain.room(now).Sub(now) + Within(every), false
}

// ask sends a question and sets the timer for the next. Once the gateway was heard the
// first try goes to it alone, since flooding a mesh costs airtime; and where somebody
// floods the mesh in the gateway's name, who is not asked does not learn the nonce.
func (r *search) ask() {
	to, now := paths.AnnounceGroup, time.Now()
	alone := r.known && r.wait == 0 && r.other == nil && !r.toAll
	if alone {
		to = identity.Underlay(r.Network, r.Network)
	}
	if !alone || !r.near(now) {
		if wait, ok := r.mayAsk(now); !ok {
			r.timer.Reset(wait)
			return
		}
		if !r.floods.takeAt(now) {
			r.timer.Reset(jitter(toAllPause))
			return
		}
	}
	if r.wait == 0 {
		r.wait = askFirst
	} else {
		r.wait = min(2*r.wait, askMost)
	}
	r.timer.Reset(jitter(r.wait))

	r.toAll, r.saying = false, false
	m := Node{Steps: r.Steps(), WireGuardKey: r.WireGuardKey}
	m.Stamp.Boot, m.Stamp.Seq = r.boot, r.seq.next()
	m.Nonce = drawNonce(r.secret, m.Stamp)
	r.asked = &question{nonce: m.Nonce, sent: now, says: r.profiles()}
	r.open.Store(&m.Nonce)
	if r.Keys != nil {
		m.WireGuardKey, m.NextKey, m.NextProof = r.Keys()
	}
	m.Held, m.Using = r.asked.says.held, r.asked.says.using
	b, err := r.codec.EncodeNode(r.Key, m)
	if err == nil {
		err = r.socket.Send(b, to)
	}
	if err != nil {
		r.Log.Debug("question not sent", "peer", to, "err", err) // asked again soon
	}
}

func (r *search) profiles() (p profiles) {
	if r.Profiles != nil {
		p.held, p.using = r.Profiles()
	}
	return p
}

// say has the gateway asked soon that is there and does not know which documents this
// node has by now: its announcement may have come, by which it is heard, before it was
// to be asked for. It waits for that word of all nodes.
func (r *search) say() {
	if r.asked == nil && !r.saying && r.told != r.profiles() {
		r.saying, r.wait = true, 0
		r.timer.Reset(Within(SayWithin))
	}
}

// handle takes a datagram and tells whether it was a believed message.
func (r *search) handle(d datagram) bool {
	m, err := r.codec.Decode(d.data)
	if err != nil {
		r.Counters.addError(err)
		return false
	}
	if o, ok := m.(Order); ok {
		if r.Ordered != nil {
			r.Ordered(o)
		}
		return false
	}
	if q, ok := m.(Node); ok {
		r.hearOther(q, d.from)
		return false
	}
	if p, ok := m.(Past); ok {
		r.raise(p)
		return false
	}
	g, ok := m.(Gateway)
	if !ok {
		return false // one gateway's word to another
	}
	if g.Stamp.Epoch < r.stamp.Epoch {
		r.Counters.add(ignoredEpoch)
		if r.answers(g.Nonce) {
			r.refuse(g.Stamp.Epoch)
		}
		return false
	}
	r.spoke = time.Now()
	if r.home.known() && !r.home.is(g) && !r.moves(g) {
		r.Counters.add(ignoredOther)
		return false
	}
	h := Heard{Gateway: g}
	if len(g.Nonce) > 0 {
		if !r.answers(g.Nonce) {
			r.Counters.add(ignoredOld)
			return false
		}
		// Whoever answers our nonce is the living gateway, even if its counter
		// was lost with its card.
		h.RoundTrip = max(time.Since(r.asked.sent), 1)
		if r.behind(g) {
			r.show()
		}
		r.asked, r.done, r.known, r.told = nil, r.asked, true, r.asked.says
		r.open.Store(nil)
		r.homed, r.wait = time.Now(), 0
		if o := r.other; o != nil && r.Twin != nil && r.home.is(g) {
			r.Twin(o.Gateway)
		}
		r.other = nil
		r.timer.Reset(jitter(askAgain))
	} else if !r.known {
		r.verify()
		return false
	} else if !g.Stamp.After(r.stamp) {
		r.Counters.add(ignoredOld)
		// The gateway is lost, and this may be it, whose counter was lost with its card.
		if time.Since(r.at) >= Silence && r.floods.take() {
			r.verify()
		}
		return false
	}
	r.stamp, r.at = g.Stamp, time.Now()
	r.home.take(g)
	if rises := g.Stamp.Epoch > r.proven.Stamp.Epoch; rises || g.Stamp.After(r.proven.Stamp) && !r.behind(g) {
		r.proof, r.proven = d.data, g
		if rises && r.Proved != nil {
			r.Proved(d.data)
		}
	}
	r.Heard(h)
	r.say()
	return true
}

// hearOther takes another node's question to the gateway.
func (r *search) hearOther(q Node, from netip.Addr) {
	key := identity.PublicKey(q.Key)
	switch {
	case key == r.Key.Public():
		r.Counters.add(ignoredOld) // one of our own that came back
	case !speaksFrom(r.Network, key, from):
		r.Counters.add(ignoredSource)
	default:
		if now := time.Now(); !r.near(now) && r.every() > 0 {
			r.vain.owe(now, questionDebt)
		}
		if r.Others != nil {
			r.Others(q)
		}
	}
}

// raise has the node go on in a later start than the gateway has heard of: its card has
// not kept all, and of what it asks in a start that was counted before nothing is believed.
// Whoever answers the open question is the living gateway, and who has sent a later one is
// this node in an earlier start. The others hear of the new one as well.
func (r *search) raise(p Past) {
	if !r.answers(p.Nonce) {
		r.Counters.add(ignoredOld)
		return
	}
	if p.Boot < r.boot || p.Boot == MaxBoot {
		r.Counters.add(ignoredForm)
		return
	}
	r.boot, r.asked, r.spoke = p.Boot+1, nil, time.Now()
	r.open.Store(nil)
	if r.Raised != nil {
		r.Raised(r.boot)
	}
	r.wait, r.toAll = 0, true
	r.ask()
}

// verify asks, since what was heard could be a recording, and believes the answer.
func (r *search) verify() {
	r.wait = 0
	if r.asked == nil || time.Since(r.asked.sent) > askFirst {
		r.ask()
	} else { // that question came too early
		r.timer.Reset(askFirst - time.Since(r.asked.sent))
	}
}

// moves takes a message of another gateway than the node's own and tells whether it
// takes its place: it answers, and the own one has not for a while. A gateway that was
// replaced is not there any more; two that are there at once are somebody's mistake.
func (r *search) moves(g Gateway) bool {
	now := time.Now()
	answers := r.answers(g.Nonce)
	switch {
	case now.Sub(r.homed) < r.t.Stay:
		// Both answer: to the same question, or to the own one's last.
		if r.Twin != nil && (answers || r.done.is(g.Nonce)) {
			r.Twin(g)
		}
		return false
	case !answers:
		// Who replays what another gateway once said has every node ask now and then.
		if len(g.Nonce) == 0 && r.other == nil && (r.asked == nil || now.Sub(r.asked.sent) > askWait) {
			r.toAll = true
			r.verify()
		}
		return false
	case r.other == nil || r.other.Instance != g.Instance:
		r.other = &rival{g, now}
		r.wait = askFirst
		r.timer.Reset(jitter(askFirst)) // this question stays open for the own one
	}
	silent := now.Sub(r.other.since) >= r.t.Doubt
	if silent && r.behind(g) {
		r.show()
		return now.Sub(r.other.since) >= room
	}
	return silent
}

// behind tells whether a gateway is another one than the evidence is of, and not ahead
// of that: what the other one signed goes before what it signs, until it raises its
// epoch.
func (r *search) behind(g Gateway) bool {
	if g.Stamp.Epoch != r.proven.Stamp.Epoch || g.Instance == r.proven.Instance {
		return false
	}
	return len(g.CASHA256) > 0 && len(r.proven.CASHA256) > 0 && !bytes.Equal(g.CASHA256, r.proven.CASHA256) || r.proven.Stamp.After(g.Stamp)
}

// refuse tells of a living gateway whose epoch is too low, and shows it what
// was believed before: its own key has signed that. The question stays open, so
// that a gateway with the right epoch can still answer it.
func (r *search) refuse(epoch uint64) {
	if r.Refused != nil {
		r.Refused(epoch, r.stamp.Epoch)
	}
	if r.proven.Stamp.Epoch > epoch {
		r.show()
	}
}

// show shows the gateway that answers the evidence, once for each question.
func (r *search) show() {
	if r.asked.refuted {
		return
	}
	r.asked.refuted = true
	to := identity.Underlay(r.Network, r.Network)
	if err := r.socket.Send(r.proof, to); err != nil {
		r.Log.Debug("evidence not sent", "peer", to, "err", err) // the next answer brings it
	}
}

// answers tells whether nonce is that of the open question, in time.
func (r *search) answers(nonce []byte) bool { return r.asked.is(nonce) }

// is tells whether nonce is that of the question, in time. There need not be one.
func (q *question) is(nonce []byte) bool {
	return q != nil && bytes.Equal(q.nonce, nonce) && time.Since(q.sent) <= askWait
}
