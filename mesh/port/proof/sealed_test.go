package proof

import (
	"bytes"
	"testing"
	"time"
)

// say has one device say something to another, and returns the frames.
func say(t *testing.T, s *segment, from, to *device, text string) []Frame {
	t.Helper()
	var m Message
	copy(m[:], text)
	if !from.Say(to.mac, m) {
		t.Fatalf("%s is no member to %s", to.mac, from.mac)
	}
	frames, _ := from.Take()
	return frames
}

func heard(d *device) (texts []string) {
	for _, h := range d.Heard() {
		texts = append(texts, string(bytes.TrimRight(h.Message[:], "\x00")))
	}
	return texts
}

func TestMembersSayThings(t *testing.T) {
	s := newSegment()
	a, b, c := s.add(s.config(1)), s.add(s.config(2)), s.add(s.config(3))
	s.run(time.Second)
	f := say(t, s, a, b, "one")
	for _, d := range []*device{b, c} {
		d.Handle(s.now, a.mac, f[0].To, f[0].Payload)
	}
	got := b.Heard()
	if len(got) != 1 || got[0].From != a.mac || got[0].Peer != testKey(1).Public() || got[0].Session != b.Members()[0].Session || string(got[0].Message[:3]) != "one" {
		t.Errorf("expected to hear one of the member, got %+v", got)
	}
	if n := len(c.Heard()); n != 0 {
		t.Errorf("another member hears it too: %d", n)
	}
	if bytes.Contains(f[0].Payload, []byte("one")) {
		t.Error("what is said is to be read on the wire")
	}
	if a.Say(address(9), Message{}) {
		t.Error("something was said to nobody")
	}
	if len(b.Heard()) != 0 {
		t.Error("it is heard twice")
	}
	s.run(time.Minute) // keep-alives and messages share their numbers
	wantMembers(t, b, 1, 3)
}

func TestHostileMessages(t *testing.T) {
	for _, test := range []struct {
		name string
		play func(s *segment, a, b, c *device, said []Frame)
		want int
	}{
		{"replayed", func(s *segment, a, b, _ *device, said []Frame) {
			for range 3 {
				b.Handle(s.now, a.mac, b.mac, said[0].Payload)
			}
		}, 1},
		{"overtaken", func(s *segment, a, b, _ *device, said []Frame) {
			b.Handle(s.now, a.mac, b.mac, said[1].Payload)
			b.Handle(s.now, a.mac, b.mac, said[0].Payload)
		}, 1},
		{"changed", func(s *segment, a, b, _ *device, said []Frame) {
			for i := range said[0].Payload {
				forged := bytes.Clone(said[0].Payload)
				forged[i] ^= 0x80
				b.Handle(s.now, a.mac, b.mac, forged)
			}
		}, 0},
		{"sent back", func(s *segment, a, b, _ *device, said []Frame) { a.Handle(s.now, b.mac, a.mac, said[0].Payload) }, 0},
		{"from another address", func(s *segment, a, b, c *device, said []Frame) { b.Handle(s.now, c.mac, b.mac, said[0].Payload) }, 0},
		{"to another", func(s *segment, a, b, c *device, said []Frame) { c.Handle(s.now, a.mac, c.mac, said[0].Payload) }, 0},
		{"to all", func(s *segment, a, b, _ *device, said []Frame) { b.Handle(s.now, a.mac, Broadcast, said[0].Payload) }, 0},
		{"of a session before", func(s *segment, a, b, _ *device, said []Frame) {
			s.remove(a)
			again := s.add(s.config(1))
			s.run(3 * time.Second)
			b.Handle(s.now, again.mac, b.mac, said[0].Payload)
		}, 0},
		{"by a number as of a question", func(s *segment, a, b, _ *device, said []Frame) {
			alive := build(kindAlive, a.peers[b.mac].session.alive(true)[header:])
			b.Handle(s.now, a.mac, b.mac, build(kindSealed, alive[header:], make([]byte, MessageSize)))
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSegment()
			a, b, c := s.add(s.config(1)), s.add(s.config(2)), s.add(s.config(3))
			s.run(time.Second)
			said := append(say(t, s, a, b, "one"), say(t, s, a, b, "two")...)
			test.play(s, a, b, c, said)
			n := 0
			for _, d := range []*device{a, b, c} {
				n += len(heard(d))
			}
			if n != test.want {
				t.Errorf("expected %d messages heard, got %d", test.want, n)
			}
			s.run(time.Minute)
			wantMembers(t, b, 1, 3)
		})
	}
}

func TestNewSessionsAreCounted(t *testing.T) {
	s := newSegment()
	a, b := s.add(s.config(1)), s.add(s.config(2))
	s.run(time.Second)
	before, session := a.Sessions(), a.Members()[0].Session
	s.remove(b)
	s.add(s.config(2))
	s.run(3 * time.Second)
	if now := a.Members()[0].Session; a.Sessions() == before || now == session {
		t.Errorf("after a restart of the member: sessions %d, were %d; its session %d, was %d", a.Sessions(), before, now, session)
	}
}
