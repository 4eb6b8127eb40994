package mesh

import (
	"fmt"
	"net/netip"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/dns"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Which devices the components of neurons are assigned to, gateway-api says. It is not
// kept: gateway-api says it again after a start, as the status tells it to.

// maxBrainNames is one for each component that a network can have.
const maxBrainNames = 4 * model.MaxNeurons

// maxDevices is how many devices a name leads to: an answer has to fit a packet.
const maxDevices = 16

// PutNames takes the names of all components of neurons, in place of those of before.
func (g *gateway) PutNames(list []model.BrainName) error {
	if err := checkNames(list); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	g.mu.Lock()
	g.neurons = append([]model.BrainName{}, list...)
	g.mu.Unlock()
	wake(g.serveNow)
	return nil
}

func checkNames(list []model.BrainName) error {
	if len(list) > maxBrainNames {
		return fmt.Errorf("names: expected at most %d, got %d", maxBrainNames, len(list))
	}
	seen := make(map[string]bool, len(list))
	total := 0
	for i, n := range list {
		if _, _, err := model.ParseComponentName(n.Name); err != nil {
			return fmt.Errorf("name %d: %w", i, err)
		}
		if seen[n.Name] {
			return fmt.Errorf("name %d: %s is there twice", i, n.Name)
		}
		seen[n.Name] = true
		if total += len(n.Nodes); total > model.MaxParts {
			return fmt.Errorf("names: expected at most %d nodes in all", model.MaxParts)
		}
		for _, id := range n.Nodes {
			if !identity.ValidID(id) {
				return fmt.Errorf("name %d, %s: nodes: expected canonical IDs, got %.40q", i, n.Name, id)
			}
		}
	}
	return nil
}

// brain returns the names of components with the addresses of those of their devices
// that are members; a component of which none is, has no name. g.mu is held.
func (g *gateway) brain() []dns.Host {
	if len(g.neurons) == 0 {
		return nil
	}
	at := map[string][]netip.Addr{g.net.ID(): {paths.OverlayGateway, identity.Overlay(g.net, g.net)}}
	for _, p := range g.known.members() {
		at[p.Node] = []netip.Addr{p.OverlayV4, p.OverlayV6}
	}
	hosts := make([]dns.Host, 0, len(g.neurons))
	for _, n := range g.neurons {
		h := dns.Host{Name: n.Name}
		for _, id := range n.Nodes {
			if len(h.Addresses) < 2*maxDevices {
				h.Addresses = append(h.Addresses, at[id]...)
			}
		}
		if len(h.Addresses) > 0 {
			hosts = append(hosts, h)
		}
	}
	return hosts
}
