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
//  4. What stands stays, until another is clearly better; and of links that
//     stand no more than one is given up at a time, since the others choose too
//     and do not know.
package choice

import (
	"bytes"
	"slices"

	"halo.internal/model/dot11"
)

// Candidate is a station of the same mesh that the radio hears.
type Candidate struct {
	MAC    dot11.MAC
	Signal float64     // dBm, smoothed
	Linked bool        // a link stands
	Full   bool        // it says that it accepts no more peers
	Peers  []dot11.MAC // stations it is known to have links with, ours or not
}

// Policy weighs; the zero value stands for the defaults.
type Policy struct {
	Limit      int     // links at most; 0: 10
	Hysteresis float64 // dB by which another has to be better than a link that stands; 0: 6
	Shared     float64 // dB that a link with a chosen station takes off; 0: 4
	Weakest    float64 // dBm under which a station is taken only for a group's sake; 0: -85
}

func (p Policy) withDefaults() Policy {
	if p.Limit == 0 {
		p.Limit = 10
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

// good is the signal above which more is of no use: the highest rate is reached.
const good = -50

// Choose returns the stations to have links with, by address. Own is this
// station's address. The order of candidates does not matter. Of links that
// stand at most one is left out, unless they are more than the limit.
func Choose(own dot11.MAC, candidates []Candidate, p Policy) []dot11.MAC {
	list := slices.Clone(candidates)
	slices.SortFunc(list, func(a, b Candidate) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	list = slices.CompactFunc(list, func(a, b Candidate) bool { return a.MAC == b.MAC })
	list = slices.DeleteFunc(list, func(c Candidate) bool { return c.MAC == own })

	s := selection{list: list, group: groups(own, list), p: p.withDefaults(), chosen: make([]bool, len(list))}
	s.keep()
	if !s.reachGroups() {
		s.fill()
		s.improve()
	}
	var out []dot11.MAC
	for i, c := range list {
		if s.chosen[i] {
			out = append(out, c.MAC)
		}
	}
	return out
}

// selection is a choice in the making; candidates are known by their index.
type selection struct {
	list   []Candidate
	group  []int
	p      Policy
	chosen []bool
	n      int // chosen
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
	w := min(c.Signal, good)
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

// keep takes the links that stand, as far as they are within the limit.
func (s *selection) keep() {
	for i, c := range s.list {
		if c.Linked {
			s.set(i, true)
		}
	}
	for s.n > s.p.Limit {
		i := s.least()
		if i < 0 {
			i = slices.Index(s.chosen, true) // more groups than links: any
		}
		s.set(i, false)
	}
}

// reachGroups takes the best of each group that has none, and gives up a link
// for one of them. It tells whether it did.
func (s *selection) reachGroups() (gaveUp bool) {
	for {
		best := -1
		for i := range s.list {
			if s.chosen[i] || !s.only(i) {
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
		if best < 0 {
			return gaveUp
		}
		if s.n == s.p.Limit {
			out := s.least()
			if out < 0 || gaveUp && s.list[out].Linked {
				return gaveUp
			}
			gaveUp = gaveUp || s.list[out].Linked
			s.set(out, false)
		}
		s.set(best, true)
	}
}

// fill takes the best of the rest while there is room, one after the other,
// since each changes what the others are worth.
func (s *selection) fill() {
	for s.n < s.p.Limit {
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

// improve puts one candidate in the place of one chosen, if it is better by more
// than the hysteresis: the pair that gains most.
func (s *selection) improve() {
	if s.n < s.p.Limit {
		return // none was left out but for its signal
	}
	gain, out, in := s.p.Hysteresis, -1, -1
	for i := range s.list {
		if !s.chosen[i] || s.only(i) {
			continue
		}
		s.set(i, false)
		without := s.worth(i)
		for j, c := range s.list {
			if j == i || s.chosen[j] || s.refuses(j) || c.Signal < s.p.Weakest {
				continue
			}
			if g := s.worth(j) - without; g > gain {
				gain, out, in = g, i, j
			}
		}
		s.set(i, true)
	}
	if in >= 0 {
		s.set(out, false)
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
