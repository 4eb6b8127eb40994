package port

import (
	"time"

	"halo.internal/mesh/port/filter"
	"halo.internal/mesh/port/macsec"
	"halo.internal/mesh/port/proof"
)

// half is one of the two interfaces by which a port may carry the mesh: itself, in
// the clear, and the MACsec interface above it.
type half struct {
	name   string
	in     bool      // in the mesh
	needed bool      // by a member
	since  time.Time // when it ceased to be needed
}

// need records whether members need the interface, and returns when it leaves the
// mesh if they don't; zero: it does not.
func (h *half) need(now time.Time, needed bool, idle time.Duration) time.Time {
	if h.needed && !needed || h.since.IsZero() {
		h.since = now
	}
	if h.needed = needed; needed || !h.in {
		return time.Time{}
	}
	return h.since.Add(idle)
}

// carries tells whether the port carries the mesh at all.
func (s *search) carries() bool { return s.bare.in || s.secure.in }

// carry puts the interfaces that members need into the mesh. One that they do not
// need leaves it some time after, as long as the other one is needed: what is sent
// in the clear to nobody is heard by whoever listens. When there is no member at
// all, both stay for a while: see leave.
func (s *search) carry(now time.Time) error {
	clear, secured := s.keys.Clear(), s.keys.Secured()
	s.review = time.Time{}
	if len(clear)+len(secured) > 0 {
		s.remember(Past{Mesh: true})
	}
	for _, h := range [...]struct {
		*half
		needed, other bool
	}{{&s.bare, len(clear) > 0, len(secured) > 0}, {&s.secure, len(secured) > 0, len(clear) > 0}} {
		leaves := h.need(now, h.needed, s.ps.timing.idle)
		switch {
		case h.needed && !h.in:
			if err := s.enslave(h.half); err != nil {
				return err
			}
		case leaves.IsZero() || !h.other:
		case !now.Before(leaves):
			if err := s.ps.c.Carrier.Release(h.name); err != nil {
				return err
			}
			h.in = false
		case s.review.IsZero() || leaves.Before(s.review):
			s.review = leaves
		}
	}
	return nil
}

func (s *search) enslave(h *half) error {
	s.discover()
	s.offered = false
	if h == &s.bare {
		if err := widen(s.link, 0); err != nil {
			s.log.Info("adapter keeps its frame size, batman-adv will split frames", "err", err)
		}
	}
	if err := s.ps.c.Carrier.Enslave(h.name); err != nil {
		return err
	}
	h.in = true
	s.tellRate()
	return nil
}

// tellRate tells the mesh what the port's link is worth: a MACsec interface knows
// nothing of the adapter below it.
func (s *search) tellRate() {
	if !s.secure.in {
		return
	}
	if err := s.ps.c.Carrier.Rate(s.secure.name, rate(s.name)); err != nil {
		s.log.Info("the mesh does not know what the port is worth", "err", err)
	}
}

// leave takes a deserted port out of the mesh, and its MACsec interface, with all
// keys, out of the kernel.
func (s *search) leave() error {
	for _, h := range [...]*half{&s.bare, &s.secure} {
		if err := s.ps.c.Carrier.Release(h.name); err != nil {
			return err
		}
		h.in = false
	}
	if err := s.unsecure(); err != nil {
		return err
	}
	s.set(Searching, "")
	return nil
}

// unsecure removes the MACsec interface, with all keys, and its filter.
func (p *port) unsecure() error {
	if err := p.ps.kernel.Remove(p.secureName); err != nil {
		return err
	}
	return filter.Open(p.secureName)
}

// admit lets in what the members may send, and nothing else; answers of servers
// upstream as long as one is looked for.
func (s *search) admit() error {
	var p filter.Policy
	for _, m := range s.keys.Clear() {
		p.Members = append(p.Members, m.MAC)
	}
	for mac := range s.keys.Secured() {
		p.Secured = append(p.Secured, mac)
	}
	p.DHCP = s.found != nil && !s.carries() && len(p.Members)+len(p.Secured) == 0
	return filter.Apply(s.name, p)
}

// secureAddress is the address of the MACsec interface: another one than the
// port's, since both may carry the mesh.
func (s *search) secureAddress(own proof.MAC) proof.MAC {
	own[0] = own[0]&^0x01 ^ 0x40 | 0x02
	if s.ps.c.Address == nil {
		return own
	}
	return proof.MAC(s.ps.c.Address(own[:]))
}

// belowSecure is what the MACsec interface needs of the port's frames.
const belowSecure = macsec.Overhead
