package guard

import (
	"context"
	"fmt"

	"halo.internal/hal/card"
)

// tellTwins puts into the report which disks have the GUIDs of the one that runs,
// as a copy of the card in a reader does. Nothing of them is used; but who looks
// for a disk by its GUID, as other programs do, may take the wrong one.
func (g *Guard) tellTwins(ctx context.Context, plugged <-chan string) error {
	there, err := card.Names()
	if err != nil {
		g.log.Warn("disks are not looked at for copies of this one", "err", err)
	}
	twins(ctx, g.order.Disk, there, plugged, g.isTwin, func(name string) {
		g.problem("two disks are alike", fmt.Errorf("%s is a copy of %s, which runs: remove it, or write it anew", name, g.order.Disk))
	})
	return nil
}

// twins tells of each disk that is like the own one, once: of those that are
// there, and of those that are plugged in until ctx ends.
func twins(ctx context.Context, own string, there []string, plugged <-chan string, alike func(string) bool, tell func(string)) {
	told := map[string]bool{own: true}
	for {
		for _, name := range there {
			if !told[name] && alike(name) {
				told[name] = true
				tell(name)
			}
		}
		select {
		case <-ctx.Done():
			return
		case name := <-plugged:
			there = []string{name}
		}
	}
}

func (g *Guard) isTwin(name string) bool {
	d, err := card.Open(name, g.order.GUID)
	if err != nil {
		return false
	}
	_ = d.Close() // nothing was written
	return true
}
