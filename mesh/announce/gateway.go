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

// Limits of what is looked at (verifying a signature costs) and answered. A node asks about once in half an hour, and
// at most once a second while it searches.
const (
	lookedAtPerSecond = 50 // from everybody together
	maxSenders        = 1024
	senderRate        = 1 // answers per second to one node
	senderBurst       = 4
)

// GatewaySide announces a gateway and answers the nodes that ask.
type GatewaySide struct {
	Config
	// Self returns what to announce now; stamp and nonce are filled in.
	Self func() Gateway
	// Heard is told of every authentic message of a node, in order.
	Heard    func(n Node, from netip.Addr)
	Counters Counters

	poke     chan struct{}
	orders   chan Order
	evidence atomic.Uint64
}

// NewGatewaySide returns a gateway's side; Run makes it work.
func NewGatewaySide(c Config, self func() Gateway, heard func(Node, netip.Addr)) *GatewaySide {
	return &GatewaySide{Config: c, Self: self, Heard: heard, poke: make(chan struct{}, 1), orders: make(chan Order, 1)}
}

// Order sends an order to all. One that cannot be sent at once is lost: the next
// has the time that is right by then.
func (g *GatewaySide) Order(o Order) {
	select {
	case g.orders <- o:
	default:
	}
}

// Changed has the gateway announced at once.
func (g *GatewaySide) Changed() {
	select {
	case g.poke <- struct{}{}:
	default: // an announcement is due already
	}
}

// HeardEpoch returns the highest epoch above its own of which a node has shown
// evidence: a message that the network's key signed. 0: there was none.
func (g *GatewaySide) HeardEpoch() uint64 { return g.evidence.Load() }

// sender is what a gateway remembers of one node that it heard.
type sender struct {
	stamp  Stamp
	bucket bucket
	heard  time.Time
}

// Run announces and answers until ctx ends.
func (g *GatewaySide) Run(ctx context.Context) error {
	seq := sequence{since: g.Since}
	senders := map[identity.PublicKey]*sender{}
	all := bucket{rate: lookedAtPerSecond, burst: lookedAtPerSecond}
	codec := Codec{g.Network}
	return g.loop(ctx, func(ctx context.Context, s Socket, in <-chan datagram) {
		send := func(nonce []byte, to netip.Addr) {
			m := g.Self()
			m.Stamp.Boot, m.Stamp.Seq, m.Steps, m.Nonce = g.Boot, seq.next(), g.Steps(), nonce
			b, err := codec.EncodeGateway(g.Key, m)
			if err == nil {
				err = s.Send(b, to)
			}
			if err != nil {
				g.Log.Debug("announcement not sent", "peer", to, "err", err) // the next one is due soon
			}
		}
		next := time.NewTimer(0)
		defer next.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-next.C:
				send(nil, paths.AnnounceGroup)
				next.Reset(jitter(interval))
			case <-g.poke:
				send(nil, paths.AnnounceGroup)
				next.Reset(jitter(interval))
			case o := <-g.orders:
				b, err := codec.EncodeOrder(g.Key, o)
				if err == nil {
					err = s.Send(b, paths.AnnounceGroup)
				}
				if err != nil {
					g.Log.Debug("order not sent", "err", err) // it is repeated
				}
			case d := <-in:
				if !all.take() {
					g.Counters.add(ignoredRate)
					continue
				}
				if n, ok := g.accept(codec, senders, d); ok {
					send(n.Nonce, d.from)
					g.Heard(n, d.from)
				}
			}
		}
	})
}

func (g *GatewaySide) accept(codec Codec, senders map[identity.PublicKey]*sender, d datagram) (Node, bool) {
	m, err := codec.Decode(d.data)
	if err != nil {
		g.Counters.addError(err)
		return Node{}, false
	}
	if e, ok := m.(Gateway); ok {
		g.learn(e.Stamp.Epoch)
		return Node{}, false
	}
	n, ok := m.(Node)
	if !ok {
		g.Counters.add(ignoredOld) // an order of our own
		return Node{}, false
	}
	if own := g.Key.Public(); bytes.Equal(n.Key, own[:]) {
		g.Counters.add(ignoredOld) // one of our own that came back
		return Node{}, false
	}
	key := identity.PublicKey(n.Key)
	if d.from != identity.Underlay(g.Network, key) && !d.from.IsLinkLocalUnicast() {
		g.Counters.add(ignoredSource)
		return Node{}, false
	}
	from := senders[key]
	if from == nil {
		forget(senders)
		from = &sender{bucket: bucket{rate: senderRate, burst: senderBurst}}
		senders[key] = from
	} else if !n.Stamp.After(from.stamp) {
		g.Counters.add(ignoredOld)
		return Node{}, false
	}
	from.stamp, from.heard = n.Stamp, time.Now()
	if !from.bucket.take() {
		g.Counters.add(ignoredRate)
		return Node{}, false
	}
	return n, true
}

// learn takes the epoch of a message that the network's key signed. Who brought
// it does not matter, and how old it is does not either.
func (g *GatewaySide) learn(epoch uint64) {
	if epoch <= g.evidence.Load() || epoch <= g.Self().Stamp.Epoch {
		g.Counters.add(ignoredOld) // one of our own that came back, or nothing new
		return
	}
	g.evidence.Store(epoch)
	g.Log.Info("the network has heard a higher epoch than this gateway's", "epoch", epoch)
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

func (b *bucket) take() bool {
	now := time.Now()
	if !b.at.IsZero() {
		b.used = max(0, b.used-now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
	if b.used+1 > b.burst {
		return false
	}
	b.used++
	return true
}
