package mesh_test

import (
	"fmt"
	"testing"
	"time"

	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// TestOverlayKeysRotate changes the key of a node and of the gateway, while pages
// are fetched through the overlay all the time. None fails, however long it takes; and
// the one whose key it is comes to a session with each of the others at the first try.
func TestOverlayKeysRotate(t *testing.T) {
	t.Parallel()
	gwBundle, nodeBundle, _ := bundlesFor(t, 2)
	gw, a, b := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle), newBoard(t, model.RoleNode, nodeBundle)
	for _, d := range []*board{gw, a, b} {
		d.start()
	}
	ports := hub(t, gw, a, b)
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
	for name, tc := range map[string]struct {
		who, other *board
		port       string // of the hub: all that is said to who, and by him
	}{"node": {a, b, ports[1]}, "gateway": {gw, a, ports[0]}} {
		t.Run(name, func(t *testing.T) {
			shakes := nstest.ListenShakes(t, tc.port, paths.WireGuardPort)
			node := tc.who.status().Node
			pauses := nstest.WatchPauses(t)
			before := keyAt(tc.other, node)
			asked := time.Now()
			if err := tc.who.mesh.RotateKey(t.Context()); err != nil {
				t.Fatal(err)
			}
			var longest time.Duration
			until(t, "the others use the new key, and no other", func() error {
				if shakes.List(); time.Since(asked) < rekeyOverlap {
					shakes.Forget() // nobody's key is another yet
				}
				for _, route := range []string{"/fetch?" + patiently, direct + "&" + patiently} {
					began := time.Now()
					if err := a.ask(route); err != nil {
						t.Errorf("a gap: %v", err)
					}
					longest = max(longest, time.Since(began))
				}
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
			until(t, "both of the others have a session with it", func() error {
				if n := shakes.Used(); n != 2 {
					return fmt.Errorf("%d of the others: %v", n, shakes.List())
				}
				return nil
			})
			if err := shakes.Refused(); err != nil {
				t.Error(err)
			}
			// A second try of a handshake comes after five seconds, and that of who gets no
			// answer in a session after fifteen. An answer takes some twenty wakings of threads,
			// and each may be as late as this process was.
			t.Logf("the longest answer took %s, the host paused for up to %s", longest, pauses.Longest())
			if most := 5*time.Second + 20*pauses.Longest(); longest > most {
				t.Errorf("a gap: an answer took %s, want at most %s", longest, most)
			}
			until(t, "it tells of it", func() error { return tc.who.hasEvent("overlay.rekeyed") })
		})
	}
}
