package announce

import (
	"bytes"
	"context"
	"crypto/rand"
	"time"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

const (
	askFirst = time.Second      // wait after the first question; doubles
	askMost  = time.Minute      // longest wait while no answer comes
	askAgain = 30 * time.Minute // while all is well: for the clock, and so that a new gateway learns of us
	askWait  = 10 * time.Second // an answer that takes longer is not fresh
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
	// Keys, if any, returns the overlay's public key that the node has now, in place
	// of WireGuardKey, and the one that it will have, or nothing.
	Keys func() (now, next []byte)
	// Profiles, if any, returns which profile documents the node has, for what it
	// says of itself.
	Profiles func() (held, using uint64)
	// Ordered, if any, is told of every order of the gateway, recorded ones too:
	// what has no place any more is its own to tell.
	Ordered func(Order)
	// Evidence is the gateway's message, as it came, that showed the highest epoch
	// before the process started; nil: there is none. A gateway that is refused
	// gets it.
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
	refuted bool // evidence went to a gateway that answered
}

// search is the state of a NodeSide's run.
type search struct {
	*NodeSide
	codec  Codec
	seq    sequence
	known  bool  // an answer to a nonce has come: stamp is fresh
	stamp  Stamp // of the last message believed
	at     time.Time
	proof  []byte // evidence of proven, the highest epoch that was shown
	proven uint64
	asked  *question
	wait   time.Duration
	timer  *time.Timer
	socket Socket
}

// Run asks and listens until ctx ends.
func (n *NodeSide) Run(ctx context.Context) error {
	r := &search{NodeSide: n, codec: Codec{n.Network}, seq: sequence{since: n.Since}}
	r.stamp.Epoch = n.Floor
	if epoch, err := r.codec.GatewayEpoch(n.Evidence); err == nil {
		r.proof, r.proven = n.Evidence, epoch
	}
	return n.loop(ctx, r.run)
}

func (r *search) run(ctx context.Context, s Socket, in <-chan datagram) {
	r.socket, r.wait, r.timer = s, 0, time.NewTimer(0)
	all := bucket{rate: lookedAtPerSecond, burst: lookedAtPerSecond}
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
			if !all.take() {
				r.Counters.add(ignoredRate)
			} else if r.handle(d) {
				silence.Reset(Silence)
			}
		}
	}
}

// ask sends a question and sets the timer for the next. While the gateway is
// heard the first try goes to it alone, since flooding a mesh costs airtime.
func (r *search) ask() {
	to := paths.AnnounceGroup
	if r.known && r.wait == 0 && time.Since(r.at) < Silence {
		to = identity.Underlay(r.Network, r.Network)
	}
	if r.wait == 0 {
		r.wait = askFirst
	} else {
		r.wait = min(2*r.wait, askMost)
	}
	r.timer.Reset(jitter(r.wait))

	r.asked = &question{nonce: make([]byte, NonceSize), sent: time.Now()}
	rand.Read(r.asked.nonce)
	m := Node{Steps: r.Steps(), WireGuardKey: r.WireGuardKey, Nonce: r.asked.nonce}
	m.Stamp.Boot, m.Stamp.Seq = r.Boot, r.seq.next()
	if r.Keys != nil {
		m.WireGuardKey, m.NextKey = r.Keys()
	}
	if r.Profiles != nil {
		m.Held, m.Using = r.Profiles()
	}
	b, err := r.codec.EncodeNode(r.Key, m)
	if err == nil {
		err = r.socket.Send(b, to)
	}
	if err != nil {
		r.Log.Debug("question not sent", "peer", to, "err", err) // asked again soon
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
	g, ok := m.(Gateway)
	if !ok {
		return false // another node's question to the gateway
	}
	if g.Stamp.Epoch < r.stamp.Epoch {
		r.Counters.add(ignoredEpoch)
		if r.answers(g.Nonce) {
			r.refuse(g.Stamp.Epoch)
		}
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
		r.asked, r.known = nil, true
		r.wait = 0
		r.timer.Reset(jitter(askAgain))
	} else if !r.known {
		// It could be a recording: ask, and believe the answer.
		r.wait = 0
		if r.asked == nil || time.Since(r.asked.sent) > askFirst {
			r.ask()
		} else { // that question came too early
			r.timer.Reset(askFirst - time.Since(r.asked.sent))
		}
		return false
	} else if !g.Stamp.After(r.stamp) {
		r.Counters.add(ignoredOld)
		return false
	}
	r.stamp, r.at = g.Stamp, time.Now()
	if g.Stamp.Epoch > r.proven {
		r.proof, r.proven = d.data, g.Stamp.Epoch
		if r.Proved != nil {
			r.Proved(d.data)
		}
	}
	r.Heard(h)
	return true
}

// refuse tells of a living gateway whose epoch is too low, and shows it what
// was believed before: its own key has signed that. The question stays open, so
// that a gateway with the right epoch can still answer it.
func (r *search) refuse(epoch uint64) {
	if r.Refused != nil {
		r.Refused(epoch, r.stamp.Epoch)
	}
	if r.asked.refuted || r.proven <= epoch {
		return
	}
	r.asked.refuted = true
	to := identity.Underlay(r.Network, r.Network)
	if err := r.socket.Send(r.proof, to); err != nil {
		r.Log.Debug("evidence not sent", "peer", to, "err", err) // the next refused answer brings it
	}
}

// answers tells whether nonce is that of the open question, in time.
func (r *search) answers(nonce []byte) bool {
	return r.asked != nil && bytes.Equal(r.asked.nonce, nonce) && time.Since(r.asked.sent) <= askWait
}
