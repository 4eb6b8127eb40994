package proof

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/identity"
)

// Tests share what is slow to derive.
func testNetwork() identity.PublicKey { return testKey(200).Public() }

func testKey(n byte) identity.Key {
	k, err := identity.FromSeed(bytes.Repeat([]byte{n}, 32))
	if err != nil {
		panic(err)
	}
	return k
}

// quickSecret is a Secret without argon2's cost.
func quickSecret(n byte) (s Secret) {
	s.psk, s.hello = [32]byte{n, 1}, [32]byte{n, 2}
	return s
}

// segment is an Ethernet hub under a clock that only the test moves.
type segment struct {
	now     time.Time
	devices []*device
	loss    float64
	rng     *rand.Rand
	cut     func(from, to MAC) bool // frames that never arrive
	tap     func(from MAC, f Frame) // sees every frame sent
	flying  []struct {
		from, to MAC
		b        []byte
		at       MAC
	}
}

type device struct {
	*Engine
	mac    MAC
	events []Event
}

func newSegment() *segment {
	return &segment{now: time.Unix(1_700_000_000, 0), rng: rand.New(rand.NewPCG(1, 2))}
}

func address(n int) MAC { return MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func (s *segment) config(n int) Config {
	return Config{Key: testKey(byte(n)), Network: testNetwork(), Secret: quickSecret(1), MAC: address(n)}
}

func (s *segment) add(c Config) *device {
	d := &device{Engine: New(c, s.now), mac: c.MAC}
	s.devices = append(s.devices, d)
	return d
}

func (s *segment) remove(d *device) {
	s.devices = slices.DeleteFunc(s.devices, func(o *device) bool { return o == d })
}

// collect takes what the devices have to send and to tell.
func (s *segment) collect() {
	for _, d := range s.devices {
		frames, events := d.Take()
		d.events = append(d.events, events...)
		for _, f := range frames {
			if s.tap != nil {
				s.tap(d.mac, f)
			}
			for _, o := range s.devices {
				if o != d && !(s.cut != nil && s.cut(d.mac, o.mac)) && s.rng.Float64() >= s.loss {
					s.flying = append(s.flying, struct {
						from, to MAC
						b        []byte
						at       MAC
					}{d.mac, f.To, f.Payload, o.mac})
				}
			}
		}
	}
}

// run lets time pass; frames take none.
func (s *segment) run(d time.Duration) {
	end := s.now.Add(d)
	for {
		for s.collect(); len(s.flying) > 0; s.collect() {
			batch := s.flying
			s.flying = nil
			for _, f := range batch {
				for _, d := range s.devices {
					if d.mac == f.at {
						d.Handle(s.now, f.from, f.to, f.b)
					}
				}
			}
		}
		next := end
		for _, d := range s.devices {
			if t := d.Next(); t.Before(next) {
				next = t
			}
		}
		if next.After(s.now) { // who was away has something overdue
			s.now = next
		}
		if !s.now.Before(end) {
			return
		}
		for _, d := range s.devices {
			d.Advance(s.now)
		}
	}
}

func (d *device) memberIDs() (ids []string) {
	for _, m := range d.Members() {
		ids = append(ids, m.Peer.ID())
	}
	slices.Sort(ids)
	return ids
}

func (d *device) take(kind EventKind) (n int) {
	for _, e := range d.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func wantMembers(t *testing.T, d *device, keys ...int) {
	t.Helper()
	var want []string
	for _, k := range keys {
		want = append(want, testKey(byte(k)).ID())
	}
	slices.Sort(want)
	if got := d.memberIDs(); !slices.Equal(got, want) {
		t.Errorf("members of %s: expected %v, got %v", d.mac, want, got)
	}
}
