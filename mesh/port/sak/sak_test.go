package sak

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/mesh/port/proof"
)

func TestEverybodyHearsEverybody(t *testing.T) {
	s := newSegment(t)
	for n := range 4 {
		s.add(n+1, config(n+1))
	}
	s.run(time.Second)
	s.wantAll()
	for _, d := range s.devices {
		if d.count(Secured) != 3 || len(d.Secured()) != 3 || len(d.Clear())+len(d.Silent()) != 0 {
			t.Errorf("device %d: events %+v", d.n, d.events)
		}
		for _, c := range d.state.Receive {
			if len(c.Associations) != 1 {
				t.Errorf("device %d: expected one key a channel, got %s", d.n, describe(d.state))
			}
		}
	}
}

func TestKeysAreReplacedWithoutAGap(t *testing.T) {
	s := newSegment(t)
	var devices []*device
	for n := range 3 {
		devices = append(devices, s.add(n+1, config(n+1)))
	}
	s.run(time.Second)
	for turn := range 9 { // all association numbers, twice
		before := devices[0].state.Transmit
		if turn%2 == 0 {
			devices[0].Used(s.now, 1<<31)
		} else {
			s.now = s.now.Add(24 * time.Hour) // all of them are due
		}
		s.run(10 * time.Second)
		now := devices[0].state.Transmit
		if now.Key == before.Key || now.AN != (before.AN+1)%4 {
			t.Fatalf("turn %d: expected another key, of the next number; had %d, got %d", turn, before.AN, now.AN)
		}
		s.wantAll()
		for _, d := range s.devices {
			for _, c := range d.state.Receive {
				if len(c.Associations) != 1 {
					t.Errorf("turn %d: after a while the dead key has to be gone: %s", turn, describe(d.state))
				}
			}
		}
	}
	if s.gaps != 0 {
		t.Errorf("expected every frame opened, %d were not", s.gaps)
	}
}

// A key that its sender has given up still opens what is under way, and not much
// longer.
func TestDeadKeyOpensWhatIsUnderWay(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1, config(1)), s.add(2, config(2))
	s.run(time.Second)
	old := a.state.Transmit.Key
	a.Used(s.now, 1<<31)
	held := func() bool {
		return slices.ContainsFunc(channelOf(b, a).Associations, func(x Association) bool { return x.Key == old })
	}
	s.run(1500 * time.Millisecond)
	if a.state.Transmit.Key == old || !held() {
		t.Error("the dead key has to open frames for a while")
	}
	s.run(time.Second)
	if held() {
		t.Error("the dead key opens frames for ever")
	}
}

func TestLossOfMessages(t *testing.T) {
	for seed := range uint64(40) {
		s := newSegment(t)
		s.rng, s.loss = rand.New(rand.NewPCG(seed, 0)), 0.4
		var devices []*device
		for n := range 3 {
			devices = append(devices, s.add(n+1, config(n+1)))
		}
		s.run(30 * time.Second)
		s.wantAll()
		for range 5 {
			devices[seed%3].Used(s.now, 1<<31)
			s.run(40 * time.Second)
			s.wantAll()
		}
		if s.gaps != 0 {
			t.Errorf("seed %d: expected every frame opened, %d were not", seed, s.gaps)
		}
	}
}

// Who was turned away has no key that is in use, and opens no door: of the others,
// none takes in what is sent by a key that it knew.
func TestWhoIsTurnedAwayReadsNothing(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprintf("the others answer: %t", answers), func(t *testing.T) {
			s := newSegment(t)
			a, b, c := s.add(1, config(1)), s.add(2, config(2)), s.add(3, config(3))
			s.run(time.Minute)
			known := []Key{a.state.Transmit.Key, b.state.Transmit.Key, c.state.Transmit.Key}
			if !answers {
				s.apart = func(from, _ int) bool { return from == 2 } // b is a member, but says nothing
			}
			s.part(a, c)
			s.part(b, c)
			s.run(100 * time.Millisecond)
			if answers && (slices.Contains(known, a.state.Transmit.Key) || slices.Contains(known, b.state.Transmit.Key)) {
				t.Error("with everybody there, new keys take no time")
			}
			s.run(2 * time.Second)
			if slices.Contains(known, a.state.Transmit.Key) || slices.Contains(known, b.state.Transmit.Key) {
				t.Error("after two seconds a known key is sent by")
			}
			if opens(c, a) || opens(c, b) {
				t.Error("who was turned away opens what the others send")
			}
			s.apart = nil
			s.run(10 * time.Second)
			for _, d := range []*device{a, b} {
				for _, ch := range d.state.Receive {
					for _, as := range ch.Associations {
						if slices.Contains(known, as.Key) {
							t.Errorf("device %d takes in what is sent by a key of before: %s", d.n, describe(d.state))
						}
					}
				}
			}
			if !opens(a, b) || !opens(b, a) {
				t.Error("the two that are left don't hear each other")
			}
		})
	}
}

// A further member is lost while the next key is being handed out: that one is
// never sent by.
func TestTwoAreTurnedAwayOneAfterTheOther(t *testing.T) {
	s := newSegment(t)
	a := s.add(1, config(1))
	b, c, d := s.add(2, config(2)), s.add(3, config(3)), s.add(4, config(4))
	s.run(time.Minute)
	s.apart = func(from, to int) bool { return from == 2 } // so that it takes its two seconds
	s.part(a, d)
	s.run(time.Second)
	next := a.next.key
	if !slices.ContainsFunc(channelOf(c, a).Associations, func(x Association) bool { return x.Key == next }) {
		t.Fatal("the next key was not handed out")
	}
	s.part(a, c)
	s.run(1500 * time.Millisecond)
	if k := a.state.Transmit.Key; k == next || opens(c, a) || opens(d, a) {
		t.Error("a key is sent by that one has who was turned away meanwhile")
	}
	s.run(time.Second)
	if !opens(b, a) {
		t.Error("the one that is left does not hear it")
	}
}

func TestRestart(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1, config(1)), s.add(2, config(2))
	s.run(time.Minute)
	a.Used(s.now, 1<<31)
	s.run(time.Minute) // its number is not the first one any more
	for range 3 {
		old := a.state.Transmit.Key
		a = s.restart(a, config(1))
		s.run(10 * time.Second)
		if a.state.Transmit.Key == old {
			t.Error("a new process sends by the key of before")
		}
		s.wantAll()
		if n := len(channelOf(b, a).Associations); n != 1 {
			t.Errorf("keys that the other has: expected one, got %d", n)
		}
	}
	// After a start of the machine the interface has another address.
	c := config(1)
	c.MAC[0] ^= 4
	s.restart(a, c)
	s.run(10 * time.Second)
	s.wantAll()
	if n := len(b.state.Receive); n != 1 {
		t.Errorf("channels that the other has: expected one, got %d", n)
	}
	if b.count(Secured) != 1 {
		t.Errorf("a restart is no news: %+v", b.events)
	}
}

// A session may be renewed without a restart: nothing changes.
func TestNewSessionOfTheSameRun(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1, config(1)), s.add(2, config(2))
	s.run(time.Minute)
	a.Used(s.now, 77)
	before := b.state
	s.join(a, b)
	s.tellMembers()
	s.run(10 * time.Second)
	s.wantAll()
	if s.gaps != 0 || describe(b.state) != describe(before) || b.state.Receive[0].Associations[0] != before.Receive[0].Associations[0] {
		t.Errorf("expected all as it was, packet numbers too: %+v, was %+v", b.state, before)
	}
}

// Who comes later does not take what was sent before: somebody may have recorded
// it.
func TestLateMemberBeginsWhereTheOthersAre(t *testing.T) {
	s := newSegment(t)
	a := s.add(1, config(1))
	s.run(time.Minute)
	a.Used(s.now, 1000)
	b := s.add(2, config(2))
	s.run(time.Second)
	if pn := channelOf(b, a).Associations[0].PN; pn != 1000 {
		t.Errorf("lowest packet number: expected 1000, got %d", pn)
	}
}

func TestWithoutMACsec(t *testing.T) {
	s := newSegment(t)
	a, b, c := s.add(1, config(1)), s.add(2, config(2)), s.add(3, Config{MAC: secure2(3)})
	s.run(time.Second)
	clear := func(d *device) (n []int) {
		for _, m := range d.Clear() {
			n = append(n, int(m.MAC[5]))
		}
		return n
	}
	for _, x := range []struct {
		d    *device
		want []int
	}{{a, []int{3}}, {b, []int{3}}, {c, []int{1, 2}}} {
		if got := clear(x.d); !slices.Equal(got, x.want) || x.d.count(Clear) != len(x.want) {
			t.Errorf("device %d: expected %v in the clear, each told once, got %v, %+v", x.d.n, x.want, got, x.d.events)
		}
	}
	if !opens(a, b) || !opens(b, a) || len(c.Secured()) != 0 {
		t.Error("the two that have MACsec don't use it")
	}
	a.Used(s.now, 1<<31) // who has none does not hold up the others
	s.run(time.Second)
	if a.state.Transmit.AN != 1 || s.gaps != 0 {
		t.Errorf("expected a new key at once, got %s, %d gaps", describe(a.state), s.gaps)
	}
	s.run(time.Hour)
	if next := c.Next(); next.Before(s.now.Add(time.Hour)) {
		t.Errorf("who has nothing to do has something due at %s", next)
	}
	// It gets a kernel that has MACsec.
	s.restart(c, config(3))
	s.run(10 * time.Second)
	s.wantAll()
	if len(a.Clear()) != 0 {
		t.Errorf("still in the clear: %v", clear(a))
	}
}

// Somebody between who lets nothing of the agreement pass gets nobody to speak in
// the clear.
func TestSilenceIsNoAnswer(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1, config(1)), s.add(2, config(2))
	s.apart = func(from, to int) bool { return true }
	s.run(time.Hour)
	for _, d := range []*device{a, b} {
		if len(d.Clear())+len(d.Secured()) != 0 || len(d.Silent()) != 1 {
			t.Errorf("device %d: expected it to wait, got %v in the clear, %v", d.n, d.Clear(), d.Secured())
		}
	}
	s.apart = nil
	s.run(10 * time.Second)
	s.wantAll()
}

func TestHostileMembers(t *testing.T) {
	good := offer{suite: suiteGCMAES128, serial: 1, using: 1, pn: 1, sci: NewSCI(secure2(3)), key: Key{1}}
	multicast, other := good, good
	multicast.sci[0] |= 1
	other.sci[7] = 2
	with := func(f func(*offer)) proof.Message {
		o := good
		f(&o)
		return o.marshal()
	}
	raw := func(at int, v byte) proof.Message {
		m := good.marshal()
		m[at] = v
		return m
	}
	for _, test := range []struct {
		name    string
		message proof.Message
		err     error // nil: any
	}{
		{"another version", raw(0, 2), nil},
		{"an unknown kind", raw(1, 9), nil},
		{"an unknown cipher", raw(atSuite, 7), nil},
		{"no such number", with(func(o *offer) { o.an = 4 }), nil},
		{"no serial", with(func(o *offer) { o.serial, o.using = 0, 0 }), nil},
		{"dead before it begins", with(func(o *offer) { o.using = 2 }), nil},
		{"no packet number", with(func(o *offer) { o.pn = 0 }), nil},
		{"no key", with(func(o *offer) { o.key = Key{} }), nil},
		{"a group's address", multicast.marshal(), ErrAddress},
		{"no address", with(func(o *offer) { o.sci = NewSCI(proof.MAC{}) }), ErrAddress},
		{"another port number", other.marshal(), ErrAddress},
		{"our channel", with(func(o *offer) { o.sci = NewSCI(secure2(1)) }), ErrTaken},
		{"another member's channel", with(func(o *offer) { o.sci = NewSCI(secure2(2)) }), ErrTaken},
		{"another member's port", with(func(o *offer) { o.sci = NewSCI(address(2)) }), ErrTaken},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSegment(t)
			a, b := s.add(1, config(1)), s.add(2, config(2))
			s.run(time.Second)
			a.session[3] = 99
			s.tellMembers()
			s.run(time.Second)
			before := describe(a.state)
			for range 3 {
				a.Handle(s.now, proof.Heard{From: address(3), Peer: testKey(3), Session: 99, Message: test.message})
				s.run(time.Second)
			}
			last := a.events[len(a.events)-1]
			if a.count(Refused) != 1 || last.Kind != Refused || last.Member.Peer != testKey(3) || test.err != nil && !errors.Is(last.Err, test.err) {
				t.Errorf("expected it refused, told once, %v; got %+v", test.err, a.events)
			}
			if describe(a.state) != before || len(a.Silent()) != 1 || !opens(a, b) {
				t.Errorf("expected nothing to change, got %s, was %s", describe(a.state), before)
			}
			a.Handle(s.now, proof.Heard{From: address(3), Peer: testKey(3), Session: 99, Message: good.marshal()})
			if len(a.Silent()) != 0 {
				t.Error("what is right after all is not taken")
			}
		})
	}
}

func TestWordsOfOthersAndOfBefore(t *testing.T) {
	s := newSegment(t)
	a, b := s.add(1, config(1)), s.add(2, config(2))
	s.run(time.Second)
	before := describe(a.state)
	o := offer{suite: suiteGCMAES128, an: 2, serial: 9, using: 9, pn: 1, sci: b.sci, key: Key{1}}
	session := a.session[2]
	for _, h := range []proof.Heard{
		{From: address(2), Peer: testKey(2), Session: session - 1}, // of a session that has ended
		{From: address(2), Peer: testKey(3), Session: session},
		{From: address(3), Peer: testKey(2), Session: session},
	} {
		h.Message = o.marshal()
		a.Handle(s.now, h)
	}
	s.run(10 * time.Second)
	if describe(a.state) != before {
		t.Errorf("expected nothing to change, got %s, was %s", describe(a.state), before)
	}
	// An acknowledgement of what was never offered counts for nothing.
	a.Used(s.now, 1<<31)
	a.Handle(s.now, proof.Heard{From: address(2), Peer: testKey(2), Session: session, Message: taken{77, 77}.marshal()})
	if a.ready() {
		t.Error("an acknowledgement of another key counts")
	}
}

// Another device at the same address is another member.
func TestReplacedMember(t *testing.T) {
	s := newSegment(t)
	a, _ := s.add(1, config(1)), s.add(2, config(2))
	s.run(time.Minute)
	was := a.state.Transmit.Key
	a.Members(s.now, []proof.Member{{MAC: address(2), Peer: testKey(7), Session: 50}})
	s.run(3 * time.Second)
	if a.state.Transmit.Key == was || len(a.state.Receive) != 0 {
		t.Errorf("expected the keys of the one before gone, ours replaced: %s", describe(a.state))
	}
}

func TestBounds(t *testing.T) {
	s := newSegment(t)
	a := s.add(1, config(1))
	a.session[2] = 5
	s.tellMembers()
	for i := range 1000 {
		o := offer{suite: suiteGCMAES128, an: uint8(i % 4), serial: uint32(i + 1), using: uint32(i / 2), pn: 1, sci: NewSCI(secure2(2)), key: Key{byte(i), byte(i >> 8), 1}}
		a.Handle(s.now, proof.Heard{From: address(2), Peer: testKey(2), Session: 5, Message: o.marshal()})
		a.Handle(s.now, proof.Heard{From: address(2), Peer: testKey(2), Session: 5, Message: taken{uint32(i), uint32(i)}.marshal()})
		p := a.peers[address(2)]
		if len(p.keys) > numbers || len(p.owed) > numbers || len(p.taken) > 2 {
			t.Fatalf("after %d: %d keys, %d acknowledgements owed, %d taken", i, len(p.keys), len(p.owed), len(p.taken))
		}
	}
}

// The wire format is fixed: nodes of different versions share a cable.
func TestFormat(t *testing.T) {
	o := offer{suite: suiteGCMAES128, an: 3, serial: 0x01020304, using: 0x01020303, pn: 0x0a0b0c0d, sci: NewSCI(secure2(5)), key: Key(bytes.Repeat([]byte{0xee}, 16))}
	for _, test := range []struct {
		name string
		got  proof.Message
		want string
	}{
		{"offer", o.marshal(), "01010103" + "01020304" + "01020303" + "0a0b0c0d" + "0201000000050001" + "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee" + "0000000000000000"},
		{"none", offer{serial: 1, using: 1}.marshal(), "01010000" + "00000001" + "00000001" + "00000000" + "0000000000000000" + "00000000000000000000000000000000" + "0000000000000000"},
		{"taken", taken{2, 1}.marshal(), "01020000" + "00000002" + "00000001" + "00000000" + "0000000000000000" + "00000000000000000000000000000000" + "0000000000000000"},
	} {
		if got := hex.EncodeToString(test.got[:]); got != test.want {
			t.Errorf("%s: expected %s, got %s", test.name, test.want, got)
		}
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(form, o.key); got != "(key)" {
			t.Errorf("a key printed with %s: expected (key), got %s", form, got)
		}
	}
	if got := fmt.Sprintf("%+v", State{Transmit: Association{Key: o.key}}); bytes.Contains([]byte(got), []byte("238")) {
		t.Errorf("a state prints its key: %s", got)
	}
}
