package mesh

import (
	"context"
	"fmt"
	"time"

	"halo.internal/mesh/batman"
)

// Times of routing's integrity.
const (
	guardEvery = 10 * time.Second
	guardLooks = 2               // in a row at which bat0 did not answer, before it is made anew
	heardOf    = 2 * time.Minute // for which routing goes by what it has heard from a neighbour
)

// routes is what is asked of bat0 about itself.
type routes interface {
	Info() (batman.Info, error)
}

// guardBat ends the underlay when bat0 is gone, or the kernel has lost it: nothing
// else would make it anew, since those who use it only see that nobody answers. It
// returns what was wrong, or nothing when ctx ends.
func guardBat(ctx context.Context, end context.CancelFunc, bat routes) error {
	t := time.NewTicker(guardEvery)
	defer t.Stop()
	for wrong := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		_, err := bat.Info()
		if wrong++; err == nil {
			wrong = 0
		}
		if wrong == guardLooks {
			end()
			return fmt.Errorf("bat0 is gone from the kernel, and is made anew: %w", err)
		}
	}
}

// alone tells whether no member has proved itself on any port.
func (u *batUnderlay) alone() bool {
	for _, p := range u.Ports() {
		if len(p.Members) > 0 {
			return false
		}
	}
	return true
}

// carriesWait is how long routing may take to say whom it hears.
const carriesWait = 5 * time.Second

// Carries asks routing, which answers without the locks that a driver may hang under.
func (u *batUnderlay) Carries() bool {
	is, ok := u.carries.Ask(context.Background(), carriesWait, func() bool {
		heard, err := u.routed()
		return err == nil && len(heard) > 0
	})
	return ok && is
}

// Hangs is of radios and drivers, and of what was told to end and does not.
func (u *batUnderlay) Hangs() (what string, long time.Duration) {
	what, long = u.wireless.Hangs()
	u.mu.Lock()
	defer u.mu.Unlock()
	if took := time.Since(u.ended); !u.ended.IsZero() && took > long {
		return "the end of the mesh interface with its ports", took
	}
	return what, long
}

// routed returns the interfaces by which routing hears somebody.
func (u *batUnderlay) routed() (map[string]bool, error) {
	u.mu.Lock()
	bat := u.bat
	u.mu.Unlock()
	if bat == nil {
		return nil, fmt.Errorf("bat0 is not there")
	}
	list, err := bat.Neighbours()
	heard := map[string]bool{}
	for _, n := range list {
		if n.LastSeen < heardOf {
			heard[n.Iface] = true
		}
	}
	return heard, err
}
