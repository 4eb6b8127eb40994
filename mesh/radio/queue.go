package radio

import (
	"slices"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/dot11"
)

// lane is one of those in which frames wait to be worked on.
type lane int

const (
	peeringFrames  lane = iota // links are made and asked for by them
	authentication             // of stations that are wanted
	strangers                  // authentication of others, and what is said past the mesh
	candidates                 // beacons of members that are no stations
	lanes          int  = iota
)

// Bounds of what waits.
const (
	maxWaiting = 64   // frames in a lane
	maxOf      = 8    // of them in the name of one sender
	maxTold    = 1024 // events of the kernel itself
)

// queue holds what came and was not worked on yet. Anybody may send frames faster than
// a small processor verifies them: in one line, what peers say would come when they have
// long been given up. So each kind of frame waits in a lane of its own, short enough
// that nothing in it is old, and all lanes have their turn: no kind, and no sender,
// keeps the others from being heard. The zero queue is empty.
type queue struct {
	told       []nl80211.Event // of the kernel itself, which come first
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
	return len(q.told) == 0
}

// put takes an event; wanted tells of an address whether there is a link, or one is
// sought.
func (q *queue) put(e nl80211.Event, wanted func(dot11.MAC) bool) {
	a := arrival{event: e}
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
			l = peeringFrames
		case wanted(from):
			l = authentication
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
	a.order = q.came
	of := 0
	for _, w := range q.lanes[l] {
		if w.from == a.from {
			of++
		}
	}
	if of >= maxOf || len(q.lanes[l]) >= maxWaiting {
		q.crowdedOut++ // as one that was lost on the air: it is sent again
		return
	}
	q.lanes[l] = append(q.lanes[l], a)
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
	for range lanes {
		l := q.turn
		q.turn = (q.turn + 1) % lane(lanes)
		if len(q.lanes[l]) == 0 {
			continue
		}
		first := q.lanes[l][0]
		if l == peeringFrames {
			// A peer may say the end of authentication and the beginning of peering in one
			// breath: under a key that is not there yet, the second would be lost.
			for _, of := range []lane{authentication, strangers} {
				i := slices.IndexFunc(q.lanes[of], func(a arrival) bool { return a.from == first.from && a.order < first.order })
				if i >= 0 {
					q.turn = l
					return q.remove(of, i)
				}
			}
		}
		return q.remove(l, 0)
	}
	return nil
}

func (q *queue) remove(l lane, i int) nl80211.Event {
	e := q.lanes[l][i].event
	q.lanes[l] = slices.Delete(q.lanes[l], i, i+1)
	return e
}
