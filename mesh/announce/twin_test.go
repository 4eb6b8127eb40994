package announce

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// searchTakes is how long a search takes that nobody answers.
const searchTakes = 20 * time.Second

func decode(t *testing.T, network identity.PublicKey, b []byte) any {
	t.Helper()
	m, err := Codec{network}.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExactlyOneOfTwoGatewaysStays(t *testing.T) {
	var all []Twin
	for _, standing := range []Standing{StandingNew, StandingKnown, StandingServes} {
		for _, epoch := range []uint64{0, 40_000, 50_000} {
			for _, instance := range []uint64{1, 9, 1<<64 - 1} {
				all = append(all, Twin{Instance: instance, Standing: standing, Epoch: epoch})
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			if a.Instance != b.Instance && a.before(b) == b.before(a) {
				t.Errorf("%+v against %+v: both or none", a, b)
			}
		}
	}
	living, fresh := Twin{Standing: StandingServes, Epoch: 40_000, Instance: 9}, Twin{Standing: StandingNew, Epoch: 90_000, Instance: 1}
	if fresh.before(living) {
		t.Error("a fresh card of a later day is before the gateway that nodes are with")
	}
}

// gate is a gateway in the tests. All have the network's key; in the air of the tests
// each has an address of its own.
type gate struct {
	*GatewaySide
	addr     netip.Addr
	ca       byte
	epoch    atomic.Uint64
	standing atomic.Uint32
	told     atomic.Int32 // how often it has met somebody, or lost him
	end      func()
}

func newGate(t *testing.T, a *air, network identity.Key, n byte, epoch uint64, s Standing) *gate {
	g := makeGate(a, network, n, epoch, s)
	g.end = life(t, g.Run)
	return g
}

// makeGate is newGate, and does not start it.
func makeGate(a *air, network identity.Key, n byte, epoch uint64, s Standing) *gate {
	g := &gate{addr: identity.Underlay(network.Public(), network.Public()), ca: n}
	if n != 1 {
		g.addr = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: n})
	}
	g.epoch.Store(epoch)
	g.standing.Store(uint32(s))
	g.GatewaySide = NewGatewaySide(member{network, g.addr}.config(a, network.Public(), uint64(n)), func() Gateway {
		m := self()
		m.Stamp.Epoch, m.CASHA256 = g.epoch.Load(), bytes.Repeat([]byte{g.ca}, 32)
		return m
	}, func(Node, netip.Addr) <-chan struct{} { return nil })
	g.Standing = func() Standing { return Standing(g.standing.Load()) }
	g.Met = func(Twinned) { g.told.Add(1) }
	return g
}

// gateways are what of those sent unasked or answered, by address.
func (a *air) gateways(t *testing.T, network identity.PublicKey, since time.Time) map[netip.Addr]int {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	n := map[netip.Addr]int{}
	for _, m := range a.sent {
		if _, ok := decode(t, network, m.data).(Gateway); ok && m.at.After(since) {
			n[m.from]++
		}
	}
	return n
}

// The gateway that lives stays, whatever the other's card says; when it falls silent
// the other one serves by itself, and not before.
func TestTheSecondGatewayStandsDownUntilTheFirstIsGone(t *testing.T) {
	for _, tc := range []struct {
		name          string
		first, second uint64 // epochs
	}{{"equal epochs", 40_000, 40_000}, {"the second's is lower", 40_000, 30_000}, {"the second's is higher", 40_000, 90_000}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := identity.New()
				net := network.Public()
				a := &air{}
				nd := newMember(net, identity.New())
				var heard []Heard
				var twins []Gateway
				node := NewNodeSide(nd.config(a, net, 1), make([]byte, 32), 0, func(h Heard) { heard = append(heard, h) })
				node.Twin = func(g Gateway) { twins = append(twins, g) }
				first := newGate(t, a, network, 1, tc.first, StandingServes)
				defer life(t, node.Run)()
				time.Sleep(5 * time.Minute)
				second := newGate(t, a, network, 2, tc.second, StandingNew)
				defer second.end()
				time.Sleep(time.Second)
				synctest.Wait()
				if w := second.Twinned(); !w.Aside || w.Other == nil || w.Other.Epoch != tc.first || second.told.Load() != 1 {
					t.Fatalf("the second: %+v, told %d times", w, second.told.Load())
				}
				settled := time.Now()
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := a.gateways(t, net, settled); n[second.addr] != 0 || n[first.addr] < 110 {
					t.Errorf("in an hour they announced %v", n)
				}
				if w := first.Twinned(); w.Aside || w.Other == nil || !w.Other.Aside || first.told.Load() != 1 {
					t.Errorf("the first: %+v, told %d times", w, first.told.Load())
				}
				if h := second.HeardEpoch(); h != 0 {
					t.Errorf("the second takes epoch %d for a dead gateway's", h)
				}
				for _, h := range heard {
					if h.CASHA256[0] != 1 {
						t.Fatalf("the node believed the second: %+v", h)
					}
				}
				if n := len(a.by(second.addr)); n > 400 { // a question in half a minute, a proof now and then
					t.Errorf("the second sent %d messages in an hour", n)
				}

				first.end()
				gone := time.Now()
				time.Sleep(TakeOver - time.Minute)
				synctest.Wait()
				if !second.Twinned().Aside {
					t.Error("it serves before the first has been silent for long")
				}
				time.Sleep(3*time.Minute + room)
				synctest.Wait()
				if want := tc.first; second.HeardEpoch() != want {
					t.Errorf("the second takes epoch %d for the highest that the first had, want %d", second.HeardEpoch(), want)
				}
				if w := second.Twinned(); w.Aside || w.Other != nil || second.told.Load() != 2 {
					t.Errorf("%s after the first has gone: %+v, told %d times", time.Since(gone), w, second.told.Load())
				}
				last := heard[len(heard)-1]
				if moved := last.CASHA256[0] == 2; moved != (tc.second >= tc.first) {
					t.Errorf("the node has %+v, want the rule of epochs", last)
				}
				for _, g := range twins {
					if g.CASHA256[0] != 2 {
						t.Errorf("the node told of %+v", g)
					}
				}

				// The first comes back: nodes are with the second by now.
				second.standing.Store(uint32(StandingServes))
				first = newGate(t, a, network, 1, tc.first, StandingKnown)
				defer first.end()
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if !first.Twinned().Aside || second.Twinned().Aside {
					t.Errorf("the first came back: %+v, %+v", first.Twinned(), second.Twinned())
				}
			})
		})
	}
}

// Whatever starts with what, and though half of all is lost, one of two serves, and
// it is the one that the rule says.
func TestOfTwoThatStartAtOnceOneServes(t *testing.T) {
	for _, tc := range []struct {
		name           string
		one, two       Standing
		epoch1, epoch2 uint64
		want           byte // 0: either
	}{
		{"both new, equal", StandingNew, StandingNew, 40_000, 40_000, 0},
		{"both new", StandingNew, StandingNew, 40_000, 41_000, 2},
		{"one has admitted nodes", StandingKnown, StandingNew, 40_000, 90_000, 1},
		{"both have, equal", StandingKnown, StandingKnown, 40_000, 40_000, 0},
		{"an old card", StandingKnown, StandingKnown, 40_000, 40_001, 2},
		{"two halves of a mesh meet", StandingServes, StandingServes, 40_000, 40_001, 2},
	} {
		for _, lost := range []float64{0, 0.3, 0.5} {
			t.Run(fmt.Sprintf("%s, lost %.1f", tc.name, lost), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := identity.New()
					a := &air{}
					dice := rand.New(rand.NewPCG(1, 2))
					a.lose = func(sent) bool { return dice.Float64() < lost }
					one, two := newGate(t, a, network, 1, tc.epoch1, tc.one), newGate(t, a, network, 2, tc.epoch2, tc.two)
					defer one.end()
					defer two.end()
					time.Sleep(4 * time.Minute)
					synctest.Wait()
					aside := [2]bool{one.Twinned().Aside, two.Twinned().Aside}
					if aside[0] == aside[1] || tc.want != 0 && aside[tc.want-1] {
						t.Fatalf("they have stood down: %v", aside)
					}
					told := [2]int32{one.told.Load(), two.told.Load()}
					time.Sleep(time.Hour)
					synctest.Wait()
					if now := [2]bool{one.Twinned().Aside, two.Twinned().Aside}; now != aside {
						t.Errorf("an hour later they have stood down: %v, before %v; told %v", now, aside, told)
					}
				})
			})
		}
	}
}

// The power of both goes, and nothing but the card of one tells any more which of them
// the nodes are with.
func TestWhoHadStoodDownStillDoesAfterAStart(t *testing.T) {
	for _, tc := range []struct {
		name  string
		start []byte // of those that come up, in order
		after time.Duration
		serve byte
	}{
		{"both", []byte{1, 2}, 0, 1},
		{"the one that had stood down first", []byte{2, 1}, 0, 1},
		{"it is up much earlier", []byte{2, 1}, TakeOver - time.Minute, 1},
		{"the other does not come back", []byte{2}, 0, 2},
	} {
		for range 8 { // the numbers that they draw would decide
			t.Run(tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					network := identity.New()
					net := network.Public()
					a := &air{}
					gates := map[byte]*gate{}
					for i, n := range tc.start {
						if i > 0 {
							time.Sleep(tc.after)
						}
						g := makeGate(a, network, n, 40_000, StandingKnown)
						if n == 2 {
							g.StandDown(40_000)
						}
						if w := g.Twinned(); w.Aside != (n == 2) || w.Aside && w.Other.Epoch != 40_000 {
							t.Fatalf("gateway %d begins with %+v", n, w)
						}
						g.end = life(t, g.Run)
						defer g.end()
						gates[n] = g
					}
					time.Sleep(TakeOver - 10*time.Second)
					synctest.Wait()
					early := a.gateways(t, net, time.Time{})
					if early[gates[2].addr] != 0 {
						t.Errorf("the one that had stood down announced %d times", early[gates[2].addr])
					}
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					for n, g := range gates {
						if w := g.Twinned(); w.Aside != (n != tc.serve) {
							t.Errorf("gateway %d: %+v, and %d should serve", n, w, tc.serve)
						}
					}
				})
			})
		}
	}
}

// A stranger who has recorded all that two gateways said, and asks and answers what
// he likes, neither silences a gateway nor has it speak much.
func TestNoStrangerSilencesAGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		net := network.Public()
		old := &air{}
		one, two := newGate(t, old, network, 1, 40_000, StandingServes), newGate(t, old, network, 2, 90_000, StandingServes)
		time.Sleep(10 * time.Minute)
		one.end()
		two.end()
		synctest.Wait()

		a := &air{}
		gateway := newGate(t, a, network, 3, 40_000, StandingNew)
		defer gateway.end()
		time.Sleep(time.Millisecond)
		stranger := newMember(net, identity.New())
		hear := func(b []byte) {
			a.inject(sent{from: stranger.addr, to: gateway.addr, data: b})
			synctest.Wait()
		}
		began, looked := time.Now(), 0
		for round := range uint64(600) {
			for _, m := range old.sent[round%uint64(len(old.sent)):][:1] {
				hear(m.data)
			}
			all := a.by(gateway.addr)
			for _, m := range all[looked:] {
				hear(m.data) // its own words, back
				w, ok := decode(t, net, m.data).(Twin)
				if !ok || len(w.Nonce) == 0 {
					continue
				}
				// He asks the gateway what it has asked: in a node's name, and in its own.
				n := nodeMessage()
				n.Nonce, n.Stamp.Seq = w.Nonce, 1000+round
				b, err := Codec{net}.EncodeNode(stranger.key, n)
				if err != nil {
					t.Fatal(err)
				}
				hear(b)
				w.Instance++
				w.Answer = w.Nonce
				if b, err = (Codec{net}).EncodeTwin(stranger.key, w); err != nil {
					t.Fatal(err)
				}
				hear(b)
			}
			looked = len(all)
			time.Sleep(time.Second)
		}
		if w := gateway.Twinned(); w.Aside || w.Other != nil || gateway.told.Load() != 0 {
			t.Fatalf("it was talked into %+v", w)
		}
		spent := map[string]int{}
		for _, m := range a.by(gateway.addr) {
			switch m := decode(t, net, m.data).(type) {
			case Twin:
				if spent["twin"]++; len(m.Nonce) > 0 {
					spent["asked"]++
				}
			case Gateway:
				spent["gateway"]++
			}
		}
		took := int(time.Since(began) / time.Second)
		t.Logf("in %d s: %v", took, spent)
		if spent["twin"] > took/5+took/8+20 { // answers, and searches
			t.Errorf("it said %v in %d s", spent, took)
		}
	})
}

// A search that nobody answers ends, and the next waits.
func TestASearchForAnotherGatewayIsBounded(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	w := newTwins(5, Timing{})
	asked := 0
	for range 600 {
		w.suspect()
		if !w.next().After(now) {
			if _, ok := w.tick(now, Twin{}); ok {
				asked++
			}
		}
		now = now.Add(time.Second)
	}
	if asked > 20*twinAsks || asked < 18*twinAsks {
		t.Errorf("asked %d times in 10 minutes of suspicion, want %d in each half", asked, twinAsks)
	}
	answered := 0
	for range 600 {
		if _, ok := w.hear(now, Twin{Instance: 6, Nonce: make([]byte, NonceSize)}, Twin{}); ok {
			answered++
		}
	}
	if answered > 7 {
		t.Errorf("answered %d recordings in an instant", answered)
	}
}

// Evidence of a higher epoch raises nothing while the gateway that has it lives.
func TestEvidenceOfALivingGatewayIsHeldBack(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	w := newTwins(5, Timing{})
	own := Twin{Epoch: 30_000}
	ask := func() Twin {
		t.Helper()
		now = now.Add(time.Minute)
		m, ok := w.tick(now, own)
		if !ok || len(m.Nonce) == 0 {
			t.Fatalf("it does not ask: %+v", m)
		}
		return m
	}
	unanswered := func() {
		for range 30 {
			now = now.Add(time.Second)
			w.tick(now, own)
		}
	}
	w.show(40_000)
	m := ask()
	w.hear(now, Twin{Instance: 6, Standing: StandingNew, Epoch: 20_000, Answer: m.Nonce}, own)
	if unanswered(); w.aside || w.heard != 0 || w.shown != 0 {
		t.Errorf("one that is lower in all answers: %+v", w)
	}
	w.show(40_000)
	m = ask()
	w.hear(now, Twin{Instance: 6, Standing: StandingServes, Epoch: 40_000, Answer: m.Nonce}, own)
	if unanswered(); !w.aside || w.heard != 0 {
		t.Errorf("the living one answers: %+v", w)
	}
	for range 3 {
		w.show(40_000)
		unanswered()
	}
	if !w.aside || w.heard != 0 {
		t.Errorf("it is silent for a moment: %+v", w)
	}
	now = now.Add(TakeOver)
	for range 3 {
		w.show(40_000)
		unanswered()
	}
	if w.aside || w.heard != 40_000 {
		t.Errorf("it is gone: %+v", w)
	}
}

// A node has joined one gateway. Others that answer are believed when that one does
// not, and told of when it does.
func TestANodeStaysWithItsLivingGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		net := network.Public()
		a := &air{}
		nd := newMember(net, identity.New())
		at := identity.Underlay(net, net)
		var heard, twins []byte // CAs
		node := NewNodeSide(nd.config(a, net, 1), make([]byte, 32), 0, func(h Heard) { heard = append(heard, h.CASHA256[0]) })
		node.Home = bytes.Repeat([]byte{1}, 32)
		node.Twin = func(g Gateway) { twins = append(twins, g.CASHA256[0]) }
		codec := Codec{net}
		seq, epochs := uint64(0), map[byte]uint64{}
		say := func(ca byte, epoch uint64, nonce []byte) {
			seq++
			m := self()
			m.Stamp, m.Nonce, m.CASHA256, m.Instance = Stamp{Epoch: epoch, Boot: 1, Seq: seq}, nonce, bytes.Repeat([]byte{ca}, 32), uint64(ca)
			b, err := codec.EncodeGateway(network, m)
			if err != nil {
				t.Fatal(err)
			}
			a.inject(sent{from: at, to: nd.addr, data: b})
			synctest.Wait()
		}
		questions := func() (all []sent) {
			for _, m := range a.by(nd.addr) {
				if _, ok := decode(t, net, m.data).(Node); ok {
					all = append(all, m)
				}
			}
			return all
		}
		// answering has gateways answer every question for a while, in that order.
		answering := func(d time.Duration, cas ...byte) {
			looked := len(questions())
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				synctest.Wait()
				all := questions()
				for _, m := range all[looked:] {
					for _, ca := range cas {
						say(ca, 40_000+epochs[ca], decode(t, net, m.data).(Node).Nonce)
					}
				}
				looked = len(all)
			}
		}
		defer life(t, node.Run)()
		for _, tc := range []struct {
			name    string
			raised  []byte // whose epoch is one more from now on
			answer  []byte
			within  time.Duration
			heard   byte // 0: nobody
			told    bool
			quietly int // questions, at most
		}{
			{"both answer, the other first", nil, []byte{2, 1}, stay, 1, true, 3},
			{"both answer, the other last", nil, []byte{1, 2}, stay, 1, true, 3},
			{"only its own answers", nil, []byte{1}, stay, 1, false, 3},
			{"only the other answers", []byte{2}, []byte{2}, stay, 2, false, 12},
			{"both answer then", []byte{1}, []byte{1, 2}, stay, 2, true, 3},
			{"a third of the same epoch could raise it", []byte{3}, []byte{3}, stay, 0, false, 12},
			{"and did not", nil, []byte{3}, room, 3, false, 12},
		} {
			for _, ca := range tc.raised {
				epochs[ca]++
			}
			heard, twins = nil, nil
			say(9, 40_002, nil) // could be a recording
			if len(heard) != 0 {
				t.Fatalf("%s: it believed what may be a recording", tc.name)
			}
			node.Ask()
			before := len(questions())
			answering(tc.within+2*doubt, tc.answer...)
			switch {
			case tc.heard == 0 && len(heard) > 0, tc.heard != 0 && (len(heard) == 0 || heard[len(heard)-1] != tc.heard), tc.heard == 1 && slices.Contains(heard, 2):
				t.Errorf("%s: it heard %v, want %d", tc.name, heard, tc.heard)
			}
			if (len(twins) > 0) != tc.told {
				t.Errorf("%s: it told of %v", tc.name, twins)
			}
			asked := questions()[before:]
			if len(asked) > tc.quietly {
				t.Errorf("%s: it asked %d times", tc.name, len(asked))
			}
			for _, m := range asked {
				if tc.name == "only the other answers" && m.to != paths.AnnounceGroup && m.at.After(asked[0].at) {
					t.Error("in doubt it asked one gateway alone")
				}
			}
		}
	})
}

// Two gateways that have not heard of each other keep a node busy once in a while, no
// more.
func TestTwoGatewaysCostANodeLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		net := network.Public()
		a := &air{}
		nd := newMember(net, identity.New())
		other := make([]Gateway, 0)
		node := NewNodeSide(nd.config(a, net, 1), make([]byte, 32), 0, func(Heard) {})
		node.Twin = func(g Gateway) { other = append(other, g) }
		a.lose = func(m sent) bool { // between the two
			_, twin := decode(t, net, m.data).(Twin)
			return twin
		}
		one, two := newGate(t, a, network, 1, 40_000, StandingServes), newGate(t, a, network, 2, 40_000, StandingServes)
		end := life(t, func(ctx context.Context) error { return node.Run(ctx) })
		time.Sleep(time.Hour)
		synctest.Wait()
		asked, shown := 0, 0
		for _, m := range a.by(nd.addr) {
			if _, ok := decode(t, net, m.data).(Node); ok {
				asked++
			} else {
				shown++
			}
		}
		t.Logf("it asked %d times in an hour, showed evidence %d times, and told %d times of another gateway", asked, shown, len(other))
		if asked > 70 || shown > 2 || len(other) == 0 {
			t.Error("that is too much, or nothing")
		}
		end()
		one.end()
		two.end()
	})
}
