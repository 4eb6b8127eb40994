package proof

import (
	"bytes"
	"testing"
	"time"
)

func FuzzParse(f *testing.F) {
	for k := kindHello; int(k) < len(sizes); k++ {
		f.Add(build(k, make([]byte, sizes[k])))
		f.Add(build(k, make([]byte, sizes[k]-1)))
	}
	f.Add(append(build(kindAlive, make([]byte, aliveSize)), make([]byte, 16)...)) // padded to Ethernet's least
	f.Add([]byte("HALO"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, body, err := parse(b)
		if err != nil {
			return
		}
		if len(body) != sizes[k] || !bytes.HasPrefix(b, build(k, body)) {
			t.Errorf("kind %d: %d octets of body are not those of the frame", k, len(body))
		}
	})
}

// FuzzHandle plays any frame to an engine in the middle of its life. Nobody
// becomes or ceases to be a member by it.
func FuzzHandle(f *testing.F) {
	record := newSegment()
	record.tap = func(_ MAC, fr Frame) { f.Add(fr.Payload, true) }
	record.add(record.config(1))
	record.add(record.config(2))
	record.run(30 * time.Second)
	f.Fuzz(func(t *testing.T, b []byte, broadcast bool) {
		s := newSegment()
		a := s.add(s.config(1))
		s.add(s.config(2))
		s.run(time.Second)
		to := a.mac
		if broadcast {
			to = Broadcast
		}
		for _, from := range []MAC{address(2), address(3), a.mac} {
			a.Handle(s.now, from, to, b)
		}
		s.run(time.Second)
		if len(a.events) != 1 || len(a.Members()) != 1 {
			t.Errorf("expected the one member, got events %+v", a.events)
		}
	})
}
