package announce

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// TestNobodyTakesAnothersShare floods an intake with what some kin sends and looks what is
// left for one of each.
func TestNobodyTakesAnothersShare(t *testing.T) {
	gateway, one, two, stranger := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fe80::9")
	forged := netip.MustParsePrefix("fd00:1::/32") // members have five addresses each
	owner := func(from netip.Addr) Owner {
		b := from.As16()
		n := int(b[14])<<8 | int(b[15])
		switch {
		case from == gateway:
			return Owner{KinGateway, identity.PublicKey{1}}
		case forged.Contains(from):
			return Owner{KinMember, identity.PublicKey{2, byte(n / 5 >> 8), byte(n / 5)}}
		case from == one || from == two:
			return Owner{KinMember, identity.PublicKey{3, b[15]}}
		}
		return Owner{}
	}
	of := func(members int) func(i int) netip.Addr {
		return func(i int) netip.Addr {
			i %= 5 * members
			return netip.AddrFrom16([16]byte{0: 0xfd, 3: 1, 14: byte(i >> 8), 15: byte(i)})
		}
	}
	const proof = "proof"
	proven := func(_ Owner, b []byte) bool { return string(b) == proof }
	for name, tc := range map[string]struct {
		from func(i int) netip.Addr
		left []netip.Addr // who is heard all the same
		most int          // of the flood, in ten seconds
	}{
		"a stranger":               {func(int) netip.Addr { return stranger }, []netip.Addr{gateway, one, two}, 11 * strangersPerSecond},
		"who forges one's address": {func(int) netip.Addr { return one }, []netip.Addr{gateway, two, stranger}, memberBurst + 10*memberPerSecond},
		"who forges five members'": {of(5), []netip.Addr{gateway, one, two, stranger}, 5 * (memberBurst + 10*memberPerSecond)},
		"who forges everybody's":   {of(1000), []netip.Addr{gateway, stranger}, 11 * membersPerSecond},
		"who forges the gateway's": {func(int) netip.Addr { return gateway }, []netip.Addr{one, two, stranger}, gatewayBurst + 10*gatewayPerSecond},
	} {
		t.Run(name, func(t *testing.T) {
			g, now, passed := newIntake(owner, proven), time.Now(), 0
			for i := range 100_000 { // in ten seconds
				now = now.Add(100 * time.Microsecond)
				if g.pass(now, tc.from(i), nil) {
					passed++
				}
			}
			if passed == 0 || passed > tc.most {
				t.Errorf("%d were looked at, want at most %d", passed, tc.most)
			}
			for _, from := range tc.left {
				if !g.pass(now, from, nil) {
					t.Errorf("%s is not heard", from)
				}
			}
			// What is proven has a share of its own, which is bounded too.
			for _, from := range []netip.Addr{gateway, one, two} {
				if !g.pass(now, from, []byte(proof)) {
					t.Errorf("%s is not heard with a proof", from)
				}
			}
			passed = 0
			for range 10_000 {
				if g.pass(now, tc.from(0), []byte(proof)) {
					passed++
				}
			}
			if passed > gatewayAnswersBurst+gatewayBurst {
				t.Errorf("%d with proofs were looked at, want at most %d", passed, gatewayAnswersBurst+gatewayBurst)
			}
			for i := range maxMembers + 100 {
				g.pass(now, of(2000)(5*i), nil)
			}
			if len(g.shares) > maxMembers {
				t.Errorf("it knows %d members, want at most %d", len(g.shares), maxMembers)
			}
		})
	}
}

// TestAFloodSilencesNobody: while somebody sends junk, nodes hear the gateway, and it
// answers them.
func TestAFloodSilencesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		owner := func(from netip.Addr) Owner {
			switch from {
			case gw.addr:
				return Owner{KinGateway, gw.key.Public()}
			case nd.addr:
				return Owner{KinMember, nd.key.Public()}
			}
			return Owner{}
		}
		heard, orders, asked := 0, 0, 0
		c := nd.config(a, network.Public(), 1)
		c.Owner = owner
		node := NewNodeSide(c, make([]byte, 32), 0, func(Heard) { heard++ })
		node.Ordered = func(Order) { orders++ }
		c = gw.config(a, network.Public(), 1)
		c.Owner = owner
		gateway := NewGatewaySide(c, self, func(Node, netip.Addr) <-chan struct{} { asked++; return nil })
		defer life(t, gateway.Run)()
		defer life(t, node.Run)()
		ctx := t.Context()
		flood := make(chan struct{})
		defer func() { <-flood }()
		const lasts = 5 * time.Minute
		go func() {
			defer close(flood)
			for range lasts / (2 * time.Millisecond) {
				a.inject(sent{from: netip.MustParseAddr("fe80::bad"), to: paths.AnnounceGroup, data: []byte("junk")})
				time.Sleep(2 * time.Millisecond)
				if ctx.Err() != nil {
					return
				}
			}
		}()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if heard == 0 || asked == 0 {
			t.Fatalf("the node has heard the gateway %d times, and that the node %d times", heard, asked)
		}
		before := asked
		for range 20 {
			gateway.Order(Order{Epoch: 1, Serial: 2, InMS: 1000})
			time.Sleep(250 * time.Millisecond)
		}
		for range 5 {
			node.Ask()
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		if orders != 20 || asked-before < 5 {
			t.Errorf("%d orders of 20 were heard, and %d questions of 5", orders, asked-before)
		}
		was := heard
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if n := heard - was; n < 5 {
			t.Errorf("the node heard the gateway %d times in three minutes, want six or so", n)
		}
		if n := node.Counters.Snapshot()[ignoredRate]; n == 0 {
			t.Error("all of the junk was looked at")
		}
	})
}

// TestWhatIsForgedInNamesOfMembers takes nothing from what is proven: while somebody floods
// the mesh in the names of the gateway and of all members, the asking one among them, with
// messages that differ from genuine ones in nothing but the signature, each question is
// heard and answered.
func TestWhatIsForgedInNamesOfMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := identity.New()
		a := &air{}
		gw, nd := newMember(network.Public(), network), newMember(network.Public(), identity.New())
		owners := map[netip.Addr]Owner{gw.addr: {KinGateway, network.Public()}, nd.addr: {KinMember, nd.key.Public()}}
		members := []member{nd}
		for range 24 {
			m := newMember(network.Public(), identity.New())
			members = append(members, m)
			owners[m.addr] = Owner{KinMember, m.key.Public()}
		}
		owner := func(from netip.Addr) Owner { return owners[from] }
		answered, orders, asked := 0, 0, 0
		c := nd.config(a, network.Public(), 1)
		c.Owner = owner
		node := NewNodeSide(c, make([]byte, 32), 0, func(h Heard) {
			if h.RoundTrip > 0 {
				answered++
			}
		})
		node.Ordered = func(Order) { orders++ }
		c = gw.config(a, network.Public(), 1)
		c.Owner = owner
		gateway := NewGatewaySide(c, self, func(Node, netip.Addr) <-chan struct{} { asked++; return nil })
		defer life(t, gateway.Run)()
		defer life(t, node.Run)()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if answered != 1 {
			t.Fatalf("before the flood: %d answers", answered)
		}

		ctx, stop := context.WithCancel(t.Context())
		flood := make(chan struct{})
		codec := Codec{network.Public()}
		forge := func(kind uint8, body any) []byte {
			b, err := encMode.Marshal(body)
			if err == nil {
				b, err = encMode.Marshal(envelope{Kind: kind, Network: networkTag(network.Public()), Body: b, Signature: make([]byte, 64)})
			}
			if err != nil {
				t.Error(err)
			}
			return b
		}
		// Each two milliseconds in the gateway's name, and in that of the next member.
		go func() {
			defer close(flood)
			g := self()
			g.Nonce = make([]byte, NonceSize)
			for i := uint64(0); ctx.Err() == nil; i++ {
				g.Stamp, g.Nonce[0] = Stamp{Boot: 1, Seq: 1 << 30}, byte(i)
				a.inject(sent{from: gw.addr, to: nd.addr, data: forge(kindGateway, g)})
				m := members[i/2%uint64(len(members))]
				if i%2 == 0 {
					m = nd
				}
				key := m.key.Public()
				n := Node{Key: key[:], Stamp: Stamp{Boot: 1, Seq: 1<<30 + i}, WireGuardKey: make([]byte, 32), Nonce: drawNonce(nil, Stamp{})}
				a.inject(sent{from: m.addr, to: gw.addr, data: forge(kindNode, n)})
				time.Sleep(2 * time.Millisecond)
			}
		}()
		time.Sleep(10 * time.Second) // what was saved up is used up
		const questions = 8
		for range questions {
			node.Ask()
			time.Sleep(3 * time.Second)
		}
		synctest.Wait()
		if asked != 1+questions || answered != 1+questions {
			t.Errorf("of %d questions the gateway heard %d, and the node %d answers", 1+questions, asked, answered)
		}
		// Orders prove nothing that costs little: one in fifty is heard, by chance. They are
		// repeated.
		const repeated = 600
		for range repeated {
			gateway.Order(Order{Epoch: 1, Serial: 2, InMS: 1000})
			time.Sleep(253 * time.Millisecond)
		}
		synctest.Wait()
		t.Logf("of %d orders %d were heard, while 500 forged messages a second came in the gateway's name", repeated, orders)
		if orders == 0 {
			t.Error("no order was heard")
		}
		stop()
		<-flood
		// A recording of a proved question proves nothing.
		p := proofs{key: network, codec: codec, members: map[identity.PublicKey]*prover{}}
		proved := 0
		for range 2 {
			for _, m := range a.by(nd.addr) {
				if p.proven(owners[nd.addr], m.data) {
					proved++
				}
			}
		}
		if sent := len(a.by(nd.addr)); proved != sent {
			t.Errorf("%d questions are proved, want %d: each once", proved, sent)
		}
	})
}

// TestWhatProvesAQuestion is bound to who asks, and to when.
func TestWhatProvesAQuestion(t *testing.T) {
	network, one, two := identity.New(), identity.New(), identity.New()
	codec := Codec{network.Public()}
	question := func(key identity.Key, change func(*Node)) []byte {
		secret, err := key.Agree(network.Public(), proofContext, proofSecret)
		if err != nil {
			t.Fatal(err)
		}
		n := Node{Stamp: Stamp{Boot: 2, Seq: 5}, WireGuardKey: make([]byte, 32)}
		n.Nonce = drawNonce(secret, n.Stamp)
		change(&n)
		b, err := codec.EncodeNode(key, n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	of := func(k identity.Key) Owner { return Owner{KinMember, k.Public()} }
	same := func(*Node) {}
	for name, tc := range map[string]struct {
		from Owner
		b    []byte
		want bool
	}{
		"its own":             {of(one), question(one, same), true},
		"of a later start":    {of(one), question(one, func(n *Node) { n.Stamp.Boot = 3 }), false},
		"sent later":          {of(one), question(one, func(n *Node) { n.Stamp.Seq++ }), false},
		"with another nonce":  {of(one), question(one, func(n *Node) { n.Nonce[0]++ }), false},
		"of a former release": {of(one), question(one, func(n *Node) { n.Nonce = make([]byte, NonceSize) }), false},
		"without a nonce":     {of(one), question(one, func(n *Node) { n.Nonce = nil }), false},
		"from another":        {of(two), question(one, same), false},
		"from the gateway":    {Owner{KinGateway, network.Public()}, question(one, same), false},
		"from a stranger":     {Owner{}, question(one, same), false},
		"junk":                {of(one), []byte("junk"), false},
		"too long":            {of(one), make([]byte, MaxSize+1), false},
		"of another network": {of(one), func() []byte {
			codec = Codec{two.Public()}
			defer func() { codec = Codec{network.Public()} }()
			return question(one, same)
		}(), false},
	} {
		p := proofs{key: network, codec: Codec{network.Public()}, members: map[identity.PublicKey]*prover{}}
		if got := p.proven(tc.from, tc.b); got != tc.want {
			t.Errorf("%s: proven: %v, want %v", name, got, tc.want)
		}
		if p.proven(tc.from, tc.b) {
			t.Errorf("%s: proven a second time", name)
		}
	}
}
