//go:build lab

package systemtest_test

import (
	"os"
	"strconv"
	"testing"

	"halo.internal/lab/network"
)

// TestNetwork boots one network, joined by cable, and does to it, one after the
// other, what field and people do. Each part leaves the network as it found it.
// What needs no cable is in TestInTheAir: all restart at once, a partition.
func TestNetwork(t *testing.T) {
	l := boot(t)
	parts := []part{
		{"three nodes with roles, addresses and versions", threeNodes},
		{"telemetry changes", telemetryChanges},
		{"the overlay shakes hands", handshakes},
		{"a node is switched off in order", func(t *testing.T, l *lab) { l.shutdown(t, l.nodes[0]) }},
		{"power cuts", powerCuts},
		{"a soak", soak(t)},
		{"damaged slots and a damaged bundle", damagedCards},
		{"full cards", fullCards},
		{"a worn card", wornCard},
	}
	l.parts(t, append(append(parts, l.scenarios()...), part{"nothing plain on the wire", nothingPlain})...)
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
	return 2 // one plain, one twice
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
	for _, m := range l.net.Machines() {
		first := l.reading(t, m.Name(), uptime)
		l.eventually(t, "the uptime of "+m.Name()+" grows", func() error {
			now, err := l.latest(t.Context(), m.Name(), uptime)
			if err != nil {
				return err
			}
			return expect(now.Value > first.Value && now.Time.After(first.Time), "an uptime beyond %v at %v, got %v at %v", first.Value, first.Time, now.Value, now.Time)
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
