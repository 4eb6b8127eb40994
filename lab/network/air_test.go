package network

import (
	"errors"
	"fmt"
	"testing"

	"halo.internal/lab/air"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/air/rogue"
	"halo.internal/lab/ether"
)

func TestRadiosStandInAGrid(t *testing.T) {
	n := &Network{opts: Options{Mesh: ByAir, Nodes: 4, Radios: 2}}
	if err := n.opts.checkAir(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, want := range []physics.Position{{}, {X: 50}, {X: 100}, {Y: 50}, {X: 50, Y: 50}, {X: 100, Y: 50}} { // the last is a stranger's
		name := fmt.Sprintf("m%d", i)
		for j, r := range n.newRadios(name, byte(i)) {
			if r.Position != want || r.Machine != name || r.Name != fmt.Sprintf("%s.%d", name, j+1) || r.on {
				t.Errorf("radio %d of %s: %+v, want it at %v", j, name, r, want)
			}
			a := r.Address
			if seen[a.String()] || a[0]&3 != 2 {
				t.Errorf("%s: expected a local address of its own", a)
			}
			seen[a.String()] = true
		}
	}
	if profile, spacing := n.opts.Profile.Name, n.opts.SpacingM; profile != "wifi" || spacing != 50 {
		t.Errorf("defaults: %s, %g m", profile, spacing)
	}
}

func TestWithoutAnAir(t *testing.T) {
	n := &Network{opts: Options{Mesh: ByCable}}
	_, status := n.AirStatus()
	for what, err := range map[string]error{
		"status":   status,
		"move":     n.Move("gateway", physics.Position{}),
		"cut":      n.Cut("gateway", "node1", true),
		"restore":  n.Restore(),
		"loss":     n.SetLoss("gateway", "node1", 0.5),
		"disorder": n.SetDisorder("gateway", "node1", air.Disorder{Retransmitted: 0.5}),
		"jam":      n.Jam(air.Jammer{RaiseDB: 3}),
		"quiet":    n.Quiet(0),
		"unplug":   n.Unplug("gateway"),
		"replug":   n.Replug("gateway"),
		"rogue":    n.StartRogue(rogue.Config{Attack: rogue.Replay, PerSecond: 1}, physics.Position{}),
	} {
		if !errors.Is(err, ErrNoAir) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if _, err := n.Wedge("gateway"); !errors.Is(err, ErrNoAir) {
		t.Errorf("wedge: got %v", err)
	}
	if err := n.KillProcess(t.Context(), "gateway", "halo-mesh"); !errors.Is(err, ErrNoRadio) {
		t.Errorf("kill: got %v", err)
	}
	if err := n.PlugInto("gateway", 0, "x", nil); err == nil {
		t.Error("a port that is not there took a cable")
	}
	if err := n.StopRogue(); !errors.Is(err, ErrNoRogue) {
		t.Errorf("got %v", err)
	}
	n.opts.Mesh = ByAir
	if err := n.SetLink("gateway", "", ether.Condition{}); !errors.Is(err, ErrNoCable) {
		t.Errorf("a cable where there is none: got %v", err)
	}
}
