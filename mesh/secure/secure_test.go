package secure

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/mesh/fakeair"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// station is an engine on the fake air that keeps its links' keys, as a radio
// would.
type station struct {
	*Engine
	mac    dot11.MAC
	events []Event
	mtk    map[dot11.MAC]peering.Key
	closed int
}

func (s *station) Drain() []dot11.Frame {
	frames, events := s.Take()
	for _, ev := range events {
		if p := ev.Peering; p != nil && p.Kind == peering.Established {
			s.mtk[p.Peer] = p.Keys.MTK
		} else if p != nil && p.Kind == peering.Closed {
			delete(s.mtk, p.Peer)
			s.closed++
		}
	}
	s.events = append(s.events, events...)
	return frames
}

func address(n int) dot11.MAC { return dot11.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func join(t testing.TB, a *fakeair.Air, n int, seed byte, change func(*sae.Config, *peering.Config)) *station {
	t.Helper()
	random := rand.NewChaCha8([32]byte{byte(n), seed})
	id := []byte("ETHRX0001-8A")
	group, err := peering.NewGroupKeys(random)
	if err != nil {
		t.Fatal(err)
	}
	sc := sae.Config{Own: address(n), MeshID: id, Password: []byte("mekmitasdigoat-halo"), Rand: random}
	pc := peering.Config{Own: address(n), MeshID: id, Rates: []byte{0x82}, Group: group, Rand: random}
	if change != nil {
		change(&sc, &pc)
	}
	e, err := New(sc, pc, a.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := &station{Engine: e, mac: sc.Own, mtk: map[dot11.MAC]peering.Key{}}
	a.Join(s.mac, s)
	return s
}

func want(t testing.TB, air *fakeair.Air, a, b *station) {
	t.Helper()
	if err := a.Want(air.Now, b.mac); err != nil {
		t.Fatal(err)
	}
	air.Kick()
}

func linked(a, b *station) bool {
	_, x := a.State(b.mac)
	_, y := b.State(a.mac)
	k, ok := a.mtk[b.mac]
	return x == peering.Estab && y == peering.Estab && ok && k == b.mtk[a.mac]
}

func TestFromNothingToALink(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, 1, nil), join(t, air, 2, 1, nil)
	since := air.Now
	want(t, air, a, b)
	want(t, air, b, a)
	if !air.Until(time.Second, func() bool { return linked(a, b) }) {
		t.Fatalf("no link: %+v", a.events)
	}
	t.Logf("%d frames, %v at a millisecond each", air.Sent, air.Now.Sub(since))
	made := air.Sent
	air.Run(time.Hour)
	const checks = int(time.Hour / (30 * time.Second))
	if !linked(a, b) || made > 9 || air.Sent-made > 2*checks {
		t.Errorf("%d frames to a link, then %d, expected an Open and its Confirm each half minute", made, air.Sent-made)
	}
}

// TestRestartsInBadAir restarts one side again and again while three frames of
// ten are lost, none half-open in the end.
func TestRestartsInBadAir(t *testing.T) {
	var worst, sum time.Duration
	n := 0
	for seed := range uint64(20) {
		air := fakeair.New(seed)
		air.Loss, air.Duplicate, air.Jitter = 0.3, 0.1, 10*time.Millisecond
		s := [2]*station{join(t, air, 1, 1, nil), join(t, air, 2, 1, nil)}
		want(t, air, s[0], s[1])
		want(t, air, s[1], s[0])
		for restart := range byte(10) {
			since := air.Now
			if !air.Until(2*time.Minute, func() bool { return linked(s[0], s[1]) }) {
				x, y := s[0].State(s[1].mac)
				v, w := s[1].State(s[0].mac)
				t.Fatalf("seed %d restart %d: no link: %v %v, %v %v", seed, restart, x, y, v, w)
			}
			took := air.Now.Sub(since)
			worst, sum, n = max(worst, took), sum+took, n+1
			air.Run(time.Duration(restart) * 700 * time.Millisecond)
			i := int(restart) % 2
			s[i] = join(t, air, i+1, 10+restart, nil)
			want(t, air, s[i], s[1-i])
		}
	}
	t.Logf("30 %% loss: mean %v, worst %v of %d", sum/time.Duration(n), worst, n)
}

// TestForgedCommitsDoNotShakeTheLink floods a link with Commits under the
// peer's address.
func TestForgedCommitsDoNotShakeTheLink(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, 1, nil), join(t, air, 2, 1, nil)
	var recorded [][]byte
	rogue := join(t, air, 3, 1, func(s *sae.Config, _ *peering.Config) { s.Password = []byte("not it") })
	want(t, air, a, b)
	want(t, air, b, a)
	air.Run(time.Second)
	before := a.mtk[b.mac]
	for n := range byte(50) {
		// The rogue speaks with b's address.
		r := join(t, air, 3, 50+n, func(s *sae.Config, _ *peering.Config) { s.Password = []byte("not it") })
		recorded = nil
		air.Tap = func(_ time.Time, s fakeair.Sent) {
			if s.From == rogue.mac {
				recorded = append(recorded, s.Frame.Bytes)
			}
		}
		want(t, air, r, a)
		air.Tap = nil
		for _, f := range recorded {
			copy(f[10:], b.mac[:])
			copy(f[16:], b.mac[:])
			air.Inject(a.mac, f)
		}
		air.Run(300 * time.Millisecond)
		if !linked(a, b) || a.mtk[b.mac] != before {
			t.Fatalf("after %d forged Commits the link is another", n+1)
		}
	}
	air.Run(time.Minute)
	if !linked(a, b) || a.mtk[b.mac] != before || a.closed+b.closed != 0 {
		t.Error("forged Commits shook the link")
	}
}

// TestAPeerThatBeganAnewAndDoesNotSeekUs may be killed and be back before anybody
// has missed it: the other side finds out, and makes the link anew.
func TestAPeerThatBeganAnewAndDoesNotSeekUs(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, 1, nil), join(t, air, 2, 1, nil)
	want(t, air, a, b)
	air.Run(time.Second)
	if !linked(a, b) {
		t.Fatal("no link")
	}
	b = join(t, air, 2, 9, nil) // and wants nobody
	since := air.Now
	if !air.Until(2*time.Minute, func() bool { return linked(a, b) }) {
		x, y := a.State(b.mac)
		t.Fatalf("no link again: %v %v", x, y)
	}
	t.Logf("linked again after %v", air.Now.Sub(since))
	if a.closed != 1 {
		t.Errorf("the old link was closed %d times", a.closed)
	}
}

// TestUnknownKey has a peer speak under a PMKSA that is not held: once, as a
// forger may, and for good, as one does whose last Confirm was lost.
func TestUnknownKey(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, 1, nil), join(t, air, 2, 1, nil)
	var opens [][]byte
	air.Tap = func(_ time.Time, s fakeair.Sent) {
		if s.From == b.mac && s.Frame.Bytes[0] == byte(dot11.Action)<<4 {
			opens = append(opens, s.Frame.Bytes)
		}
	}
	want(t, air, a, b)
	want(t, air, b, a)
	air.Run(time.Second)
	air.Tap = nil
	id, _ := a.sae.Newest(b.mac)
	i := bytes.Index(opens[0], id[:])
	forged := bytes.Clone(opens[0])
	forged[i]++
	frames := air.Sent
	air.Inject(a.mac, forged)
	air.Run(20 * time.Second)
	if air.Sent != frames || !linked(a, b) {
		t.Errorf("one forged frame made %d others", air.Sent-frames)
	}
	for range 5 {
		air.Inject(a.mac, forged)
		air.Run(400 * time.Millisecond)
	}
	if again, _ := a.sae.Newest(b.mac); again == id || !linked(a, b) || a.closed+b.closed != 0 {
		t.Error("expected an exchange beside the link that stands")
	}
}

func TestACellOfFourteen(t *testing.T) {
	air := fakeair.New(1)
	air.Loss, air.Jitter = 0.1, 5*time.Millisecond
	var all []*station
	for n := 1; n <= 14; n++ {
		all = append(all, join(t, air, n, 1, func(_ *sae.Config, p *peering.Config) { p.MaxPeers = 13 }))
	}
	since := air.Now
	for _, a := range all {
		for _, b := range all {
			if a != b {
				want(t, air, a, b)
			}
		}
	}
	if !air.Until(time.Minute, func() bool {
		for _, a := range all {
			for _, b := range all {
				if a != b && !linked(a, b) {
					return false
				}
			}
		}
		return true
	}) {
		t.Fatal("not all are linked")
	}
	t.Logf("91 links after %v, %d frames", air.Now.Sub(since), air.Sent)
}

func TestCachedKeySavesAnExchange(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, 1, nil), join(t, air, 2, 1, nil)
	want(t, air, a, b)
	air.Run(time.Second)
	if !linked(a, b) {
		t.Fatal("no link")
	}
	a.Drop(air.Now, b.mac, dot11.MeshPeeringCancelled)
	air.Kick()
	air.Run(time.Second)
	if linked(a, b) || a.Links() != 0 {
		t.Fatal("dropped and linked")
	}
	frames := air.Sent
	want(t, air, a, b)
	air.Run(time.Second)
	if !linked(a, b) || air.Sent-frames != 4 {
		t.Errorf("expected a link by 4 frames, got %d", air.Sent-frames)
	}
}

func TestNeighborsAreBounded(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, 1, nil)
	for n := range 3 * maxNeighbors {
		mac := address(100 + n)
		if _, err := a.AID(mac); err != nil {
			t.Fatalf("station %d: %v", n, err)
		}
	}
	if len(a.neighbors) > maxNeighbors {
		t.Errorf("%d neighbors", len(a.neighbors))
	}
	seen := map[uint16]bool{}
	for _, n := range a.neighbors {
		if n.aid == 0 || n.aid > maxAID || seen[n.aid] {
			t.Errorf("association ID %d", n.aid)
		}
		seen[n.aid] = true
	}
}
