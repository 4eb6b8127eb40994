package port

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/port/filter"
	"halo.internal/mesh/port/macsec"
	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
	"halo.internal/model"
)

// kernel has MACsec interfaces, as package macsec does.
type kernel interface {
	// Open's error wraps fs.ErrNotExist where there is no MACsec.
	Open(port netlink.Link, name string, address proof.MAC) (secured, error)
	Remove(name string) error
	// Left tells whether an earlier process left an interface of that name.
	Left(name string) (bool, error)
}

// secured is a MACsec interface.
type secured interface {
	Sync(sak.State) error
	Read(sak.Association) (macsec.Counters, uint32, error)
	Close() error
}

type macsecKernel struct{}

func (macsecKernel) Open(port netlink.Link, name string, address proof.MAC) (secured, error) {
	i, err := macsec.Open(port, name, address)
	if err != nil {
		return nil, err
	}
	return i, nil
}
func (macsecKernel) Remove(name string) error       { return macsec.Remove(name) }
func (macsecKernel) Left(name string) (bool, error) { return macsec.Left(name) }

// open makes the port's MACsec interface, or takes over the one that is there,
// and begins to agree on keys. Without MACsec in the kernel there is none, and
// the members are told so.
func (s *search) open(now time.Time) error {
	own := proof.MAC(s.link.Attrs().HardwareAddr)
	address := s.secureAddress(own)
	if err := widen(s.link, belowSecure); err != nil {
		s.log.Info("adapter keeps its frame size, batman-adv will split frames", "err", err)
	}
	i, err := s.ps.kernel.Open(s.link, s.secure.name, address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.lacking = err
		s.log.Warn("port can't encrypt", "err", err)
	case err != nil:
		return err
	default:
		s.kernel = i
		if err := s.raiseSecure(); err != nil {
			return err
		}
	}
	s.keys = sak.New(sak.Config{MACsec: s.lacking == nil, MAC: address, Timing: s.ps.timing.keys}, now)
	return nil
}

// raiseSecure shuts the MACsec interface for all but the mesh, which it is for,
// and brings it up.
func (s *search) raiseSecure() error {
	link, err := netlink.LinkByName(s.secure.name)
	if err != nil {
		return fmt.Errorf("find %s: %w", s.secure.name, err)
	}
	if mtu := s.link.Attrs().MTU - macsec.Overhead; link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("MTU of %s: expected %d, stays %d: %w", s.secure.name, mtu, link.Attrs().MTU, err)
		}
	}
	if err := filter.Apply(s.secure.name, filter.Policy{Batman: true}); err != nil {
		return err
	}
	if link.Attrs().MasterIndex != 0 { // as an earlier process left it
		if err := s.ps.c.Carrier.Enslave(s.secure.name); err != nil {
			return fmt.Errorf("%s belongs to something else than the mesh: %w", s.secure.name, err)
		}
		s.secure.in = true
	}
	return raise(link, false)
}

// agree brings keys, kernel, filter and mesh in line with the members and what
// they said.
func (s *search) agree(now time.Time, changed bool) error {
	if s.keys == nil {
		if !changed || len(s.engine.Members()) == 0 {
			return nil
		}
		if err := s.open(now); err != nil {
			return err
		}
	}
	heard, sessions := s.engine.Heard(), s.engine.Sessions()
	if !changed && len(heard) == 0 && sessions == s.sessions && now.Before(s.settled) {
		return nil // strangers' frames come here too
	}
	if changed || sessions != s.sessions {
		s.sessions = sessions
		s.keys.Members(now, s.engine.Members())
	}
	for _, h := range heard {
		s.keys.Handle(now, h)
	}
	s.keys.Advance(now)
	state, dirty := s.keys.State()
	if dirty && s.kernel != nil {
		if err := s.kernel.Sync(state); err != nil {
			return err
		}
	}
	if dirty || changed {
		if err := s.admit(); err != nil {
			return err
		}
	}
	s.keys.Applied()
	messages, events := s.keys.Take()
	for _, m := range messages {
		s.engine.Say(m.To, m.Message)
	}
	for _, e := range events {
		s.tell(e)
	}
	if err := s.carry(now); err != nil {
		return err
	}
	if dirty || changed || len(events) > 0 {
		s.record(now)
	}
	s.settled = s.keys.Next()
	if !s.review.IsZero() && s.review.Before(s.settled) {
		s.settled = s.review
	}
	return nil
}

// tell records what became of a member's keys.
func (s *search) tell(e sak.Event) {
	id := e.Member.Peer.ID()
	switch e.Kind {
	case sak.Secured:
		s.log.Info("member is reached under MACsec", "peer", id)
	case sak.Clear:
		why := "its kernel has no MACsec"
		if s.lacking != nil {
			why = "this device's kernel has no MACsec"
		}
		s.log.Warn("member is reached in the clear", "peer", id, "err", why)
		s.notify(EventClear, model.Warning, fmt.Sprintf("%s is reached in the clear on port %s: %s", id, s.name, why),
			map[string]string{"peer": id, "mac": e.Member.MAC.String()})
	case sak.Refused:
		s.log.Warn("what a member says of MACsec is refused", "peer", id, "err", e.Err)
		s.notify(EventRefused, model.Warning, fmt.Sprintf("what %s says of MACsec on port %s is refused: %v", id, s.name, e.Err),
			map[string]string{"peer": id, "mac": e.Member.MAC.String()})
	case sak.Rekeyed:
		s.log.Info("port sends by a new key")
	}
}

// record writes down what status tells.
func (s *search) record(now time.Time) {
	is := &model.MACsec{KeyAgeS: int64(now.Sub(s.keys.Since()) / time.Second), Late: s.counted.Late, Invalid: s.counted.Invalid}
	if s.kernel != nil {
		is.Iface = s.secure.name
	}
	secured := map[proof.MAC]string{}
	for mac, m := range s.keys.Secured() {
		secured[mac] = m.Peer.ID()
	}
	is.Clear, is.Waiting = ids(s.keys.Clear()), ids(s.keys.Silent())
	var detail []string
	switch {
	case len(secured) > 0 && len(is.Clear) > 0:
		is.State = "mixed"
		detail = append(detail, "in the clear with "+strings.Join(is.Clear, " ")+", whose kernel has no MACsec")
	case len(secured) > 0:
		is.State = "encrypted"
	case len(is.Clear) > 0:
		is.State = "clear"
		why := "in the clear: no member's kernel has MACsec"
		if s.lacking != nil {
			why = "in the clear: the kernel has no MACsec"
		}
		detail = append(detail, why)
	default:
		is.State = "none"
	}
	if len(is.Waiting) > 0 {
		detail = append(detail, "not carried to "+strings.Join(is.Waiting, " ")+", which did not say whether it has MACsec")
	}
	s.mu.Lock()
	s.secured, s.macsec = secured, is
	s.mu.Unlock()
	if len(s.engine.Members()) > 0 {
		s.deserted = time.Time{}
		s.set(s.present(), strings.Join(detail, "; "))
		return
	}
	if s.deserted.IsZero() {
		s.deserted = now
		s.set(s.present(), "no member is heard")
	}
}

// present is the port's role: it is the mesh's when it carries it.
func (s *search) present() string {
	if s.carries() {
		return Mesh
	}
	return Searching
}

// look reads what MACsec counts. Whoever else changes the interface, or a kernel
// that ran out of packet numbers, ends the search, and the next one begins anew.
func (s *search) look(now time.Time) error {
	if s.kernel == nil || s.keys == nil {
		return nil
	}
	state, _ := s.keys.State()
	counted, next, err := s.kernel.Read(state.Transmit)
	if errors.Is(err, macsec.ErrChanged) {
		return err
	}
	if failing := err != nil; failing != s.blind {
		s.blind = failing
		if failing {
			s.log.Warn("MACsec does not tell what it counts", "err", err)
		}
	}
	if err != nil {
		return nil
	}
	s.counted, s.settled = counted, now
	s.keys.Used(now, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.macsec != nil {
		s.macsec.KeyAgeS = int64(now.Sub(s.keys.Since()) / time.Second)
		s.macsec.Late, s.macsec.Invalid = counted.Late, counted.Invalid
	}
	return nil
}

// shut ends the conversation with the kernel. The interface stays, with its keys,
// for the next search to take over.
func (s *search) shut() {
	if s.kernel != nil {
		if err := s.kernel.Close(); err != nil {
			s.log.Info("MACsec's socket did not close", "err", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secured, s.macsec = nil, nil
}

func ids(members []proof.Member) []string {
	list := make([]string, len(members))
	for i, m := range members {
		list[i] = m.Peer.ID()
	}
	return list
}
