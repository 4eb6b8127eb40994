package lab_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/air"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/control"
	"halo.internal/lab/network"
)

func (s shell) air() (a control.Air) {
	s.t.Helper()
	out, _ := s.do(0, "air", "--json")
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// until waits for the air to be as wanted.
func (s shell) until(what string, ok func(control.Air) bool) control.Air {
	s.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		a := s.air()
		if ok(a) {
			return a
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within a minute: %+v", what, a)
		}
	}
}

// on counts the radios that are in the air.
func on(a control.Air) (n int) {
	for _, r := range a.Radios {
		if r.On {
			n++
		}
	}
	return n
}

func link(a control.Air, from, to string) (l air.Link) {
	for _, l := range a.Links {
		if l.From == from && l.To == to {
			return l
		}
	}
	return l
}

func radio(a control.Air, name string) (r network.Radio) {
	for _, r := range a.Radios {
		if r.Name == name {
			return r
		}
	}
	return r
}

func TestALabInTheAir(t *testing.T) {
	s := newShell(t, "well")
	pcap := filepath.Join(t.TempDir(), "up.pcap")
	s.mentions(s.up("--nodes", "2", "--pcap", pcap), "3 machines are up", "bin/halo-lab air ")
	a := s.until("all radios send", func(a control.Air) bool {
		return on(a) == 3 && link(a, "gateway", "node1").Heard > 0 && link(a, "node2", "node1").Heard > 0
	})
	if l := link(a, "gateway", "node1"); l.DistanceM != 50 || l.SNRDB < 15 || l.Expected > 0.01 {
		t.Errorf("at the beginning, links are good: got %+v", l)
	}
	seen := map[string]bool{}
	for _, r := range a.Radios {
		if seen[r.Address] {
			t.Errorf("%s is the address of two", r.Address)
		}
		seen[r.Address] = true
	}
	address := radio(a, "node1").Address

	// Radios come and go with their machines.
	s.do(0, "kill", "node1")
	s.until("the radio of node1 is gone", func(a control.Air) bool { return on(a) == 2 && !radio(a, "node1").On })
	out, _ := s.do(0, "status")
	s.mentions(out, "off at 50,0", "on at 0,50")
	s.do(0, "air", "move", "node1", "60", "0") // of a machine that is off
	s.do(0, "start", "node1")
	s.do(0, "reboot", "gateway")
	a = s.until("all radios are back", func(a control.Air) bool { return on(a) == 3 })
	if r := radio(a, "node1"); r.Address != address || r.Position != (physics.Position{X: 60}) {
		t.Errorf("after a start: got %+v, want the address %s and the place it was moved to", r, address)
	}

	// One is unplugged, stays out over a restart, and is plugged in again; its driver
	// hangs until its interface goes down, which the played machine lets it do at once.
	s.do(0, "air", "unplug", "node2")
	s.until("the radio of node2 is unplugged", func(a control.Air) bool { return on(a) == 2 && !radio(a, "node2").On })
	s.do(0, "reboot", "gateway")
	s.do(0, "reboot", "node2")
	s.until("the gateway's is back, and no other", func(a control.Air) bool { return on(a) == 2 && radio(a, "gateway").On })
	_, complaint := s.do(1, "air", "unplug", "node2")
	s.mentions(complaint, "it is unplugged already")
	_, complaint = s.do(1, "air", "wedge", "node2")
	s.mentions(complaint, "the machine is off, or takes part in no air")
	s.do(0, "air", "plug", "node2")
	s.until("the radio of node2 is back", func(a control.Air) bool { return on(a) == 3 })
	_, complaint = s.do(1, "air", "plug", "node2")
	s.mentions(complaint, "it is not unplugged")
	s.do(0, "air", "wedge", "node2")
	out, _ = s.do(0, "crash", "node2", "halo-mesh")
	s.mentions(out, "halo-mesh of node2 is dead")

	s.do(0, "air", "move", "node2", "--", "-120", "0.5", "15")
	s.do(0, "air", "cut", "gateway", "node1")
	s.do(0, "air", "loss", "node1", "node2", "30%")
	out, _ = s.do(0, "air", "disorder", "gateway", "node2", "--retransmitted", "5", "--late", "20", "--delay", "70ms")
	s.mentions(out, "between gateway and node2 5% retransmitted, 20% late, within 70ms")
	s.do(0, "air", "jam", "--raise", "5")
	s.do(0, "air", "jam", "--at", "10,20", "--power", "10", "--channel", "6")
	out, _ = s.do(0, "air")
	s.mentions(out, "-120,0.5,15", "cut", "30% lost besides", "5% retransmitted, 20% late, within 70ms", "noise raised by 5 dB on all channels", "10 dBm from 10,20 on 2437 MHz", pcap)
	a = s.air()
	if l := link(a, "node1", "gateway"); !l.Cut || link(a, "node1", "node2").Cut {
		t.Errorf("after a cut: %+v", a.Links)
	}
	if want := (air.Disorder{Retransmitted: 0.05, Late: 0.2, Delay: 70 * time.Millisecond}); link(a, "gateway", "node2").Disorder != want || link(a, "node2", "gateway").Disorder != want {
		t.Errorf("in disorder: %+v", a.Links)
	}
	_, refusal := s.do(1, "air", "disorder", "gateway", "node2", "--replayed", "101")
	s.mentions(refusal, "replayed: expected a share from 0 to 1, got 1.01")
	s.do(0, "air", "heal")
	s.do(0, "air", "disorder", "node2", "gateway")
	s.do(0, "air", "loss", "node1", "node2", "0")
	s.do(0, "air", "jam", "off", "--channel", "6")
	if a = s.air(); link(a, "node1", "gateway").Cut || link(a, "node1", "node2").Loss != 0 || link(a, "gateway", "node2").Disorder != (air.Disorder{}) || len(a.Jammers) != 1 {
		t.Errorf("after repair: %+v", a)
	}
	s.do(0, "air", "cut", "gateway", "node1")
	s.do(0, "air", "heal", "node1", "gateway")
	s.do(0, "air", "jam", "off")
	s.do(0, "partition", "node1")
	if a = s.air(); !link(a, "node1", "gateway").Cut || link(a, "gateway", "node2").Cut || radio(a, "node1").Group != 1 || len(a.Jammers) != 0 {
		t.Errorf("in a partition: %+v", a)
	}
	s.do(0, "heal")
	if a = s.air(); link(a, "node1", "gateway").Cut {
		t.Errorf("healed: %+v", a)
	}

	s.do(0, "air", "rogue", "commits", "--rate", "1000", "--at", "5,5")
	s.until("the rogue attacks", func(a control.Air) bool {
		return a.Rogue != nil && a.Rogue.Sent > 10 && a.Rogue.Acked > 0 && radio(a, network.Rogue).On
	})
	s.do(0, "air", "rogue", "replay", "--rate", "1000")
	s.until("it replays", func(a control.Air) bool { return a.Rogue != nil && a.Rogue.Attack == "replay" && a.Rogue.Sent > 10 })
	s.do(0, "air", "move", network.Rogue, "7", "7")
	out, _ = s.do(0, "air")
	s.mentions(out, "Rogue: replay, 1000 a second", "7,7")
	s.do(0, "air", "rogue", "off")
	if a = s.air(); a.Rogue != nil || len(a.Radios) != 3 {
		t.Errorf("after the rogue: %+v", a)
	}

	s.do(0, "air", "capture", "off")
	whole, err := os.ReadFile(pcap)
	if err != nil || len(whole) < 1000 {
		t.Errorf("capture since the beginning: %d octets, %v", len(whole), err)
	}
	again := filepath.Join(t.TempDir(), "again.pcap")
	s.do(0, "air", "capture", again)
	if got := s.air().Capture; got != again {
		t.Errorf("captured to %s", got)
	}

	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"air", "move", "node9", "0", "0"}, `expected one of [gateway node1 node2], got "node9"`},
		{[]string{"air", "move", "node1", "far", "0"}, `place: expected metres such as 120 or -7.5, got "far"`},
		{[]string{"air", "move", "node1", "1e9", "0"}, "place: expected metres of at most"},
		{[]string{"air", "cut", "node1", "rogue"}, `got "rogue"`},
		{[]string{"air", "cut", "node1", "node1"}, "have radio node1 in common"},
		{[]string{"air", "loss", "node1", "node2", "120"}, "loss: expected 0 to 1, got 1.2"},
		{[]string{"air", "loss", "node1", "node2", "much"}, `expected percent such as 30, got "much"`},
		{[]string{"air", "jam", "--raise", "0"}, "expected noise that is raised"},
		{[]string{"air", "jam", "--at", "here"}, "--at: place: expected X, Y"},
		{[]string{"air", "jam", "--channel", "20"}, "--channel: expected 1 to 14"},
		{[]string{"air", "rogue", "off"}, "no rogue in the air"},
		{[]string{"air", "rogue", "siege"}, `attack: expected one of [commits beacons opens confirms closes deauth replay all channel-switch], got "siege"`},
		{[]string{"air", "rogue", "commits", "--rate", "0"}, "frames per second: expected"},
		{[]string{"air", "capture", again}, "captured to " + again + " already"},
		{[]string{"link", "node1", "--loss", "10%"}, "there are no cables"},
	} {
		_, text := s.do(1, tc.args...)
		s.mentions(text, tc.want)
	}
	_, text := s.do(2, "air", "move", "node1", "-5", "0")
	s.mentions(text, "numbers below zero go behind --")
	for _, args := range [][]string{{"fly"}, {"move", "node1", "1"}, {"cut", "node1"}, {"heal", "node1"}, {"jam", "on"}, {"rogue"}, {"capture"}} {
		s.do(2, append([]string{"air"}, args...)...)
	}
	s.do(0, "down")
	if b, err := os.ReadFile(again); err != nil || len(b) <= 24 {
		t.Errorf("capture until the end: %d octets, %v", len(b), err)
	}
}

// TestSeveralRadios has machines with two each, beside cables.
func TestSeveralRadios(t *testing.T) {
	s := newShell(t, "well")
	s.up("--nodes", "1", "--mesh", "both", "--radios", "2", "--profile", "halow-1", "--spacing", "200")
	a := s.until("all radios are on", func(a control.Air) bool { return on(a) == 4 })
	if r := radio(a, "node1.2"); a.Profile != "halow-1" || r.Machine != "node1" || r.Position.X != 200 {
		t.Errorf("got %+v", a)
	}
	s.do(0, "air", "cut", "gateway", "node1.2")
	a = s.air()
	for _, l := range a.Links {
		if want := strings.HasPrefix(l.From+l.To, "gateway") && l.To == "node1.2" || l.From == "node1.2" && strings.HasPrefix(l.To, "gateway"); l.Cut != want {
			t.Errorf("%s to %s: cut %v, want %v", l.From, l.To, l.Cut, want)
		}
	}
	s.do(0, "air", "move", "node1", "3", "4")
	if a = s.air(); radio(a, "node1.1").Position != radio(a, "node1.2").Position {
		t.Errorf("a machine's radios are in one place: got %+v", a.Radios)
	}
	_, text := s.do(1, "air", "cut", "node1", "node1.1")
	s.mentions(text, "have radio node1.1 in common")
	s.do(0, "partition", "node1")
	out, _ := s.do(0, "status")
	s.mentions(out, "on at 3,4; on at 3,4", "perfect, in group 1")
}
