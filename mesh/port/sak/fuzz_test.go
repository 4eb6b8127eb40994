package sak

import (
	"testing"
	"time"

	"halo.internal/mesh/port/proof"
)

func FuzzParse(f *testing.F) {
	for _, m := range []proof.Message{
		offer{suite: suiteGCMAES128, an: 1, serial: 2, using: 1, pn: 3, sci: NewSCI(secure2(2)), key: Key{4}}.marshal(),
		offer{serial: 1, using: 1}.marshal(),
		taken{2, 1}.marshal(),
	} {
		f.Add(m[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m proof.Message
		copy(m[:], b)
		x, err := parse(m)
		if err != nil {
			return
		}
		var again any
		switch x := x.(type) {
		case offer:
			again, err = parse(x.marshal())
		case taken:
			again, err = parse(x.marshal())
		}
		if err != nil || again != x {
			t.Errorf("%+v is read as %+v, %v", x, again, err)
		}
	})
}

// FuzzHandle has a member say anything, several times. Nobody else's keys change,
// and this device goes on.
func FuzzHandle(f *testing.F) {
	m := offer{suite: suiteGCMAES128, an: 1, serial: 2, using: 1, pn: 3, sci: NewSCI(secure2(3)), key: Key{4}}.marshal()
	none := offer{serial: 1, using: 1}.marshal()
	f.Add(m[:], none[:])
	f.Fuzz(func(t *testing.T, one, two []byte) {
		s := newSegment(t)
		a := s.add(1, config(1))
		s.add(2, config(2))
		s.run(time.Second)
		a.session[3] = 99
		s.tellMembers()
		for range 2 {
			for _, text := range [][]byte{one, two} {
				var m proof.Message
				copy(m[:], text)
				a.Handle(s.now, proof.Heard{From: address(3), Peer: testKey(3), Session: 99, Message: m})
				s.run(3 * time.Second)
			}
		}
		delete(a.session, 3)
		s.tellMembers()
		s.run(10 * time.Second)
		s.wantAll()
		if len(a.state.Receive) != 1 {
			t.Errorf("after it has left: %s", describe(a.state))
		}
	})
}
