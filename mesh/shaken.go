package mesh

import (
	"time"

	"halo.internal/model"
)

// shaken returns which nodes have shaken hands less than within ago, by canonical ID.
// The kernel stamps handshakes by the wall clock. One that is in the future is of before
// the clock was set back: it counts by how far it is ahead, or it would be fresh until
// the clock is there again, which may be years.
func shaken(status []model.OverlayPeer, now time.Time, within time.Duration) map[string]bool {
	fresh := map[string]bool{}
	for _, p := range status { // a node has two keys while it changes its own
		if p.LastHandshake != nil && model.Recent(now, *p.LastHandshake, within) {
			fresh[p.Node] = true
		}
	}
	return fresh
}
