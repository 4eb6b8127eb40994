//go:build lab

package systemtest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"halo.internal/lab/air/physics"
	"halo.internal/lab/air/rogue"
	"halo.internal/lab/network"
	"halo.internal/model/pcap"
)

// TestInTheAir boots a network whose machines have radios and no cables, and does
// to it what the field does to radios. Each part leaves it as it found it.
func TestInTheAir(t *testing.T) {
	l := build(t, network.ByAir, 2, settings)
	file, err := os.Create(filepath.Join(t.TempDir(), "air.pcap"))
	if err != nil {
		t.Fatal(err)
	}
	capture, err := pcap.New(file, pcap.Radiotap)
	if err != nil {
		t.Fatal(err)
	}
	l.net.Air.Capture(capture)
	t.Cleanup(func() { l.net.Air.Capture(nil); file.Close() })
	l.up(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *lab)
	}{
		{"three nodes with roles, addresses and versions", threeNodes},
		{"all are linked by radio", linked},
		{"telemetry changes", telemetryChanges},
		{"all restart", func(t *testing.T, l *lab) { l.restart(t, l.net.Machines()...) }},
		{"a phone at a node", aPhone},
		{"somebody at a console", atTheConsole},
		{"a partition heals", func(t *testing.T, l *lab) { l.partition(t, l.nodes[0]) }},
		{"over two hops", twoHops},
		{"a node restarts among forgeries of all kinds", func(t *testing.T, l *lab) { l.besieged(t, rogue.All, 200) }},
		{"a node restarts among replayed frames", func(t *testing.T, l *lab) { l.besieged(t, rogue.Replay, 50) }},
	} {
		ok := t.Run(part.name, func(t *testing.T) {
			start := time.Now()
			part.run(t, l)
			t.Logf("%.0f s", time.Since(start).Seconds())
		})
		if !ok {
			l.consoles(t)
			if s, err := l.net.AirStatus(); err == nil {
				t.Logf("the air: %+v", s)
			}
			return // what follows stands on it
		}
	}
}

// linked checks that each machine has its radio in the mesh with links to all
// others, and that each link carries what is sent to all: with keys that differ
// it stands, but says nothing.
func linked(t *testing.T, l *lab) {
	for _, m := range l.net.Machines()[:len(l.nodes)+1] {
		l.eventually(t, m.Name()+" is linked with the others", func() error {
			s, err := l.mesh(t.Context(), m)
			if err != nil {
				return err
			}
			if err := expect(len(s.Radios) == 1, "one radio, got %+v", s); err != nil {
				return err
			}
			r := s.Radios[0]
			if err := expect(r.Member && r.Linked() == len(l.nodes), "a member with %d links, got %+v", len(l.nodes), r); err != nil {
				return err
			}
			heard := 0
			for _, n := range s.Neighbours {
				if n.Iface == r.Iface && n.LastSeenMS < 5000 {
					heard++
				}
			}
			return expect(heard == len(l.nodes), "%d neighbours that are heard now, got %+v", len(l.nodes), s.Neighbours)
		})
	}
	s, err := l.net.AirStatus()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range s.Links {
		if link.Heard == 0 {
			t.Errorf("from %s to %s: %+v, want frames that were heard", link.From, link.To, link)
		}
	}
}

// twoHops carries the last node so far away that it hears the other node alone.
func twoHops(t *testing.T, l *lab) {
	before := l.before(t)
	start := time.Now()
	s, err := l.net.AirStatus()
	if err != nil {
		t.Fatal(err)
	}
	const apart = 110 // m: one hop is good, over two little is heard
	for i, m := range l.net.Machines()[:3] {
		if err := l.net.Move(m.Name(), physics.Position{X: float64(i * apart)}); err != nil {
			t.Fatal(err)
		}
	}
	far := l.nodes[1].Name()
	if err := l.net.Cut(network.Gateway, far, true); err != nil { // and nothing at all by luck
		t.Fatal(err)
	}
	first := l.reading(t, far, uptime)
	l.eventually(t, "readings come over two hops", func() error {
		now, err := l.latest(t.Context(), far, uptime)
		if err != nil {
			return err
		}
		// More than what was on its way.
		return expect(now.Value > first.Value+3*sendEvery.Seconds(), "an uptime well beyond %v, got %v", first.Value, now.Value)
	})
	for _, r := range s.Radios {
		if err := l.net.Move(r.Name, r.Position); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.net.Restore(); err != nil {
		t.Fatal(err)
	}
	l.recovered(t, before, time.Since(start))
}

// besieged restarts a node while a stranger's radio attacks all, with so many
// frames a second.
func (l *lab) besieged(t *testing.T, a rogue.Attack, perSecond int) {
	before := l.before(t)
	start := time.Now()
	if err := l.net.StartRogue(rogue.Config{Attack: a, PerSecond: perSecond}, physics.Position{X: 20, Y: 20}); err != nil {
		t.Fatal(err)
	}
	m := l.nodes[0]
	if err := errors.Join(m.PowerCut(), l.net.PowerOn(m)); err != nil {
		t.Fatal(err)
	}
	l.awaitBoot(t, m)
	linked(t, l)
	l.recovered(t, before, time.Since(start), m)
	s, err := l.net.AirStatus()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("rogue: %+v", s.Rogue)
	if s.Rogue == nil || s.Rogue.Acked == 0 {
		t.Errorf("the rogue was not heard: %+v", s.Rogue)
	}
	if err := l.net.StopRogue(); err != nil {
		t.Fatal(err)
	}
}
