package sak

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/port/proof"
)

func testKey(n int) identity.PublicKey {
	k, err := identity.FromSeed(bytes.Repeat([]byte{byte(n)}, 32))
	if err != nil {
		panic(err)
	}
	return k.Public()
}

func address(n int) proof.MAC { return proof.MAC{2, 0, 0, 0, 0, byte(n)} }
func secure2(n int) proof.MAC { return proof.MAC{2, 1, 0, 0, 0, byte(n)} }

// segment is machines whose sessions the test decides on, under a clock that it
// moves, and what the kernels would do by their states.
type segment struct {
	t        *testing.T
	now      time.Time
	devices  []*device
	loss     float64
	rng      *rand.Rand
	sessions uint64
	apart    func(from, to int) bool // frames of the key agreement that never arrive
	gaps     int                     // frames that a member could not open
}

type device struct {
	*Machine
	n       int
	state   State          // of the kernel
	session map[int]uint64 // by peer
	events  []Event
	pn      uint32         // next packet number
	used    map[Key]uint32 // the same, of all keys that it ever sent by
}

func newSegment(t *testing.T) *segment {
	return &segment{t: t, now: time.Unix(1_700_000_000, 0), rng: rand.New(rand.NewPCG(1, 2))}
}

func config(n int) Config { return Config{MACsec: true, MAC: secure2(n)} }

func (s *segment) add(n int, c Config) *device {
	d := &device{Machine: New(c, s.now), n: n, session: map[int]uint64{}, used: map[Key]uint32{}, pn: 1}
	for _, o := range s.devices {
		s.join(d, o)
	}
	s.devices = append(s.devices, d)
	s.tellMembers()
	return d
}

// join gives two a session.
func (s *segment) join(a, b *device) {
	s.sessions++
	a.session[b.n], b.session[a.n] = s.sessions, s.sessions
}

// part ends one side's session.
func (s *segment) part(a, b *device) {
	delete(a.session, b.n)
	s.tellMembers()
}

// restart is a process that ends and comes back: its kernel keeps what it has,
// until the new one says otherwise.
func (s *segment) restart(d *device, c Config) *device {
	s.devices = slices.DeleteFunc(s.devices, func(o *device) bool { return o == d })
	n := &device{Machine: New(c, s.now), n: d.n, session: map[int]uint64{}, used: d.used, pn: 1}
	for _, o := range s.devices {
		s.join(n, o)
	}
	s.devices = append(s.devices, n)
	s.tellMembers()
	return n
}

func (s *segment) tellMembers() {
	for _, d := range s.devices {
		var list []proof.Member
		for n, session := range d.session {
			list = append(list, proof.Member{MAC: address(n), Peer: testKey(n), Session: session})
		}
		d.Members(s.now, list)
	}
}

// settle does what the port's owner does at each turn, until nobody has anything
// to say.
func (s *segment) settle() {
	for busy := true; busy; {
		busy = false
		for _, d := range s.devices {
			d.Advance(s.now)
			state, changed := d.State()
			if changed {
				if state.Transmit.Key != d.state.Transmit.Key {
					if d.used[state.Transmit.Key] != 0 {
						s.t.Fatalf("device %d sends by a key again", d.n)
					}
					d.pn = 1
				}
				d.state = state
			}
			s.traffic()
			d.Applied()
			msgs, events := d.Take()
			d.events = append(d.events, events...)
			for _, m := range msgs {
				for _, o := range s.devices {
					session := d.session[o.n]
					if address(o.n) != m.To || session == 0 || o.session[d.n] != session || s.rng.Float64() < s.loss || s.apart != nil && s.apart(d.n, o.n) {
						continue
					}
					busy = true
					o.Handle(s.now, proof.Heard{From: address(d.n), Peer: testKey(d.n), Session: session, Message: m.Message})
				}
			}
		}
	}
}

// traffic is one frame of each to all; it counts who could not open one of whom
// it knows.
func (s *segment) traffic() {
	for _, d := range s.devices {
		if !d.c.MACsec {
			continue
		}
		key := d.state.Transmit
		d.pn++
		d.used[key.Key] = d.pn
		for _, o := range s.devices {
			if o != d && len(channelOf(o, d).Associations) > 0 && !opens(o, d) {
				s.gaps++
			}
		}
	}
}

func channelOf(o, d *device) Channel {
	for _, c := range o.state.Receive {
		if c.SCI == d.sci {
			return c
		}
	}
	return Channel{}
}

// opens tells whether o can open what d sends.
func opens(o, d *device) bool {
	return slices.ContainsFunc(channelOf(o, d).Associations, func(a Association) bool {
		return a.AN == d.state.Transmit.AN && a.Key == d.state.Transmit.Key
	})
}

// run lets time pass.
func (s *segment) run(d time.Duration) {
	for end := s.now.Add(d); ; {
		s.settle()
		next := end
		for _, d := range s.devices {
			if t := d.Next(); t.Before(next) {
				next = t
			}
		}
		if next.After(s.now) {
			s.now = next
		} else {
			s.now = s.now.Add(time.Millisecond) // something is due that was lost
		}
		if !s.now.Before(end) {
			return
		}
	}
}

func (s *segment) wantAll() {
	s.t.Helper()
	for _, d := range s.devices {
		for _, o := range s.devices {
			if d != o && !opens(d, o) {
				s.t.Errorf("device %d can't open what %d sends: %s", d.n, o.n, describe(d.state))
			}
		}
	}
}

func describe(s State) string {
	text := fmt.Sprintf("sends by %d", s.Transmit.AN)
	for _, c := range s.Receive {
		text += fmt.Sprintf("; %x:", c.SCI)
		for _, a := range c.Associations {
			text += fmt.Sprintf(" %d", a.AN)
		}
	}
	return text
}

func (d *device) count(k EventKind) (n int) {
	for _, e := range d.events {
		if e.Kind == k {
			n++
		}
	}
	return n
}
