package port

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/port/filter"
	"halo.internal/mesh/port/proof"
	"halo.internal/model"
)

// search is the state of a port on which members are looked for, and of one
// that carries the mesh because they were found.
type search struct {
	*port
	link     netlink.Link
	engine   *proof.Engine
	wire     *wire
	mesh     bool      // enslaved
	client   bool      // in the bridge of clients
	twin     time.Time // when another port of this device was heard last: both are on one network
	alone    time.Time // since when a port with a cable has found nobody; zero: no cable
	deserted time.Time // when the last member was lost; zero while there is one
	mute     bool      // sending fails

	discover context.CancelFunc // stops looking for a server upstream
	found    chan error         // its result; nil when nobody looks
}

// search proves members until the port is gone, deserted, or, on a gateway,
// upstream is found (true).
func (p *port) search(ctx context.Context, link netlink.Link) (upstream bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &search{port: p, link: link, discover: func() {}}
	if err := s.prepare(ctx); err != nil {
		return false, err
	}
	defer func() {
		cancel()
		s.discover()
		if s.found != nil {
			<-s.found
		}
		for range s.wire.in { // until the reader has ended
		}
		s.forget()
	}()
	return s.loop(ctx)
}

// prepare shuts the port, raises it and listens. A port that is enslaved
// already, by an earlier run, stays so; its members must prove themselves anew.
func (s *search) prepare(ctx context.Context) error {
	a := s.link.Attrs()
	if len(a.HardwareAddr) != 6 {
		return fmt.Errorf("port %s: expected a MAC address of 6 octets, got %d", s.name, len(a.HardwareAddr))
	}
	now := time.Now()
	adopt := false
	if b := s.ps.c.Clients; b != nil && a.MasterIndex != 0 {
		var err error
		if adopt, err = b.Holds(s.name); err != nil {
			return err
		}
		if adopt && s.pin != "" { // pinned to the mesh since
			if err := filter.Apply(s.name, filter.Policy{}); err != nil {
				return err
			}
			if err := b.Release(s.name); err != nil {
				return err
			}
			adopt, a.MasterIndex = false, 0
		}
	}
	if a.MasterIndex != 0 && !adopt {
		if err := s.ps.c.Carrier.Enslave(s.name); err != nil {
			return fmt.Errorf("port %s belongs to something else than the mesh: %w", s.name, err)
		}
		s.mesh, s.deserted = true, now
	}
	seek := !s.mesh && s.pin == "" && s.ps.c.Gateway && s.ps.c.Upstream != nil
	if !adopt {
		if err := filter.Apply(s.name, filter.Policy{DHCP: seek}); err != nil {
			return err
		}
	}
	if err := raise(s.link, false); err != nil {
		return err
	}
	mac := proof.MAC(a.HardwareAddr)
	w, err := listen(ctx, s.index, s.name, mac, adopt)
	if err != nil {
		return err
	}
	s.wire = w
	s.engine = proof.New(proof.Config{
		Key: s.ps.c.Key, Network: s.ps.c.Network, Secret: s.ps.secret, MAC: mac,
		Admit: s.ps.c.Admit, Timing: s.ps.timing.proof,
	}, now)
	switch {
	case s.mesh:
		s.set(Mesh, "waiting for members to prove themselves again")
	case adopt: // an earlier run has put it there: clients go on
		s.client = true
		s.set(Client, "")
	default:
		s.set(Searching, "")
	}
	if seek {
		s.found = make(chan error, 1)
		ctx, s.discover = context.WithCancel(ctx)
		go func() { s.found <- s.ps.c.Upstream.Discover(ctx, s.name) }()
	}
	return nil
}

func (s *search) loop(ctx context.Context) (upstream bool, err error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := s.act(ctx); err != nil {
			return false, err
		}
		now := time.Now()
		due := s.engine.Next()
		if s.mesh && !s.deserted.IsZero() {
			leave := s.deserted.Add(s.ps.timing.leave)
			if !now.Before(leave) {
				return false, s.leave()
			}
			if leave.Before(due) {
				due = leave
			}
		}
		if serve, ok := s.serveAt(now); ok {
			if !now.Before(serve) {
				if err := s.serveClients(ctx); err != nil {
					return false, err
				}
			} else if serve.Before(due) {
				due = serve
			}
		}
		timer.Reset(due.Sub(now))
		select {
		case <-ctx.Done():
			return false, nil
		case f, ok := <-s.wire.in:
			if !ok {
				return false, fmt.Errorf("read from port %s: %w", s.name, s.wire.err)
			}
			if err := s.hearTwin(f.from); err != nil {
				return false, err
			}
			s.engine.Handle(time.Now(), f.from, f.to, f.payload)
		case <-timer.C:
			s.engine.Advance(time.Now())
		case <-s.recheck:
			s.engine.Recheck(time.Now())
		case <-s.plugged:
			switch {
			case s.hasCable():
				s.engine.Wake(time.Now())
			case s.client: // whoever is plugged in next may be somebody else
				return false, s.leaveClients(filter.Policy{})
			}
		case err := <-s.found:
			s.found = nil
			if err == nil && !s.mesh {
				if s.client {
					return true, s.leaveClients(filter.Policy{DHCP: true})
				}
				return true, nil
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				return false, err
			}
		}
	}
}

// act sends what the engine has to send and does what its events ask for.
func (s *search) act(ctx context.Context) error {
	frames, events := s.engine.Take()
	for _, f := range frames {
		if err := s.send(f); err != nil {
			return err
		}
	}
	changed := false
	for _, e := range events {
		changed = s.apply(e) || changed
	}
	if !changed {
		return nil
	}
	members := s.engine.Members()
	policy := filter.Policy{Members: addresses(members)}
	if s.client {
		if err := s.leaveClients(policy); err != nil {
			return err
		}
		if err := s.relisten(ctx, false); err != nil {
			return err
		}
	} else if err := filter.Apply(s.name, policy); err != nil {
		return err
	}
	if len(members) == 0 {
		s.deserted = time.Now()
		s.set(Mesh, "no member is heard")
		return nil
	}
	s.deserted = time.Time{}
	if !s.mesh {
		s.discover()
		if err := widen(s.link); err != nil {
			s.log.Info("adapter keeps its frame size, batman-adv will split frames", "err", err)
		}
		if err := s.ps.c.Carrier.Enslave(s.name); err != nil {
			return err
		}
		s.mesh = true
	}
	s.set(Mesh, "")
	return nil
}

// apply records one event and tells whether the members are others now.
func (s *search) apply(e proof.Event) bool {
	id := e.Peer.ID()
	fields := map[string]string{"peer": id, "mac": e.MAC.String()}
	switch e.Kind {
	case proof.Proven:
		s.mu.Lock()
		s.members[e.MAC] = id
		s.mu.Unlock()
		s.log.Info("member proved itself", "peer", id)
		s.notify(EventProven, model.Info, fmt.Sprintf("%s proved itself on port %s", id, s.name), fields)
		return true
	case proof.Lost:
		s.mu.Lock()
		delete(s.members, e.MAC)
		s.mu.Unlock()
		s.log.Warn("member is lost", "peer", id, "err", e.Err)
		s.notify(EventLost, model.Warning, fmt.Sprintf("%s is lost on port %s: %v", id, s.name, e.Err), fields)
		return true
	case proof.Refused:
		s.log.Warn("device is refused", "peer", id, "err", e.Err)
		s.notify(EventRefused, model.Warning, fmt.Sprintf("%s is refused on port %s: %v", id, s.name, e.Err), fields)
	}
	return false
}

// send loses frames as a cable does, and says so once; only a port that is gone
// or down ends the search.
func (s *search) send(f proof.Frame) error {
	err := s.wire.send(f)
	if errors.Is(err, unix.ENETDOWN) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("send on port %s: %w", s.name, err)
	}
	if failing := err != nil; failing != s.mute {
		s.mute = failing
		if failing {
			s.log.Warn("port does not send", "err", err)
		} else {
			s.log.Info("port sends again")
		}
	}
	return nil
}

// leave takes a deserted port out of the mesh.
func (s *search) leave() error {
	if err := s.ps.c.Carrier.Release(s.name); err != nil {
		return err
	}
	s.set(Searching, "")
	return nil
}

// forget ends the sessions for status: whoever comes next proves itself anew.
func (s *search) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.members)
}

func addresses(members []proof.Member) []proof.MAC {
	list := make([]proof.MAC, len(members))
	for i, m := range members {
		list[i] = m.MAC
	}
	return list
}

func sortedUnique(ids iter.Seq[string]) []string { return slices.Compact(slices.Sorted(ids)) }
