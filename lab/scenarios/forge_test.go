package scenarios_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/lab/host"
	"halo.internal/lab/scenarios"
	"halo.internal/mesh/announce"
	"halo.internal/model/paths"
)

// TestForgeries has members' own codec read what is forged out of a true announcement:
// recordings are true, and all else fails where it is said to, signatures above all.
func TestForgeries(t *testing.T) {
	key := identity.New()
	codec := announce.Codec{Network: key.Public()}
	wireguard := key.WireGuardPublic()
	true1, err := codec.EncodeGateway(key, announce.Gateway{
		Stamp: announce.Stamp{Epoch: 331000, Boot: 3, Seq: 123456}, WireGuardKey: wireguard[:], APIPort: 8443, CASHA256: make([]byte, 32),
		TimeMS: time.Now().UnixMilli(), Quality: "gps", List: 9, Profile: 2, Instance: 1 << 60,
	})
	if err != nil {
		t.Fatal(err)
	}
	texts, reasons, err := scenarios.Forge(key.Public(), true1)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]error{"old or replayed": nil, "forged": identity.ErrSignature, "other network": announce.ErrNetwork, "malformed": announce.ErrForm}
	seen := map[string]int{}
	for i, text := range texts {
		reason, known := want[reasons[i]]
		_, err := codec.Decode(text)
		if !known || !errors.Is(err, reason) {
			t.Errorf("forgery %d, which is %s: %v", i, reasons[i], err)
		}
		seen[reasons[i]]++
	}
	if len(seen) != len(want) || seen["forged"] < len(texts)/2 {
		t.Errorf("expected all reasons, and signatures most of all, got %v", seen)
	}

	node, err := codec.EncodeNode(identity.New(), announce.Node{WireGuardKey: wireguard[:]})
	if err != nil {
		t.Fatal(err)
	}
	for name, heard := range map[string][]byte{"nothing": nil, "a node's question": node, "half of it": true1[:len(true1)/2]} {
		if _, _, err := scenarios.Forge(key.Public(), heard); err == nil {
			t.Errorf("%s is taken for an announcement of the gateway", name)
		}
	}
	if _, _, err := scenarios.Forge(identity.New().Public(), true1); err == nil {
		t.Error("another network's announcement is taken for one of this")
	}
}

func TestAnnounced(t *testing.T) {
	mac := host.MAC{2, 0, 0, 0, 0, 1}
	from := netip.MustParseAddr("fe80::1")
	words := []byte("signed words of some length")
	frame := func(port uint16) host.Frame {
		return host.Ether(host.Group(paths.AnnounceGroup), mac, host.TypeIPv6,
			host.UDP6(netip.AddrPortFrom(from, 9), netip.AddrPortFrom(paths.AnnounceGroup, port), words))
	}
	f := frame(paths.AnnouncePort)
	padded := append(slices.Clone(f), make([]byte, 12)...)
	for _, f := range []host.Frame{f, padded} {
		if got, ok := scenarios.Announced(f); !ok || string(got) != string(words) {
			t.Errorf("got %q, %v", got, ok)
		}
	}
	if got, ok := scenarios.Announced(frame(9)); ok {
		t.Errorf("of another port: got %q", got)
	}
	for n := 14; n < len(f); n++ {
		if got, ok := scenarios.Announced(f[:n]); ok {
			t.Errorf("cut off after %d octets: got %q", n, got)
		}
	}
}
