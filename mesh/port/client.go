package port

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/port/filter"
	"halo.internal/mesh/port/proof"
)

// A port on which nobody proves a membership, and behind which a gateway finds no
// server of DHCP, is most likely there for clients: a camera, a laptop. It gets the
// role Client, and serves them. The search goes on meanwhile, in both directions:
// should a member greet, or a server upstream appear, the port becomes what it
// would have become at first.

// mayServe tells whether the port may become one for clients by itself. One that has,
// or lately had, a member may not: bridge and MACsec both want all that comes in.
func (s *search) mayServe() bool {
	return s.ps.c.Clients != nil && s.pin == "" && s.keys == nil && !s.carries() && !s.client
}

// serveAt returns when a port that has been alone for as long is given to clients.
func (s *search) serveAt(now time.Time) (time.Time, bool) {
	if !s.mayServe() || s.alone.IsZero() || s.offered {
		return time.Time{}, false
	}
	if twin := s.twin.Add(s.ps.timing.silent); !s.twin.IsZero() && now.Before(twin) {
		return twin, true // looked at again
	}
	wait := s.ps.timing.client
	if s.past().Uplink { // its server may be slower to start than this device
		wait = s.ps.timing.loyal
	}
	at := s.alone.Add(wait)
	if at.Before(s.later) {
		at = s.later
	}
	return at, true
}

// hearTwin takes note of another port of this device on the same network. Both in one
// bridge would make a loop, in which frames go round for ever: the one that came
// first serves clients there, if they do.
func (s *search) hearTwin(from proof.MAC) error {
	other := s.ps.own(from)
	if other == nil || other.index >= s.index {
		return nil
	}
	s.twin = time.Now()
	if s.client {
		if err := s.leaveClients(filter.Policy{}); err != nil {
			return err
		}
	}
	if s.pin == "" && !s.carries() {
		s.set(Searching, "its network is that of port "+other.name+" too")
	}
	return nil
}

// serveClients puts the port into the bridge of clients. Whoever is on its cable may
// speak to this device then, within the firewall's rules; a bridge leaves no frame to
// ordinary sockets, so that proofs are listened to before it.
func (s *search) serveClients(ctx context.Context) error {
	if err := s.relisten(ctx, true); err != nil {
		return err
	}
	if err := s.ps.c.Clients.Enslave(s.name); err != nil {
		return err
	}
	if err := filter.Open(s.name); err != nil {
		return err
	}
	s.client, s.served = true, time.Now()
	s.set(Client, "")
	return nil
}

// leaveClients shuts the port and takes it out of the bridge of clients.
func (s *search) leaveClients(p filter.Policy) error {
	if err := filter.Apply(s.name, p); err != nil {
		return err
	}
	if err := s.ps.c.Clients.Release(s.name); err != nil {
		return err
	}
	s.client = false
	return nil
}

// relisten opens the socket for proofs anew: for a port of a bridge, or for another.
func (s *search) relisten(ctx context.Context, bridged bool) error {
	w, err := listen(ctx, s.index, s.name, s.wire.mac, bridged)
	if err != nil {
		return err
	}
	_ = s.wire.conn.Close() // wakes the reader, which ends
	for range s.wire.in {
	}
	s.wire = w
	return nil
}

// serve keeps a port that is pinned to clients in their bridge.
func (p *port) serveClients(ctx context.Context, link netlink.Link) error {
	if err := p.ps.c.Carrier.Release(p.name); err != nil {
		return err
	}
	if err := p.unsecure(); err != nil {
		return err
	}
	if err := raise(link, false); err != nil {
		return err
	}
	if err := p.ps.c.Clients.Enslave(p.name); err != nil {
		return err
	}
	if err := filter.Open(p.name); err != nil {
		return err
	}
	p.set(Client, "")
	<-ctx.Done()
	return nil
}

// noClients takes a port that is for something else out of the bridge of clients,
// where an earlier run may have left it. It is shut before.
func (p *port) noClients() error {
	if p.ps.c.Clients == nil {
		return nil
	}
	if err := p.ps.c.Clients.Release(p.name); err != nil {
		return fmt.Errorf("port %s: %w", p.name, err)
	}
	return nil
}
