package doctor

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

var (
	alice = netip.MustParseAddr("fd00:2::a")
	bob   = netip.MustParseAddr("fd00:2::b")
)

func TestAnswersAreNeverLongerThanQuestions(t *testing.T) {
	w := newWitness()
	for _, m := range messages() {
		answer, _, ok := w.ask(time.Unix(100, 0), alice, m)
		if question := m.kind == kindEcho || m.kind == kindWatch; ok != question {
			t.Errorf("%+v: answered %v", m, ok)
		}
		if ok && len(answer.append(nil)) > len(m.append(nil)) {
			t.Errorf("%+v is answered by %d octets", m, len(answer.append(nil)))
		}
	}
}

func TestWitnessTellsWhatItHasSeen(t *testing.T) {
	w, now := newWitness(), time.Unix(100, 0)
	key, id := [keySize]byte{1}, uint64(42)
	ask := func(from netip.Addr, key [keySize]byte) (message, bool) {
		t.Helper()
		a, _, ok := w.ask(now, from, message{kind: kindWatch, id: id, key: key})
		return a, ok
	}
	big := message{kind: kindUnicast, id: id, index: 1, size: 1400}.sealed(key)
	w.probe(now, big, groupJoined) // before anybody has told the key
	if a, ok := ask(alice, key); !ok || a.size != 0 || a.seen != [groups]uint8{} {
		t.Errorf("at first: %+v, %v", a, ok)
	}
	w.probe(now, big, groupJoined)
	w.probe(now, message{kind: kindUnicast, id: id, index: 2, size: 1500, mac: big.mac}, groupJoined) // forged
	w.probe(now, big, groupFlood)                                                                     // unicast is no flood
	w.probe(now, message{kind: kindToAll, id: id, index: 2, group: groupJoined}.sealed(key), groupJoined)
	w.probe(now, message{kind: kindToAll, id: id, index: 0, group: groupFlood}.sealed(key), groupFlood)
	w.probe(now, message{kind: kindToAll, id: id, index: 1, group: groupFlood}.sealed(key), groupJoined) // at the wrong socket
	if a, ok := ask(alice, key); !ok || a.size != 1400 || a.seen != [groups]uint8{4, 1} {
		t.Errorf("got %+v, %v", a, ok)
	}
	if _, ok := ask(bob, key); ok {
		t.Error("another peer was told of it")
	}
	if _, ok := ask(alice, [keySize]byte{9}); ok {
		t.Error("the key of a session was changed")
	}
	now = now.Add(2 * sessionLife)
	w.probe(now, message{kind: kindUnicast, id: id, index: 3, size: 1450}.sealed(key), groupJoined)
	if a, _ := ask(alice, key); a.size != 1400 {
		t.Errorf("a probe counts long after its session: %+v", a)
	}
}

func TestAPeerTakesNoMoreThanItsShare(t *testing.T) {
	w, now := newWitness(), time.Unix(100, 0)
	answered := 0
	for i := range 10 * askBurst {
		if _, _, ok := w.ask(now, alice, message{kind: kindWatch, id: uint64(i)}); ok {
			answered++
		}
	}
	if answered != askBurst || len(w.sessions) != maxSessions {
		t.Errorf("got %d answers and %d sessions, want %d and %d", answered, len(w.sessions), askBurst, maxSessions)
	}
	if _, _, ok := w.ask(now, bob, message{kind: kindEcho}); !ok {
		t.Error("another peer had to wait")
	}
	if _, _, ok := w.ask(now.Add(time.Second), alice, message{kind: kindEcho}); !ok {
		t.Error("a second later it was not answered")
	}

	for i := range 2 * maxPeers {
		var a [16]byte
		binary.BigEndian.PutUint64(a[:], uint64(i))
		w.ask(now, netip.AddrFrom16(a), message{kind: kindWatch, id: uint64(1e6 + i)})
	}
	if len(w.peers) > maxPeers || len(w.sessions) > maxPeers*maxSessions {
		t.Errorf("%d peers and %d sessions are kept", len(w.peers), len(w.sessions))
	}
	if _, _, ok := w.ask(now.Add(2*peerLife), netip.MustParseAddr("fd00:2::c"), message{kind: kindWatch, id: 5}); !ok || len(w.peers) > 2 {
		t.Errorf("peers that have gone keep others out: %d", len(w.peers))
	}
}

func TestReplaysCountOnce(t *testing.T) {
	w, now := newWitness(), time.Unix(100, 0)
	key := [keySize]byte{1}
	w.ask(now, alice, message{kind: kindWatch, id: 1, key: key})
	for i := range 3 * maxCopies {
		w.probe(now, message{kind: kindUnicast, id: 1, index: uint16(i), size: uint16(100 + i)}.sealed(key), groupJoined)
	}
	if s := w.sessions[1]; len(s.copies) != maxCopies || s.size != 100+maxCopies-1 {
		t.Errorf("%d probes are remembered, the largest of %d octets", len(s.copies), s.size)
	}
}

func TestAPeersWordIsActedUponAtAPace(t *testing.T) {
	w, now := newWitness(), time.Unix(100, 0)
	deaf := func(from netip.Addr) bool {
		_, deaf, _ := w.ask(now, from, message{kind: kindWatch, id: 1, deaf: true})
		return deaf
	}
	if !deaf(alice) || deaf(alice) {
		t.Error("want it acted upon once")
	}
	now = now.Add(complainPace)
	if !deaf(alice) {
		t.Error("a minute later: want it acted upon again")
	}
}

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		seen [groups]uint8
		want reach
		text string
	}{
		{[groups]uint8{1, 8}, reaches, "yes"}, {[groups]uint8{1, 0}, reachQuiet, "no"},
		{[groups]uint8{0, 2}, reachFiltered, "filtered"}, {[groups]uint8{}, reachNot, "no"},
	} {
		if got := judge(tc.seen); got != tc.want || got.String() != tc.text || got.diagnosis() == "" {
			t.Errorf("%v: got %v", tc.seen, got)
		}
	}
}
