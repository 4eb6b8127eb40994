package mesh

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

func admitted(network identity.PublicKey, key identity.Key, v4 string) model.AdmittedPeer {
	wg := key.WireGuardPublic()
	return model.AdmittedPeer{
		Node: key.ID(), IdentityKey: key.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
		OverlayV4: netip.MustParseAddr(v4), OverlayV6: identity.Overlay(network, key.Public()),
	}
}

func TestPeersAreChecked(t *testing.T) {
	network, a, b := identity.New(), identity.New(), identity.New()
	net := network.Public()
	first := admitted(net, a, "10.42.1.2")
	for _, tc := range []struct {
		name   string
		second model.AdmittedPeer
		change func(*model.AdmittedPeer)
		want   string
	}{
		{"good", admitted(net, b, "10.42.1.3"), func(*model.AdmittedPeer) {}, ""},
		{"ID of another key", admitted(net, b, "10.42.1.3"), func(p *model.AdmittedPeer) { p.Node = identity.New().ID() }, "follows from the key"},
		{"no key", admitted(net, b, "10.42.1.3"), func(p *model.AdmittedPeer) { p.IdentityKey = "" }, "identity_key"},
		{"short WireGuard key", admitted(net, b, "10.42.1.3"), func(p *model.AdmittedPeer) { p.WireGuardKey = "AAAA" }, "wireguard_key"},
		{"the gateway's address", admitted(net, b, paths.OverlayGateway.String()), func(*model.AdmittedPeer) {}, "overlay_v4"},
		{"address outside", admitted(net, b, "192.0.2.1"), func(*model.AdmittedPeer) {}, "overlay_v4"},
		{"another's IPv6 address", admitted(net, b, "10.42.1.3"), func(p *model.AdmittedPeer) { p.OverlayV6 = first.OverlayV6 }, "overlay_v6"},
		{"another's WireGuard key, written with a line end", admitted(net, b, "10.42.1.3"), func(p *model.AdmittedPeer) { p.WireGuardKey = first.WireGuardKey[:7] + "\n" + first.WireGuardKey[7:] }, "in common"},
		{"same address twice", admitted(net, b, "10.42.1.2"), func(*model.AdmittedPeer) {}, "in common"},
		{"same node twice", first, func(p *model.AdmittedPeer) { p.OverlayV4 = netip.MustParseAddr("10.42.1.9") }, "in common"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := registry{}
			tc.change(&tc.second)
			err := r.setPeers([]model.AdmittedPeer{first, tc.second}, net)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want mention of %q", err, tc.want)
			}
			if err != nil && len(r.Peers) > 0 {
				t.Error("a list that was refused was half taken")
			}
		})
	}
	r := registry{}
	if err := r.setPeers(make([]model.AdmittedPeer, maxPeers+1), net); err == nil {
		t.Error("too many peers were taken")
	}
	if err := r.setPeers([]model.AdmittedPeer{admitted(net, network, "10.42.0.1"), first}, net); err != nil || len(r.Peers) != 1 {
		t.Errorf("the gateway's own entry: %d peers, %v, want it left out", len(r.Peers), err)
	}
}

func TestALaterLifeIsRememberedAndNoEarlierOne(t *testing.T) {
	network, a := identity.New(), identity.New()
	net := network.Public()
	list := []model.AdmittedPeer{admitted(net, a, "10.42.1.2")}
	r := registry{}
	if err := r.setPeers(list, net); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		life overlay.Incarnation
		want bool
	}{
		{overlay.Incarnation{Boot: 5}, true},
		{overlay.Incarnation{Boot: 5}, false},
		{overlay.Incarnation{Boot: 4, Steps: 9}, false},
		{overlay.Incarnation{Boot: 5, Steps: 1}, true},
		{overlay.Incarnation{Boot: 6}, true},
	} {
		if got := r.reborn(a.ID(), tc.life); got != tc.want {
			t.Errorf("%+v: got %v, want %v", tc.life, got, tc.want)
		}
		if err := r.setPeers(list, net); err != nil { // gateway-api says the same again
			t.Fatal(err)
		}
	}
	if r.reborn(network.ID(), overlay.Incarnation{Boot: 9}) {
		t.Error("a node that was not admitted was taken")
	}
	peers := r.overlayPeers(net)
	if len(peers) != 1 || peers[0].Incarnation.Boot != 6 || peers[0].Endpoint.Addr() != identity.Underlay(net, a.Public()) || len(peers[0].Allowed) != 2 {
		t.Errorf("got %+v", peers)
	}
}
