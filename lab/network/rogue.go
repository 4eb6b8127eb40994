package network

import (
	"context"
	"errors"
	"net"

	"halo.internal/lab/air"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/air/rogue"
)

// Rogue is the name of the radio of a stranger, who has no machine.
const Rogue = "rogue"

// intruder is the rogue while it is there.
type intruder struct {
	*rogue.Rogue
	stop func()
}

// StartRogue lets a stranger's radio into the air, in place of one that is
// there.
func (n *Network) StartRogue(c rogue.Config, at physics.Position) error {
	if n.Air == nil {
		return ErrNoAir
	}
	if err := checkPlace(at); err != nil {
		return err
	}
	address := net.HardwareAddr{0x02, 'R', 'O', 'G', 0, 0}
	r, err := rogue.New(c, address)
	if err != nil {
		return err
	}
	if err := n.StopRogue(); err != nil && !errors.Is(err, ErrNoRogue) {
		return errors.Join(err, r.Close())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.rogue != nil {
		return errors.Join(errors.New("the network is closed, or another rogue came first"), r.Close())
	}
	radio := air.Radio{Name: Rogue, Machine: Rogue, Address: address, Position: at, PowerDBm: radioPowerDBm, FigureDB: radioFigureDB}
	if err := n.Air.Place(radio); err != nil {
		return errors.Join(err, r.Close())
	}
	ctx, leave := context.WithCancel(n.life)
	gone := make(chan struct{})
	n.rogue = &intruder{r, func() { leave(); <-gone }}
	n.flying.Go(func() {
		defer close(gone)
		if err := n.Air.Attach(ctx, Rogue, r); err != nil && !ended(err) {
			n.opts.Log.Warn("rogue ended", "err", err)
		}
		n.Air.Remove(Rogue)
	})
	return nil
}

// ErrNoRogue is returned where none is to be stopped.
var ErrNoRogue = errors.New("there is no rogue in the air")

// StopRogue ends its attack and takes it out of the air.
func (n *Network) StopRogue() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rogue == nil {
		return ErrNoRogue
	}
	n.rogue.stop()
	n.rogue = nil
	return nil
}
