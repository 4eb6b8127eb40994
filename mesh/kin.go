package mesh

import (
	"net/netip"
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/batman"
	"halo.internal/model/dot11"
)

// kinEvery is how often it is looked who the members are, whose addresses are told from
// others: who sends junk has it done.
const kinEvery = 2 * time.Second

// kin tells whose addresses on the mesh are whose. They follow from keys: that of the
// underlay, and the link's, of the hardware addresses that bat0 may have. A gateway that
// has stood down has the link's alone, of another hardware address: what it says is how
// the one that serves hears that it is there.
type kin struct {
	network identity.PublicKey
	roll    func() []identity.PublicKey
	looked  time.Time
	keys    []identity.PublicKey
	known   map[netip.Addr]announce.Owner
}

func newKin(network identity.PublicKey, roll func() []identity.PublicKey) *kin {
	return &kin{network: network, roll: roll}
}

// of returns whose address that is. It is called by one goroutine at a time.
func (k *kin) of(from netip.Addr) announce.Owner {
	if now := time.Now(); k.known == nil || now.Sub(k.looked) >= kinEvery {
		k.looked = now
		if keys := k.roll(); k.known == nil || !slices.Equal(keys, k.keys) {
			k.learn(keys)
		}
	}
	return k.known[from]
}

func (k *kin) learn(keys []identity.PublicKey) {
	k.keys, k.known = keys, make(map[netip.Addr]announce.Owner, (batman.Turns+1)*len(keys)+batman.Turns)
	for _, key := range keys {
		who := announce.Owner{Kin: announce.KinMember, Key: key}
		if key == k.network {
			who.Kin = announce.KinGateway
		}
		k.known[identity.Underlay(k.network, key)] = who
		for turn := range uint8(batman.Turns) {
			mac := batman.MAC(key, turn)
			k.known[linkLocal(dot11.MAC(mac))] = who
			if who.Kin == announce.KinGateway {
				k.known[linkLocal(dot11.MAC(batman.Aside(mac)))] = who
			}
		}
	}
}
