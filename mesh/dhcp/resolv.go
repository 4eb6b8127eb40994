package dhcp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"halo.internal/model/atomicfile"
)

// resolv is the resolver's file, fed by all uplinks.
type resolv struct {
	path string // empty: none is written

	mu      sync.Mutex // guards servers and the writing of path
	servers map[string][]netip.Addr
}

func newResolv(path string) *resolv {
	return &resolv{path: path, servers: make(map[string][]netip.Addr)}
}

// set records a port's name servers, none when it has stopped to be an uplink.
func (r *resolv) set(iface string, servers []netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(r.servers[iface], servers) {
		return nil
	}
	if len(servers) == 0 {
		delete(r.servers, iface)
	} else {
		r.servers[iface] = servers
	}
	if r.path == "" {
		return nil
	}
	var text strings.Builder
	for _, port := range slices.Sorted(maps.Keys(r.servers)) {
		for _, s := range r.servers[port] {
			fmt.Fprintf(&text, "nameserver %s\n", s)
		}
	}
	if err := atomicfile.Write(r.path, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("name servers of port %s: %w", iface, err)
	}
	return nil
}
