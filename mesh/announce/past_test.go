package announce

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// worn is a node whose card keeps nothing: each of its starts is the same one to it.
type worn struct {
	member
	raised []uint64 // in this start
	heard  []Heard
	end    func()
}

func (w *worn) start(t *testing.T, a *air, network identity.PublicKey, boot uint64) {
	w.raised, w.heard = nil, nil
	n := NewNodeSide(w.config(a, network, boot), make([]byte, 32), 0, func(h Heard) { w.heard = append(w.heard, h) })
	n.Raised = func(boot uint64) { w.raised = append(w.raised, boot) }
	w.end = life(t, n.Run)
}

// TestAStartThatIsCountedTwice: a node whose card keeps nothing is answered in the third
// start of one number as in the first, and its neighbours hear that it has a new life.
func TestAStartThatIsCountedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		net, a := network.Public(), &air{}
		gw, nd, other := newMember(net, network), &worn{member: newMember(net, identity.New())}, newMember(net, identity.New())
		var asked []uint64 // starts in which the gateway has heard it
		gateway := NewGatewaySide(gw.config(a, net, 1), self, func(n Node, _ netip.Addr) <-chan struct{} {
			if identity.PublicKey(n.Key) == nd.key.Public() {
				asked = append(asked, n.Stamp.Boot)
			}
			return nil
		})
		endGateway := life(t, gateway.Run)
		var lives []uint64 // that the neighbour has heard of
		neighbour := NewNodeSide(other.config(a, net, 3), make([]byte, 32), 0, func(Heard) {})
		neighbour.Others = func(n Node) { lives = append(lives, n.Stamp.Boot) }
		defer life(t, neighbour.Run)()
		synctest.Wait() // both listen, before anybody asks

		for i, want := range []uint64{6, 7, 8} {
			asked, lives = nil, nil
			nd.start(t, a, net, 6)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if len(nd.heard) == 0 || nd.heard[0].RoundTrip == 0 {
				t.Fatalf("start %d: it heard %+v, want an answer", i, nd.heard)
			}
			if !slices.Contains(asked, want) || asked[len(asked)-1] != want {
				t.Errorf("start %d: the gateway heard it in %v, want %d", i, asked, want)
			}
			if raised := i > 0; raised != slices.Equal(nd.raised, []uint64{want}) {
				t.Errorf("start %d: raised to %v", i, nd.raised)
			}
			if !slices.Contains(lives, want) {
				t.Errorf("start %d: its neighbour has heard of the lives %v, want %d", i, lives, want)
			}
			time.Sleep((6 - 2*time.Duration(i)) * time.Hour) // the next one is up for less
			nd.end()
		}

		// Of a gateway that was off meanwhile, and knows of none.
		endGateway()
		nd.start(t, a, net, 6)
		time.Sleep(6 * time.Hour)
		gateway = NewGatewaySide(gw.config(a, net, 2), self, func(Node, netip.Addr) <-chan struct{} { return nil })
		defer life(t, gateway.Run)()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(nd.heard) == 0 || nd.raised != nil {
			t.Errorf("with a gateway that came later: it heard %d messages, and was raised to %v", len(nd.heard), nd.raised)
		}
		nd.end()
	})
}

// TestWhatRecordingsBring: who replays a node's questions moves no gateway, and has few
// words sent; and no node is moved by what is recorded or forged of these.
func TestWhatRecordingsBring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		net, a := network.Public(), &air{}
		gw, nd := newMember(net, network), &worn{member: newMember(net, identity.New())}
		asked := 0
		gateway := NewGatewaySide(gw.config(a, net, 1), self, func(Node, netip.Addr) <-chan struct{} { asked++; return nil })
		defer life(t, gateway.Run)()
		nd.start(t, a, net, 6)
		time.Sleep(6 * time.Hour)
		nd.end()
		nd.start(t, a, net, 6)
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		recorded, words := a.by(nd.addr), pasts(t, net, a.by(gw.addr))
		if len(recorded) < 20 || len(words) != 1 || !slices.Equal(nd.raised, []uint64{7}) {
			t.Fatalf("recorded %d questions and %d words, it was raised to %v", len(recorded), len(words), nd.raised)
		}
		codec := Codec{net}
		encode := func(key identity.Key, p Past) []byte {
			b, err := codec.EncodePast(key, p)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		nonceOf := func(m sent) []byte { return decode(t, net, m.data).(Node).Nonce }
		before, answered := asked, len(a.by(gw.addr))
		const lasts = 10 * time.Minute
		for began := time.Now(); time.Since(began) < lasts; time.Sleep(100 * time.Millisecond) {
			m := recorded[int(time.Since(began)/(100*time.Millisecond))%(len(recorded)-1)]
			a.inject(sent{from: nd.addr, to: gw.addr, data: m.data})
			a.inject(sent{from: gw.addr, to: nd.addr, data: words[0].data})
			// The last is the open question, or was: another key than the network's says something of it.
			last := nonceOf(a.by(nd.addr)[len(a.by(nd.addr))-1])
			a.inject(sent{from: gw.addr, to: nd.addr, data: encode(nd.key, Past{Nonce: last, Boot: 40})})
			a.inject(sent{from: gw.addr, to: nd.addr, data: encode(network, Past{Nonce: nonceOf(m), Boot: 40})})
			synctest.Wait()
		}
		if n := asked - before; n > 2 {
			t.Errorf("the gateway believed %d questions in %s, want none of those that were replayed", n, lasts)
		}
		said := a.by(gw.addr)[answered:]
		most := pastBurst + int(pastRate*lasts.Seconds())
		if n := len(pasts(t, net, said)); n == 0 || n > most {
			t.Errorf("the gateway said %d words on the past in %s, want at most %d", n, lasts, most)
		}
		for _, m := range pasts(t, net, said) {
			if m.to != nd.addr {
				t.Errorf("a word went to %s", m.to)
			}
		}
		if !slices.Equal(nd.raised, []uint64{7}) {
			t.Errorf("it was raised to %v, want 7 alone", nd.raised)
		}
		nd.end()

		// Of its own open question: neither what is no later than it is, nor the last number there is.
		for name, tc := range map[string]struct {
			boot uint64
			want []uint64
		}{"an earlier start": {5, nil}, "the last of all": {MaxBoot, nil}, "a later one": {40, []uint64{41}}} {
			a := &air{lose: func(sent) bool { return true }}
			nd.start(t, a, net, 6)
			synctest.Wait()
			a.inject(sent{from: gw.addr, to: nd.addr, data: encode(network, Past{Nonce: nonceOf(a.by(nd.addr)[0]), Boot: tc.boot})})
			synctest.Wait()
			if !slices.Equal(nd.raised, tc.want) {
				t.Errorf("%s: raised to %v, want %v", name, nd.raised, tc.want)
			}
			nd.end()
		}
	})
}

// pasts returns those messages that are a gateway's words on the past.
func pasts(t *testing.T, network identity.PublicKey, list []sent) (out []sent) {
	t.Helper()
	for _, m := range list {
		if _, ok := decode(t, network, m.data).(Past); ok {
			out = append(out, m)
		}
	}
	return out
}

// TestPastIsBounded as all that comes.
func TestPastIsBounded(t *testing.T) {
	network, node := identity.New(), identity.New()
	c := Codec{network.Public()}
	for name, tc := range map[string]struct {
		key  identity.Key
		past Past
		want error
	}{
		"as it is":      {network, Past{Nonce: make([]byte, NonceSize), Boot: MaxBoot}, nil},
		"by a node":     {node, Past{Nonce: make([]byte, NonceSize), Boot: 1}, identity.ErrSignature},
		"half a nonce":  {network, Past{Nonce: make([]byte, NonceSize/2), Boot: 1}, ErrForm},
		"no nonce":      {network, Past{Boot: 1}, ErrForm},
		"beyond bounds": {network, Past{Nonce: make([]byte, NonceSize), Boot: MaxBoot + 1}, ErrForm},
	} {
		b, err := c.EncodePast(tc.key, tc.past)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Decode(b); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

// TestQuestionsInVain: while there is no gateway, the questions of all nodes take a
// bounded part of the channel, however many they are and whatever has them ask; and a
// gateway that comes is found as fast as by two.
func TestQuestionsInVain(t *testing.T) {
	for name, tc := range map[string]struct {
		nodes int
		known bool // there was a gateway
		flaps bool // links come and go
	}{
		"ten that never heard one":               {10, false, false},
		"ten that lost it":                       {10, true, false},
		"ten that lost it, whose links flap":     {10, true, true},
		"thirty that never heard one":            {30, false, false},
		"thirty that lost it, whose links flap":  {30, true, true},
		"thirty that never did, with such links": {30, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := identity.New()
				net, a := network.Public(), &air{}
				gw := newMember(net, network)
				gateway := func(boot uint64) (end func()) {
					return life(t, NewGatewaySide(gw.config(a, net, boot), self, func(Node, netip.Addr) <-chan struct{} { return nil }).Run)
				}
				endGateway := func() {}
				if tc.known {
					endGateway = gateway(5)
				}
				heard := make([]time.Time, tc.nodes)
				var sides []*NodeSide
				var ends []func()
				for i := range tc.nodes {
					n := NewNodeSide(newMember(net, identity.New()).config(a, net, 1), make([]byte, 32), 0, func(Heard) { heard[i] = time.Now() })
					n.Devices = func() int { return tc.nodes }
					sides, ends = append(sides, n), append(ends, life(t, n.Run))
				}
				passes := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Second) {
						if tc.flaps {
							for _, n := range sides {
								n.Ask()
							}
						}
					}
					synctest.Wait()
				}
				passes(time.Minute)
				endGateway()
				passes(2 * Silence) // all have begun to search
				questions := func() (n int) {
					for _, m := range a.sent {
						if _, ok := decode(t, net, m.data).(Node); ok {
							n++
						}
					}
					return n
				}
				a.mu.Lock()
				a.sent = nil
				a.mu.Unlock()
				const lasts = 6 * time.Hour
				passes(lasts)
				each := time.Duration(tc.nodes) * questionAir
				part := (time.Duration(questions()) * each).Seconds() / lasts.Seconds()
				t.Logf("%d questions in %s take %.2f %% of the channel", questions(), lasts, 100*part)
				if part > 2*questionShare {
					t.Errorf("questions in vain take %.1f %% of the channel, want %.1f %%", 100*part, 100*questionShare)
				}
				if part < questionShare/4 {
					t.Error("next to nothing is asked any more")
				}

				// One whose counter went back with its card, where there was one.
				began := time.Now()
				defer gateway(4)()
				time.Sleep(3 * time.Second)
				synctest.Wait()
				for i, at := range heard {
					if at.Before(began) {
						t.Errorf("node %d has not found the gateway that came, after %s", i, time.Since(began))
					}
				}
				for _, end := range ends {
					end()
				}
			})
		})
	}
}

// TestOneThatStartsAmongMany is not kept from asking, while nobody else does.
func TestOneThatStartsAmongMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		net, a := network.Public(), &air{}
		gw, nd := newMember(net, network), newMember(net, identity.New())
		defer life(t, NewGatewaySide(gw.config(a, net, 1), self, func(Node, netip.Addr) <-chan struct{} { return nil }).Run)()
		time.Sleep(time.Second) // its announcement is over: the next is in half a minute
		var devices atomic.Int64
		devices.Store(1)
		heard := 0
		a.lose = func(sent) bool { return devices.Load() == 1 }
		n := NewNodeSide(nd.config(a, net, 1), make([]byte, 32), 0, func(Heard) { heard++ })
		n.Devices = func() int { return int(devices.Load()) }
		defer life(t, n.Run)()
		time.Sleep(5 * time.Minute) // it has no link yet, and asks in vain
		synctest.Wait()
		if asked := len(a.by(nd.addr)); asked < 4 {
			t.Errorf("it asked %d times", asked)
		}
		devices.Store(250)
		time.Sleep(countedFor)
		n.Ask()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if heard == 0 {
			t.Error("it has not found the gateway within two seconds of its first link")
		}
		if to := a.by(nd.addr)[0].to; to != paths.AnnounceGroup {
			t.Errorf("its first question went to %s", to)
		}
	})
}
