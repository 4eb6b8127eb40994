package mesh

import (
	"math/rand/v2"
	"time"
)

const (
	listRetry = 2 * time.Second // after a failure; doubles
	listMost  = 2 * time.Minute

	// listRate is what fetches that can wait may take of the mesh, all together.
	listRate   = 100_000 // bit/s
	listOctets = 110     // of a member in a list

	pressEach = 10 * time.Millisecond // of a fetch that presses, for each member
	pressMost = 2 * time.Second       // a revocation is to be everywhere within 5 s
)

// fetchSpread is the time in which the members of a network of that size fetch a
// list that can wait: 0.9 s for ten, 9 min for 250.
func fetchSpread(members int) time.Duration {
	return time.Duration(members) * time.Duration(members) * listOctets * 8 * time.Second / listRate
}

// fetchPlan is when a node fetches the list of members. The zero value: no fetch is
// due.
type fetchPlan struct {
	at       time.Time
	pressing bool
	wait     time.Duration // after the next failure; 0: the last went well
}

// announced plans a fetch for a newer list, in a network of so many members. A plan
// stands, however often the list is announced: dice that are thrown again and again
// fall low at last.
func (f *fetchPlan) announced(now time.Time, pressing bool, members int) {
	spread := fetchSpread(members)
	if pressing {
		spread = min(time.Duration(members)*pressEach, pressMost)
	}
	switch {
	case f.at.IsZero() || pressing && !f.pressing:
		f.at, f.pressing = now.Add(rand.N(spread+1)), pressing
	case f.wait > 0: // the gateway is heard: what was lacking may be there
		if soon := now.Add(listRetry/2 + rand.N(listRetry)); soon.Before(f.at) {
			f.at = soon
		}
	}
}

// failed plans the next try.
func (f *fetchPlan) failed(now time.Time) {
	f.wait = max(f.wait, listRetry)
	f.at = now.Add(f.wait/2 + rand.N(f.wait)) // not all at once
	f.wait = min(2*f.wait, listMost)
}
