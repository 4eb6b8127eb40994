// Package doctor is the path doctor: it measures what the paths to a device's peers
// carry, finds three faults that nothing else reports, and mends them. Packets above
// a size vanish on the way, since some device between takes none so large; what is
// sent to all does not arrive; a node's traffic for outside does not go through the
// overlay. What it finds and does are events, and a report.
//
// It asks other members' doctors by probes of its own: through the overlay, where
// WireGuard says who they are, how large packets may be and what has come over bat0;
// and over bat0 itself probes that are never answered, and count only under a key
// that was told through the overlay. Answers are never longer than questions. Peers
// that are not in use are left alone, and those that are cost next to nothing; see
// HourlyOctets.
package doctor

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/listen"
	"halo.internal/model"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

// Own is what the doctor has to know of its device.
type Own struct {
	V4      netip.Addr     // on the overlay
	Routes  []netip.Prefix // that lead into the overlay whatever its peers are
	Clients netip.Prefix   // the device's own, of IPv4; the zero value: it has none
}

// Peer is another member.
type Peer struct {
	Node     string // canonical ID
	Name     string // for people; may be empty
	Gateway  bool
	Overlay  netip.Addr     // of IPv6
	Underlay netip.Addr     // at which WireGuard reaches it
	Nets     []netip.Prefix // that are behind it, those of Own.Routes that lead to it among them
	Fresh    time.Time      // of its last handshake
}

// Server is a node that tells batman-adv of a way out.
type Server struct {
	MAC    string // by which routing knows it
	Chosen bool   // this device's questions for addresses go to it
	Ours   bool   // it is the network's gateway
}

// Underlay is what the doctor has to see and do of batman-adv.
type Underlay interface {
	// Flooding tells whether what goes to all is flooded. The error wraps
	// fs.ErrNotExist where there is no batman-adv.
	Flooding() (bool, error)
	// Flood has it flooded.
	Flood() error
	// Servers lists those that offer a way out; known is false while it cannot be told
	// which of them is the gateway.
	Servers() (list []Server, known bool, err error)
}

// Config says whose doctor it is.
type Config struct {
	Network identity.PublicKey
	Node    identity.PublicKey // this device
	Iface   string             // that has the underlay's addresses
	// Around returns what there is now; ok is false while there is no overlay.
	Around func() (own Own, peers []Peer, ok bool)
	// Own is what Around says of this device.
	Own      func() (own Own, ok bool)
	Underlay Underlay
	Now      func() time.Time // of the clock, for people
	Notify   func(model.Event)
	Log      *slog.Logger
}

func (c Config) gateway() bool { return c.Network == c.Node }

// Doctor may be used from any goroutine.
type Doctor struct {
	Config
	wire   *wire
	ledger *ledger
	anew   chan struct{} // interfaces were made anew: what was known does not hold
	deaf   chan struct{} // a peer says that nothing of it arrives here
	demand chan struct{} // somebody wants to know now

	mu       sync.Mutex // guards what follows
	patients map[string]*patient
	all      plan      // of multicast
	allAt    time.Time // of its last round
	wants    bool      // somebody wants to know now
	rounds   chan struct{}
	busy     int // being examined or waiting for it
	route    *model.DoctorRoute
	flooding *bool
}

// patient is what is known of the path to a peer.
type patient struct {
	Peer
	plan
	exam
	at      time.Time // of the clock
	reach   reach
	reachAt time.Time
}

// New returns a doctor that does nothing yet.
func New(c Config) *Doctor {
	d := &Doctor{
		Config: c, ledger: newLedger(c.Now, c.Notify), patients: map[string]*patient{}, rounds: make(chan struct{}),
		anew: make(chan struct{}, 1), deaf: make(chan struct{}, 1), demand: make(chan struct{}, 1),
	}
	d.wire = newWire(newWitness(), func() { wake(d.deaf) }, func() { wake(d.anew) })
	return d
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // awake already
	}
}

// Run works until ctx ends. To what packets are held stays until the next process
// looks anew.
func (d *Doctor) Run(ctx context.Context) error {
	var owned sync.WaitGroup
	defer owned.Wait()
	at := listen.At{Iface: paths.OverlayIface, Addr: identity.Overlay(d.Network, d.Node), From: []netip.Prefix{netip.PrefixFrom(identity.Overlay(d.Network, d.Network), 64).Masked()}}
	owned.Go(func() {
		at.Keep(ctx, d.Log.With("service", "doctor"), func(ctx context.Context) error { return d.wire.serveOverlay(ctx, at) })
	})
	bat := listen.At{Iface: d.Iface, Addr: identity.Underlay(d.Network, d.Node)}
	owned.Go(func() {
		bat.Keep(ctx, d.Log.With("service", "doctor"), func(ctx context.Context) error { return d.wire.serveMesh(ctx, bat.Iface) })
	})
	owned.Go(func() { d.lookAround(ctx) })
	d.visit(ctx)
	return nil
}

// Report tells what is known.
func (d *Doctor) Report() model.DoctorReport {
	r := model.DoctorReport{At: d.Now().UTC(), OctetsSent: d.wire.sent.Load(), Peers: []model.DoctorPeer{}, Findings: d.ledger.list()}
	d.mu.Lock()
	defer d.mu.Unlock()
	r.Examining = d.busy
	for _, p := range d.patients {
		r.Peers = append(r.Peers, p.report())
	}
	order.By(r.Peers, func(a, b model.DoctorPeer) int {
		if a.Gateway != b.Gateway {
			return int(bit(b.Gateway)) - int(bit(a.Gateway))
		}
		return strings.Compare(a.Name+a.Node, b.Name+b.Node)
	})
	if d.route != nil {
		route := *d.route
		for _, p := range d.patients {
			route.Answers = route.Answers || p.Gateway && p.answers
		}
		r.Route = &route
	}
	if d.flooding != nil {
		flooding := *d.flooding
		r.Flooding = &flooding
	}
	return r
}

func (p *patient) report() model.DoctorPeer {
	r := model.DoctorPeer{
		Node: p.Node, Name: p.Name, Gateway: p.Gateway, Answers: p.answers, LatencyMS: float64(p.latency.Microseconds()) / 1000,
		OverlayMTU: p.overlay, UnderlayMTU: p.underlay, Limit: p.limits.overlay, Fragment: p.limits.underlay, Multicast: p.reach.String(),
	}
	if !p.at.IsZero() {
		at := p.at.UTC()
		r.Examined = &at
	}
	if !p.reachAt.IsZero() {
		at := p.reachAt.UTC()
		r.MulticastAt = &at
	}
	return r
}

// Examine looks at the paths to all peers in use at once, and returns what is known
// when it is done or ctx ends.
func (d *Doctor) Examine(ctx context.Context) model.DoctorReport {
	d.mu.Lock()
	d.wants = true
	done := d.rounds
	d.mu.Unlock()
	wake(d.demand)
	select {
	case <-ctx.Done():
	case <-done:
	}
	return d.Report()
}
