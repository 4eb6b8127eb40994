package mesh_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/mesh/change"
	"halo.internal/model"
)

// TestThePowerGoesWhileAChangeSettles cuts the gateway off when all have switched and
// say so, and before that is on its card: it has to learn it anew from nodes that have
// no reason of their own to speak, while one of them is revoked.
func TestThePowerGoesWhileAChangeSettles(t *testing.T) {
	turn(t)
	boards := segments(t, 2)
	gw, nodes := boards[0], boards[1:]
	before, gone := gw.profile().Serial, nodes[1].status().Node
	gw.change(model.ProfileChange{RotateSecret: true})
	until(t, "the gateway has switched", func() error {
		p, err := gw.mesh.Profile(t.Context())
		if err == nil && p.Phase != string(change.Settling) && (p.Phase != string(change.Idle) || p.Serial == before) {
			err = fmt.Errorf("it is %s", p.Phase)
		}
		return err
	})
	file := filepath.Join(gw.root, "perm/halo/mesh-profile")
	var kept []byte
	until(t, "that is on the card", func() (err error) {
		kept, err = os.ReadFile(file)
		if err == nil && !bytes.Contains(kept, []byte("settling")) {
			err = fmt.Errorf("it has %q", kept)
		}
		return err
	})
	until(t, "it is over", func() error { return gw.on(gw.profile().Channel, gw.profile().Serial) })
	for i, n := range nodes {
		until(t, fmt.Sprintf("node %d on the new profile", i), func() error { return n.on(gw.profile().Channel, gw.profile().Serial) })
		until(t, "page through the overlay", n.fetch)
	}
	gw.cut()
	if err := os.WriteFile(file, kept, 0o600); err != nil { // it was not written any more
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(gw.root, revokeFile), []byte(gone), 0o600); err != nil {
		t.Fatal(err)
	}
	gw.again()
	var serial uint64
	until(t, "the change is over", func() error {
		p, err := gw.mesh.Profile(t.Context())
		if serial = p.Serial; err == nil && p.Phase != string(change.Idle) {
			err = fmt.Errorf("it is %s %s: %+v", p.Phase, p.Outcome, p.Nodes)
		}
		return err
	})
	if p := gw.profile(); p.Serial == before || p.Outcome != "changed" && p.Outcome != "" {
		t.Errorf("it is %q, of serial %d after %d", p.Outcome, p.Serial, before)
	}
	for i, n := range nodes[:1] {
		until(t, fmt.Sprintf("node %d on the new profile", i), func() error { return n.on(gw.profile().Channel, serial) })
		until(t, "page through the overlay", n.fetch)
	}
}
