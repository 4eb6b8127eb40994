//go:build lab

package radio_test

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/radio"
	"halo.internal/model/dot11"
)

// TestACrowd is more radios in a cell than one may have links with: everybody
// reaches everybody, nobody has too many links, and they come to rest.
func TestACrowd(t *testing.T) {
	l := newLab(t)
	const crowd, most = 10, 4       // in one kernel, work grows with the square of them
	var known atomic.Pointer[graph] // what routing would know
	known.Store(&graph{})
	var members []*member
	for range crowd {
		members = append(members, l.member(func(c *radio.Config) {
			c.BeaconInterval = 0 // all hear the events of all radios of the machine: a field's are enough
			c.MaxPeers, c.Links = most, func() map[dot11.MAC][]dot11.MAC { return *known.Load() }
		}))
	}
	const rest = 10 * time.Second // longer than it takes to give a link up
	var last graph
	since, start := time.Now(), time.Now()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		now := l.links()
		known.Store(&now)
		for mac, peers := range now {
			if len(peers) > most {
				t.Errorf("%s has %d links, want %d at most", mac, len(peers), most)
			}
		}
		if !now.equal(last) || !now.whole(crowd) {
			last, since = now, time.Now()
		}
		if time.Since(since) > rest {
			t.Logf("one mesh of %d, at rest after %.0f s", crowd, since.Sub(start).Seconds())
			return
		}
		if time.Now().After(deadline) {
			for _, m := range members {
				t.Logf("%s %s: %+v", m.iface, m.mac, m.Peers())
			}
			t.Fatalf("no mesh of all that is at rest within %s: %v", patience, now)
		}
	}
}

// graph is who has links with whom.
type graph map[dot11.MAC][]dot11.MAC

func (g graph) equal(other graph) bool {
	return maps.EqualFunc(g, other, func(a, b []dot11.MAC) bool { return slices.Equal(a, b) })
}

// whole tells that so many reach each other, by links that both sides have.
func (g graph) whole(n int) bool {
	reached := map[dot11.MAC]bool{}
	var queue []dot11.MAC
	for mac := range g {
		reached[mac] = true
		queue = append(queue, mac)
		break
	}
	for ; len(queue) > 0; queue = queue[1:] {
		for _, to := range g[queue[0]] {
			if !reached[to] && slices.Contains(g[to], queue[0]) {
				reached[to] = true
				queue = append(queue, to)
			}
		}
	}
	return len(reached) == n
}

// links asks the kernel who has links with whom.
func (l *lab) links() graph {
	all := graph{}
	ifaces, err := l.conn.Interfaces()
	l.ok(err)
	for _, i := range ifaces {
		stations, err := l.conn.Stations(i.Index)
		l.ok(err)
		for _, s := range stations {
			if s.Plink == nl80211.PlinkEstab {
				mac := dot11.MAC(i.MAC)
				all[mac] = append(all[mac], dot11.MAC(s.MAC))
			}
		}
	}
	for _, peers := range all {
		slices.SortFunc(peers, func(a, b dot11.MAC) int { return slices.Compare(a[:], b[:]) })
	}
	return all
}
