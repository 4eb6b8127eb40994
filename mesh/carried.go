package mesh

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/port"
	"halo.internal/model/paths"
)

// carried is bat0 as ports and radios see it. It remembers which of them it carries the
// mesh over, each as it was then: one that was unplugged and is there again is another.
type carried struct {
	bat   port.Carrier
	index int // of bat0

	mu sync.Mutex // held while interfaces come and go
	in map[string]*carriedPort
}

// carriedPort is an interface that is in bat0.
type carriedPort struct {
	index int
	mbit  float64      // what it was said to carry; 0: nothing was said
	put   func() error // puts it in
	pace  backOff      // of putting it back
	lacks error        // why it could not be put back, when that was tried last
}

var _ port.Carrier = (*carried)(nil)

func newCarried(bat port.Carrier, index int) *carried {
	return &carried{bat: bat, index: index, in: map[string]*carriedPort{}}
}

// Enslave puts a port in.
func (c *carried) Enslave(iface string) error {
	return c.put(iface, func() error { return c.bat.Enslave(iface) })
}

// put has f put the interface in, now and when somebody has taken it out.
func (c *carried) put(iface string, f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("underlay: find port %s: %w", iface, err)
	}
	c.in[iface] = &carriedPort{index: link.Attrs().Index, put: f}
	return nil
}

// Release takes an interface out, for good.
func (c *carried) Release(iface string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.in, iface)
	return c.bat.Release(iface)
}

// Rate is that of port.Carrier.
func (c *carried) Rate(iface string, mbit float64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.in[iface]; m != nil {
		m.mbit = mbit
	}
	return c.bat.Rate(iface, mbit)
}

// mend puts back what somebody has taken out, and returns that, and when to look again
// whatever happens (0: that need not be); an error tells of what cannot be put back. What is
// not there any more is forgotten.
func (c *carried) mend(now time.Time) (mended []string, rest time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.in)) {
		m := c.in[name]
		link, findErr := netlink.LinkByIndex(m.index)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](findErr); gone || findErr == nil && link.Attrs().Name != name {
			delete(c.in, name)
			continue
		}
		if findErr == nil && link.Attrs().MasterIndex == c.index {
			m.lacks = nil
			continue
		}
		if findErr == nil && openBridge(link.Attrs().MasterIndex) {
			delete(c.in, name)
			continue
		}
		if m.pace.left(now) == 0 {
			m.pace.next(now)
			if m.lacks = c.back(name, m, link, findErr); m.lacks == nil {
				mended = append(mended, "port "+name)
			}
		}
		if m.lacks != nil {
			err = errors.Join(err, fmt.Errorf("underlay: port %s is not in the mesh interface: %w", name, m.lacks))
		}
		rest = sooner(rest, m.pace.left(now))
	}
	return mended, rest, err
}

// openBridge tells whether that is a bridge of this device for those who are no members. A port
// in there may have no filter, and whoever is behind it must not come into the mesh.
func openBridge(master int) bool {
	if master == 0 {
		return false
	}
	link, err := netlink.LinkByIndex(master)
	return err == nil && (link.Attrs().Name == paths.ClientBridge || link.Attrs().Name == paths.MeshBridge)
}

func (c *carried) back(name string, m *carriedPort, link netlink.Link, err error) error {
	if err == nil && link.Attrs().MasterIndex != 0 { // it would be taken for somebody else's
		err = netlink.LinkSetNoMaster(link)
	}
	if err == nil {
		err = m.put()
	}
	if err == nil && m.mbit != 0 {
		err = c.bat.Rate(name, m.mbit)
	}
	return err
}
