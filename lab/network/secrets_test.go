package network

import (
	"encoding/base64"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/model/bundle"
)

func TestBundlesAreOfOneNetwork(t *testing.T) {
	now := time.Now()
	b, err := NewBundles("lab", 3, now)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := base64.StdEncoding.DecodeString(b.Gateway.Gateway.Seed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	if got := key.Public().Base64(); got != b.Node.Gateway.PublicKey || got != b.Gateway.Gateway.PublicKey {
		t.Errorf("the bundles' key is %s and %s, the gateway's %s", b.Node.Gateway.PublicKey, b.Gateway.Gateway.PublicKey, got)
	}
	token, err := identity.ParseJoinToken(b.Node.Join.Token, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Valid(now); err != nil || token.Uses != 3 {
		t.Errorf("token: %+v, %v; want 3 uses", token, err)
	}
	if b.Node.Gateway.Seed != "" || b.Node.Gateway.ClaimCode != "" || b.Gateway.Gateway.ClaimCode == "" || b.Gateway.Mesh != b.Node.Mesh {
		t.Error("secrets are in the wrong bundle, or the mesh differs")
	}
	if _, pinned := b.Node.Ports["eth1"]; pinned || b.Gateway.Ports["eth1"] != "mesh" {
		t.Errorf("ports: gateway %v, node %v", b.Gateway.Ports, b.Node.Ports)
	}
	for _, x := range []bundle.Bundle{b.Gateway, b.Node} {
		text, err := x.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.Parse("halo.toml", text); err != nil {
			t.Error(err)
		}
	}
}
