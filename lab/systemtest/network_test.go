//go:build lab

package systemtest_test

import (
	"os"
	"strconv"
	"testing"

	"halo.internal/lab/network"
	"halo.internal/model/apitype"
)

// TestNetwork boots one network, joined by cable, and does to it, one after the
// other, what field and people do. Each part leaves the network as it found it.
// What needs no cable is in TestInTheAir: all restart at once, a partition.
func TestNetwork(t *testing.T) {
	l := boot(t)
	var b battery
	parts := []part{
		{name: "three nodes with roles, addresses and versions", run: threeNodes},
		{name: "telemetry changes", run: telemetryChanges},
		{name: "the overlay shakes hands", run: handshakes},
		{name: "a battery runs empty", run: b.runsEmpty},
		{name: "a chip, a door, a relay and a display", run: devices},
		{name: "nodes are switched off in order, by hand and by an empty battery", run: b.endsItsNode},
		{name: "power cuts", run: powerCuts},
		{name: "a soak", run: soak(t)},
		{name: "damaged slots and a damaged bundle", run: damagedCards},
		{name: "full cards", run: fullCards},
		{name: "a worn card", run: wornCard},
	}
	l.parts(t, append(append(parts, l.scenarios()...), part{name: "nothing plain on the wire", run: nothingPlain})...)
}

// cuts is how often the power is cut.
func cuts(t *testing.T) int {
	if text := os.Getenv("HALO_POWER_CUTS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("HALO_POWER_CUTS: %v", err)
		}
		return n
	}
	return 1 // the first is cut again while it starts
}

func threeNodes(t *testing.T, l *lab) {
	l.eventually(t, "three nodes are listed, online, each with its role, addresses and version", func() error {
		nodes, err := l.api.Nodes(t.Context())
		if err != nil {
			return err
		}
		return checkNodes(nodes, len(l.nodes))
	})
}

func telemetryChanges(t *testing.T, l *lab) {
	machines := l.net.Machines()
	first := make([]apitype.Reading, len(machines))
	for i, m := range machines {
		first[i] = l.reading(t, m.Name(), uptime)
	}
	for i, m := range machines {
		l.eventually(t, "the uptime of "+m.Name()+" grows", func() error {
			now, err := l.latest(t.Context(), m.Name(), uptime)
			if err != nil {
				return err
			}
			return expect(now.Value > first[i].Value && now.Time.After(first[i].Time), "an uptime beyond %v at %v, got %v at %v", first[i].Value, first[i].Time, now.Value, now.Time)
		})
	}
}

func handshakes(t *testing.T, l *lab) {
	l.eventually(t, "node show has the handshakes", func() error {
		gateway, err := l.api.Node(t.Context(), network.Gateway)
		if err != nil {
			return err
		}
		if err := expect(len(gateway.Overlays) == len(l.nodes), "%d overlay peers of the gateway, got %d", len(l.nodes), len(gateway.Overlays)); err != nil {
			return err
		}
		for _, m := range l.nodes {
			n, err := l.api.Node(t.Context(), m.Name())
			if err != nil {
				return err
			}
			if err := expect(n.Overlay != nil && n.Overlay.LastHandshake != nil && n.Overlay.RxBytes > 0, "%s with a handshake, got %+v", m.Name(), n.Overlay); err != nil {
				return err
			}
		}
		return nil
	})
}
