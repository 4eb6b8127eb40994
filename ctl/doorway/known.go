package doorway

import (
	"errors"
	"io/fs"
	"net/netip"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Known is the nodes of a network as the gateway last said, so that they are
// found while it is off.
type Known struct {
	Updated time.Time `json:"updated"` // by this machine's clock
	Nodes   []Node    `json:"nodes"`
}

// Node is one of them.
type Node struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Role      model.Role `json:"role"`
	OverlayV4 netip.Addr `json:"overlay_v4"`
	OverlayV6 netip.Addr `json:"overlay_v6"`
}

// maxKnown bounds the file; a network has 250 nodes.
const maxKnown = 2048

// LoadKnown reads the file at path; where there is none, nobody is known.
func LoadKnown(path string) (Known, error) {
	var k Known
	err := load(path, &k)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return k, err
}

// KnownOf is what the gateway says.
func KnownOf(nodes []apitype.Node, now time.Time) Known {
	k := Known{Updated: now.UTC().Truncate(time.Second), Nodes: []Node{}}
	for _, n := range nodes {
		if !n.Revoked && len(k.Nodes) < maxKnown {
			k.Nodes = append(k.Nodes, Node{n.ID, n.Name, n.Role, n.OverlayV4, n.OverlayV6})
		}
	}
	return k
}

// Save writes the file.
func (k Known) Save(path string) error { return save(path, k) }

// Find returns the node of that canonical ID, name or overlay address.
func (k Known) Find(who string) (Node, bool) {
	at, _ := netip.ParseAddr(who)
	for _, n := range k.Nodes {
		if n.ID == who || at.IsValid() && (n.OverlayV4 == at || n.OverlayV6 == at) {
			return n, true
		}
	}
	for _, n := range k.Nodes { // a name may look like anything
		if n.Name == who {
			return n, true
		}
	}
	return Node{}, false
}

// Names maps canonical IDs to names.
func (k Known) Names() map[string]string {
	names := make(map[string]string, len(k.Nodes))
	for _, n := range k.Nodes {
		names[n.ID] = n.Name
	}
	return names
}
