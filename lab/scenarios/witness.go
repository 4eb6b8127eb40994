package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"halo.internal/lab/host"
	"halo.internal/lab/network"
)

// witness is a client at a node's port, which stays there. What it asks of another
// node takes the way of all clients: the overlay, by the session that the two nodes
// have with each other. Nothing else has nodes speak to each other, and a session
// that nobody uses is not renewed.
type witness struct {
	host  *host.Host
	lease host.Lease
}

// witnessPort is where witnesses are plugged in.
const witnessPort = 0

// witnessMAC is that of the n-th witness.
func witnessMAC(n int) host.MAC { return host.MAC{0x02, 'W', 'I', 'T', byte(n >> 8), byte(n)} }

// needWitnesses returns when each node has a witness with an address, one that it
// still has where it had one before.
func (w *World) needWitnesses(ctx context.Context) error {
	for _, m := range w.nodes() {
		if w.added.witnesses[m] != nil {
			continue
		}
		h, _, err := w.plug(m, witnessPort, "witness", witnessMAC(len(w.added.witnesses)))
		if err != nil {
			return fmt.Errorf("a witness at %s: %w", m.Name(), err)
		}
		w.added.witnesses[m] = &witness{host: h}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, Limit, fmt.Errorf("not within %s", Limit))
	defer cancel()
	var renewing sync.WaitGroup
	errs := make([]error, len(w.nodes()))
	for i, m := range w.nodes() {
		renewing.Go(func() {
			if err := w.added.witnesses[m].renew(ctx); err != nil {
				errs[i] = fmt.Errorf("the witness at %s: %w", m.Name(), err)
			}
		})
	}
	renewing.Wait()
	return errors.Join(errs...)
}

// renew gets an address, or the same again.
func (v *witness) renew(ctx context.Context) (err error) {
	if v.lease.Address.IsValid() {
		if _, err = v.host.Again(ctx, v.lease); !errors.Is(err, host.ErrRefused) {
			return err
		}
	}
	v.lease, err = v.host.DHCP(ctx)
	return err
}

// askWait is how long an answer may take: a second question is asked meanwhile.
const askWait = 3 * time.Second

// asked is which nodes gave which others no answer: an error for each pair, by the
// name of who asked and of who was asked, which is nil where one came.
type asked map[string]map[string]error

// ask has the witness of each node that answered ask all the others, at the addresses
// on the overlay that they say are theirs.
func (w *World) ask(ctx context.Context, views map[string]view) asked {
	ctx, cancel := context.WithTimeoutCause(ctx, askWait, fmt.Errorf("not within %s", askWait))
	defer cancel()
	all := asked{}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, from := range w.nodes() {
		v := w.added.witnesses[from]
		if v == nil || views[from.Name()].err != nil {
			continue
		}
		of := map[string]error{}
		all[from.Name()] = of
		for _, to := range w.nodes() {
			address, err := netip.ParseAddr(views[to.Name()].status.OverlayV4)
			if to == from || err != nil {
				continue
			}
			asking.Go(func() {
				err := v.host.Ping(ctx, address, v.lease.Router)
				mu.Lock()
				defer mu.Unlock()
				of[to.Name()] = err
			})
		}
	}
	asking.Wait()
	return all
}

// answered is nil when one node gave another an answer.
func (a asked) answered(from, to *network.Machine) error {
	err, was := a[from.Name()][to.Name()]
	if !was {
		return fmt.Errorf("%s was not asked", to.Name())
	}
	return err
}
