package mesh

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/batman"
	"halo.internal/model/dot11"
)

// TestWhoseAddressIsWhose also when somebody becomes a member, or is none any more.
func TestWhoseAddressIsWhose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateway, one, two := identity.New().Public(), identity.New().Public(), identity.New().Public()
		members := []identity.PublicKey{gateway, one}
		looks := 0
		k := newKin(gateway, func() []identity.PublicKey { looks++; return members })
		link := func(key identity.PublicKey, turn uint8) netip.Addr {
			return linkLocal(dot11.MAC(batman.MAC(key, turn)))
		}
		aside := func(key identity.PublicKey, turn uint8) netip.Addr {
			return linkLocal(dot11.MAC(batman.Aside(batman.MAC(key, turn))))
		}
		expect := func(when string, want map[netip.Addr]announce.Kin) {
			t.Helper()
			for from, who := range want {
				if got := k.of(from); got.Kin != who || (got.Key != identity.PublicKey{}) != (who != announce.KinStranger) {
					t.Errorf("%s: %s is of kin %d, want %d", when, from, got.Kin, who)
				}
			}
		}
		expect("at first", map[netip.Addr]announce.Kin{
			identity.Underlay(gateway, gateway): announce.KinGateway, link(gateway, 0): announce.KinGateway, link(gateway, 3): announce.KinGateway,
			aside(gateway, 0): announce.KinGateway, aside(gateway, 3): announce.KinGateway, aside(one, 0): announce.KinStranger,
			identity.Underlay(gateway, one): announce.KinMember, link(one, 2): announce.KinMember,
			identity.Underlay(gateway, two): announce.KinStranger, link(two, 0): announce.KinStranger, netip.MustParseAddr("fe80::1"): announce.KinStranger,
		})
		members = []identity.PublicKey{gateway, two}
		time.Sleep(kinEvery)
		expect("later", map[netip.Addr]announce.Kin{
			identity.Underlay(gateway, two): announce.KinMember, link(two, 0): announce.KinMember,
			identity.Underlay(gateway, one): announce.KinStranger, link(one, 2): announce.KinStranger,
		})
		for range 1000 {
			k.of(netip.MustParseAddr("fe80::1"))
		}
		if looks != 2 {
			t.Errorf("it looked %d times who the members are, want twice", looks)
		}
	})
}
