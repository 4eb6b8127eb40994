//go:build lab

package systemtest_test

import (
	"os"
	"path/filepath"
	"testing"

	"halo.internal/lab/network"
	"halo.internal/model/pcap"
)

// TestInTheAir boots a network whose machines have radios and no cables, and does
// to it what the field does to radios. Each part leaves it as it found it.
func TestInTheAir(t *testing.T) {
	l := build(t, network.ByAir, 2, settings, "none")
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
	l.parts(t, append([]part{
		{name: "three nodes with roles, addresses and versions", run: threeNodes},
		{name: "all are heard", run: heard},
		{name: "telemetry changes", run: telemetryChanges},
		{name: "a phone at a node", run: aPhone},
		{name: "somebody at a console", run: atTheConsole},
	}, l.scenarios()...)...)
}

// heard checks that in each direction frames are heard.
func heard(t *testing.T, l *lab) {
	s, err := l.net.AirStatus()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.nodes) + 1; len(s.Links) < n*(n-1) {
		t.Errorf("got %d directions among %d radios, want all: %+v", len(s.Links), n, s.Links)
	}
	for _, link := range s.Links {
		if link.Heard == 0 {
			t.Errorf("from %s to %s: %+v, want frames that were heard", link.From, link.To, link)
		}
	}
}
