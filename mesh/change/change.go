// Package change decides when a device switches to another mesh profile, and when
// it goes back. It has no I/O: documents, orders, what is heard of the gateway and
// the time go in; the profile to use, what the card has to keep, and on the
// gateway the orders and the documents to be made come out.
//
// The gateway leads. It hands out a document (mesh/profile), waits until the nodes
// that it reaches have it on their cards, orders the switch with a countdown,
// switches, and looks who comes back: when enough do, the change stands, else it
// calls all back by another document. A node holds what the gateway uses for
// true, and searches until it hears it: after an ordered switch for a limited time
// on the new profile, then on the old one, and when it is alone, on every profile that
// it knows of, in turn. One that has peers serves them, also while the gateway is off:
// it leaves them for where there is reason to look, and when it is its turn among them.
// So whatever is lost in between, a switch, an order, the power, all that can reach the
// gateway end on its profile.
package change

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"halo.internal/mesh/profile"
	"halo.internal/model/bundle"
)

// Timing holds the intervals; a zero field stands for its default.
type Timing struct {
	// Of nodes.
	Trial   time.Duration // after an ordered switch, until the gateway has to have been heard
	Alone   time.Duration // without a peer, until other profiles are tried
	Quiet   time.Duration // with peers and without the gateway, until those are for which there is reason
	Visit   time.Duration // on a profile that is tried
	Longest time.Duration // on its own profile between two such tries
	Lost    time.Duration // on a profile where the gateway was not heard, or without a peer, until members are asked for a document
	Silent  time.Duration // since the gateway was heard, until they are

	// Of the gateway.
	Reach     time.Duration // since its overlay came up, for it to reach the nodes
	Prepare   time.Duration // for the nodes to get a document
	Recall    time.Duration // the same, when all are called back
	Countdown time.Duration // from the first order to the switch
	Repeat    time.Duration // between orders
	Settle    time.Duration // after the switch, for the nodes to come back

	// Jitter varies an interval, so that nodes part that would go in step; nil: by a
	// fifth.
	Jitter func(time.Duration) time.Duration
}

// WithDefaults fills in what is zero.
func (t Timing) WithDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Trial, 3 * time.Minute},
		{&t.Alone, 3 * time.Minute},
		{&t.Quiet, 15 * time.Minute},
		{&t.Visit, 90 * time.Second},
		{&t.Longest, 15 * time.Minute},
		{&t.Lost, 20 * time.Second},
		{&t.Silent, 100 * time.Second}, // it announces itself every half minute
		{&t.Reach, 5 * time.Minute},    // a node says something within two
		{&t.Prepare, 3 * time.Minute},
		{&t.Recall, 45 * time.Second},
		{&t.Countdown, 5 * time.Second},
		{&t.Repeat, 250 * time.Millisecond},
		{&t.Settle, 4 * time.Minute},
	} {
		*d.field = cmp.Or(*d.field, d.value)
	}
	if t.Jitter == nil {
		t.Jitter = func(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }
	}
	return t
}

// Former returns the former profiles for a document that puts mesh in the place of
// what held: that first, then those that still count. added, if any, was tried and
// given up: members may have stayed on it.
func Former(held bundle.Mesh, before []profile.Former, added *bundle.Mesh, mesh bundle.Mesh, now time.Time) []profile.Former {
	list := []profile.Former{}
	add := func(f profile.Former) {
		same := func(o profile.Former) bool { return o.Mesh == f.Mesh }
		if f.Mesh != mesh && f.Until.After(now) && len(list) < profile.MaxFormer && !slices.ContainsFunc(list, same) {
			list = append(list, f)
		}
	}
	until := now.Add(profile.Keep)
	add(profile.Former{Mesh: held, Until: until})
	if added != nil {
		add(profile.Former{Mesh: *added, Until: until})
	}
	for _, f := range before {
		if f.Until.After(until) { // the clock went back
			f.Until = until
		}
		add(f)
	}
	return list
}
