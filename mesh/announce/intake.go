package announce

import (
	"net/netip"
	"time"
)

// Kin is whose address a datagram came from, as the addresses of members follow from
// their keys. Nobody proves an address: it tells only whose share of attention is used
// up, so that who forges one takes from that member alone.
type Kin uint8

// Kins.
const (
	KinStranger Kin = iota // also a node that has not joined yet
	KinMember
	KinGateway
)

// Limits of what is looked at, since to verify a signature costs. A node asks about once
// in half an hour, and at most once a second while it searches; a gateway says most while
// it orders all to switch: four words a second.
const (
	strangersPerSecond = 50 // from all together
	membersPerSecond   = 100
	memberPerSecond    = 4 // from one
	memberBurst        = 8
	gatewayPerSecond   = 20
	gatewayBurst       = 40
	maxSources         = 8192 // more than members have addresses
)

// intake decides which datagrams are looked at. Strangers take nothing from members, and
// neither from the gateway.
type intake struct {
	kin                         func(netip.Addr) Kin // nil: all are strangers
	strangers, members, gateway bucket
	sources                     map[netip.Addr]*bucket // members'
}

func newIntake(kin func(netip.Addr) Kin) *intake {
	return &intake{
		kin:       kin,
		strangers: bucket{rate: strangersPerSecond, burst: strangersPerSecond},
		members:   bucket{rate: membersPerSecond, burst: membersPerSecond},
		gateway:   bucket{rate: gatewayPerSecond, burst: gatewayBurst},
		sources:   map[netip.Addr]*bucket{},
	}
}

// pass tells whether a datagram is to be looked at.
func (g *intake) pass(now time.Time, from netip.Addr) bool {
	kin := KinStranger
	if g.kin != nil {
		kin = g.kin(from)
	}
	switch kin {
	case KinGateway:
		return g.gateway.takeAt(now)
	case KinMember:
		own := g.sources[from]
		if own == nil {
			g.forget()
			own = &bucket{rate: memberPerSecond, burst: memberBurst}
			g.sources[from] = own
		}
		return own.takeAt(now) && g.members.takeAt(now)
	}
	return g.strangers.takeAt(now)
}

// forget makes room in a full table by dropping who was heard longest ago.
func (g *intake) forget() {
	if len(g.sources) < maxSources {
		return
	}
	var oldest netip.Addr
	var at time.Time
	for from, b := range g.sources {
		if at.IsZero() || b.at.Before(at) {
			oldest, at = from, b.at
		}
	}
	delete(g.sources, oldest)
}
