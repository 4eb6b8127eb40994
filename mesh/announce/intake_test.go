package announce

import (
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
	kin := func(from netip.Addr) Kin {
		switch {
		case from == gateway:
			return KinGateway
		case from == one || from == two || netip.MustParsePrefix("fd00:1::/32").Contains(from):
			return KinMember
		}
		return KinStranger
	}
	forged := func(i int) netip.Addr {
		i %= 5000
		return netip.AddrFrom16([16]byte{0: 0xfd, 3: 1, 14: byte(i >> 8), 15: byte(i)})
	}
	for name, tc := range map[string]struct {
		from func(i int) netip.Addr
		left []netip.Addr // who is heard all the same
		most int          // of the flood, in ten seconds
	}{
		"a stranger":               {func(int) netip.Addr { return stranger }, []netip.Addr{gateway, one, two}, 11 * strangersPerSecond},
		"who forges one's address": {func(int) netip.Addr { return one }, []netip.Addr{gateway, two, stranger}, memberBurst + 10*memberPerSecond},
		"who forges everybody's":   {forged, []netip.Addr{gateway, stranger}, 11 * membersPerSecond},
		"who forges the gateway's": {func(int) netip.Addr { return gateway }, []netip.Addr{one, two, stranger}, gatewayBurst + 10*gatewayPerSecond},
	} {
		t.Run(name, func(t *testing.T) {
			g, now, passed := newIntake(kin), time.Now(), 0
			for i := range 100_000 { // in ten seconds
				now = now.Add(100 * time.Microsecond)
				if g.pass(now, tc.from(i)) {
					passed++
				}
			}
			if passed == 0 || passed > tc.most {
				t.Errorf("%d were looked at, want at most %d", passed, tc.most)
			}
			for _, from := range tc.left {
				if !g.pass(now, from) {
					t.Errorf("%s is not heard", from)
				}
			}
			if len(g.sources) > maxSources {
				t.Errorf("it knows %d sources, want at most %d", len(g.sources), maxSources)
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
		kin := func(from netip.Addr) Kin {
			switch from {
			case gw.addr:
				return KinGateway
			case nd.addr:
				return KinMember
			}
			return KinStranger
		}
		heard, orders, asked := 0, 0, 0
		c := nd.config(a, network.Public(), 1)
		c.Kin = kin
		node := NewNodeSide(c, make([]byte, 32), 0, func(Heard) { heard++ })
		node.Ordered = func(Order) { orders++ }
		c = gw.config(a, network.Public(), 1)
		c.Kin = kin
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
