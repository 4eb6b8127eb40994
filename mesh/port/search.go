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
	"halo.internal/mesh/port/macsec"
	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
	"halo.internal/model"
)

// search is the state of a port on which members are looked for, and of one
// that carries the mesh because they were found.
type search struct {
	*port
	link     netlink.Link
	engine   *proof.Engine
	wire     *wire
	bare     half      // the port itself
	secure   half      // its MACsec interface
	review   time.Time // when one of them may leave the mesh; zero: none
	client   bool      // in the bridge of clients
	twin     time.Time // when another port of this device was heard last: both are on one network
	alone    time.Time // since when a port with a cable has found nobody; zero: no cable
	deserted time.Time // when the last member was lost; zero while there is one
	mute     bool      // sending fails

	keys     *sak.Machine // nil: no member was there yet
	settled  time.Time    // until when keys, kernel and mesh have nothing to do by themselves
	sessions uint64       // that the keys know of
	kernel   secured      // nil: the kernel has no MACsec, or there are no keys
	lacking  error        // why not
	counted  macsec.Counters
	blind    bool // counters can't be read

	discover context.CancelFunc // stops looking for a server upstream
	found    chan error         // its result; nil when nobody looks
}

// search proves members until the port is gone, deserted, or, on a gateway,
// upstream is found (true).
func (p *port) search(ctx context.Context, link netlink.Link) (upstream bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &search{port: p, link: link, discover: func() {}, bare: half{name: p.name}, secure: half{name: p.secureName}}
	defer s.shut()
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
		s.bare.in, s.deserted = true, now
	} else if err := s.ps.c.Carrier.Release(s.name); err != nil { // or it would put back what somebody has taken out
		return err
	}
	left := false
	if !adopt { // a port has one of both above it
		var err error
		if left, err = s.ps.kernel.Left(s.secure.name); err != nil {
			return err
		}
	}
	seek := !s.bare.in && !left && s.pin == "" && s.ps.c.Gateway && s.ps.c.Upstream != nil
	if !adopt {
		if err := filter.Apply(s.name, filter.Policy{DHCP: seek}); err != nil {
			return err
		}
	}
	if err := raise(s.link, false); err != nil {
		return err
	}
	mac := proof.MAC(a.HardwareAddr)
	if left {
		// Its keys are replaced at once: nobody is heard before proving itself again.
		if err := s.open(now); err != nil {
			return err
		}
		if s.secure.in {
			s.deserted = now
		}
	}
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
	case s.carries():
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
	poll := time.NewTicker(s.ps.timing.poll)
	defer poll.Stop()
	for {
		if err := s.act(ctx, time.Now()); err != nil {
			return false, err
		}
		now := time.Now()
		due := s.due()
		if !s.deserted.IsZero() {
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
			s.tellRate()
		case <-poll.C:
			if err := s.look(time.Now()); err != nil {
				return false, err
			}
		case err := <-s.found:
			s.found = nil
			if err == nil && !s.carries() {
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

// due is when something has to be done, whatever happens until then.
func (s *search) due() time.Time {
	due := s.engine.Next()
	if s.keys != nil && s.settled.Before(due) {
		due = s.settled
	}
	return due
}

// act does what the engine's events ask for and sends what there is to send.
func (s *search) act(ctx context.Context, now time.Time) error {
	frames, events := s.engine.Take()
	changed := false
	for _, e := range events {
		changed = s.apply(e) || changed
	}
	if changed && s.client {
		if err := s.leaveClients(filter.Policy{}); err != nil {
			return err
		}
		if err := s.relisten(ctx, false); err != nil {
			return err
		}
	}
	if err := s.agree(now, changed); err != nil {
		return err
	}
	said, _ := s.engine.Take() // what agreeing had to say: no events come of that
	for _, f := range append(frames, said...) {
		if err := s.send(f); err != nil {
			return err
		}
	}
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

// forget ends the sessions for status: whoever comes next proves itself anew.
func (s *search) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.members)
}

func sortedUnique(ids iter.Seq[string]) []string { return slices.Compact(slices.Sorted(ids)) }
