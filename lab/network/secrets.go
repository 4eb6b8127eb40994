package network

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/claim"
)

// Bundles are those of one network: what halo-image writes onto cards.
type Bundles struct {
	Gateway bundle.Bundle
	Node    bundle.Bundle
}

// tokenLife is longer than any lab runs, and than its clocks are wrong.
const tokenLife = 365 * 24 * time.Hour

// meshPort is the port that leads to the switch.
const meshPort = "eth1"

// NewBundles makes a network of that name with a join token for nodes devices.
func NewBundles(name string, nodes int, now time.Time) (Bundles, error) {
	key := identity.New()
	node := bundle.Bundle{
		Version: bundle.Version, Network: name, Role: model.RoleNode, Country: "DE",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64()},
		Mesh:    bundle.Mesh{SSID: name, PSK: rand.Text(), Routing: "BATMAN_IV"},
		Join:    bundle.Join{Token: identity.NewJoinToken(uint32(max(nodes, 1)), now.Add(tokenLife)).Text(key)},
		// The second port, where there is one, is left for HALO to find out about.
		Ports: map[string]string{"eth0": "uplink"},
		// People look at a node's page from the host.
		Firewall: bundle.Firewall{Uplink: []string{"field"}},
	}
	gateway := node
	gateway.Role, gateway.Name, gateway.Join, gateway.Firewall = model.RoleGateway, "gateway", bundle.Join{}, bundle.Firewall{}
	gateway.Ports = maps.Clone(node.Ports)
	gateway.Ports[meshPort] = "mesh"
	gateway.Gateway.Seed = base64.StdEncoding.EncodeToString(key.Seed())
	gateway.Gateway.ClaimCode = claim.NewCode()
	return Bundles{gateway, node}, errors.Join(gateway.Check(), node.Check())
}
