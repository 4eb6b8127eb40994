package join

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Check tells whether a membership is that node's in that network and whether
// the overlay can be built from it, be it from the network or from a card.
func Check(m model.Membership, network, node identity.PublicKey) error {
	expected := func(what, want, got string) error {
		return fmt.Errorf("membership: expected %s %s, got %q", what, want, clip(got))
	}
	switch {
	case m.Node != node.ID():
		return expected("node", node.ID(), m.Node)
	case m.Network != network.Base64():
		return expected("network", network.Base64(), m.Network)
	case !m.OverlayV4.Is4() || !paths.OverlayNet.Contains(m.OverlayV4):
		return expected("an overlay address in", paths.OverlayNet.String(), m.OverlayV4.String())
	case m.OverlayV6 != identity.Overlay(network, node):
		return expected("overlay address", identity.Overlay(network, node).String(), m.OverlayV6.String())
	}
	if raw, err := base64.StdEncoding.DecodeString(m.GatewayWireGuardKey); err != nil || len(raw) != 32 {
		return expected("the gateway's WireGuard key,", "32 octets in base64", m.GatewayWireGuardKey)
	}
	if m.Clients.IsValid() {
		return CheckClients(m.Clients)
	}
	return nil
}

// CheckClients tells whether a network may be that of a node's clients.
func CheckClients(p netip.Prefix) error {
	if p != p.Masked() || p.Bits() != 24 || !paths.ClientsNet.Contains(p.Addr()) || p == paths.ClientsGateway || p == paths.ClientsAlone {
		return fmt.Errorf("clients: expected a /24 of %s, not the gateway's or the last, got %s", paths.ClientsNet, p)
	}
	return nil
}

// Parse reads a stored membership of that node in that network.
func Parse(b []byte, network, node identity.PublicKey) (model.Membership, error) {
	var m model.Membership
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("membership: %w", err)
	}
	return m, Check(m, network, node)
}

// Marshal returns the stored form.
func Marshal(m model.Membership) []byte {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic("join: membership: " + err.Error()) // strings and addresses always encode
	}
	return append(b, '\n')
}
