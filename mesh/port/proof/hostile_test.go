package proof

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"
)

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
