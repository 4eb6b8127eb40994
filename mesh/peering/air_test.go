package peering

import (
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/mesh/fakeair"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// station is an engine on the fake air that keeps its events.
type station struct {
	*Engine
	mac    dot11.MAC
	events []Event
}

func (s *station) Drain() []dot11.Frame {
	frames, events := s.Take()
	s.events = append(s.events, events...)
	return frames
}

func (s *station) last(k EventKind) *Event {
	for i := len(s.events) - 1; i >= 0; i-- {
		if s.events[i].Kind == k {
			return &s.events[i]
		}
	}
	return nil
}

func (s *station) count(k EventKind) (n int) {
	for _, ev := range s.events {
		if ev.Kind == k {
			n++
		}
	}
	return n
}

func address(n int) dot11.MAC { return dot11.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func testConfig(n int) Config {
	return Config{
		Own: address(n), MeshID: []byte("ETHRX0001-8A"), Rates: []byte{0x82, 0x84, 0x8b, 0x96},
		Group: GroupKeys{MGTK: Key{1, byte(n)}, IGTK: Key{2, byte(n)}}, Rand: rand.NewChaCha8([32]byte{byte(n), 9}),
	}
}

func join(t testing.TB, a *fakeair.Air, n int, change func(*Config)) *station {
	t.Helper()
	c := testConfig(n)
	if change != nil {
		change(&c)
	}
	e, err := New(c, a.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := &station{Engine: e, mac: c.Own}
	a.Join(c.Own, s)
	return s
}

// share gives both a PMKSA.
func share(t testing.TB, air *fakeair.Air, a, b *station, n byte) sae.PMKID {
	t.Helper()
	id := sae.PMKID{n}
	for _, x := range [][2]*station{{a, b}, {b, a}} {
		if err := x[0].Offer(air.Now, x[1].mac, 7, id, sae.PMK{n}); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func connect(t testing.TB, air *fakeair.Air, a, b *station) {
	t.Helper()
	if err := a.Connect(air.Now, b.mac); err != nil {
		t.Fatal(err)
	}
	air.Kick()
}

func linked(a, b *station) bool { return a.State(b.mac) == Estab && b.State(a.mac) == Estab }

// agree checks that both encrypt the link alike.
func agree(t testing.TB, a, b *station) {
	t.Helper()
	if !linked(a, b) {
		t.Fatalf("expected a link, got %v and %v", a.State(b.mac), b.State(a.mac))
	}
	x, y := a.last(Established), b.last(Established)
	if x.Keys.MTK != y.Keys.MTK || x.Keys.MTK == (Key{}) {
		t.Fatal("the sides have different MTKs")
	}
	if x.Keys.Peer.MGTK != b.c.Group.MGTK || y.Keys.Peer.MGTK != a.c.Group.MGTK || x.Keys.Protected && x.Keys.Peer.IGTK != b.c.Group.IGTK {
		t.Fatal("group keys did not come through")
	}
}

func variants(t *testing.T, f func(t *testing.T, change func(*Config))) {
	for name, change := range map[string]func(*Config){
		"wifi":  nil,
		"morse": func(c *Config) { c.Morse, c.Timing = true, HaLow },
		"open":  func(c *Config) { c.MFP = MFPOptional },
	} {
		t.Run(name, func(t *testing.T) { f(t, change) })
	}
}

func TestOneConnects(t *testing.T) {
	variants(t, func(t *testing.T, change func(*Config)) {
		air := fakeair.New(1)
		a, b := join(t, air, 1, change), join(t, air, 2, change)
		share(t, air, a, b, 1)
		connect(t, air, a, b)
		if !air.Until(30*time.Millisecond, func() bool { return linked(a, b) }) {
			t.Fatalf("no link: %+v %+v", a.events, b.events)
		}
		agree(t, a, b)
		air.Run(20 * time.Second)
		if air.Sent != 4 {
			t.Errorf("expected 4 frames, got %d", air.Sent)
		}
		if ev := a.last(Established); ev.AID != 7 || !ev.Keys.Protected {
			t.Errorf("%+v", ev)
		}
		states := []State{}
		for _, ev := range a.events {
			if ev.Kind == Changed {
				states = append(states, ev.To)
			}
		}
		if len(states) != 3 || states[0] != OpnSnt || states[1] != OpnRcvd && states[1] != CnfRcvd || states[2] != Estab {
			t.Errorf("states %v", states)
		}
	})
}

func TestBothConnect(t *testing.T) {
	variants(t, func(t *testing.T, change func(*Config)) {
		air := fakeair.New(1)
		a, b := join(t, air, 1, change), join(t, air, 2, change)
		share(t, air, a, b, 1)
		if a.Connect(air.Now, b.mac) != nil || b.Connect(air.Now, a.mac) != nil {
			t.Fatal("no attempt")
		}
		air.Kick()
		if !air.Until(30*time.Millisecond, func() bool { return linked(a, b) }) {
			t.Fatalf("no link: %+v %+v", a.events, b.events)
		}
		agree(t, a, b)
	})
}

// TestBadAir runs many seeds over an air that loses three frames of ten,
// doubles and reorders.
func TestBadAir(t *testing.T) {
	variants(t, func(t *testing.T, change func(*Config)) {
		var worst, sum time.Duration
		const seeds = 200
		for seed := range uint64(seeds) {
			air := fakeair.New(seed)
			air.Loss, air.Duplicate, air.Jitter = 0.3, 0.2, 20*time.Millisecond
			a, b := join(t, air, 1, change), join(t, air, 2, change)
			share(t, air, a, b, 1)
			since := air.Now
			connect(t, air, a, b)
			if seed%2 == 0 {
				connect(t, air, b, a)
			}
			if !air.Until(60*time.Second, func() bool { return linked(a, b) }) {
				t.Fatalf("seed %d: no link: %v %v %+v", seed, a.State(b.mac), b.State(a.mac), a.events)
			}
			took := air.Now.Sub(since)
			worst, sum = max(worst, took), sum+took
			air.Loss = 0
			air.Run(30 * time.Second)
			agree(t, a, b)
		}
		t.Logf("30 %% loss: mean %v, worst %v of %d", sum/seeds, worst, seeds)
	})
}

func TestCloseEndsTheLinkOfBoth(t *testing.T) {
	air := fakeair.New(1)
	a, b := join(t, air, 1, nil), join(t, air, 2, nil)
	share(t, air, a, b, 1)
	connect(t, air, a, b)
	air.Run(time.Second)
	a.Disconnect(air.Now, b.mac, dot11.MeshPeeringCancelled)
	air.Kick()
	air.Run(time.Second)
	if a.State(b.mac) != Listen || b.State(a.mac) != Listen {
		t.Fatalf("expected no link, got %v and %v", a.State(b.mac), b.State(a.mac))
	}
	if ev := b.last(Closed); ev == nil || !ev.ByPeer || ev.Reason != dot11.MeshPeeringCancelled {
		t.Errorf("%+v", ev)
	}
	connect(t, air, b, a)
	air.Run(time.Second)
	agree(t, a, b)
}

// TestRestart has one side lose all it knows, the other keep its link: with a
// new PMKSA, as SAE gives, and with the old one.
func TestRestart(t *testing.T) {
	for _, id := range []byte{1, 2} {
		for seed := range uint64(50) {
			air := fakeair.New(seed)
			a, b := join(t, air, 1, nil), join(t, air, 2, nil)
			share(t, air, a, b, 1)
			connect(t, air, a, b)
			air.Run(time.Second)
			agree(t, a, b)
			old := b.last(Established).Keys.MTK
			a = join(t, air, 1, func(c *Config) { c.Rand = rand.NewChaCha8([32]byte{byte(seed), 77}) })
			share(t, air, a, b, id)
			air.Loss = 0.3
			connect(t, air, a, b)
			if !air.Until(time.Minute, func() bool { return linked(a, b) && b.count(Established) > 1 }) {
				t.Fatalf("seed %d: no link anew: %v %v %+v", seed, a.State(b.mac), b.State(a.mac), b.events)
			}
			air.Loss = 0
			air.Run(20 * time.Second)
			agree(t, a, b)
			if ev := b.last(Established); ev.Keys.MTK == old || b.count(Closed) == 0 && !ev.Again {
				t.Errorf("seed %d: expected the link to be replaced, got %+v", seed, ev)
			}
		}
	}
}

func TestEnoughPeers(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, func(c *Config) { c.MaxPeers = 2 })
	for n := 2; n <= 4; n++ {
		b := join(t, air, n, nil)
		share(t, air, a, b, byte(n))
		connect(t, air, b, a)
		air.Run(500 * time.Millisecond)
		if (n < 4) != linked(a, b) {
			t.Errorf("peer %d: %v", n, b.State(a.mac))
		}
		if n == 4 {
			if ev := b.last(Failed); ev == nil || !ev.ByPeer || ev.Reason != dot11.MeshMaxPeers || ev.Retry == 0 {
				t.Errorf("expected to be told that there are enough peers, got %+v", ev)
			}
		}
	}
}

func TestSilentPeerIsTriedAgain(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	if err := a.Offer(air.Now, address(2), 1, sae.PMKID{1}, sae.PMK{1}); err != nil {
		t.Fatal(err)
	}
	if err := a.Connect(air.Now, address(2)); err != nil {
		t.Fatal(err)
	}
	air.Run(2 * time.Minute)
	if ev := a.last(Failed); ev == nil || ev.Reason != dot11.MeshMaxRetries || ev.Retry != 10*time.Second {
		t.Fatalf("%+v", ev)
	}
	b := join(t, air, 2, nil)
	if err := b.Offer(air.Now, a.mac, 1, sae.PMKID{1}, sae.PMK{1}); err != nil {
		t.Fatal(err)
	}
	if !air.Until(12*time.Second, func() bool { return linked(a, b) }) {
		t.Fatal("not found after it came")
	}
}

func TestDisagreementsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		reason dot11.Reason
	}{
		"mesh ID":   {func(c *Config) { c.MeshID = []byte("other") }, dot11.MeshInconsistentParameters},
		"MFP":       {func(c *Config) { c.MFP = MFPOff }, dot11.MeshInvalidSecurityCapacity},
		"all agree": {func(c *Config) { c.MFP = MFPOptional }, 0},
	} {
		air := fakeair.New(1)
		a, b := join(t, air, 1, nil), join(t, air, 2, c.change)
		share(t, air, a, b, 1)
		connect(t, air, b, a)
		air.Run(3 * time.Second)
		if c.reason == 0 {
			agree(t, a, b)
			continue
		}
		if linked(a, b) || a.State(b.mac) == Estab || b.State(a.mac) == Estab {
			t.Errorf("%s: linked", name)
		}
		if ev := b.last(Failed); ev == nil || ev.Reason != c.reason {
			t.Errorf("%s: expected %v, got %+v", name, c.reason, ev)
		}
	}
}

// TestProtectionOfManagementFrames has every policy meet every other.
func TestProtectionOfManagementFrames(t *testing.T) {
	policies := map[string]MFP{"required": MFPRequired, "optional": MFPOptional, "off": MFPOff}
	for left, l := range policies {
		for right, r := range policies {
			air := fakeair.New(1)
			a := join(t, air, 1, func(c *Config) { c.MFP = l })
			b := join(t, air, 2, func(c *Config) { c.MFP = r })
			share(t, air, a, b, 1)
			connect(t, air, a, b)
			air.Run(3 * time.Second)
			refused := l != r && (l == MFPRequired && r == MFPOff || l == MFPOff && r == MFPRequired)
			if linked(a, b) == refused {
				t.Errorf("%s and %s: %v %v", left, right, a.State(b.mac), b.State(a.mac))
			}
			if refused {
				continue
			}
			protected := l != MFPOff && r != MFPOff
			for _, s := range []*station{a, b} {
				if k := s.last(Established).Keys; k.Protected != protected || k.Peer.HasIGTK != protected || (k.Peer.IGTK != Key{}) != protected {
					t.Errorf("%s and %s: protected %v, IGTK %v", left, right, k.Protected, k.Peer.HasIGTK)
				}
			}
		}
	}
}

// TestALinkThatIsHeardStands has all questions and answers lost while frames come
// under the link's keys: it stands for long, but not for ever. Without them it ends as
// soon as the questions are used up.
func TestALinkThatIsHeardStands(t *testing.T) {
	const check, patience = 30 * time.Second, 4
	for name, tc := range map[string]struct {
		heard  bool
		waits  int           // patience
		stands time.Duration // at least, from when nothing comes any more
		ends   time.Duration // at the latest
	}{
		"nothing is heard":                       {false, patience, check, 3 * check},
		"its frames are heard":                   {true, patience, (2*patience - 1) * check, (2*patience + 3) * check},
		"its frames are heard, without patience": {true, 0, check, 3 * check},
	} {
		t.Run(name, func(t *testing.T) {
			air := fakeair.New(1)
			patient := func(c *Config) { c.Timing = Wifi; c.Timing.Patience = tc.waits }
			a, b := join(t, air, 1, patient), join(t, air, 2, patient)
			share(t, air, a, b, 1)
			connect(t, air, a, b)
			if !air.Until(time.Second, func() bool { return linked(a, b) }) {
				t.Fatal("no link")
			}
			air.Loss = 1
			began := air.Now
			for linked(a, b) && air.Now.Sub(began) < time.Hour {
				if tc.heard {
					a.Heard(air.Now, b.mac)
					b.Heard(air.Now, a.mac)
				}
				air.Run(2 * time.Second)
			}
			if took := air.Now.Sub(began); took < tc.stands || took > tc.ends {
				t.Errorf("the link ended after %s, expected %s to %s", took, tc.stands, tc.ends)
			}
		})
	}
}

// TestALinkThatIsHeardIsSeldomAskedFor: a question and its answer cost a HaLow channel
// of 1 MHz a hundredth of its time, in a mesh of ten.
func TestALinkThatIsHeardIsSeldomAskedFor(t *testing.T) {
	air := fakeair.New(1)
	halow := func(c *Config) { c.Timing = HaLow }
	a, b := join(t, air, 1, halow), join(t, air, 2, halow)
	share(t, air, a, b, 1)
	connect(t, air, a, b)
	air.Run(5 * time.Second)
	made := air.Sent
	for range 30 * 60 / 2 {
		a.Heard(air.Now, b.mac)
		b.Heard(air.Now, a.mac)
		air.Run(2 * time.Second)
	}
	most := int(2 * 30 * time.Minute / (time.Duration(HaLow.Patience) * HaLow.Check))
	if n := air.Sent - made; !linked(a, b) || n == 0 || n > most {
		t.Errorf("%d frames in half an hour, expected 1 to %d", n, most)
	}
	// Whoever begins anew is not heard by the keys that it had.
	a.Forget(b.mac)
	air.Run(3 * HaLow.Check)
	if b.State(a.mac) == Estab {
		t.Error("the peer's life before is not over")
	}
}
