//go:build lab

package wireless_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"halo.internal/mesh/batman"
	"halo.internal/model"
)

// batman-adv ignores an originator whose numbers start anew for 30 s after it has begun
// to believe it (BATADV_RESET_PROTECTION_MS): under one address, a second start would be
// in contact 28 s after the first at the earliest, as the baseline of the C stack shows.
const (
	soonEnough = 20 * time.Second // a contact, all in all, on a host of this century
	// routingSoon is how much longer than at the first start, when nothing is ignored,
	// routing may take from the link on: on a slow host the radios may take their time,
	// and the rest of the 28 s is still more than this.
	routingSoon = 12 * time.Second
)

// TestStartsInARow has a node, then the gateway, start again and again as soon as
// each has been in contact: routing believes it at once, whatever its messages are
// numbered from, since its addresses are others each time.
func TestStartsInARow(t *testing.T) {
	s := newSky(t)
	g, n := bundles(t, "BATMAN_IV")
	gw, node := s.board(model.RoleGateway, g), s.board(model.RoleNode, n)
	gw.plug(nil)
	node.plug(nil)
	// contact waits for it, and returns how long it took, and what of that from the link on.
	contact := func() (all, routing time.Duration) {
		t.Helper()
		start := time.Now()
		s.until("the two have a link", func() error {
			other, mine := gw.status(), node.status()
			if len(other.Radios) == 1 && len(mine.Radios) == 1 && linked(mine.Radios[0], other.Radios[0].MAC) && linked(other.Radios[0], mine.Radios[0].MAC) {
				return nil
			}
			return fmt.Errorf("the gateway has radios %+v, the node %+v", other.Radios, mine.Radios)
		})
		link := time.Now()
		for _, ends := range [][2]*board{{gw, node}, {node, gw}} {
			s.until("the "+string(ends[0].role)+" knows a way to the "+string(ends[1].role), func() error {
				other := ends[1].status()
				if len(other.Radios) != 1 || other.Radios[0].MAC == "" {
					return fmt.Errorf("the %s has radios %+v", ends[1].role, other.Radios)
				}
				mine := ends[0].status()
				for _, n := range mine.Neighbours {
					if n.MAC == other.Radios[0].MAC && n.TQ > 0 && n.LastSeenMS < 3000 {
						return nil
					}
				}
				return fmt.Errorf("the other is %s, neighbours are %+v", other.Radios[0].MAC, mine.Neighbours)
			})
		}
		s.until("the node hears the gateway", func() error {
			if h := node.status().GatewayHeard; h == nil || h.Before(start) {
				return fmt.Errorf("last heard %v", h)
			}
			return nil
		})
		all, routing = time.Since(start), time.Since(link)
		t.Logf("contact %.1f s after the start, %.1f s after the link", all.Seconds(), routing.Seconds())
		return all, routing
	}
	_, first := contact()
	for _, d := range []*board{node, gw} {
		seen := map[string]bool{}
		for turn := range batman.Turns {
			if turn > 0 {
				d.reboot()
				if all, routing := contact(); all > soonEnough && routing > first+routingSoon {
					t.Errorf("start %d of the %s: contact after %s, %s of them routing's: it waits to believe the %s again", turn+1, d.role, all, routing, d.role)
				}
			}
			seen[d.status().Radios[0].MAC] = true
		}
		if len(seen) < batman.Turns {
			t.Errorf("the %s had the addresses %v, want %d", d.role, seen, batman.Turns)
		}
	}
}

// linked tells whether a radio has a link to the station with that address.
func linked(r model.Radio, mac string) bool {
	return slices.ContainsFunc(r.Peers, func(p model.RadioPeer) bool { return p.MAC == mac && p.Linked })
}
