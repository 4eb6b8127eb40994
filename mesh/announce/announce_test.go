package announce

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// air is a mesh in memory. Everything sent is kept; lose drops it.
type air struct {
	mu    sync.Mutex
	ports map[netip.Addr]*fakeSocket
	sent  []sent
	lose  func(sent) bool
}

type sent struct {
	from, to netip.Addr
	data     []byte
	at       time.Time
}

type fakeSocket struct {
	air  *air
	addr netip.Addr
	in   chan sent
	done chan struct{}
}

func (a *air) open(addr netip.Addr) func() (Socket, error) {
	return func() (Socket, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		s := &fakeSocket{a, addr, make(chan sent, 100), make(chan struct{})}
		if a.ports == nil {
			a.ports = map[netip.Addr]*fakeSocket{}
		}
		a.ports[addr] = s
		return s, nil
	}
}

func (a *air) inject(m sent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for addr, s := range a.ports {
		if addr != m.from && (m.to == addr || m.to == paths.AnnounceGroup) {
			s.in <- m
		}
	}
}

func (s *fakeSocket) Receive(b []byte) (int, netip.Addr, error) {
	select {
	case m := <-s.in:
		return copy(b, m.data), m.from, nil
	case <-s.done:
		return 0, netip.Addr{}, errors.New("closed")
	}
}

func (s *fakeSocket) Send(b []byte, to netip.Addr) error {
	m := sent{s.addr, to, append([]byte(nil), b...), time.Now()}
	s.air.mu.Lock()
	s.air.sent = append(s.air.sent, m)
	lost := s.air.lose != nil && s.air.lose(m)
	s.air.mu.Unlock()
	if !lost {
		s.air.inject(m)
	}
	return nil
}

func (s *fakeSocket) Watch(ctx context.Context) error { <-ctx.Done(); return nil }

func (s *fakeSocket) Close() error {
	close(s.done)
	s.air.mu.Lock()
	defer s.air.mu.Unlock()
	delete(s.air.ports, s.addr)
	return nil
}

func (a *air) by(from netip.Addr) []sent {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []sent
	for _, m := range a.sent {
		if m.from == from {
			out = append(out, m)
		}
	}
	return out
}

// member is a device in the tests.
type member struct {
	key  identity.Key
	addr netip.Addr
}

func newMember(network identity.PublicKey, key identity.Key) member {
	return member{key, identity.Underlay(network, key.Public())}
}

func (m member) config(a *air, network identity.PublicKey, boot uint64) Config {
	start := time.Now()
	return Config{
		Network: network, Key: m.key, Boot: boot, Open: a.open(m.addr),
		Since: func() uint64 { return uint64(time.Since(start).Milliseconds()) },
		Steps: func() uint32 { return 0 }, Log: slog.New(slog.DiscardHandler),
	}
}

func self() Gateway {
	return Gateway{WireGuardKey: make([]byte, 32), APIPort: 8443, CASHA256: make([]byte, 32), TimeMS: time.Now().UnixMilli(), Quality: model.ClockRTC}
}

// life runs f until the returned function is called.
func life(t *testing.T, f func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestNodeFindsFollowsAndLosesTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		var heard []Heard
		node := NewNodeSide(nd.config(a, network.Public(), 5), make([]byte, 32), 0, func(h Heard) { heard = append(heard, h) })
		endNode := life(t, node.Run)

		// Alone it asks at 1, 2, 4 … 60 s: fast at first, then sparing the air.
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		asked := a.by(nd.addr)
		if n := len(asked); n < 12 || n > 19 {
			t.Errorf("alone it asked %d times in 10 minutes, want about 15", n)
		}
		if gap := asked[len(asked)-1].at.Sub(asked[len(asked)-2].at); gap < 50*time.Second {
			t.Errorf("the last questions are %s apart, want about a minute", gap)
		}

		var questions []Node
		gateway := NewGatewaySide(gw.config(a, network.Public(), 1), self, func(n Node, _ netip.Addr) <-chan struct{} {
			questions = append(questions, n)
			return nil
		})
		endGateway := life(t, gateway.Run)
		time.Sleep(2 * time.Second) // it announces itself, is asked, and answers
		synctest.Wait()
		if len(heard) != 1 || heard[0].RoundTrip == 0 || heard[0].APIPort != 8443 {
			t.Fatalf("heard %+v, want one answer to a nonce", heard)
		}
		if len(questions) != 1 || questions[0].Stamp.Boot != 5 {
			t.Errorf("gateway heard %+v, want one question of boot 5", questions)
		}

		// An hour of peace: 120 announcements, and the node asks twice or so.
		before := len(a.by(nd.addr))
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(heard); n < 110 || n > 140 {
			t.Errorf("heard %d messages in an hour, want about 120", n)
		}
		if n := len(a.by(nd.addr)) - before; n < 1 || n > 3 {
			t.Errorf("node asked %d times in an hour of peace, want 2", n)
		}

		// The gateway restarts with the next boot counter.
		endGateway()
		gateway = NewGatewaySide(gw.config(a, network.Public(), 2), self, func(Node, netip.Addr) <-chan struct{} { return nil })
		endGateway = life(t, gateway.Run)
		time.Sleep(time.Second)
		synctest.Wait()
		if last := heard[len(heard)-1]; last.Stamp.Boot != 2 {
			t.Errorf("last heard boot %d, want 2 at once", last.Stamp.Boot)
		}

		// It goes for good: the node searches again.
		endGateway()
		before = len(a.by(nd.addr))
		time.Sleep(Silence + 10*time.Second)
		synctest.Wait()
		if n := len(a.by(nd.addr)) - before; n < 3 {
			t.Errorf("node asked %d times after the gateway fell silent, want several", n)
		}
		endNode()
	})
}

// TestWhatTheGatewayWasToldHolds: a node that has other documents than it told is not
// content with hearing the gateway, but tells it; also if that is heard with trouble.
func TestWhatTheGatewayWasToldHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		var using uint64
		var lose int
		var last Node
		asks := 0
		a.lose = func(m sent) bool {
			if m.from == nd.addr && lose > 0 {
				lose--
				return true
			}
			return false
		}
		node := NewNodeSide(nd.config(a, network.Public(), 5), make([]byte, 32), 0, func(Heard) {})
		node.Profiles = func() (uint64, uint64) { return 9, using }
		gateway := NewGatewaySide(gw.config(a, network.Public(), 1), self, func(n Node, _ netip.Addr) <-chan struct{} {
			last, asks = n, asks+1
			return nil
		})
		defer life(t, gateway.Run)()
		defer life(t, node.Run)()
		time.Sleep(interval / 2)
		for _, tc := range []struct {
			using uint64
			lost  int
		}{{7, 0}, {8, 2}, {9, 0}} {
			using, lose = tc.using, tc.lost
			before := asks
			time.Sleep(interval + SayWithin + 10*time.Second)
			synctest.Wait()
			if last.Using != tc.using || last.Held != 9 || asks != before+1 {
				t.Errorf("using %d, %d questions lost: expected the gateway to be told once, got %d of %d, %d times", tc.using, tc.lost, last.Using, last.Held, asks-before)
			}
		}
		before := asks
		time.Sleep(20 * time.Minute)
		if asks != before {
			t.Errorf("expected no word while nothing changes, got %d", asks-before)
		}
	})
}

// TestNodesHearEachOther: a node that starts asks all, and the others learn of its life
// by that, also without a gateway. Nobody else can say it.
func TestNodesHearEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		one, two, stranger := newMember(network.Public(), identity.New()), newMember(network.Public(), identity.New()), netip.MustParseAddr("fd00::9")
		var heard []Node
		node := NewNodeSide(one.config(a, network.Public(), 1), make([]byte, 32), 0, func(Heard) {})
		node.Others = func(n Node) { heard = append(heard, n) }
		defer life(t, node.Run)()
		synctest.Wait()
		said := len(a.by(one.addr))

		other := NewNodeSide(two.config(a, network.Public(), 7), make([]byte, 32), 0, func(Heard) {})
		defer life(t, other.Run)()
		synctest.Wait()
		if key := two.key.Public(); len(heard) != 1 || heard[0].Stamp.Boot != 7 || identity.PublicKey(heard[0].Key) != key {
			t.Fatalf("heard %+v, want the other's question in its start 7", heard)
		}
		if n := len(a.by(one.addr)); n != said {
			t.Errorf("it said %d things about that", n-said)
		}

		question := a.by(two.addr)[0].data
		forged := slices.Clone(question)
		forged[len(forged)-1] ^= 1 // of the signature
		own := a.by(one.addr)[0].data
		for _, m := range []struct {
			what   string
			from   netip.Addr
			data   []byte
			reason string
			want   int
		}{
			{"from another's address", stranger, question, ignoredSource, 1},
			{"forged", two.addr, forged, ignoredSignature, 1},
			{"its own, that came back", two.addr, own, ignoredOld, 1},
			{"from the link", netip.MustParseAddr("fe80::9"), question, "", 2}, // a recording: whether it is news, is not told here
		} {
			before := node.Counters.Snapshot()[m.reason]
			a.inject(sent{from: m.from, to: one.addr, data: m.data})
			synctest.Wait()
			if len(heard) != m.want || m.reason != "" && node.Counters.Snapshot()[m.reason] != before+1 {
				t.Errorf("%s: heard %d, want %d; ignored: %v", m.what, len(heard), m.want, node.Counters.Snapshot())
			}
		}
	})
}

func TestOldWordsAreNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		var heard []Heard
		node := NewNodeSide(nd.config(a, network.Public(), 1), make([]byte, 32), 3, func(h Heard) { heard = append(heard, h) })
		var refused []uint64
		node.Refused = func(epoch, floor uint64) { refused = append(refused, epoch, floor) }
		codec := Codec{network.Public()}
		say := func(epoch, boot, seq uint64, nonce []byte) {
			t.Helper()
			m := self()
			m.Stamp, m.Nonce = Stamp{Epoch: epoch, Boot: boot, Seq: seq}, nonce
			b, err := codec.EncodeGateway(network, m)
			if err != nil {
				t.Fatal(err)
			}
			a.inject(sent{from: gw.addr, to: nd.addr, data: b})
			synctest.Wait()
		}
		nonce := func() []byte {
			t.Helper()
			all := a.by(nd.addr)
			m, err := codec.Decode(all[len(all)-1].data)
			if err != nil {
				t.Fatal(err)
			}
			return m.(Node).Nonce
		}
		end := life(t, node.Run)
		defer end()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		expect := func(what string, n int) {
			t.Helper()
			if len(heard) != n {
				t.Fatalf("%s: believed %d messages, want %d", what, len(heard), n)
			}
		}
		say(3, 9, 100, nil)
		expect("unasked, before any answer: could be a recording", 0)
		say(3, 9, 101, make([]byte, NonceSize))
		expect("somebody else's nonce", 0)
		say(2, 99, 1, nonce())
		expect("lower epoch than kept, even freshly answered", 0)
		first := nonce()
		say(3, 9, 102, first)
		expect("the answer", 1)
		say(3, 9, 103, first)
		expect("the same nonce again", 1)
		say(3, 9, 102, nil)
		expect("same stamp", 1)
		say(3, 8, 500, nil)
		expect("lower boot", 1)
		say(3, 9, 104, nil)
		expect("later, unasked", 2)
		say(4, 1, 1, nil)
		expect("higher epoch", 3)
		say(3, 50, 1, nil)
		expect("back to the epoch before", 3)
		node.Ask()
		synctest.Wait()
		say(4, 0, 7, nonce())
		expect("a gateway that lost its counter, but answers", 4)
		node.Ask()
		synctest.Wait()
		late := nonce()
		time.Sleep(askWait + 30*time.Second) // it has asked anew meanwhile
		say(4, 0, 9, late)
		expect("an answer that took too long", 4)
		if !slices.Equal(refused, []uint64{2, 3}) {
			t.Errorf("told of the epochs %v, want the one that was freshly answered, 2 below 3", refused)
		}
		if c := node.Counters.Snapshot(); c[ignoredEpoch] != 2 || c[ignoredOld] < 4 {
			t.Errorf("counted %v", c)
		}
	})
}

func TestGatewayIsNotFlooded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw := newMember(network.Public(), network)
		heard := 0
		gateway := NewGatewaySide(gw.config(a, network.Public(), 1), self, func(Node, netip.Addr) <-chan struct{} { heard++; return nil })
		defer life(t, gateway.Run)()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		codec := Codec{network.Public()}
		question := func(m member, seq uint64) sent {
			n := nodeMessage()
			n.Stamp.Seq = seq
			b, err := codec.EncodeNode(m.key, n)
			if err != nil {
				t.Fatal(err)
			}
			return sent{from: m.addr, to: gw.addr, data: b}
		}
		one := newMember(network.Public(), identity.New())
		for i := range uint64(20) {
			a.inject(question(one, 100+i))
			synctest.Wait()
		}
		if heard != senderBurst {
			t.Errorf("answered one node %d times in an instant, want %d", heard, senderBurst)
		}
		time.Sleep(time.Second)
		a.inject(question(one, 50))
		synctest.Wait()
		if heard != senderBurst {
			t.Error("a replayed question was answered")
		}
		a.inject(question(one, 200))
		synctest.Wait()
		if heard != senderBurst+1 {
			t.Error("a second later it is not answered again")
		}
		stranger := newMember(network.Public(), identity.New())
		q := question(stranger, 1)
		q.from = netip.MustParseAddr("2001:db8::1")
		a.inject(q)
		synctest.Wait()
		if heard != senderBurst+1 {
			t.Error("a question from a foreign address was answered")
		}
		words := len(pasts(t, network.Public(), a.by(gw.addr))) // to whom the replayed one may have been of
		answers := len(a.by(gw.addr)) - words - 1               // the first is the announcement
		if answers != heard {
			t.Errorf("sent %d answers for %d questions", answers, heard)
		}
		c := gateway.Counters.Snapshot()
		if c[ignoredRate] == 0 || c[ignoredOld] != 1 || c[ignoredSource] != 1 {
			t.Errorf("counted %v", c)
		}
	})
}

// TestAnswersWaitForWhatTheyNeed has a gateway that makes room for each node first: one
// is answered when that is done, or after a while, and others are not held up by it.
func TestAnswersWaitForWhatTheyNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw := newMember(network.Public(), network)
		slow, never, quick := newMember(network.Public(), identity.New()), newMember(network.Public(), identity.New()), newMember(network.Public(), identity.New())
		room := map[string]chan struct{}{}
		for _, m := range []member{slow, never} {
			room[m.key.Public().ID()] = make(chan struct{})
		}
		gateway := NewGatewaySide(gw.config(a, network.Public(), 1), self, func(n Node, _ netip.Addr) <-chan struct{} {
			return room[identity.PublicKey(n.Key).ID()]
		})
		end := life(t, gateway.Run)
		synctest.Wait()
		codec := Codec{network.Public()}
		for _, m := range []member{slow, never, quick} {
			b, err := codec.EncodeNode(m.key, nodeMessage())
			if err != nil {
				t.Fatal(err)
			}
			a.inject(sent{from: m.addr, to: gw.addr, data: b})
		}
		answered := func(want ...netip.Addr) {
			t.Helper()
			synctest.Wait()
			var got []netip.Addr
			for _, s := range a.by(gw.addr)[1:] { // the first is the announcement
				got = append(got, s.to)
			}
			if !slices.Equal(got, want) {
				t.Errorf("answered %v, want %v", got, want)
			}
		}
		answered(quick.addr)
		time.Sleep(settleMost / 2)
		close(room[slow.key.Public().ID()])
		answered(quick.addr, slow.addr)
		if m, err := codec.Decode(a.by(gw.addr)[2].data); err != nil || time.Since(m.(Gateway).Time()) != settleMost/4 {
			t.Errorf("a question that was held %s: answered %+v, %v, want a time of %s ago", settleMost/2, m, err, settleMost/4)
		}
		time.Sleep(settleMost / 2)
		answered(quick.addr, slow.addr, never.addr)
		b, err := codec.EncodeNode(never.key, func() Node { n := nodeMessage(); n.Stamp.Seq++; return n }())
		if err != nil {
			t.Fatal(err)
		}
		a.inject(sent{from: never.addr, to: gw.addr, data: b})
		end() // one still waits
	})
}

// TestWhatGoesToAllIsTold has a gateway announce more than there is room for: it tells
// of what has gone out, and not before.
func TestWhatGoesToAllIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw := newMember(network.Public(), network)
		next := make([]byte, 32)
		gateway := NewGatewaySide(gw.config(a, network.Public(), 1), func() Gateway {
			g := self()
			g.NextKey = bytes.Clone(next)
			return g
		}, func(Node, netip.Addr) <-chan struct{} { return nil })
		var told []byte // the first octets of the keys
		gateway.Announced = func(g Gateway) {
			if sent := a.by(gw.addr); len(sent) != len(told)+1 {
				t.Errorf("told of announcement %d when %d had gone out", len(told)+1, len(sent))
			}
			told = append(told, g.NextKey[0])
		}
		defer life(t, gateway.Run)()
		synctest.Wait()
		for range toAllBurst + 2 {
			gateway.Changed()
			synctest.Wait()
		}
		next[0] = 1
		gateway.Changed()
		synctest.Wait()
		if want := make([]byte, 1+toAllBurst); !bytes.Equal(told, want) {
			t.Fatalf("told of %v, want %v", told, want)
		}
		time.Sleep(toAllWait)
		synctest.Wait()
		if n := len(told); n < 2+toAllBurst || told[n-1] != 1 {
			t.Errorf("told of %v: the last is missing", told)
		}
	})
}

// toAllWait is how long what goes to all waits for room at most, and a little.
const toAllWait = 10*time.Second + 100*time.Millisecond // by toAllPerSecond

// TestWhatPressesWaitsForNobody: links come and go all the time, as one can have them do
// who is about to be shut out. What they set off goes out as often as there is room, and
// what presses within a second, twice, and that no more often than once a second either.
func TestWhatPressesWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw := newMember(network.Public(), network)
		list := uint64(1)
		gateway := NewGatewaySide(gw.config(a, network.Public(), 1), func() Gateway {
			g := self()
			g.List = list
			return g
		}, func(Node, netip.Addr) <-chan struct{} { return nil })
		defer life(t, gateway.Run)()
		flap := func(lasts time.Duration) {
			for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				gateway.Changed()
			}
			synctest.Wait()
		}
		said := func() (times []time.Time) { // of the present list
			for _, m := range a.by(gw.addr) {
				if g, ok := decode(t, network.Public(), m.data).(Gateway); ok && g.List == list {
					times = append(times, m.at)
				}
			}
			return times
		}
		flap(time.Minute)
		if n := len(said()); n < toAllBurst+4 || n > 1+toAllBurst+6 {
			t.Errorf("%d announcements in a minute of links that come and go, want about %d", n, toAllBurst+6)
		}
		for range 5 {
			list++
			began := time.Now()
			gateway.Press()
			flap(3 * time.Second)
			if at := said(); len(at) < pressTimes || at[pressTimes-1].Sub(began) > 2*pressPause+time.Millisecond || at[0].Sub(began) > pressPause {
				t.Errorf("it was said at %v after %s, want %d times, first within %s", at, began, pressTimes, pressPause)
			}
		}
		list++
		for range 100 {
			gateway.Press()
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(said()); n < 9 || n > 13 {
			t.Errorf("%d announcements in ten seconds in which it was pressed all the time, want one a second", n)
		}
		flap(time.Minute)
		list++
		if flap(toAllWait); len(said()) == 0 {
			t.Errorf("a change was not announced in %s", toAllWait)
		}
	})
}

func TestTableOfSendersIsBounded(t *testing.T) {
	senders := map[identity.PublicKey]*sender{}
	now := time.Now()
	for i := range maxSenders {
		senders[identity.PublicKey{byte(i), byte(i >> 8), 1}] = &sender{heard: now.Add(time.Duration(i) * time.Second)}
	}
	forget(senders)
	if _, there := senders[identity.PublicKey{0, 0, 1}]; there || len(senders) != maxSenders-1 {
		t.Errorf("table has %d entries, oldest still there: %v", len(senders), there)
	}
}

// TestMulticast carries the protocol over a real cable between two network
// namespaces.
func TestMulticast(t *testing.T) {
	network := identity.New()
	gwKey, ndKey := network, identity.New()
	near, far := nstest.Cable(t, "announce-a", "announce-b")
	address := func(l netlink.Link, key identity.Key) error {
		a, err := netlink.ParseAddr(identity.Underlay(network.Public(), key.Public()).String() + "/64")
		if err != nil {
			return err
		}
		a.Flags = 0x02 // no duplicate address detection
		return netlink.AddrAdd(l, a)
	}
	var there Socket
	nstest.Away(t, far, func(l netlink.Link) error {
		err := address(l, ndKey)
		if err == nil {
			there, err = OpenSocket("announce-b")
		}
		return err
	})
	if err := address(near, gwKey); err != nil {
		t.Fatal(err)
	}
	config := func(key identity.Key, open func() (Socket, error)) Config {
		start := time.Now()
		return Config{Network: network.Public(), Key: key, Boot: 1, Open: open, Steps: func() uint32 { return 0 }, Log: slog.New(slog.DiscardHandler),
			Since: func() uint64 { return uint64(time.Since(start).Milliseconds()) }}
	}
	heard, asked := make(chan Heard, 10), make(chan netip.Addr, 10)
	node := NewNodeSide(config(ndKey, func() (Socket, error) { return unchecked{there}, nil }), make([]byte, 32), 0, func(h Heard) { heard <- h })
	gateway := NewGatewaySide(config(gwKey, func() (Socket, error) { return OpenSocket("announce-a") }), self, func(_ Node, from netip.Addr) <-chan struct{} { asked <- from; return nil })
	defer life(t, gateway.Run)()
	defer life(t, node.Run)()
	timeout := time.After(3 * time.Minute)
	select {
	case h := <-heard:
		if h.RoundTrip <= 0 {
			t.Errorf("first believed message: %+v, want an answer", h)
		}
	case <-timeout:
		t.Fatalf("no answer; gateway ignored %v, node %v", gateway.Counters.Snapshot(), node.Counters.Snapshot())
	}
	select {
	case from := <-asked:
		if !from.IsLinkLocalUnicast() && from != identity.Underlay(network.Public(), ndKey.Public()) {
			t.Errorf("asked from %s", from)
		}
	case <-timeout:
		t.Fatal("gateway heard nobody")
	}
	// The gateway speaks unasked too: from now on the node believes that.
	gateway.Changed()
	for {
		select {
		case h := <-heard:
			if h.RoundTrip == 0 {
				return
			}
			// On a busy machine it has asked once more, and was answered.
		case <-timeout:
			t.Fatal("announcement not heard")
		}
	}
}

// unchecked is a socket of another namespace: its interface can't be seen from
// here.
type unchecked struct{ Socket }

func (unchecked) Watch(ctx context.Context) error { <-ctx.Done(); return nil }

func TestSocketNoticesThatItsInterfaceIsGone(t *testing.T) {
	near, _ := nstest.Cable(t, "gone-a", "gone-b")
	s, err := OpenSocket("gone-a")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	gone := make(chan error)
	go func() { gone <- s.Watch(t.Context()) }()
	if err := netlink.LinkDel(near); err != nil {
		t.Fatal(err)
	}
	nstest.Cable(t, "gone-a", "gone-b")
	if err := <-gone; err == nil {
		t.Error("interface was made anew, the socket did not notice")
	}
	if _, err := OpenSocket("none"); err == nil {
		t.Error("a socket was opened on an interface that is not there")
	}
}
