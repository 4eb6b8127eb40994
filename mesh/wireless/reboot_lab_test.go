//go:build lab

package wireless_test

import (
	"fmt"
	"testing"
	"time"

	"halo.internal/mesh/batman"
	"halo.internal/model"
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
	contact := func() {
		t.Helper()
		start := time.Now()
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
		t.Logf("contact %.1f s after the start", time.Since(start).Seconds())
	}
	contact()
	for _, d := range []*board{node, gw} {
		seen := map[string]bool{}
		for turn := range batman.Turns {
			if turn > 0 {
				d.reboot()
				contact()
			}
			seen[d.status().Radios[0].MAC] = true
		}
		if len(seen) != batman.Turns {
			t.Errorf("the %s had the addresses %v, want %d", d.role, seen, batman.Turns)
		}
	}
}
