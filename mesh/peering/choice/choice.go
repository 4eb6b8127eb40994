// Package choice decides with which of the stations that a radio hears it is to
// have links. A radio holds about ten, and a dense cell has more; the choice is
// a pure function of what is heard and known, made again from time to time.
//
// In order of importance:
//
//  1. The graph stays connected: of stations that reach each other only through
//     us, or not at all, each group gets a link.
//  2. Links are good: by signal.
//  3. Links are disjoint: a station that a chosen one is linked with anyway adds
//     less than one that leads elsewhere.
//  4. What stands stays, until another is clearly better.
//
// A link is given up only for one that stands already, so that there has to be
// room for one beyond the limit: others choose too, do not know, and may refuse.
// Where signals are alike, as in one room, a number that both ends of a pair
// compute alike decides: if all preferred the same few, those would be full and
// the rest go without.
package choice

import (
	"bytes"
	"hash/fnv"
	"math"
	"slices"

	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

// Candidate is a station of the same mesh that the radio hears.
type Candidate struct {
	MAC    dot11.MAC
	Signal float64     // dBm, smoothed
	Linked bool        // a link stands
	Sought bool        // an attempt at one is under way
	Full   bool        // it says that it accepts no more peers, or has refused us
	Failed int         // attempts in a row that came to nothing
	Peers  []dot11.MAC // stations it is known to reach without us
}

// Policy weighs; the zero value stands for the defaults.
type Policy struct {
	Limit      int     // links at rest; one more while one takes another's place; 0: 9
	Seeks      int     // attempts at a time; more would delay each other; 0: 2
	Hysteresis float64 // dB by which another has to be better than a link that stands; 0: 6
	Shared     float64 // dB that a link with a chosen station takes off; 0: 4
	Weakest    float64 // dBm under which a station is taken only for a group's sake; 0: -85
}

func (p Policy) withDefaults() Policy {
	if p.Limit == 0 {
		p.Limit = 9
	}
	if p.Seeks == 0 {
		p.Seeks = 2
	}
	for _, d := range []struct {
		field *float64
		value float64
	}{{&p.Hysteresis, 6}, {&p.Shared, 4}, {&p.Weakest, -85}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return p
}

const (
	good     = -50 // dBm above which more is of no use: the highest rate is reached
	alike    = 3   // dB that the number of a pair is worth at most: fading of a standing link
	failure  = 6   // dB that each failed attempt takes off
	failures = 8   // that count
	hopeless = 3   // failed attempts after which no room is made for a station
)

// Choose returns the stations to have links with, by address: to keep, or to
// seek. Own is this station's address. The order of candidates does not matter.
// Links that stand are all kept up to the limit; of more than that, one is left
// out. With the limit reached, one station at most is sought besides. An attempt
// that is under way goes on.
func Choose(own dot11.MAC, candidates []Candidate, p Policy) []dot11.MAC {
	s := newSelection(own, candidates, p)
	switch s.keep(); {
	case s.full(): // one takes another's place
	case s.linked < s.p.Limit:
		s.goOn()
		s.reachGroups()
		s.fill()
	default:
		if !s.goOn() && !s.makeRoom() {
			s.improve()
		}
	}
	return s.list.macs(s.chosen)
}

// Admits tells whether a candidate that asks for a link is given one: there is
// room, or it would be kept in another's place.
func Admits(own dot11.MAC, candidates []Candidate, asks dot11.MAC, p Policy) bool {
	s := newSelection(own, candidates, p)
	i := slices.IndexFunc(s.list, func(c Candidate) bool { return c.MAC == asks })
	if i < 0 {
		return false
	}
	linked := 0
	for _, c := range s.list {
		if c.Linked && c.MAC != asks {
			linked++
		}
	}
	switch {
	case s.list[i].Linked || linked < s.p.Limit:
		return true
	case linked > s.p.Limit:
		return false
	}
	s.list[i].Linked = true
	s.list[i].Signal = min(s.list[i].Signal, good) - s.p.Hysteresis
	s.keep()
	return s.chosen[i]
}

// candidates are in the order of their addresses.
type candidates []Candidate

// selection is a choice in the making; candidates are known by their index.
type selection struct {
	list   candidates
	pair   []float64 // what their number together with us is worth, in dB
	group  []int
	p      Policy
	chosen []bool
	n      int // chosen
	linked int
}

func newSelection(own dot11.MAC, all []Candidate, p Policy) *selection {
	list := slices.Clone(all)
	order.By(list, func(a, b Candidate) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	list = slices.CompactFunc(list, func(a, b Candidate) bool { return a.MAC == b.MAC })
	list = slices.DeleteFunc(list, func(c Candidate) bool { return c.MAC == own })
	s := &selection{list: list, group: groups(own, list), p: p.withDefaults(), chosen: make([]bool, len(list))}
	for _, c := range list {
		s.pair = append(s.pair, alike*together(own, c.MAC))
	}
	return s
}

// together returns a number from 0 to 1 that both stations compute alike.
func together(a, b dot11.MAC) float64 {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	h := fnv.New64a()
	h.Write(a[:])
	h.Write(b[:])
	// The last octets alone would hardly move the upper bits.
	x := h.Sum64() * 0x9e3779b97f4a7c15
	return float64(x>>11) / (1 << 53)
}

func (l candidates) macs(chosen []bool) (out []dot11.MAC) {
	for i, c := range l {
		if chosen[i] {
			out = append(out, c.MAC)
		}
	}
	return out
}

func (s *selection) set(i int, chosen bool) {
	s.chosen[i] = chosen
	if chosen {
		s.n++
	} else {
		s.n--
	}
}

// worth is what a link with a candidate is worth besides those chosen, in dB.
func (s *selection) worth(i int) float64 {
	c := s.list[i]
	w := min(c.Signal, good) + s.pair[i] - failure*float64(min(c.Failed, failures))
	for j, other := range s.list {
		if s.chosen[j] && j != i && (slices.Contains(other.Peers, c.MAC) || slices.Contains(c.Peers, other.MAC)) {
			w -= s.p.Shared
		}
	}
	return w
}

// refuses tells that a candidate will not take us, so that it is only asked if
// there is no other of its group: it may see that it needs us, and make room.
func (s *selection) refuses(i int) bool { return s.list[i].Full && !s.list[i].Linked }

// only tells that a chosen candidate is the only one of its group.
func (s *selection) only(i int) bool {
	for j := range s.list {
		if j != i && s.chosen[j] && s.group[j] == s.group[i] {
			return false
		}
	}
	return true
}

// least returns the chosen one that is worth least and not the only one of its
// group, or -1.
func (s *selection) least() int {
	least := -1
	for i := range s.list {
		if s.chosen[i] && !s.only(i) && (least < 0 || s.worth(i) < s.worth(least)) {
			least = i
		}
	}
	return least
}

// keep takes the links that stand, but one if they are more than the limit.
func (s *selection) keep() {
	for i, c := range s.list {
		if c.Linked {
			s.set(i, true)
			s.linked++
		}
	}
	if s.linked <= s.p.Limit {
		return
	}
	out := s.least()
	if out < 0 { // more groups than links
		for i := range s.list {
			if s.chosen[i] && (out < 0 || s.worth(i) < s.worth(out)) {
				out = i
			}
		}
	}
	s.set(out, false)
}

// full tells that no station may be sought.
func (s *selection) full() bool { return s.linked > s.p.Limit }

// room tells that one more may be sought, without giving a link up.
func (s *selection) room() bool { return s.n < s.p.Limit && s.n-s.linked < s.p.Seeks }

// goOn takes those with which an attempt is under way, beyond the limit one. It
// tells whether there is one.
func (s *selection) goOn() (any bool) {
	for i, c := range s.list {
		if c.Sought && !c.Linked && !s.refuses(i) && (s.room() || !any && s.linked == s.p.Limit) {
			s.set(i, true)
			any = true
		}
	}
	return any
}

// unreached returns the best candidate whose group has no chosen one, and which
// has not failed so often, or -1.
func (s *selection) unreached(failed int) int {
	best := -1
	for i, c := range s.list {
		if s.chosen[i] || c.Failed >= failed || !s.only(i) {
			continue
		}
		switch {
		case best < 0:
			best = i
		case s.refuses(i) != s.refuses(best):
			if s.refuses(best) {
				best = i
			}
		case s.worth(i) > s.worth(best):
			best = i
		}
	}
	return best
}

// reachGroups takes the best of each group that has none, while there is room.
func (s *selection) reachGroups() {
	for s.room() {
		best := s.unreached(math.MaxInt)
		if best < 0 {
			return
		}
		s.set(best, true)
	}
}

// makeRoom seeks one beyond the limit for a group that has none, if a link may be
// given up for it. It tells whether it did.
func (s *selection) makeRoom() bool {
	best := s.unreached(hopeless)
	if best < 0 || s.least() < 0 {
		return false
	}
	s.set(best, true)
	return true
}

// fill takes the best of the rest while there is room, one after the other,
// since each changes what the others are worth.
func (s *selection) fill() {
	for s.room() {
		best := -1
		for i, c := range s.list {
			if s.chosen[i] || s.refuses(i) || c.Signal < s.p.Weakest {
				continue
			}
			if best < 0 || s.worth(i) > s.worth(best) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		s.set(best, true)
	}
}

// improve seeks one beyond the limit that is better than a link that stands, by
// more than the hysteresis: that of the pair that gains most.
func (s *selection) improve() {
	gain, in := s.p.Hysteresis, -1
	for i := range s.list {
		if !s.chosen[i] || s.only(i) {
			continue
		}
		s.set(i, false)
		without := s.worth(i)
		for j, c := range s.list {
			if j == i || s.chosen[j] || s.refuses(j) || c.Failed >= hopeless || c.Signal < s.p.Weakest {
				continue
			}
			if g := s.worth(j) - without; g > gain {
				gain, in = g, j
			}
		}
		s.set(i, true)
	}
	if in >= 0 {
		s.set(in, true)
	}
}

// groups numbers the candidates by which of them reach each other without us,
// as far as is known.
func groups(own dot11.MAC, list []Candidate) []int {
	parent := map[dot11.MAC]dot11.MAC{}
	var find func(m dot11.MAC) dot11.MAC
	find = func(m dot11.MAC) dot11.MAC {
		p, ok := parent[m]
		if !ok || p == m {
			return m
		}
		root := find(p)
		parent[m] = root
		return root
	}
	for _, c := range list {
		for _, peer := range c.Peers {
			if peer == own {
				continue
			}
			if a, b := find(c.MAC), find(peer); a != b {
				parent[a] = b
			}
		}
	}
	number := map[dot11.MAC]int{}
	out := make([]int, len(list))
	for i, c := range list {
		root := find(c.MAC)
		if _, ok := number[root]; !ok {
			number[root] = len(number)
		}
		out[i] = number[root]
	}
	return out
}
