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
	t      Timing
	codec  Codec
	seq    sequence
	known  bool  // an answer to a nonce has come: stamp is fresh
	stamp  Stamp // of the last message believed
	at     time.Time
	proof  []byte // evidence of proven: the latest message with the highest epoch
	proven Gateway
	asked  *question
	open   atomic.Pointer[[]byte] // its nonce, for who receives
	secret []byte                 // that the gateway has too; nil: there is none
	wait   time.Duration
	home   home
	homed  time.Time // when it last answered a question
	done   *question // the question that it answered
	other  *rival
	told   profiles // what the gateway was told when it last answered
	saying bool     // a question is due soon, since that is so no more
	toAll  bool     // the next question goes to every gateway that there may be
	floods bucket
	timer  *time.Timer
	socket Socket
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
	r.floods = bucket{rate: toAllPerSecond, burst: toAllBurst}
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
			r.wait = 0
			r.ask()
		case <-silence.C:
			if r.known { // the gateway is gone or cannot be heard: search as at the start
				r.wait = 0
				r.ask()
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
	nonce := r.open.Load()
	if from.Kin != KinGateway || nonce == nil {
		return false
	}
	g, ok := r.codec.peekGateway(b)
	return ok && bytes.Equal(g.Nonce, *nonce)
}

// ask sends a question and sets the timer for the next. Once the gateway was heard the
// first try goes to it alone, since flooding a mesh costs airtime; and where somebody
// floods the mesh in the gateway's name, who is not asked does not learn the nonce.
func (r *search) ask() {
	to := paths.AnnounceGroup
	if r.known && r.wait == 0 && r.other == nil && !r.toAll {
		to = identity.Underlay(r.Network, r.Network)
	} else if !r.floods.take() {
		r.timer.Reset(jitter(toAllPause))
		return
	}
	if r.wait == 0 {
		r.wait = askFirst
	} else {
		r.wait = min(2*r.wait, askMost)
	}
	r.timer.Reset(jitter(r.wait))

	r.toAll, r.saying = false, false
	m := Node{Steps: r.Steps(), WireGuardKey: r.WireGuardKey}
	m.Stamp.Boot, m.Stamp.Seq = r.Boot, r.seq.next()
	m.Nonce = drawNonce(r.secret, m.Stamp)
	r.asked = &question{nonce: m.Nonce, sent: time.Now(), says: r.profiles()}
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
	case r.Others != nil:
		r.Others(q)
	}
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
