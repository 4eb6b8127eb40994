package announce

import (
	"net/netip"
	"time"

	"halo.internal/identity"
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

// Owner is who has an address.
type Owner struct {
	Kin Kin
	Key identity.PublicKey // a stranger's is zero
}

// Limits of what is looked at, since to verify a signature costs: a third of a millisecond
// on a small board. A node asks about once in half an hour, and at most once a second while
// it searches; a gateway says most while it orders all to switch: four words a second. What
// is proven has shares of its own, which what is only claimed cannot use up.
const (
	strangersPerSecond      = 50 // from all together
	membersPerSecond        = 100
	memberPerSecond         = 4 // from one, by whichever of its addresses; and as much that is proven
	memberBurst             = 8
	gatewayPerSecond        = 100
	gatewayBurst            = 100
	gatewayAnswersPerSecond = 20 // of the gateway, with the nonce of the open question
	gatewayAnswersBurst     = 20
	maxMembers              = 1024 // more than there are
)

// intake decides which datagrams are looked at. Strangers take nothing from members, and
// neither from the gateway.
type intake struct {
	owner func(netip.Addr) Owner // nil: all are strangers
	// proven tells, at little cost, whether a datagram can only be of who has the address
	// that it is from; nil: of none can that be told.
	proven                               func(from Owner, b []byte) bool
	strangers, members, gateway, answers bucket
	shares                               map[identity.PublicKey]*share
}

// share is one member's.
type share struct{ claimed, proven bucket }

func newIntake(owner func(netip.Addr) Owner, proven func(Owner, []byte) bool) *intake {
	return &intake{
		owner: owner, proven: proven,
		strangers: bucket{rate: strangersPerSecond, burst: strangersPerSecond},
		members:   bucket{rate: membersPerSecond, burst: membersPerSecond},
		gateway:   bucket{rate: gatewayPerSecond, burst: gatewayBurst},
		answers:   bucket{rate: gatewayAnswersPerSecond, burst: gatewayAnswersBurst},
		shares:    map[identity.PublicKey]*share{},
	}
}

// pass tells whether a datagram is to be looked at.
func (g *intake) pass(now time.Time, from netip.Addr, b []byte) bool {
	var who Owner
	if g.owner != nil {
		who = g.owner(from)
	}
	proven := who.Kin != KinStranger && g.proven != nil && g.proven(who, b)
	switch who.Kin {
	case KinGateway:
		return proven && g.answers.takeAt(now) || g.gateway.takeAt(now)
	case KinMember:
		own := g.shares[who.Key]
		if own == nil {
			g.forget()
			own = &share{bucket{rate: memberPerSecond, burst: memberBurst}, bucket{rate: memberPerSecond, burst: memberBurst}}
			g.shares[who.Key] = own
		}
		return proven && own.proven.takeAt(now) || own.claimed.takeAt(now) && g.members.takeAt(now)
	}
	return g.strangers.takeAt(now)
}

// forget makes room in a full table by dropping whose share is used least.
func (g *intake) forget() {
	if len(g.shares) < maxMembers {
		return
	}
	var oldest identity.PublicKey
	var at time.Time
	for key, s := range g.shares {
		last := s.claimed.at
		if s.proven.at.After(last) {
			last = s.proven.at
		}
		if at.IsZero() || last.Before(at) {
			oldest, at = key, last
		}
	}
	delete(g.shares, oldest)
}
