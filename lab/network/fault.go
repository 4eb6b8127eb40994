package network

import (
	"context"
	"errors"
	"fmt"

	"halo.internal/lab/air/link"
)

// furnish gives a machine that starts its radios, but for those that were
// unplugged.
func (n *Network) furnish(machine string, remote *link.Remote, mine []*radio) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remotes[machine] = remote
	for _, r := range mine {
		if r.out {
			continue
		}
		if err := remote.Plug(r.wiphy, r.Address); err != nil {
			return err
		}
	}
	return nil
}

// ErrNoRadio is returned where the machine of a radio is off, or takes part in no
// air.
var ErrNoRadio = errors.New("the machine is off, or takes part in no air")

// eachOf calls do with each radio of that name and the way to its machine; n.mu is
// held. A machine that is off has no way.
func (n *Network) eachOf(name string, do func(*radio, *link.Remote) error) error {
	names, err := n.named(name)
	if err != nil {
		return err
	}
	for _, r := range n.radios {
		for _, want := range names {
			if r.Name != want {
				continue
			}
			if err := do(r, n.remotes[r.Machine]); err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
		}
	}
	return nil
}

// Unplug takes a machine's radios, or one of them, out of their sockets. They stay
// out when the machine starts again.
func (n *Network) Unplug(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.eachOf(name, func(r *radio, remote *link.Remote) error {
		if r.out {
			return errors.New("it is unplugged already")
		}
		r.out, r.on = true, false
		n.Air.Remove(r.Name)
		if remote == nil {
			return nil
		}
		return remote.Unplug(r.wiphy)
	})
}

// Replug puts them back.
func (n *Network) Replug(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.eachOf(name, func(r *radio, remote *link.Remote) error {
		if !r.out {
			return errors.New("it is not unplugged")
		}
		r.out = false
		if remote == nil {
			return nil
		}
		return remote.Plug(r.wiphy, r.Address)
	})
}

// Wedge has the driver of a machine's radios, or of one of them, hang: it takes
// frames and says of none that it was sent, and hears nothing, until the radio's
// interface goes down or away. freed is closed when none of them hangs any more,
// or their machine has ended.
func (n *Network) Wedge(name string) (freed <-chan struct{}, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	done := make(chan struct{})
	var all []chan struct{}
	err = n.eachOf(name, func(r *radio, remote *link.Remote) error {
		if remote == nil || !r.on {
			return ErrNoRadio
		}
		one := make(chan struct{})
		n.freed[r.Machine+" "+r.wiphy] = one
		all = append(all, one)
		return remote.Wedge(r.wiphy)
	})
	if err != nil {
		return nil, err
	}
	n.flying.Go(func() {
		for _, one := range all {
			select {
			case <-one:
			case <-n.life.Done():
				return
			}
		}
		close(done)
	})
	return done, nil
}

// KillProcess has a process of a machine die, as by a fault of its own, and returns
// when it has. The machine has to take part in an air: what makes its radios does
// this too.
func (n *Network) KillProcess(ctx context.Context, machine, process string) error {
	n.mu.Lock()
	remote, key, dead := n.remotes[machine], machine+" "+process, make(chan struct{})
	if remote == nil {
		n.mu.Unlock()
		return fmt.Errorf("%s: %w", machine, ErrNoRadio)
	}
	n.killed[key] = dead
	err := remote.Kill(process)
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: kill %s: %w", machine, process, err)
	}
	select {
	case <-dead:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %s was not killed, see the lab's log: %w", machine, process, context.Cause(ctx))
	}
}

// happened tells who waits for it.
func (n *Network) happened(waits map[string]chan struct{}, key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := waits[key]; c != nil {
		delete(waits, key)
		close(c)
	}
}
