//go:build lab

package systemtest_test

import (
	"bytes"
	"strconv"
	"testing"

	"halo.internal/ctl/client"
	"halo.internal/lab/host"
	"halo.internal/lab/network"
	"halo.internal/lab/systemtest"
	"halo.internal/model/paths"
)

// nothingPlain looks through everything that was ever on the switch: each frame
// must be of a kind that is sealed or shows nothing, and none may hold a secret.
// Only the former sees telemetry, which the stream masks and packs.
func nothingPlain(t *testing.T, l *lab) {
	secrets := map[string][]byte{}
	add := func(what string, b []byte) {
		if len(b) >= 4 { // fewer are found anywhere by chance
			secrets[what] = b
		}
	}
	readings, err := l.api.Telemetry(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(readings) == 0 {
		t.Fatal("no readings to look for")
	}
	for _, r := range readings {
		add("the name "+r.Metric, []byte(r.Metric))
		if r.Value >= 1e4 {
			text := strconv.FormatFloat(r.Value, 'f', -1, 64)
			add("the value "+text+" of "+r.Metric, []byte(text))
		}
	}
	add("a request of HTTP", []byte("HTTP/1.1"))
	add("the way to the stream", []byte("/v1/nodes/stream"))
	b := l.net.Bundles
	for what, text := range map[string]string{"mesh secret": b.Node.Mesh.PSK, "join token": b.Node.Join.Token, "claim code": b.Gateway.Gateway.ClaimCode, "network's seed": b.Gateway.Gateway.Seed} {
		add(what, []byte(text))
	}
	all, err := l.world.Frames()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[uint16]int{}
	var sealed systemtest.Sealed
	const most = 20 // one kind of frame comes again and again
	open := 0
	for i, f := range all {
		if !l.sent(f) {
			continue // what a stranger makes up
		}
		if err := sealed.Check(f); err != nil {
			if open++; open <= most {
				t.Errorf("frame %d: %v", i, err)
			}
		}
		kinds[f.Kind()]++
		for what, s := range secrets {
			if bytes.Contains(f, s) {
				t.Errorf("frame %d of type %#04x from %s shows %s", i, f.Kind(), f.From(), what)
			}
		}
	}
	if open > most {
		t.Errorf("and %d frames more like these", open-most)
	}
	if kinds[paths.EtherTypeProof] == 0 || kinds[paths.EtherTypeMACsec] == 0 || kinds[paths.EtherTypeBatman] != 0 {
		t.Errorf("frames by type: %v, want proofs and MACsec, and batman-adv nowhere but in it", kinds)
	}
	t.Logf("%d frames, by type %v; looked for %d texts", len(all), kinds, len(secrets))
}

// sent tells whether a frame is a machine's: the MACs of their ports begin alike, and
// those of MACsec's interfaces but for the first octet (batman.Turned).
func (l *lab) sent(f host.Frame) bool { return bytes.HasPrefix(f[7:], []byte{0x54, 0, 0x48}) }

func eventsOf(m *network.Machine, kind string) client.EventFilter {
	return client.EventFilter{Node: m.Name(), Kind: kind}
}
