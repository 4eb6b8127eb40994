package topology

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
)

// guarded is a network with an alarm, which looks every five seconds.
type guarded struct {
	*world
	alarm *Alarm
	now   time.Time
	spoke map[string]time.Time // when nodes said something last; absent: all the time
}

func guard(w *world) *guarded {
	g := &guarded{world: w, now: noon, spoke: map[string]time.Time{}}
	g.alarm = NewAlarm(func(node string) (time.Duration, time.Duration, bool) {
		if at, ok := g.spoke[node]; ok {
			return g.now.Sub(at), time.Minute, true
		}
		return 10 * time.Second, time.Minute, true
	})
	g.alarm.Observe(g.now, w.draw())
	return g
}

// pass lets time pass, and returns what was told when.
func (g *guarded) pass(span time.Duration) (told []string) {
	p := g.draw()
	for end := g.now.Add(span); g.now.Before(end); {
		g.now = g.now.Add(5 * time.Second)
		for _, n := range g.alarm.Observe(g.now, p) {
			about := strings.TrimRight(strings.TrimPrefix(n.Node, "n-"), "a")
			told = append(told, fmt.Sprintf("%v %s %s %s", g.now.Sub(noon), n.Kind, n.Severity, about))
		}
	}
	return told
}

// off takes a node off, as others see it: it does not say that it has gone.
func (g *guarded) off(name string) {
	g.spoke[id(name)] = g.now
	for _, n := range g.names {
		if n != name {
			g.unlink(n, name)
		}
	}
}

// on brings a node back, with links to others by Wi-Fi.
func (g *guarded) on(name string, to ...string) {
	delete(g.spoke, id(name))
	for _, n := range g.names {
		g.unlink(name, n)
	}
	for _, n := range to {
		g.link(name, n, "mesh0")
	}
}

// unlink has a not see b any more.
func (g *guarded) unlink(a, b string) {
	for _, iface := range ifaces[1:] {
		i := g.iface(a, iface)
		i.Links = slices.DeleteFunc(i.Links, func(l model.ReportLink) bool { return l.Peer == g.mac(b, iface) })
	}
}

func (g *guarded) cut(a, b string) {
	g.unlink(a, b)
	g.unlink(b, a)
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func ring(t *testing.T) *world {
	return newWorld(t, "gw", "b", "c", "d").links("gw-b b-c c-d gw-d").via("b>gw c>b d>gw")
}

func TestHowThingsAreIsNotTold(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "d", "e").links("gw-b b-c c-d").via("b>gw c>b d>c") // e is off
	g := guard(w)
	want(t, g.pass(time.Hour))
}

func TestALinkIsLostAndMade(t *testing.T) {
	g := guard(ring(t))
	g.cut("c", "d")
	// Where a ring is open, its middle cuts off its end.
	want(t, g.pass(5*time.Minute), "35s topology.link.lost warning ", "2m5s topology.split.risk warning b")
	g.link("c", "d", "mesh0")
	want(t, g.pass(5*time.Minute), "6m5s topology.link.made info ", "7m5s topology.split.averted info b")
	// A second link between the same is news for those who look, and no alarm.
	g.link("c", "d", "mesh1")
	want(t, g.pass(5*time.Minute), "11m5s topology.link.made info ")
	g.unlink("c", "d")
	g.unlink("d", "c")
	g.link("c", "d", "mesh1")
	want(t, g.pass(5*time.Minute), "16m5s topology.link.lost info ")
}

// TestALinkThatComesAndGoesIsToldRarely: the more often, the longer it has to last.
func TestALinkThatComesAndGoesIsToldRarely(t *testing.T) {
	g := guard(ring(t))
	var told []string
	for n := range 60 {
		if n%2 == 0 {
			g.cut("c", "d")
		} else {
			g.link("c", "d", "mesh0")
		}
		told = append(told, g.pass(20*time.Second)...)
	}
	want(t, told) // it never lasts
	for n := range 60 {
		if n%2 == 0 {
			g.cut("c", "d")
		} else {
			g.link("c", "d", "mesh0")
		}
		told = append(told, g.pass(65*time.Second)...)
	}
	if n := len(slices.DeleteFunc(told, func(s string) bool { return !strings.Contains(s, "link") })); n < 1 || n > 6 {
		t.Errorf("an hour of it: got %d notices\n%s", n, strings.Join(told, "\n"))
	}
}

// TestANodeIsLost: one notice for it and its links, and none when they come back with it.
func TestANodeIsLost(t *testing.T) {
	g := guard(ring(t))
	g.off("c")
	want(t, g.pass(10*time.Minute), "1m40s topology.node.unreachable error c")
	want(t, g.alarm.Unreachable(), id("c"))
	g.on("c", "b", "d")
	want(t, g.pass(10*time.Minute), "10m15s topology.node.reachable info c")
	want(t, g.alarm.Unreachable())
	// Of two links one alone comes back with it.
	g.off("c")
	want(t, g.pass(10*time.Minute), "22m0s topology.node.unreachable error c")
	g.on("c", "b")
	want(t, g.pass(10*time.Minute), "30m25s topology.node.reachable info c", "32m5s topology.split.risk warning b", "35m25s topology.link.lost warning ")
}

// TestANodeThatSpeaksIsThere, whatever is said of its links.
func TestANodeThatSpeaksIsThere(t *testing.T) {
	g := guard(ring(t))
	g.off("c")
	delete(g.spoke, id("c"))
	want(t, g.pass(10*time.Minute))
}

// TestAPartIsLostTogether with what it is behind.
func TestAPartIsLostTogether(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "d").links("gw-b b-c c-d").via("b>gw c>b d>c")
	g := guard(w)
	g.off("b")
	for _, n := range []string{"c", "d"} {
		g.spoke[id(n)] = g.now
	}
	p := g.draw()
	var got []Notice
	for range 40 {
		g.now = g.now.Add(5 * time.Second)
		got = append(got, g.alarm.Observe(g.now, p)...)
	}
	if len(got) != 1 || got[0].Kind != NodeUnreachable || got[0].Fields["count"] != "3" || got[0].Fields["behind"] != id("b") ||
		got[0].Message != "3 nodes cannot be reached: b, c, d; last heard 1m40s ago; all the others are behind b" {
		t.Errorf("got %+v", got)
	}
}

func TestANodeThatJoinsIsNotBackAgain(t *testing.T) {
	w := ring(t)
	g := guard(w)
	g.world = newWorld(t, "gw", "b", "c", "d", "e").links("gw-b b-c c-d gw-d").via("b>gw c>b d>gw")
	g.spoke[id("e")] = noon.Add(-time.Hour)
	want(t, g.pass(time.Minute))
	want(t, g.alarm.Unreachable())
	delete(g.spoke, id("e"))
	g.link("d", "e", "mesh0").link("gw", "e", "mesh0").via("e>gw")
	want(t, g.pass(10*time.Minute), "2m5s topology.link.made info ", "2m5s topology.link.made info ")
}

// TestARiskThatGrows is told again when it is twice as great.
func TestARiskThatGrows(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "d", "e").links("gw-b b-c gw-d gw-e").via("b>gw c>b d>gw e>gw")
	g := guard(w)
	g.cut("gw", "d")
	g.link("b", "d", "mesh0").via("d>b")
	want(t, g.pass(10*time.Minute), "35s topology.link.lost warning ", "1m5s topology.link.made info ") // 2 instead of 1
	g.cut("gw", "e")
	g.link("b", "e", "mesh0").via("e>b")
	want(t, g.pass(10*time.Minute), "10m35s topology.link.lost warning ", "11m5s topology.link.made info ", "12m5s topology.split.risk warning b")
}

func TestAStormOfLinks(t *testing.T) {
	names := []string{"gw"}
	for n := range 40 {
		names = append(names, fmt.Sprintf("%c%c", 'b'+n%20, 'b'+n/20))
	}
	w := newWorld(t, names...)
	for i, n := range names[1:] {
		w.link("gw", n, "mesh0").link("gw", n, "eth0").via(n + ">gw")
		if i > 0 {
			w.link(names[i], n, "mesh0").link(names[i], n, "mesh1")
		}
	}
	g := guard(w)
	for i, n := range names[1:] {
		if i > 0 {
			g.cut(names[i], n)
		}
	}
	told := g.pass(5 * time.Minute)
	if len(told) != mostLinks+1 || !strings.Contains(told[mostLinks], Unsteady) {
		t.Errorf("got %d notices\n%s", len(told), strings.Join(told, "\n"))
	}
	for i, n := range names[1:] {
		if i > 0 {
			g.link(names[i], n, "mesh0")
		}
	}
	want(t, g.pass(30*time.Minute))
	g.pass(time.Hour)
	g.cut("bb", "cb")
	if told := g.pass(5 * time.Minute); len(told) != 1 {
		t.Errorf("when it is calmer: got %v", told)
	}
}

func TestAnAddressOfTwo(t *testing.T) {
	g := guard(ring(t))
	g.iface("b", "eth0").Addresses = append(g.iface("b", "eth0").Addresses, g.mac("c", "bat0"))
	want(t, g.pass(10*time.Minute), "1m5s topology.address.twice warning ")
	i := g.iface("b", "eth0")
	i.Addresses = i.Addresses[:1]
	want(t, g.pass(10*time.Minute))
}
