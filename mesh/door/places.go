package door

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/iface"
	"halo.internal/mesh/listen"
	"halo.internal/model/paths"
)

// lookEvery is how often the interfaces are looked at: addresses come with the
// overlay and the bridge, and may become others.
const lookEvery = 2 * time.Second

// Places returns where a node of that network has its door at present: at its
// addresses on the overlay, for the overlay and all clients, and on its client
// ports, for its own clients: at its address there, and, since that is what they
// know it by, at those of the overlay.
func Places(network identity.PublicKey) []listen.At {
	own := ula(network)
	overlay := addresses(paths.OverlayIface, paths.OverlayNet, own)
	clients := addresses(paths.ClientBridge, paths.ClientsNet, own)
	var at []listen.At
	for _, o := range overlay {
		at = append(at, listen.At{Iface: paths.OverlayIface, Addr: o.Addr(), From: []netip.Prefix{paths.OverlayNet, paths.ClientsNet, own}})
	}
	var from []netip.Prefix
	for _, c := range clients {
		from = append(from, c.Masked())
	}
	for _, p := range slices.Concat(clients, overlay) {
		if len(clients) > 0 {
			at = append(at, listen.At{Iface: paths.ClientBridge, Addr: p.Addr(), From: from})
		}
	}
	return at
}

// ula returns the network's /48.
func ula(network identity.PublicKey) netip.Prefix {
	return netip.PrefixFrom(identity.Overlay(network, network), 48).Masked()
}

// addresses returns those of an interface within some networks, with the
// prefixes that they are in. What is not there has none.
func addresses(name string, within ...netip.Prefix) []netip.Prefix {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	list, err := ifi.Addrs()
	if err != nil {
		return nil // it went away meanwhile
	}
	var out []netip.Prefix
	for _, a := range list {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && slices.ContainsFunc(within, func(w netip.Prefix) bool { return w.Contains(p.Addr()) }) {
			out = append(out, p)
		}
	}
	return out
}

// Run keeps the door open wherever places says, which is asked again when interfaces
// or addresses have changed, until ctx ends.
func (d *Door) Run(ctx context.Context, places func() []listen.At) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	open := map[string]context.CancelFunc{}
	defer func() {
		for _, end := range open {
			end()
		}
	}()
	follow := func() {
		want := map[string]bool{}
		for _, at := range places() {
			name := at.String()
			for _, p := range at.From {
				name += " " + p.String()
			}
			want[name] = true
			if open[name] != nil {
				continue
			}
			here, end := context.WithCancel(ctx)
			open[name] = end
			serving.Go(func() { d.Serve(here, at) })
		}
		for name, end := range open {
			if !want[name] {
				end()
				delete(open, name)
			}
		}
	}
	var changes iface.Changes
	defer changes.Close()
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		if changes.Any() {
			follow()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
