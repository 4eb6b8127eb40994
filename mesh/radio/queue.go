package radio

import (
	"slices"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/dot11"
)

// lane is one of those in which frames wait to be worked on.
type lane int

const (
	authentication lane = iota // of stations that are wanted
	strangers                  // authentication of others
	candidates                 // beacons of members that are no stations
	lanes          int  = iota
)

// Bounds of what waits.
const (
	maxTold    = 1024 // events of the kernel itself
	maxPeering = 256  // frames of peering
	peeringOf  = 32   // of them in the name of one sender
	maxWaiting = 16   // frames in a lane
	maxOf      = 6    // of them in the name of one sender: a Commit and the Confirms of one answer are five
	inARow     = 8    // frames of peering, before a lane has its turn
)

// queue holds what came and was not worked on yet. Anybody may send frames faster than
// a small processor computes what they ask for: in one line, what peers say would come
// when they have long been given up. So what the kernel says comes first. Frames of
// peering, by which links are made, asked for and ended, cost little to verify: the line
// of them is long, and eight are looked at in a row. What costs more waits by kind in
// short lanes, which have their turn. In each, what was said first comes first, and goes
// where there is no room; nobody has more than some places. So no kind, and no name,
// keeps all others from being heard, and what is worked on is new. The zero queue is
// empty.
type queue struct {
	told       []nl80211.Event // of the kernel itself
	peering    []arrival
	row        int // frames of peering since a lane had its turn
	lanes      [lanes][]arrival
	turn       lane
	came       uint64 // frames, in all
	crowdedOut uint64 // of them, for which there was no room
}

// arrival is a frame that waits.
type arrival struct {
	from  dot11.MAC
	order uint64 // among all
	event nl80211.Event
}

// empty tells whether nothing waits.
func (q *queue) empty() bool {
	for _, l := range q.lanes {
		if len(l) > 0 {
			return false
		}
	}
	return len(q.told) == 0 && len(q.peering) == 0
}

// put takes an event; wanted tells of an address whether there is a link, or one is
// sought.
func (q *queue) put(e nl80211.Event, wanted func(dot11.MAC) bool) {
	a := arrival{order: q.came + 1, event: e}
	var l lane
	switch e := e.(type) {
	case nl80211.Frame:
		from, ok := sender(e.Data)
		if !ok {
			return
		}
		a.from = from
		switch {
		case isPeering(e.Data):
			q.came++
			if len(q.peering) >= maxPeering || count(q.peering, from) >= peeringOf {
				q.crowdedOut++
				return
			}
			q.peering = append(q.peering, a)
			return
		case count(q.lanes[authentication], from) > 0 || wanted(from) && count(q.lanes[strangers], from) == 0:
			l = authentication // or behind what it said before, in its order
		default:
			l = strangers
		}
	case nl80211.PeerCandidate:
		if len(e.MAC) != len(a.from) {
			return
		}
		a.from, l = dot11.MAC(e.MAC), candidates
	default:
		if len(q.told) >= maxTold { // as where the kernel had no room for more
			q.told = append(q.told[:0], nl80211.Overflow{})
		}
		q.told = append(q.told, e)
		return
	}
	q.came++
	// Where there is no room it is as if the air had lost a frame: it is sent again.
	if count(q.lanes[l], a.from) >= maxOf {
		q.crowdedOut++
		return
	}
	if len(q.lanes[l]) >= maxWaiting {
		q.crowdedOut++
		q.remove(l, 0)
	}
	q.lanes[l] = append(q.lanes[l], a)
}

// count returns how many frames wait in a sender's name.
func count(list []arrival, from dot11.MAC) (n int) {
	for _, a := range list {
		if a.from == from {
			n++
		}
	}
	return n
}

// isPeering tells whether a frame is one of peering.
func isPeering(frame []byte) bool {
	const category, self = managementHeader, 15
	return len(frame) > category+1 && frame[0] == byte(nl80211.FrameAction) && frame[category] == self && frame[category+1] != strange[1]
}

// take returns what is to be worked on next; nil: nothing waits.
func (q *queue) take() nl80211.Event {
	if len(q.told) > 0 {
		e := q.told[0]
		q.told = slices.Delete(q.told, 0, 1)
		return e
	}
	if len(q.peering) > 0 && q.row < inARow {
		return q.takePeering()
	}
	q.row = 0
	for range lanes {
		l := q.turn
		q.turn = (q.turn + 1) % lane(lanes)
		if len(q.lanes[l]) > 0 {
			return q.remove(l, 0)
		}
	}
	if len(q.peering) > 0 {
		return q.takePeering()
	}
	return nil
}

// takePeering returns the first frame of peering, or what its sender has said of
// authentication before it: a peer may say the end of the one and the beginning of the
// other in one breath, and under a key that is not there yet, the second would be lost.
func (q *queue) takePeering() nl80211.Event {
	first := q.peering[0]
	for _, l := range []lane{authentication, strangers} {
		i := slices.IndexFunc(q.lanes[l], func(a arrival) bool { return a.from == first.from && a.order < first.order })
		if i >= 0 {
			return q.remove(l, i)
		}
	}
	q.peering = slices.Delete(q.peering, 0, 1)
	q.row++
	return first.event
}

func (q *queue) remove(l lane, i int) nl80211.Event {
	e := q.lanes[l][i].event
	q.lanes[l] = slices.Delete(q.lanes[l], i, i+1)
	return e
}
