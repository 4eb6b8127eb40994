package sae

import (
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/mesh/fakeair"
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

func (s *station) accepted() bool { return s.last(Accepted) != nil }

func address(n int) dot11.MAC { return dot11.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// source is randomness that is the same in each run.
type source struct{ *rand.ChaCha8 }

func seeded(n byte) source { return source{rand.NewChaCha8([32]byte{n, 7})} }

func join(t testing.TB, a *fakeair.Air, n int, change func(*Config)) *station {
	t.Helper()
	c := Config{Own: address(n), MeshID: []byte("ETHRX0001-8A"), Password: []byte("mekmitasdigoat-halo"), Rand: seeded(byte(n))}
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

func begin(t testing.TB, a *fakeair.Air, s, peer *station) {
	t.Helper()
	if err := s.Start(a.Now, peer.mac); err != nil {
		t.Fatal(err)
	}
	a.Kick()
}

// agree checks that both hold the same newest key.
func agree(t testing.TB, a, b *station) {
	t.Helper()
	idA, okA := a.Newest(b.mac)
	idB, okB := b.Newest(a.mac)
	if !okA || !okB || idA != idB {
		t.Fatalf("expected one PMKSA of both, got %v %v and %v %v", idA, okA, idB, okB)
	}
	x, _ := a.PMK(b.mac, idA)
	y, _ := b.PMK(a.mac, idB)
	if x != y || x == (PMK{}) {
		t.Fatal("the sides hold different keys")
	}
}

func methods(t *testing.T, f func(t *testing.T, m func(*Config))) {
	for _, m := range []Method{HashToElement, HuntingAndPecking} {
		t.Run(m.String(), func(t *testing.T) { f(t, func(c *Config) { c.Method = m }) })
	}
}

func TestOneStarts(t *testing.T) {
	methods(t, func(t *testing.T, m func(*Config)) {
		air := fakeair.New(1)
		a, b := join(t, air, 1, m), join(t, air, 2, m)
		begin(t, air, a, b)
		if !air.Until(100*time.Millisecond, func() bool { return a.accepted() && b.accepted() }) {
			t.Fatalf("no acceptance: %+v %+v", a.events, b.events)
		}
		agree(t, a, b)
		if air.Sent != 4 {
			t.Errorf("expected 4 frames, got %d", air.Sent)
		}
		if !a.last(Accepted).Active || b.last(Accepted).Active {
			t.Error("expected the side that began to be the active one")
		}
		air.Run(time.Minute)
		if air.Sent != 4 {
			t.Errorf("expected silence afterwards, got %d frames", air.Sent)
		}
	})
}

func TestSimultaneousStart(t *testing.T) {
	methods(t, func(t *testing.T, m func(*Config)) {
		air := fakeair.New(1)
		a, b := join(t, air, 1, m), join(t, air, 2, m)
		if err := a.Start(air.Now, b.mac); err != nil {
			t.Fatal(err)
		}
		if err := b.Start(air.Now, a.mac); err != nil {
			t.Fatal(err)
		}
		air.Kick()
		if !air.Until(100*time.Millisecond, func() bool { return a.accepted() && b.accepted() }) {
			t.Fatalf("no acceptance: %+v %+v", a.events, b.events)
		}
		agree(t, a, b)
		if air.Sent != 4 {
			t.Errorf("expected 4 frames, got %d", air.Sent)
		}
	})
}

// TestBadAir runs many seeds over an air that loses three frames of ten,
// doubles and reorders.
func TestBadAir(t *testing.T) {
	var worst, sum time.Duration
	const seeds = 200
	for seed := range uint64(seeds) {
		air := fakeair.New(seed)
		air.Loss, air.Duplicate, air.Jitter = 0.3, 0.2, 20*time.Millisecond
		a, b := join(t, air, 1, nil), join(t, air, 2, nil)
		since := air.Now
		begin(t, air, a, b)
		if seed%2 == 0 {
			begin(t, air, b, a)
		}
		both := func() bool { return a.accepted() && b.accepted() }
		for try := 0; !air.Until(6*time.Second, both); try++ {
			if try == 10 {
				t.Fatalf("seed %d: no acceptance: %+v %+v", seed, a.events, b.events)
			}
			// A peer that answers a stranger gives up after a few frames. Whoever then
			// gets no peering begins again.
			if a.State(b.mac) == Authenticated {
				begin(t, air, a, b)
			}
		}
		took := air.Now.Sub(since)
		worst, sum = max(worst, took), sum+took
		air.Loss = 0
		air.Run(10 * time.Second) // let what flies and repeats settle
		agree(t, a, b)
	}
	t.Logf("30 %% loss: mean %v, worst %v of %d", sum/seeds, worst, seeds)
}

func TestWrongPassword(t *testing.T) {
	methods(t, func(t *testing.T, m func(*Config)) {
		air := fakeair.New(1)
		a := join(t, air, 1, m)
		b := join(t, air, 2, func(c *Config) { m(c); c.Password = []byte("another") })
		since := air.Now
		begin(t, air, a, b)
		begin(t, air, b, a)
		for _, s := range []*station{a, b} {
			if !air.Until(30*time.Second, func() bool { ev := s.last(Failed); return ev != nil && ev.Err == ErrPassword }) {
				t.Fatalf("expected the password to be blamed, got %+v", s.last(Failed))
			}
		}
		t.Logf("known after %v", air.Now.Sub(since))
		air.Run(5 * time.Minute)
		if a.accepted() || b.accepted() {
			t.Fatal("accepted with different passwords")
		}
		if n := len(a.events); n > 5*60/10+10 {
			t.Errorf("%d failures in five minutes", n)
		}
		if r := a.last(Failed).Retry; r > 10*time.Second || r == 0 {
			t.Errorf("expected a back-off of up to 10 s, got %v", r)
		}
	})
}

// TestOneExchangeIsNoProof has a forger spoil the first exchange with a member
// that is about to come: its password is not blamed.
func TestOneExchangeIsNoProof(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	b := join(t, air, 2, func(c *Config) { c.Password = []byte("another") })
	begin(t, air, a, b)
	begin(t, air, b, a)
	if !air.Until(10*time.Second, func() bool { return a.last(Failed) != nil }) || a.last(Failed).Err != ErrUnverified {
		t.Fatalf("expected Confirms that do not verify, got %+v", a.last(Failed))
	}
	b = join(t, air, 2, nil)
	begin(t, air, b, a)
	if !air.Until(10*time.Second, func() bool { return a.accepted() && b.accepted() }) {
		t.Fatal("the member is not let in")
	}
	for _, ev := range a.events {
		if ev.Err == ErrPassword {
			t.Errorf("the password is blamed: %+v", ev)
		}
	}
}

func TestStrangerWithWrongPasswordIsReported(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	b := join(t, air, 2, func(c *Config) { c.Password = []byte("another") })
	begin(t, air, b, a) // a did not ask for it
	if !air.Until(20*time.Second, func() bool { return a.last(Failed) != nil }) || a.last(Failed).Err != ErrPassword {
		t.Fatalf("expected a to say that b has another password, got %+v", a.events)
	}
}

func TestSilentPeerIsTriedAgainSoon(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	if err := a.Start(air.Now, address(9)); err != nil {
		t.Fatal(err)
	}
	air.Run(2 * time.Minute)
	if ev := a.last(Failed); ev == nil || ev.Err != ErrSilent || ev.Retry != 10*time.Second {
		t.Fatalf("expected silence to be reported, got %+v", ev)
	}
	b := join(t, air, 9, nil)
	since := air.Now
	if !air.Until(16*time.Second, func() bool { return a.accepted() && b.accepted() }) {
		t.Fatal("the peer came and was not found")
	}
	t.Logf("found %v after it came", air.Now.Sub(since))
	a.Stop(address(9))
}

func TestRestartOfEitherSide(t *testing.T) {
	for _, restarted := range []int{1, 2} {
		air := fakeair.New(1)
		a, b := join(t, air, 1, nil), join(t, air, 2, nil)
		begin(t, air, a, b)
		air.Run(time.Second)
		agree(t, a, b)
		old, _ := a.Newest(b.mac)
		stay, back := a, b
		if restarted == 1 {
			stay, back = b, a
		}
		back = join(t, air, restarted, func(c *Config) { c.Rand = seeded(99) })
		stay.events = nil
		begin(t, air, back, stay)
		if !air.Until(200*time.Millisecond, func() bool { return stay.accepted() && back.accepted() }) {
			t.Fatal("the restarted side was not accepted at once")
		}
		agree(t, stay, back)
		if ev := stay.last(Accepted); !ev.Again || ev.Active || ev.PMKID == old {
			t.Errorf("expected the side that stayed to see a new key, got %+v", ev)
		}
		if _, ok := stay.PMK(back.mac, old); !ok {
			t.Error("the old key is gone before its owner gave it up")
		}
		stay.Discard(back.mac, old)
		if _, ok := stay.PMK(back.mac, old); ok {
			t.Error("a discarded key is still there")
		}
	}
}

func TestTheOtherMethodIsRefused(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, nil)
	b := join(t, air, 2, func(c *Config) { c.Method = HuntingAndPecking })
	begin(t, air, a, b)
	begin(t, air, b, a)
	air.Run(20 * time.Second)
	for _, s := range []*station{a, b} {
		if s.accepted() || s.last(Failed) == nil || s.last(Failed).Err != ErrMethod {
			t.Errorf("expected a refusal of the method, got %+v", s.events)
		}
	}
}

func TestPasswordIdentifiers(t *testing.T) {
	id := func(s string) func(*Config) { return func(c *Config) { c.Identifier = []byte(s) } }
	air := fakeair.New(1)
	a, b, c := join(t, air, 1, id("one")), join(t, air, 2, id("one")), join(t, air, 3, id("two"))
	begin(t, air, a, b)
	begin(t, air, c, a)
	air.Run(8 * time.Second)
	agree(t, a, b)
	if c.accepted() || c.last(Failed) == nil || c.last(Failed).Err != ErrIdentifier {
		t.Errorf("expected the identifier to be refused, got %+v", c.events)
	}
}

func TestPMKSAExpiresAndIsBounded(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, func(c *Config) { c.Limits.Peers = 3; c.Timing.Lifetime = time.Hour })
	for n := 2; n <= 6; n++ {
		b := join(t, air, n, nil)
		begin(t, air, b, a)
		air.Run(time.Second)
		agree(t, a, b)
	}
	if n := a.count((*peer).known); n > 3 {
		t.Errorf("expected at most 3 PMKSAs, got %d", n)
	}
	if _, ok := a.Newest(address(6)); !ok {
		t.Error("the newest PMKSA gave way")
	}
	air.Run(time.Hour)
	if len(a.peers) != 0 {
		t.Errorf("%d peers outlive their PMKSA", len(a.peers))
	}
}

// anew is a peer that makes values anew for each Commit that it hears while it
// waits for a Confirm, as wpa_supplicant 2.10 does. It repeats its last frame every
// second; a Confirm that comes before a Commit has it send its own again.
type anew struct {
	t        *testing.T
	mac, of  dot11.MAC
	state    State
	own, got values
	secrets  secrets
	keys     keys
	counter  uint16
	repeat   time.Time
	frames   []dot11.Frame
}

func (s *anew) Next() time.Time { return s.repeat }
func (s *anew) Advance(now time.Time) {
	switch s.state {
	case Committed:
		s.send((&commitFrame{method: HuntingAndPecking, values: s.own}).append())
	case Confirmed:
		s.confirm()
	default:
		s.repeat = time.Time{}
		return
	}
	s.repeat = now.Add(time.Second)
}

func (s *anew) confirm() {
	s.counter++
	s.send(confirmFrame{s.counter, confirm(s.keys.kck[:], s.counter, &s.own, &s.got)}.append())
}

func (s *anew) Drain() []dot11.Frame {
	defer func() { s.frames = nil }()
	return s.frames
}

func (s *anew) send(body []byte) {
	s.frames = append(s.frames, dot11.Frame{To: s.of, Bytes: forge(s.mac, s.of, body)})
}

func (s *anew) commit() {
	s.t.Helper()
	pwe, err := hunt([]byte("mekmitasdigoat-halo"), s.mac, s.of)
	if err == nil {
		s.own, s.secrets, err = commit(pwe, seeded(byte(100+s.counter)))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.send((&commitFrame{method: HuntingAndPecking, values: s.own}).append())
}

func (s *anew) Handle(now time.Time, frame []byte) {
	switch f := mustParse(s.t, frame).(type) {
	case commitFrame:
		if s.state == Authenticated {
			return
		}
		if s.state == Confirmed {
			s.commit()
		}
		var err error
		if s.keys, err = derive(&s.secrets, &s.own, &f.values, nil); err != nil {
			s.t.Fatal(err)
		}
		s.state, s.got, s.repeat = Confirmed, f.values, now.Add(time.Second)
		s.confirm()
	case confirmFrame:
		switch {
		case s.state == Committed:
			s.send((&commitFrame{method: HuntingAndPecking, values: s.own}).append())
		case s.state == Confirmed && verifies(s.keys.kck[:], f, &s.got, &s.own):
			s.state = Authenticated
		case s.state == Authenticated && f.counter != 0xffff && verifies(s.keys.kck[:], f, &s.got, &s.own):
			s.send(confirmFrame{0xffff, confirm(s.keys.kck[:], 0xffff, &s.own, &s.got)}.append())
		}
	}
}

// TestNoEndlessExchange has one copy of a Commit come to a peer that makes values
// anew: the two must not answer each other for ever.
func TestNoEndlessExchange(t *testing.T) {
	air := fakeair.New(1)
	a := join(t, air, 1, func(c *Config) { c.Method = HuntingAndPecking })
	b := &anew{t: t, mac: address(2), of: a.mac, state: Committed}
	copied := false
	air.Tap = func(now time.Time, f fakeair.Sent) {
		if _, commit := mustParse(t, f.Frame.Bytes).(commitFrame); commit && f.From == a.mac && !copied {
			copied = true
			b.Handle(now, f.Frame.Bytes) // and again when it has flown
		}
	}
	b.commit()
	air.Join(b.mac, b)
	if !air.Until(time.Second, func() bool { return a.accepted() && b.state == Authenticated }) {
		t.Fatalf("not within a second and %d frames: %+v, the peer is %s", air.Sent, a.events, b.state)
	}
	if pmk, ok := a.PMK(b.mac, b.keys.pmkid); !ok || pmk != b.keys.pmk {
		t.Error("the sides hold different keys")
	}
	if air.Sent > 12 {
		t.Errorf("%d frames", air.Sent)
	}
}

// TestCopiesEndInOneExchange has half of all frames come again, within the time that
// two answers take, to a peer that makes values anew: each copy of a Commit sets it
// back, and it has to cost less than a copy for each.
func TestCopiesEndInOneExchange(t *testing.T) {
	const runs = 100
	sent, slow := 0, 0
	for seed := range uint64(runs) {
		air := fakeair.New(seed)
		air.Delay, air.Jitter, air.Duplicate = 20*time.Millisecond, 80*time.Millisecond, 0.5
		a := join(t, air, 1, func(c *Config) { c.Method = HuntingAndPecking })
		b := &anew{t: t, mac: address(2), of: a.mac, state: Committed}
		b.commit()
		air.Join(b.mac, b)
		if !air.Until(10*time.Second, func() bool {
			pmk, ok := a.PMK(b.mac, b.keys.pmkid)
			return b.state == Authenticated && ok && pmk == b.keys.pmk
		}) {
			slow++
		}
		sent += air.Sent
	}
	t.Logf("%d of %d not within ten seconds, %.1f frames each", slow, runs, float64(sent)/runs)
	if slow > runs/20 || sent > 12*runs { // 11 and 36 where each Commit gets new values
		t.Errorf("expected that the two soon agree")
	}
}
