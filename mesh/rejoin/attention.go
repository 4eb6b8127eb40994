package rejoin

import (
	"slices"
	"time"

	"golang.org/x/time/rate"

	"halo.internal/identity"
)

// attention decides whose signatures are verified. Anybody can write a member's tag and a
// stamp, so that it tells only whose share is used up: who forges one's requests takes from
// that member, and the others have their own. Where somebody forges all of them, a request
// gets through as one of so many.
type attention struct {
	roll    func() []identity.PublicKey
	looked  time.Time
	keys    []identity.PublicKey
	members map[Tag]*claimant
	clean   *rate.Limiter // of those in whose name nothing was forged lately, together
	suspect *rate.Limiter // of the others
}

// claimant is a member, and what is left of its share.
type claimant struct {
	key    identity.PublicKey
	share  *rate.Limiter
	forged time.Time // when a request in its name was last
}

func newAttention(roll func() []identity.PublicKey) *attention {
	return &attention{
		roll: roll, members: map[Tag]*claimant{},
		clean:   rate.NewLimiter(cleanPerSecond, cleanPerSecond),
		suspect: rate.NewLimiter(suspectPerSecond, suspectPerSecond),
	}
}

// find returns the member of a tag, or nil. It costs a look into a table; who the members
// are is asked at most once a second.
func (a *attention) find(now time.Time, tag Tag) *claimant {
	if a.looked.IsZero() || now.Sub(a.looked) >= lookEvery || now.Before(a.looked) {
		a.looked = now
		if keys := a.roll(); !slices.Equal(keys, a.keys) {
			a.learn(keys)
		}
	}
	return a.members[tag]
}

func (a *attention) learn(keys []identity.PublicKey) {
	before := a.members
	a.keys, a.members = slices.Clone(keys), make(map[Tag]*claimant, len(keys))
	for _, key := range keys {
		tag := TagOf(key)
		if a.members[tag] = before[tag]; a.members[tag] == nil {
			a.members[tag] = &claimant{key: key, share: rate.NewLimiter(memberPerSecond, memberPerSecond)}
		}
	}
}

// take tells whether a signature in a member's name is to be verified.
func (a *attention) take(now time.Time, c *claimant) bool {
	all := a.clean
	if !c.forged.IsZero() && now.Sub(c.forged) < suspectFor {
		all = a.suspect
	}
	return c.share.AllowN(now, 1) && all.AllowN(now, 1)
}
