package batman

import (
	"slices"

	"halo.internal/model/dot11"
)

// Links tells which stations are known to reach each other without us, of those
// that routing hears directly or through them, both ways.
//
// A way to X by the next hop Y means that Y has passed on what X says of itself:
// Y has a way to X. It does so only for its best way, and what we have passed on
// ourselves we do not take back from it. So that way does not lead through us,
// unless Y comes to us by yet another; but then, as links are about as good in
// both directions, we would not go to Y directly. Ways by such a Y do not count.
//
// What the neighbours of a neighbour are, no table says. BATMAN_V's ways do not
// count at all: they keep their figure for 200 s after the last that was heard,
// where those of BATMAN_IV fall to nothing within five messages of the
// originator.
func Links(ways []Originator) map[dot11.MAC][]dot11.MAC {
	direct := map[dot11.MAC]bool{}
	for _, w := range ways {
		if x, y, ok := ends(w); ok && w.Best && x == y {
			direct[x] = true
		}
	}
	links := map[dot11.MAC][]dot11.MAC{}
	add := func(a, b dot11.MAC) {
		if !slices.Contains(links[a], b) {
			links[a] = append(links[a], b)
		}
	}
	for _, w := range ways {
		if x, y, ok := ends(w); ok && x != y && w.TQ > 0 && direct[y] {
			add(x, y)
			add(y, x)
		}
	}
	return links
}

// ends returns the originator and the next hop of a way.
func ends(w Originator) (x, y dot11.MAC, ok bool) {
	if len(w.MAC) != len(x) || len(w.NextHop) != len(y) {
		return x, y, false
	}
	return dot11.MAC(w.MAC), dot11.MAC(w.NextHop), true
}
