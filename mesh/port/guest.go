package port

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/port/filter"
)

// serveGuests keeps a port that is pinned to be bridged in the bridge that leads into
// the mesh. What guests may say there is the firewall's.
func (p *port) serveGuests(ctx context.Context, link netlink.Link) error {
	if err := p.ps.c.Carrier.Release(p.name); err != nil {
		return err
	}
	if err := p.unsecure(); err != nil {
		return err
	}
	if err := p.noClients(); err != nil {
		return err
	}
	if err := raise(link, false); err != nil {
		return err
	}
	if err := p.ps.c.Guests.Enslave(p.name); err != nil {
		return err
	}
	if err := filter.Open(p.name); err != nil {
		return err
	}
	p.set(Bridged, "")
	<-ctx.Done()
	return nil
}

// noGuests takes a port that is for something else out of the bridge into the mesh,
// where an earlier run may have left it.
func (p *port) noGuests() error {
	if p.ps.c.Guests == nil || p.pin == Bridged {
		return nil
	}
	if err := p.ps.c.Guests.Release(p.name); err != nil {
		return fmt.Errorf("port %s: %w", p.name, err)
	}
	return nil
}
