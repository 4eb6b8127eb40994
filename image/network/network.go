// Package network makes HALO networks on the build host and puts their bundles
// onto cards. A network is its gateway's key: making one means drawing that
// key, the mesh's secret, a claim code for the first user, and a join token
// that admits a number of nodes. The key and the code go into the gateway's
// bundle alone.
package network

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/legal"
	"halo.internal/identity"
	"halo.internal/image/fat"
	"halo.internal/image/layout"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/claim"
	"halo.internal/model/paths"
)

// Options describe a network to be made.
type Options struct {
	Name    string
	Country string
	Uses    uint32 // how many nodes the token admits
	Expires time.Time

	// Mesh is the profile; SSID is the network's name when empty, PSK is drawn.
	bundle.Mesh
}

// Network is a new network's two bundles.
type Network struct {
	Gateway bundle.Bundle
	Node    bundle.Bundle
}

// New makes a network. A HaLow channel that the country does not have is refused.
func New(o Options) (Network, error) {
	if o.Uses == 0 {
		return Network{}, errors.New("join token: expected at least one use, got 0")
	}
	key := identity.New()
	if o.HaLowChannel != 0 {
		scheme, err := channel.ParseScheme(o.HaLowScheme)
		if err != nil {
			return Network{}, err
		}
		if err := legal.HaLow(legal.S1G{Country: o.Country, Scheme: scheme, Number: o.HaLowChannel}).Check(legal.Station{}); err != nil {
			return Network{}, fmt.Errorf("HaLow channel: %w", err)
		}
	}
	if o.SSID == "" {
		o.SSID = o.Name
	}
	if o.PSK == "" {
		o.PSK = rand.Text() // 130 bits
	}
	node := bundle.Bundle{
		Version: bundle.Version,
		Network: o.Name,
		Role:    model.RoleNode,
		Country: o.Country,
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64()},
		Mesh:    o.Mesh,
		Join:    bundle.Join{Token: identity.NewJoinToken(o.Uses, o.Expires).Text(key)},
	}
	gateway := node
	gateway.Role = model.RoleGateway
	gateway.Join = bundle.Join{}
	gateway.Gateway.Seed = base64.StdEncoding.EncodeToString(key.Seed())
	gateway.Gateway.ClaimCode = claim.NewCode()
	return Network{gateway, node}, errors.Join(gateway.Check(), node.Check())
}

// ErrRole is wrapped where a bundle is put onto a card of the other role.
var ErrRole = errors.New("bundle and card differ in role")

// Put writes a bundle into the boot partition of an image file or a card. It
// takes away a claim notice of an earlier network, and what keeps room for a
// bundle in a flat image.
func Put(ctx context.Context, b bundle.Bundle, card string) error {
	text, err := b.Marshal()
	if err != nil {
		return err
	}
	boot := fat.Volume{Path: card, Offset: layout.BootOffset}
	role, err := Role(ctx, card)
	if err != nil {
		return err
	}
	if role != "" && role != string(b.Role) {
		return fmt.Errorf("%w: the bundle is for a %s, %s holds a %s", ErrRole, b.Role, card, role)
	}
	if err := boot.Remove(ctx, path.Base(paths.BootReserve)); err != nil {
		return err
	}
	if err := boot.Write(ctx, path.Base(paths.Bundle), text); err != nil {
		return err
	}
	return boot.Remove(ctx, path.Base(paths.ClaimNotice))
}

// Role reads which role an image or card is for; empty when it is a flat one
// by plain gok.
func Role(ctx context.Context, card string) (string, error) {
	boot := fat.Volume{Path: card, Offset: layout.BootOffset}
	raw, err := boot.Read(ctx, layout.SlotDir('a')+"/"+layout.Manifest)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := boot.Read(ctx, layout.Cmdline); err != nil {
			return "", fmt.Errorf("%s: expected a HALO image or card: %w", card, err)
		}
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("%s: expected a HALO image or card: %w", card, err)
	}
	slot, err := layout.ParseSlot(raw)
	if err != nil {
		return "", fmt.Errorf("%s: %w", card, err)
	}
	return strings.TrimSpace(slot.Role), nil
}
