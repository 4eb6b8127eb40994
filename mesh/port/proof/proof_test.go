package proof

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
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

func TestMembersProveThemselvesAndStay(t *testing.T) {
	s := newSegment()
	a, b, c := s.add(s.config(1)), s.add(s.config(2)), s.add(s.config(3))
	s.run(time.Second)
	wantMembers(t, a, 2, 3)
	wantMembers(t, b, 1, 3)
	wantMembers(t, c, 1, 2)
	s.run(time.Hour)
	for _, d := range s.devices {
		if p, l := d.take(Proven), d.take(Lost); p != 2 || l != 0 {
			t.Errorf("%s: expected 2 proven and 0 lost in an hour, got %d and %d", d.mac, p, l)
		}
	}
}

func TestOnlyTheLowerNonceBegins(t *testing.T) {
	s := newSegment()
	a, b := s.add(s.config(1)), s.add(s.config(2))
	low, high := a, b
	if bytes.Compare(a.nonce[:], b.nonce[:]) > 0 {
		low, high = b, a
	}
	began := map[MAC]int{}
	s.tap = func(from MAC, f Frame) {
		if kind(f.Payload[5]) == kindInitiate {
			began[from]++
		}
	}
	s.run(5 * time.Second)
	if began[low.mac] != 1 || began[high.mac] != 0 {
		t.Errorf("expected one handshake, begun by the lower nonce; got %d by it, %d by the other", began[low.mac], began[high.mac])
	}
	// A handshake begun by the side whose turn it is not, with the right secret.
	low2, high2 := New(low.c, s.now), New(high.c, s.now)
	low2.nonce, high2.nonce = low.nonce, high.nonce
	high2.initiate(s.now, high2.known(s.now, low.mac), low.nonce)
	frames, _ := high2.Take()
	low2.Handle(s.now, high.mac, low.mac, frames[0].Payload)
	if got, _ := low2.Take(); len(got) != 0 || low2.halfOpen() != 0 {
		t.Errorf("a handshake out of turn: expected no answer, got %d frames, %d half open", len(got), low2.halfOpen())
	}
}

func TestStrangersStayOutside(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
	}{
		{"other secret", func(c *Config) { c.Secret = quickSecret(9) }},
		{"other network key", func(c *Config) { c.Network = testKey(201).Public() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSegment()
			a, b := s.add(s.config(1)), s.add(s.config(2))
			c := s.config(3)
			test.change(&c)
			stranger := s.add(c)
			s.run(2 * time.Minute)
			wantMembers(t, a, 2)
			wantMembers(t, b, 1)
			wantMembers(t, stranger)
			if n := len(a.events) + len(b.events); n != 2 {
				t.Errorf("expected two events, both members proven, got %d", n)
			}
		})
	}
}

func TestLoss(t *testing.T) {
	for seed := range uint64(40) {
		s := newSegment()
		s.rng, s.loss = rand.New(rand.NewPCG(seed, 0)), 0.3
		a, b, c := s.add(s.config(1)), s.add(s.config(2)), s.add(s.config(3))
		s.run(time.Minute)
		for _, d := range []*device{a, b, c} {
			if n := len(d.Members()); n != 2 {
				t.Errorf("seed %d: %s after a minute at 30 %% loss: expected 2 members, got %d", seed, d.mac, n)
			}
		}
		s.run(30 * time.Minute)
		if n := a.take(Lost) + b.take(Lost) + c.take(Lost); n > 2 {
			t.Errorf("seed %d: half an hour at 30 %% loss: expected hardly a session lost, got %d", seed, n)
		}
		s.run(time.Minute)
	}
}

func TestSilenceIsLoss(t *testing.T) {
	s := newSegment()
	a, b := s.add(s.config(1)), s.add(s.config(2))
	s.run(time.Minute)
	s.remove(b)
	s.run(20 * time.Second)
	wantMembers(t, a, 2)
	s.run(16 * time.Second)
	wantMembers(t, a)
	last := a.events[len(a.events)-1]
	if last.Kind != Lost || !errors.Is(last.Err, ErrSilent) || last.Peer != testKey(2).Public() {
		t.Errorf("expected the member lost for its silence, got %+v", last)
	}
	s.devices = append(s.devices, b)
	b.Wake(s.now)
	s.run(3 * time.Second)
	wantMembers(t, a, 2)
}

// After a one-sided break the two disagree about the session.
func TestOneSidedLossHeals(t *testing.T) {
	for _, deaf := range []int{1, 2} {
		s := newSegment()
		a, b := s.add(s.config(1)), s.add(s.config(2))
		s.run(time.Minute)
		s.cut = func(from, to MAC) bool { return to == address(deaf) }
		s.run(36 * time.Second)
		s.cut = nil
		s.run(25 * time.Second)
		wantMembers(t, a, 2)
		wantMembers(t, b, 1)
		s.run(5 * time.Minute)
		if n := a.take(Lost) + b.take(Lost); n > 2 {
			t.Errorf("%d deaf for a while: expected at most one loss a side, got %d", deaf, n)
		}
	}
}

func TestRestart(t *testing.T) {
	for range 8 { // nonces decide who begins
		s := newSegment()
		a, b := s.add(s.config(1)), s.add(s.config(2))
		s.run(time.Minute)
		s.remove(b)
		s.run(3 * time.Second)
		b = s.add(s.config(2))
		s.run(2 * time.Second)
		wantMembers(t, a, 2)
		wantMembers(t, b, 1)
		s.run(time.Minute)
		if a.take(Lost) != 0 || a.take(Proven) != 1 {
			t.Errorf("a neighbour's quick restart: expected no events, got %+v", a.events)
		}
	}
}

func TestAnotherDeviceAtTheSameAddress(t *testing.T) {
	s := newSegment()
	a, b := s.add(s.config(1)), s.add(s.config(2))
	s.run(time.Minute)
	s.remove(b)
	c := s.config(3)
	c.MAC = b.mac
	s.add(c)
	s.run(3 * time.Second)
	wantMembers(t, a, 3)
	want := []EventKind{Proven, Lost, Proven}
	var got []EventKind
	for _, e := range a.events {
		got = append(got, e.Kind)
	}
	if !slices.Equal(got, want) || !errors.Is(a.events[1].Err, ErrReplaced) {
		t.Errorf("expected events %v, the loss by replacement; got %+v", want, a.events)
	}
}

func TestReplay(t *testing.T) {
	s := newSegment()
	type record struct {
		from MAC
		Frame
	}
	var tape []record
	s.tap = func(from MAC, f Frame) { tape = append(tape, record{from, f}) }
	a, b := s.add(s.config(1)), s.add(s.config(2))
	s.run(time.Minute)
	s.tap = nil
	s.remove(b)
	replay := func(d *device) {
		for _, r := range tape {
			d.Handle(s.now, r.from, r.To, r.Payload)
			s.now = s.now.Add(50 * time.Millisecond)
			d.Advance(s.now)
		}
		s.collect()
		s.flying = nil
	}
	heard := s.now
	before := len(a.events)
	replay(a)
	s.run(40*time.Second - s.now.Sub(heard))
	if len(a.events) != before+1 || a.events[before].Kind != Lost {
		t.Errorf("a recorded hour played to the same run: expected the silent member lost and nothing else, got %+v", a.events[before:])
	}
	s.remove(a)
	again := s.add(s.config(1))
	replay(again)
	s.run(time.Minute)
	if len(again.events) != 0 || len(again.Members()) != 0 {
		t.Errorf("played after a restart: expected no event, got %+v", again.events)
	}
}

func TestReplayedHandshakeIsNotAnswered(t *testing.T) {
	s := newSegment()
	var first Frame
	var from MAC
	s.tap = func(m MAC, f Frame) {
		if kind(f.Payload[5]) == kindInitiate {
			first, from = f, m
		}
	}
	s.add(s.config(1))
	s.add(s.config(2))
	s.run(20 * time.Second) // the half-open answer is forgotten
	for _, d := range s.devices {
		if d.mac == first.To {
			d.Handle(s.now, from, d.mac, first.Payload)
			if frames, events := d.Take(); len(frames)+len(events) != 0 {
				t.Errorf("expected silence, got %d frames, %d events", len(frames), len(events))
			}
		}
	}
}

func TestReflection(t *testing.T) {
	t.Run("a plug that sends all back", func(t *testing.T) {
		s := newSegment()
		a := s.add(s.config(1))
		for range 1000 {
			s.collect()
			s.now = a.Next()
			a.Advance(s.now)
			frames, events := a.Take()
			a.events = append(a.events, events...)
			for _, f := range frames {
				a.Handle(s.now, a.mac, f.To, f.Payload)
				a.Handle(s.now, address(77), f.To, f.Payload)  // with another source
				a.Handle(s.now, address(77), a.mac, f.Payload) // and as if meant for it
			}
		}
		if len(a.events) != 0 || len(a.peers) != 0 {
			t.Errorf("expected no peer, got %d, events %+v", len(a.peers), a.events)
		}
	})
	t.Run("a cable from one port to another", func(t *testing.T) {
		s := newSegment()
		c := s.config(1)
		a := s.add(c)
		c.MAC = address(2)
		b := s.add(c)
		s.run(3 * time.Minute)
		refused := slices.Concat(a.events, b.events)
		if len(refused) == 0 || len(refused) > 2 {
			t.Fatalf("expected one refusal a side at most, got %+v", refused)
		}
		for _, e := range refused {
			if e.Kind != Refused || !errors.Is(e.Err, ErrOwnKey) {
				t.Errorf("expected own key refused, got %+v", e)
			}
		}
	})
}

func TestRevocation(t *testing.T) {
	s := newSegment()
	revoked := errors.New("revoked")
	var bad identity.PublicKey
	c := s.config(1)
	c.Admit = func(p identity.PublicKey) error {
		if p == bad {
			return revoked
		}
		return nil
	}
	a, _, _ := s.add(c), s.add(s.config(2)), s.add(s.config(3))
	s.run(time.Minute)
	wantMembers(t, a, 2, 3)
	bad = testKey(2).Public()
	a.Recheck(s.now)
	s.run(10 * time.Minute)
	wantMembers(t, a, 3)
	if a.take(Lost) != 1 || a.take(Refused) != 1 {
		t.Errorf("expected the member lost and refused, each told once; got %+v", a.events)
	}
	bad = identity.PublicKey{}
	s.run(2 * time.Minute)
	wantMembers(t, a, 2, 3)
}

// A member, who has the secret, stands between two others and hands their
// statements on.
func TestMemberInTheMiddle(t *testing.T) {
	s := newSegment()
	a, b, m := s.add(s.config(1)), s.add(s.config(2)), New(s.config(3), s.now)
	if bytes.Compare(a.nonce[:], b.nonce[:]) > 0 {
		a.nonce, b.nonce = b.nonce, a.nonce
	}
	// a begins with what it takes for b: the one in the middle uses b's address.
	a.initiate(s.now, a.known(s.now, b.mac), b.nonce)
	out, _ := a.Take()
	m.c.MAC, m.nonce = b.mac, b.nonce
	m.Handle(s.now, a.mac, b.mac, out[0].Payload)
	answer, _ := m.Take()
	a.Handle(s.now, b.mac, a.mac, answer[0].Payload)
	statement, _ := a.Take() // a's identity, for the handshake a–m
	plain, err := m.peers[a.mac].answer.receive.Decrypt(nil, 0, build(kindAuthenticate), statement[0].Payload[header:])
	if err != nil {
		t.Fatal(err)
	}
	// Towards b it is a, with a's address and nonce, and passes a's statement on.
	m2 := New(s.config(3), s.now)
	m2.c.MAC, m2.nonce = a.mac, a.nonce
	m2.initiate(s.now, m2.known(s.now, b.mac), b.nonce)
	out, _ = m2.Take()
	b.Handle(s.now, a.mac, b.mac, out[0].Payload)
	answer, _ = b.Take()
	m2.Handle(s.now, b.mac, a.mac, answer[0].Payload)
	forged := build(kindAuthenticate, m2.peers[b.mac].start.send.Encrypt(nil, 0, build(kindAuthenticate), plain))
	b.Handle(s.now, a.mac, b.mac, forged)
	if frames, events := b.Take(); len(frames)+len(events)+len(b.Members()) != 0 {
		t.Errorf("expected the statement of another handshake to count for nothing, got %+v", events)
	}
}

func TestForgedAnswerDoesNotSpoilTheTrueOne(t *testing.T) {
	s := newSegment()
	a, b := s.add(s.config(1)), s.add(s.config(2))
	if bytes.Compare(a.nonce[:], b.nonce[:]) > 0 {
		a.nonce, b.nonce = b.nonce, a.nonce
	}
	a.initiate(s.now, a.known(s.now, b.mac), b.nonce)
	for range 50 {
		forged := make([]byte, noiseSize)
		for i := range forged {
			forged[i] = byte(s.rng.Uint32())
		}
		a.Handle(s.now, b.mac, a.mac, build(kindRespond, forged))
	}
	s.run(100 * time.Millisecond)
	wantMembers(t, a, 2)
	wantMembers(t, b, 1)
}

func TestBounds(t *testing.T) {
	t.Run("strangers' greetings make nothing", func(t *testing.T) {
		s := newSegment()
		a := s.add(s.config(1))
		for i := range 1000 {
			c := s.config(2)
			c.Secret, c.MAC = quickSecret(9), address(1000+i)
			a.Handle(s.now, c.MAC, Broadcast, New(c, s.now).greeting(kindHello, Broadcast))
		}
		if len(a.peers) != 0 {
			t.Errorf("expected no peer, got %d", len(a.peers))
		}
	})
	t.Run("a member with a thousand addresses", func(t *testing.T) {
		s := newSegment()
		a := s.add(s.config(1))
		for i := range 1000 {
			c := s.config(2)
			c.MAC = address(1000 + i)
			a.Handle(s.now, c.MAC, Broadcast, New(c, s.now).greeting(kindHello, Broadcast))
			if len(a.peers) > maxPeers || a.halfOpen() > maxHalfOpen {
				t.Fatalf("expected at most %d peers and %d half open, got %d and %d", maxPeers, maxHalfOpen, len(a.peers), a.halfOpen())
			}
		}
		a.Take()
		s.run(3 * time.Minute)
		if len(a.peers) != 0 {
			t.Errorf("after three minutes of silence: expected no peer, got %d", len(a.peers))
		}
	})
	t.Run("a full segment", func(t *testing.T) {
		s := newSegment()
		a := s.add(s.config(1))
		for i := range MaxMembers + 6 {
			s.add(s.config(2 + i))
		}
		s.cut = func(from, to MAC) bool { return from != a.mac && to != a.mac }
		s.run(2 * time.Minute)
		if n := len(a.Members()); n != MaxMembers {
			t.Errorf("expected %d members, got %d", MaxMembers, n)
		}
		if n := a.take(Refused); n != 6 {
			t.Errorf("expected 6 refused, got %d", n)
		}
	})
}

// The wire format and the derivation are fixed: nodes of different versions
// share a cable.
func TestFormat(t *testing.T) {
	secret := Derive("correct horse battery", testNetwork())
	e := New(Config{Key: testKey(1), Network: testNetwork(), Secret: secret, MAC: address(1)}, time.Unix(0, 0))
	e.nonce = nonce(bytes.Repeat([]byte{0xab}, nonceSize))
	for _, test := range []struct {
		name string
		got  []byte
		want string
	}{
		{"hello", e.greeting(kindHello, Broadcast), "48414c4f0101ababababababababababababababababff58d6e676ca6f8df34648ef9d2fb734"},
		{"solicit", e.greeting(kindSolicit, address(2)), "48414c4f0102abababababababababababababababab05bd2c11495c4af482afac17d15f1241"},
		{"Noise key", secret.psk[:], "3dc149196f6d09a0bb72f5c99832dab84515eb813b79f768e68945d89d64c9c1"},
	} {
		if got := hex.EncodeToString(test.got); got != test.want {
			t.Errorf("%s: expected %s, got %s", test.name, test.want, got)
		}
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(form, secret); got != "(secret)" {
			t.Errorf("a secret printed with %s: expected (secret), got %s", form, got)
		}
	}
}
