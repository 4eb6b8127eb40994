package provision

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/claim"
)

// GatewayKey returns the identity that a gateway's bundle carries, with a new
// WireGuard key.
func GatewayKey(b bundle.Bundle) (identity.Key, error) {
	seed, err := base64.StdEncoding.DecodeString(b.Gateway.Seed)
	if err != nil {
		return identity.Key{}, fmt.Errorf("gateway.seed: expected base64, got %d characters of something else", len(b.Gateway.Seed))
	}
	k, err := identity.FromSeed(seed)
	if err != nil {
		return k, fmt.Errorf("gateway.seed: %w", err)
	}
	return k, nil
}

// Found makes the bundle of a network of its own for a gateway that was given
// none: its name and mesh follow from its key, secret and claim code are new.
func Found(key identity.Key) bundle.Bundle {
	tag := strings.TrimPrefix(key.ID(), "n-")[:6]
	return bundle.Bundle{
		Version: bundle.Version,
		Network: "halo-" + tag,
		Role:    model.RoleGateway,
		Country: bundle.UnknownCountry,
		Gateway: bundle.Gateway{
			PublicKey: key.Public().Base64(),
			Seed:      base64.StdEncoding.EncodeToString(key.Seed()),
			ClaimCode: claim.NewCode(),
		},
		Mesh: bundle.Mesh{SSID: "HALO-" + strings.ToUpper(tag), PSK: rand.Text(), Routing: "BATMAN_IV"},
	}
}
