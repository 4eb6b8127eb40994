package mesh

import (
	"encoding/base64"
	"testing"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
)

// proved is a node's proof that it has an overlay key.
func proved(t *testing.T, network, node identity.Key, private [32]byte) []byte {
	t.Helper()
	b, err := identity.ProvePossession(network.Public(), node.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestANextKeyIsWhoseItIs: a captured node names the next key of another, before that
// one was heard, and with whatever proofs it can have. The other's rotation goes on.
func TestANextKeyIsWhoseItIs(t *testing.T) {
	network, captured, honest := identity.New(), identity.New(), identity.New()
	next := identity.New().WireGuard()
	public := publicOf(next)
	for name, proof := range map[string][]byte{
		"without a proof":           nil,
		"with the other's own":      proved(t, network, honest, next),
		"with one of another key":   proved(t, network, captured, captured.WireGuard()),
		"with one of as many zeros": make([]byte, identity.PossessionSize),
	} {
		t.Run(name, func(t *testing.T) {
			g := bareGateway(t, network, captured, honest)
			says := func(k identity.Key, next, proof []byte) {
				key, own := k.Public(), k.WireGuardPublic()
				g.hear(announce.Node{Key: key[:], Stamp: announce.Stamp{Boot: 1}, WireGuardKey: own[:], NextKey: next, NextProof: proof})
			}
			says(captured, public[:], proof)
			says(honest, public[:], proved(t, network, honest, next))
			for _, p := range g.known.Peers {
				want := ""
				if p.Node == honest.ID() {
					want = base64.StdEncoding.EncodeToString(public[:])
				}
				if p.Next != want {
					t.Errorf("%s has the next key %q, want %q", p.Node, p.Next, want)
				}
			}
		})
	}
}

// TestANodeProvesItsNextKey in what it asks the gateway.
func TestANodeProvesItsNextKey(t *testing.T) {
	network, node := identity.New(), identity.New()
	m := bareCore(t, network.Public(), node)
	m.keys = &overlayKey{private: node.WireGuard()}
	if now, next, proof := m.claim(); len(now) != 32 || next != nil || proof != nil {
		t.Errorf("without a next key it says %x, %x, %x", now, next, proof)
	}
	drawn := identity.New().WireGuard()
	m.keys.next = &drawn
	now, next, proof := m.claim()
	if own, public := node.WireGuardPublic(), publicOf(drawn); [32]byte(now) != own || [32]byte(next) != public || !network.Possesses(node.Public(), next, proof) {
		t.Errorf("it says %x, %x, %x", now, next, proof)
	}
}
