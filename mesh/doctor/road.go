package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// Waiting for an answer. A packet of 1500 octets takes a tenth of a second over one
// hop of the slowest radio.
const (
	leastWait = 400 * time.Millisecond
	mostWait  = 5 * time.Second
	firstWait = 3 * time.Second // before anything is known of the path
	// lag is what a packet over bat0 has longer than a small one through the overlay,
	// which asks for it.
	lag = 200 * time.Millisecond

	greetings = 6 // small packets to begin with
	enough    = 2 // of which that many answers do
)

// road is the path to a peer over the real sockets.
type road struct {
	w     *wire
	peer  Peer
	apply func(limits) error
	rtt   time.Duration // the smallest so far; 0: not known
	id    uint64
	key   [keySize]byte
	index uint16
	size  int // largest that the peer has seen come over bat0
}

func newRoad(w *wire, p Peer, apply func(limits) error) *road {
	r := &road{w: w, peer: p, apply: apply, id: randomID()}
	rand.Read(r.key[:])
	return r
}

func (r *road) wait() time.Duration {
	if r.rtt == 0 {
		return firstWait
	}
	return min(max(leastWait, 8*r.rtt), mostWait)
}

// echo sends one packet of that size through the overlay.
func (r *road) echo(ctx context.Context, size int) (bool, error) {
	r.index++
	m := message{kind: kindEcho, id: r.id, index: r.index, size: uint16(max(size, echoSize+headers))}
	_, took, err := r.w.ask(ctx, r.peer.Overlay, m, r.wait())
	if errors.Is(err, errSilent) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if size == 0 && (r.rtt == 0 || took < r.rtt) {
		r.rtt = took
	}
	return true, nil
}

func (r *road) greet(ctx context.Context) (time.Duration, error) {
	answers := 0
	for range greetings {
		ok, err := r.echo(ctx, 0)
		if err != nil {
			return 0, err
		}
		if ok {
			answers++
		}
		if answers == enough {
			break
		}
	}
	if answers == 0 {
		return 0, errSilent
	}
	return r.rtt, nil
}

func (r *road) overlay(ctx context.Context, size int) (o outcome, err error) {
	if o.arrived, err = r.echo(ctx, size); err != nil || o.arrived {
		return outcome{o.arrived, o.arrived}, err
	}
	o.answered, err = r.echo(ctx, 0)
	return o, err
}

// underlay sends a probe over bat0 and asks through the overlay whether it has come.
func (r *road) underlay(ctx context.Context, size int) (o outcome, err error) {
	if _, err := r.watch(ctx); err != nil { // so that the peer knows the key
		return o, ignoreSilence(err)
	}
	r.index++
	m := message{kind: kindUnicast, id: r.id, index: r.index, size: uint16(size)}
	if err := r.w.probe(m.sealed(r.key), r.peer.Underlay); err != nil {
		return o, err
	}
	select {
	case <-ctx.Done():
		return o, ctx.Err()
	case <-time.After(lag + r.rtt):
	}
	seen, err := r.watch(ctx)
	if err != nil {
		return o, ignoreSilence(err)
	}
	r.size = max(r.size, int(seen.size))
	return outcome{arrived: r.size >= size, answered: true}, nil
}

func (r *road) watch(ctx context.Context) (message, error) {
	m, _, err := r.w.ask(ctx, r.peer.Overlay, message{kind: kindWatch, id: r.id, key: r.key}, r.wait())
	return m, err
}

func (r *road) limit(l limits) error { return r.apply(l) }

// ignoreSilence: what was not answered is a try that tells nothing.
func ignoreSilence(err error) error {
	if errors.Is(err, errSilent) {
		return nil
	}
	return err
}
