package guard

import (
	"context"
	"fmt"
	"slices"

	"halo.internal/hal/card"
	"halo.internal/model"
)

// diskChange is a disk that was plugged in, or one that is gone.
type diskChange struct {
	name string
	gone bool
}

// tellTwins puts into the report which disks have the GUIDs of the one that runs,
// as a copy of the card in a reader does, for as long as they are there. Nothing
// of them is used; but who looks for a disk by its GUID, as other programs do,
// may take the wrong one.
func (g *Guard) tellTwins(ctx context.Context, changes <-chan diskChange) error {
	there, err := card.Names()
	if err != nil {
		g.log.Warn("disks are not looked at for copies of this one", "err", err)
	}
	twins(ctx, g.order.Disk, there, changes, g.isTwin, g.tellTwin)
	return nil
}

// tellTwin puts a twin into the report, or takes it out.
func (g *Guard) tellTwin(c diskChange) {
	const what = "two disks are alike"
	err := fmt.Errorf("%s is a copy of %s, which runs: remove it, or write it anew", c.name, g.order.Disk)
	if !c.gone {
		g.problem(what, err)
		return
	}
	g.log.Info("a copy of this disk is gone", "disk", c.name)
	g.update(func(r *model.BootReport) {
		r.Problems = slices.DeleteFunc(r.Problems, func(p string) bool { return p == problemText(what, err) })
	})
}

// twins tells of each disk that is like the own one, once: of those that are
// there, and of those that are plugged in until ctx ends; and of their removal.
func twins(ctx context.Context, own string, there []string, changes <-chan diskChange, alike func(string) bool, tell func(diskChange)) {
	told := map[string]bool{}
	look := func(name string) {
		if name != own && !told[name] && alike(name) {
			told[name] = true
			tell(diskChange{name: name})
		}
	}
	for _, name := range there {
		look(name)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-changes:
			switch {
			case !c.gone:
				look(c.name)
			case told[c.name]:
				delete(told, c.name)
				tell(c)
			}
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
