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
	served   time.Time // since when it is
	alone    time.Time // since when a port with a cable has found no member; zero: no cable, or one was there
	offered  bool      // a server upstream answered, which is not believed yet: see waits
	later    time.Time // clients are not served before: it is asked for a server once more
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
	s.engine = s.prover(mac, now)
	switch {
	case s.carries():
		s.set(Mesh, "waiting for members to prove themselves again")
	case adopt: // an earlier run has put it there: clients go on
		s.client, s.served = true, now
		s.set(Client, "")
	case s.past().Uplink:
		s.set(Searching, fmt.Sprintf("it led upstream before: without a server of DHCP it serves clients after %s", s.ps.timing.loyal))
	default:
		s.set(Searching, "")
	}
	if seek {
		s.seek(ctx)
	}
	return nil
}

// seek asks for a server upstream.
func (s *search) seek(ctx context.Context) {
	s.discover() // what has ended before has nothing to stop any more
	found := make(chan error, 1)
	ctx, s.discover = context.WithCancel(ctx)
	s.found = found
	go func() { found <- s.ps.c.Upstream.Discover(ctx, s.name) }()
}

// hold leaves a server upstream waiting, since the port carried the mesh before. What
// this device would give to clients there would be at odds with what the server does.
func (s *search) hold(ctx context.Context) error {
	s.offered = true
	if s.client {
		if err := s.leaveClients(filter.Policy{DHCP: true}); err != nil {
			return err
		}
		if err := s.relisten(ctx, false); err != nil {
			return err
		}
	}
	s.log.Warn("a server of DHCP answers where the mesh was", "wait", s.ps.timing.loyal)
	s.set(Searching, fmt.Sprintf("a server of DHCP answers, but the port carried the mesh: it leads upstream if no member comes within %s", s.ps.timing.loyal))
	return nil
}

// seekAgain lets go of a server that was left waiting, and asks who is there now.
func (s *search) seekAgain(ctx context.Context, now time.Time) {
	s.offered, s.later = false, now.Add(s.ps.timing.client)
	s.set(Searching, "")
	s.seek(ctx)
}

// countAlone takes note of when the port came to have a cable and no member.
func (s *search) countAlone(now time.Time) {
	switch {
	case !s.hasCable() || s.keys != nil || s.carries():
		s.alone = time.Time{}
	case s.alone.IsZero():
		s.alone = now
	}
}

// prover proves the membership of this device on the port, and that of others.
func (p *port) prover(mac proof.MAC, now time.Time) *proof.Engine {
	return proof.New(proof.Config{
		Key: p.ps.c.Key, Network: p.ps.c.Network, Secret: p.ps.secret, MAC: mac,
		Admit: p.ps.c.Admit, Timing: p.ps.timing.proof,
	}, now)
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
		s.countAlone(now)
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
		if s.offered {
			if until, waits := s.waits(now); !waits {
				s.seekAgain(ctx, now)
			} else if until.Before(due) {
				due = until
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
		if past := s.past(); s.client && past.Uplink {
			if forget := s.served.Add(s.ps.timing.lasting); !now.Before(forget) {
				s.remember(Past{Mesh: past.Mesh})
			} else if forget.Before(due) {
				due = forget
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
				if s.offered { // by somebody on another cable
					s.seekAgain(ctx, time.Now())
				}
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
			_, waits := s.waits(time.Now())
			switch {
			case err != nil && !errors.Is(err, context.Canceled):
				return false, err
			case err != nil || s.carries():
			case waits:
				if err := s.hold(ctx); err != nil {
					return false, err
				}
			case s.client:
				return true, s.leaveClients(filter.Policy{DHCP: true})
			default:
				return true, nil
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
