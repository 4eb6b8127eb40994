// Package announce lets the members of a mesh find each other without any
// fixed address: the gateway announces itself, signed by the network's key,
// every half minute; a node asks with a nonce and takes from the signed answer
// where the gateway is, what it needs to join, and the time. Both sides order
// each other's messages by boot counter and sequence, so that nothing old is
// believed twice, and learn from the boot counter that a peer has restarted.
package announce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// Socket carries messages between this machine and its mesh.
type Socket interface {
	// Receive blocks for the next datagram; it fails after Close.
	Receive(b []byte) (n int, from netip.Addr, err error)
	Send(b []byte, to netip.Addr) error
	// Watch returns an error when the interface under the socket is no more the one
	// that has its name: of one that was removed and made anew nothing is ever heard.
	// It returns nil when ctx has ended.
	Watch(ctx context.Context) error
	Close() error
}

// Config is what both sides need.
type Config struct {
	Network identity.PublicKey
	Key     identity.Key
	Boot    uint64        // this machine's boot counter
	Since   func() uint64 // milliseconds since the machine's start: sequence numbers that outlive the process
	Steps   func() uint32 // how often the clock went back in this boot
	Open    func() (Socket, error)
	// Owner, if any, tells whose address that is: strangers cannot take the share of others.
	// It is called by one goroutine at a time, for each datagram.
	Owner func(from netip.Addr) Owner
	// Timing has intervals in the place of those that are meant.
	Timing Timing
	Log    *slog.Logger
}

// Timing holds the intervals of a socket that is not to be had, and of finding out who is
// there where more than one gateway has the network's key. A zero field stands for its
// default.
type Timing struct {
	Reopen time.Duration // between tries to open the socket

	// Of gateways.
	Search   time.Duration // wait after a search's first question; doubles
	Pause    time.Duration // between the starts of two searches
	TakeOver time.Duration // that the other one is silent until one that has stood down serves

	// Of nodes.
	Doubt time.Duration // that it is asked whether the own gateway answers, when another one has
	Stay  time.Duration // that its answer is good against another one
}

// WithDefaults fills in what is zero.
func (t Timing) WithDefaults() Timing {
	return Timing{
		Reopen: cmp.Or(t.Reopen, reopenAfter),
		Search: cmp.Or(t.Search, twinFirst), Pause: cmp.Or(t.Pause, twinPause), TakeOver: cmp.Or(t.TakeOver, TakeOver),
		Doubt: cmp.Or(t.Doubt, doubt), Stay: cmp.Or(t.Stay, stay),
	}
}

const (
	interval    = 30 * time.Second           // between a gateway's announcements
	Silence     = 3*interval + 5*time.Second // after which a gateway counts as lost
	reopenAfter = 2 * time.Second            // between tries to open the socket
	SayWithin   = 3 * time.Second            // spreads what all nodes have to say at once

	// What goes to all is sent three times by each of them: in a mesh of ten on 1 MHz, one
	// message takes 280 ms of the channel. Links that come are greeted, but not each by
	// itself when many come.
	toAllPerSecond = 0.1
	toAllBurst     = 4
	toAllPause     = 5 * time.Second // before a node's next try, where that is used up

	// What presses, that somebody is shut out, has a way of its own, which nobody outside
	// can use up: so often at most, and so many times each, since one may be lost.
	pressPause = time.Second
	pressTimes = 2

	queue = 256 // datagrams received and not yet handled: more than the intake takes at once
)

// Counters tell how many messages were ignored, by reason.
type Counters struct {
	mu sync.Mutex
	n  map[string]uint64
}

// Reasons to ignore a message.
const (
	ignoredForm      = "malformed"
	ignoredNetwork   = "other network"
	ignoredSignature = "forged"
	ignoredOld       = "old or replayed"
	ignoredRate      = "too many"
	ignoredSource    = "foreign address"
	ignoredEpoch     = "lower epoch"
	ignoredOther     = "another gateway"
)

func (c *Counters) add(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]uint64{}
	}
	c.n[reason]++
}

func (c *Counters) addError(err error) {
	switch {
	case errors.Is(err, ErrNetwork):
		c.add(ignoredNetwork)
	case errors.Is(err, identity.ErrSignature):
		c.add(ignoredSignature)
	default:
		c.add(ignoredForm)
	}
}

// Snapshot returns the counts so far.
func (c *Counters) Snapshot() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.n))
	for k, v := range c.n {
		out[k] = v
	}
	return out
}

// sequence hands out stamps' sequence numbers: the milliseconds since the
// machine's start, raised where two messages fall into one.
type sequence struct {
	since func() uint64
	last  uint64
}

func (s *sequence) next() uint64 {
	s.last = max(s.last+1, s.since())
	return s.last
}

type datagram struct {
	from netip.Addr
	data []byte
	at   time.Time // when it came
}

// loop keeps a socket open and hands what it receives and lets in to run, which returns
// when the socket fails or ctx ends. proven is the intake's.
func (c Config) loop(ctx context.Context, counters *Counters, proven func(Owner, []byte) bool, run func(ctx context.Context, s Socket, in <-chan datagram)) error {
	told, reopen := false, c.Timing.WithDefaults().Reopen
	g := newIntake(c.Owner, proven)
	heard := func(from netip.Addr, b []byte) bool {
		ok := g.pass(time.Now(), from, b)
		if !ok {
			counters.add(ignoredRate)
		}
		return ok
	}
	for ctx.Err() == nil {
		s, err := c.Open()
		if err != nil {
			if !told { // the interface may come much later: one line says what is missing
				c.Log.Warn("announcements wait for the mesh interface", "iface", paths.BatIface, "err", err)
				told = true
			}
			sleep(ctx, reopen)
			continue
		}
		if told {
			c.Log.Info("announcements run", "iface", paths.BatIface)
			told = false
		}
		if err := c.serve(ctx, s, heard, run); err != nil && ctx.Err() == nil {
			c.Log.Warn("announcements lost their socket", "iface", paths.BatIface, "err", err)
			told = true
			sleep(ctx, reopen)
		}
	}
	return nil
}

func (c Config) serve(ctx context.Context, s Socket, heard func(netip.Addr, []byte) bool, run func(context.Context, Socket, <-chan datagram)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	in := make(chan datagram, queue)
	var owned sync.WaitGroup
	owned.Go(func() { cancel(receive(ctx, s, heard, in)) })
	owned.Go(func() { cancel(s.Watch(ctx)) })
	run(ctx, s, in)
	cancel(nil)
	err := s.Close()
	owned.Wait()
	return errors.Join(context.Cause(ctx), err)
}

// receive hands on what is heard. What is not, does not even wait.
func receive(ctx context.Context, s Socket, heard func(from netip.Addr, b []byte) bool, in chan<- datagram) error {
	b := make([]byte, MaxSize+1) // one more, so that a longer message is seen as such
	for {
		n, from, err := s.Receive(b)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if !heard(from, b[:n]) {
			continue
		}
		select {
		case in <- datagram{from, append([]byte(nil), b[:n]...), time.Now()}:
		default: // flooded: what does not fit is lost, as on any wire
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// speaksFrom tells whether a node may have sent from that address: its own of the
// underlay, or one of the link.
func speaksFrom(network, node identity.PublicKey, source netip.Addr) bool {
	return source == identity.Underlay(network, node) || source.IsLinkLocalUnicast()
}

// Within returns a moment before a time has passed, by chance: what all nodes have to
// say at once is spread so.
func Within(d time.Duration) time.Duration { return rand.N(d) }

// jitter spreads d by a fifth, so that nodes that started together part.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}
