package mesh_test

import (
	"fmt"
	"testing"
	"time"

	"halo.internal/model"
)

// TestOverlayKeysRotate changes the key of a node and of the gateway, while pages
// are fetched through the overlay all the time.
func TestOverlayKeysRotate(t *testing.T) {
	t.Parallel()
	gwBundle, nodeBundle, _ := bundlesFor(t, 2)
	gw, a, b := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle), newBoard(t, model.RoleNode, nodeBundle)
	for _, d := range []*board{gw, a, b} {
		d.start()
	}
	hub(t, gw, a, b)
	until(t, "page through the overlay", a.fetch)
	until(t, "page through the overlay", b.fetch)
	direct := "/reach?address=" + b.status().OverlayV4
	until(t, "the nodes speak to each other", func() error { return a.ask(direct) })
	keyAt := func(d *board, node string) (key string) {
		for _, p := range d.status().Overlay {
			if p.Node == node && len(p.Addresses) > 0 {
				key = p.PublicKey
			}
		}
		return key
	}
	for name, tc := range map[string]struct{ who, other *board }{"node": {a, b}, "gateway": {gw, a}} {
		t.Run(name, func(t *testing.T) {
			node := tc.who.status().Node
			before := keyAt(tc.other, node)
			if err := tc.who.mesh.RotateKey(t.Context()); err != nil {
				t.Fatal(err)
			}
			var longest time.Duration
			until(t, "the others use the new key, and no other", func() error {
				began := time.Now()
				for _, route := range []string{"/fetch", direct} {
					if err := a.ask(route); err != nil {
						t.Errorf("a gap: %v", err)
					}
				}
				longest = max(longest, time.Since(began))
				keys := 0
				for _, p := range tc.other.status().Overlay {
					if p.Node == node {
						keys++
					}
				}
				if key := keyAt(tc.other, node); key == before || keys != 1 {
					return fmt.Errorf("key %s, of %d", key, keys)
				}
				return nil
			})
			t.Logf("the longest answer took %s", longest) // how long a gap is, mesh/overlay measures
			until(t, "it tells of it", func() error { return tc.who.hasEvent("overlay.rekeyed") })
		})
	}
}
