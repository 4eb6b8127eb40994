package mesh_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/change"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// TestAnOldCardOfTheGateway takes the place of the one that it was copied from, after
// that has revoked a node and rotated the secret. It comes to the node that is left,
// learns from it who the members are, and lets the revoked one in no more.
func TestAnOldCardOfTheGateway(t *testing.T) { testOldCard(t, false) }

// TestAnOldCardWhenTheNodeTriesTheFormerSecret comes after the node has waited in vain.
func TestAnOldCardWhenTheNodeTriesTheFormerSecret(t *testing.T) { testOldCard(t, true) }

func testOldCard(t *testing.T, waits bool) {
	t.Parallel()
	var env []string
	if waits { // until then the gateway is off for a moment alone
		env = []string{envQuiet + "=30s"}
	}
	boards := segments(t, 2, env...)
	gw, stays, gone := boards[0], boards[1], boards[2]
	gw.cut()
	old := newBoard(t, model.RoleGateway, nil)
	if err := os.CopyFS(filepath.Join(old.root, paths.State), os.DirFS(filepath.Join(gw.root, paths.State))); err != nil {
		t.Fatal(err)
	}
	old.boot, old.env, old.wire = gw.boot, gw.env, gw.wire
	gw.again()
	for _, d := range []*board{stays, gone} {
		until(t, "page through the overlay", d.fetch)
	}
	revoked := gone.status().Node
	if err := os.WriteFile(filepath.Join(gw.root, revokeFile), []byte(revoked), 0o600); err != nil {
		t.Fatal(err)
	}
	rotated := func(d *board, before uint64) (serial uint64) {
		t.Helper()
		until(t, "another secret", func() error {
			p, err := d.mesh.Profile(t.Context())
			if serial = p.Serial; err == nil && (serial == before || p.Phase != string(change.Idle) || p.Secret) {
				err = fmt.Errorf("%s %s, due %v: %+v", p.Phase, p.Outcome, p.Secret, p.Nodes)
			}
			return err
		})
		until(t, "the node follows", func() error { return stays.on(1, serial) })
		return serial
	}
	first := rotated(gw, 0)
	until(t, "the node has the whole document", stays.hasWhole)

	gw.cut()
	if waits {
		until(t, "the node uses the former secret, as the revoked one does", func() error {
			list, err := stays.mesh.Events(t.Context(), 0, 0)
			if err == nil && !slices.ContainsFunc(list, func(e model.Event) bool { return e.Kind == "mesh.profile.switched" && e.Fields["serial"] == "0" }) {
				err = errors.New("not yet")
			}
			return err
		})
	}
	began := time.Now()
	step := func(what string) { t.Logf("%s after %s", what, time.Since(began).Round(time.Second)) }
	old.start()
	far := plug(t, old)
	if err := netlink.LinkSetMaster(far, old.wire); err != nil {
		t.Fatal(err)
	}
	until(t, "the old card comes to the document of the node", func() error { return old.on(1, first) })
	step("the document")
	until(t, "page through the old card's overlay", stays.fetch)
	step("the node")
	until(t, "it learns who is a member no more", func() error {
		s, err := old.mesh.Status(t.Context())
		switch {
		case err != nil:
			return err
		case !slices.Equal(s.LeftOut, []string{revoked}):
			return fmt.Errorf("left out are %v, want %s", s.LeftOut, revoked)
		case slices.ContainsFunc(s.Overlay, func(p model.OverlayPeer) bool { return p.Node == revoked }):
			return errors.New("the revoked node is in its overlay")
		}
		return old.hasEvent("mesh.member.left-out")
	})
	step("the members")
	until(t, "the old card can change the secret", func() error {
		return old.mesh.PutProfile(t.Context(), model.ProfileChange{RotateSecret: true, Anyway: true})
	})
	second := rotated(old, first)
	step("another secret")
	until(t, "page through the overlay", stays.fetch)
	if p := gone.profile(); p.Serial == first || p.Serial == second {
		t.Errorf("the revoked node has document %d", p.Serial)
	}
}
