package doctor

import (
	"context"
	"errors"
	"slices"
)

// verdict is what is known of packets of one size on a path.
type verdict int

const (
	unknown verdict = iota // the path answers nothing, or too little to tell
	passes
	vanishes
)

// outcome of one try.
type outcome struct {
	arrived  bool // the packet of that size
	answered bool // a small one sent beside it came, and so did its answer
}

// How often a size is tried. On a path that loses a third of all packets each way,
// a size that passes is taken for one that vanishes once in fifty: then the path is
// held to less than it carries for some minutes, and no more.
const (
	lostEnough    = 6  // tries that were lost while the path answered
	mostTries     = 24 // tries, whatever comes of them
	deadEnough    = 4  // tries without any answer at the beginning: nobody is there
	answersNeeded = 4  // small packets that must have come, so that it is the size
)

// errTooLong is wrapped when this device itself does not send a packet of that
// size.
var errTooLong = errors.New("longer than the interface takes")

// try tells what becomes of one size.
func try(ctx context.Context, once func(context.Context) (outcome, error)) (verdict, error) {
	lost, answers := 0, 0
	for i := range mostTries {
		o, err := once(ctx)
		switch {
		case errors.Is(err, errTooLong):
			return vanishes, nil
		case err != nil:
			return unknown, err
		case o.arrived:
			return passes, nil
		case o.answered:
			lost++
			answers++
		}
		if lost >= lostEnough && answers >= answersNeeded {
			return vanishes, nil
		}
		if i+1 >= deadEnough && answers == 0 {
			return unknown, nil
		}
	}
	return unknown, nil
}

// grid returns the sizes from low to high that are worth a try, high among them.
// WireGuard pads packets to 16 octets, so that a finer step is of no use.
func grid(low, high int) []int {
	const step = 16
	var sizes []int
	for s := (low + step - 1) / step * step; s < high; s += step {
		sizes = append(sizes, s)
	}
	return append(sizes, high)
}

// largest returns the largest of the sizes, which are in order, that passes, or 0 if
// none does. The last one is known to vanish. known is false when the path stopped
// answering.
func largest(sizes []int, passing func(size int) (verdict, error)) (size int, known bool, err error) {
	low, high := -1, len(sizes)-1 // passes (or nothing does) and vanishes
	for high-low > 1 {
		mid := (low + high) / 2
		v, err := passing(sizes[mid])
		switch {
		case err != nil || v == unknown:
			return 0, false, err
		case v == passes:
			low = mid
		default:
			high = mid
		}
	}
	if low < 0 {
		return 0, true, nil
	}
	return sizes[low], true, nil
}

// limits is how large packets to a peer may be; 0 is no limit.
type limits struct {
	overlay  int // IP packets into the overlay
	underlay int // IP packets over the mesh, into which WireGuard's are cut
}

// Sizes that IP itself needs.
const (
	minMTU = 1280 // IPv6's, RFC 8200
	// smallest is the least size over the underlay that is looked at: less than that
	// carries no network.
	smallest = 576
)

// overhead is what WireGuard adds to a packet over IPv6.
const overhead = 80

// treat says how to live with a path on which full packets through the overlay
// vanish: overlay and underlay are the largest that pass, 0 where none or not known. Packets into the overlay are held to what passes whole, which costs
// nothing. What cannot be held to that, since networks behind the peer have to take
// 1280 octets, or since its route is another's, is cut into fragments over the
// underlay. ok is false where neither helps: the mesh carries less than IPv6 needs.
func treat(overlay, underlay int, w widths) (l limits, ok bool) {
	if underlay >= minMTU && underlay < w.top() {
		l.underlay = underlay
	}
	if overlay >= minMTU && overlay < w.full {
		l.overlay = overlay
	}
	return l, l != limits{}
}

// sizesOverlay are those to look for the largest in, the last of which vanishes.
func sizesOverlay(full int) []int { return slices.Compact(grid(minMTU, full)) }

// sizesUnderlay likewise.
func sizesUnderlay(full int) []int { return slices.Compact(grid(smallest, full)) }
