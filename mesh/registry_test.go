package mesh

import (
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/peerlist"
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

// keys is what a node says of its overlay keys: the one that it has, and the next.
type keys struct{ now, next [32]byte }

// TestAKeyThatIsAnothersIsNotTaken has a captured node name keys of others: none of
// it may keep the others out, or have a list of members that cannot be signed.
func TestAKeyThatIsAnothersIsNotTaken(t *testing.T) {
	network, a, b, d := identity.New(), identity.New(), identity.New(), identity.New()
	net, other := network.Public(), identity.New().WireGuardPublic()
	own := a.WireGuardPublic()
	captured, second, honest := admitted(net, a, "10.42.1.2"), admitted(net, b, "10.42.1.3"), admitted(net, d, "10.42.1.4")
	rejoined := second
	rejoined.WireGuardKey = base64.StdEncoding.EncodeToString(other[:])
	for _, tc := range []struct {
		name  string
		says  []keys // of a, before the others are admitted
		first []model.AdmittedPeer
		then  []model.AdmittedPeer
	}{
		{"the next key is that of a node to be admitted", []keys{{own, d.WireGuardPublic()}}, []model.AdmittedPeer{captured}, []model.AdmittedPeer{captured, honest}},
		{"so is the one in use", []keys{{own, d.WireGuardPublic()}, {d.WireGuardPublic(), [32]byte{}}}, []model.AdmittedPeer{captured}, []model.AdmittedPeer{captured, honest}},
		{"and it comes last in the list", []keys{{own, d.WireGuardPublic()}, {d.WireGuardPublic(), [32]byte{}}}, []model.AdmittedPeer{captured}, []model.AdmittedPeer{honest, captured}},
		{"two are captured, and the second joins anew with the key of the first", []keys{{own, other}, {other, [32]byte{}}}, []model.AdmittedPeer{captured, second}, []model.AdmittedPeer{captured, rejoined, honest}},
		{"no key at all", []keys{{own, [32]byte{}}, {[32]byte{}, [32]byte{}}}, []model.AdmittedPeer{captured}, []model.AdmittedPeer{captured, honest}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := registry{}
			if err := r.setPeers(tc.first, net); err != nil {
				t.Fatal(err)
			}
			for _, k := range tc.says {
				r.rekeyed(a.ID(), k.now[:], k.next[:], false)
			}
			if err := r.setPeers(tc.then, net); err != nil {
				t.Fatal(err)
			}
			for i, p := range r.Peers {
				if p.WireGuardKey != tc.then[i].WireGuardKey || p.Next != "" {
					t.Errorf("%s has the key %s and next %q, want %s and none", p.Node, p.WireGuardKey, p.Next, tc.then[i].WireGuardKey)
				}
			}
			if _, err := peerlist.Sign(network, peerlist.List{Expires: time.Unix(1, 0), Peers: r.listed()}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestANextKeyIsFollowedUnlessItIsAnothers by then.
func TestANextKeyIsFollowedUnlessItIsAnothers(t *testing.T) {
	network, a, d := identity.New(), identity.New(), identity.New()
	net, own, next := network.Public(), a.WireGuardPublic(), d.WireGuardPublic()
	text := base64.StdEncoding.EncodeToString(next[:])
	r := registry{}
	if err := r.setPeers([]model.AdmittedPeer{admitted(net, a, "10.42.1.2")}, net); err != nil {
		t.Fatal(err)
	}
	if !r.rekeyed(a.ID(), own[:], next[:], false) || r.rekeyed(a.ID(), own[:], next[:], false) {
		t.Error("a next key is not news once, and once only")
	}
	contested := registry{Peers: append(slices.Clone(r.Peers), knownPeer{AdmittedPeer: admitted(net, d, "10.42.1.3")})}
	if contested.rekeyed(a.ID(), next[:], nil, false); contested.Peers[0].WireGuardKey == text || contested.Peers[0].Next != "" {
		t.Errorf("another's key was taken: %+v", contested.Peers[0])
	}
	if !r.rekeyed(a.ID(), next[:], nil, false) || r.Peers[0].WireGuardKey != text {
		t.Errorf("its own was not: %+v", r.Peers[0])
	}
	if err := r.setPeers([]model.AdmittedPeer{admitted(net, a, "10.42.1.2")}, net); err != nil || r.Peers[0].WireGuardKey != text {
		t.Errorf("gateway-api, which has not heard of it yet, took it back: %+v, %v", r.Peers[0], err)
	}
}

// TestWhoWasRevokedIsNoPeer, though gateway-api could not say who is left.
func TestWhoWasRevokedIsNoPeer(t *testing.T) {
	network, a, b := identity.New(), identity.New(), identity.New()
	net := network.Public()
	r := registry{Revoked: []string{a.ID()}}
	if err := r.setPeers([]model.AdmittedPeer{admitted(net, a, "10.42.1.2"), admitted(net, b, "10.42.1.3")}, net); err != nil {
		t.Fatal(err)
	}
	if l := r.listed(); len(l) != 1 || l[0].Key != b.Public() {
		t.Errorf("listed: %+v", l)
	}
	if l := r.overlayPeers(net); len(l) != 1 || l[0].Node != b.ID() {
		t.Errorf("overlay: %+v", l)
	}
}

// TestAnOldCardIsTakenBack: of a node whose key was changed since it was written.
func TestAnOldCardIsTakenBack(t *testing.T) {
	network, a := identity.New(), identity.New()
	net, old, changed := network.Public(), a.WireGuardPublic(), identity.New().WireGuardPublic()
	text := func(key [32]byte) string { return base64.StdEncoding.EncodeToString(key[:]) }
	peer := func(key [32]byte) model.AdmittedPeer {
		p := admitted(net, a, "10.42.1.2")
		p.WireGuardKey = text(key)
		return p
	}
	says := func(key [32]byte, boot uint64) func(*registry) {
		return func(r *registry) {
			r.rekeyed(a.ID(), key[:], nil, r.reborn(a.ID(), overlay.Incarnation{Boot: boot}))
		}
	}
	told := func(key [32]byte) func(*registry) {
		return func(r *registry) {
			if err := r.setPeers([]model.AdmittedPeer{peer(key)}, net); err != nil {
				t.Error(err)
			}
		}
	}
	restart := func(r *registry) {
		b, err := json.Marshal(r)
		m := bareCore(t, net, network)
		if _, putErr := m.store.Put(paths.Peers, "", b); err != nil || putErr != nil {
			t.Fatal(err, putErr)
		}
		*r = m.loadRegistry()
	}
	for name, tc := range map[string]struct {
		then []func(*registry)
		want [32]byte
	}{
		"gateway-api has not heard of the change":                {[]func(*registry){told(old)}, changed},
		"nor has it after a restart":                             {[]func(*registry){restart, told(old)}, changed},
		"it joins, gateway-api knew":                             {[]func(*registry){told(changed), told(old)}, old},
		"it joins, gateway-api knew, with a restart on the way":  {[]func(*registry){told(changed), restart, told(old)}, old},
		"it speaks in a later life":                              {[]func(*registry){says(old, 6)}, old},
		"and gateway-api says the same":                          {[]func(*registry){says(old, 6), told(old)}, old},
		"somebody has recorded what it said in the same life":    {[]func(*registry){says(old, 5)}, changed},
		"somebody has recorded what it said in an earlier life":  {[]func(*registry){says(old, 4)}, changed},
		"it has restarted since, and it is what was recorded of": {[]func(*registry){says(changed, 7), says(old, 6)}, changed},
	} {
		t.Run(name, func(t *testing.T) {
			r := &registry{}
			told(old)(r)
			r.reborn(a.ID(), overlay.Incarnation{Boot: 5})
			if !r.rekeyed(a.ID(), old[:], changed[:], false) || !r.rekeyed(a.ID(), changed[:], nil, false) {
				t.Fatal("its key was not changed")
			}
			for _, then := range tc.then {
				then(r)
			}
			if got := r.Peers[0]; got.WireGuardKey != text(tc.want) || got.Next != "" {
				t.Errorf("its key is %s, next %q; want %s (it had %s, changed to %s)", got.WireGuardKey, got.Next, text(tc.want), text(old), text(changed))
			}
			next := identity.New().WireGuardPublic()
			if !r.rekeyed(a.ID(), tc.want[:], next[:], false) {
				t.Error("it cannot change its key any more")
			}
		})
	}
}
