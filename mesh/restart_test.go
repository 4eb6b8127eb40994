package mesh_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// identity returns the keys of a board that has started once.
func (d *board) identity() identity.Key {
	d.t.Helper()
	key, err := identityAt(d.root)
	if err != nil {
		d.t.Fatal(err)
	}
	return key
}

func identityAt(root string) (identity.Key, error) {
	b, err := os.ReadFile(filepath.Join(root, paths.State, paths.Identity))
	if err != nil {
		return identity.Key{}, err
	}
	s, err := identity.Unmarshal(b)
	return s.Key, err
}

// hasPeer tells whether a board has another for a peer of its overlay.
func (d *board) hasPeer(other *board) error {
	s, err := d.mesh.Status(d.t.Context())
	if node := other.identity().ID(); err == nil && !slices.ContainsFunc(s.Overlay, func(p model.OverlayPeer) bool { return p.Node == node }) {
		err = fmt.Errorf("%s is no peer", node)
	}
	return err
}

// aheadOfTime has a board shake hands with another as if its clock were a year ahead:
// from then on that one takes nothing from before.
func (d *board) aheadOfTime(network identity.PublicKey, to *board) {
	d.t.Helper()
	key := to.identity()
	public := key.WireGuardPublic()
	q := url.Values{"address": {identity.Underlay(network, key.Public()).String()}, "key": {hex.EncodeToString(public[:])}}
	until(d.t, "a handshake ahead of its time", func() error { return d.ask("/ahead?" + q.Encode()) })
}

// TestARestartIsNoticedWithoutTheGateway: a node whose clock is behind what it was is
// refused by a member that has nothing to send to it, until that one hears of its new
// life by itself.
func TestARestartIsNoticedWithoutTheGateway(t *testing.T) {
	turn(t)
	gwBundle, nodeBundle, network := bundlesFor(t, 2)
	gw, a, b := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle), newBoard(t, model.RoleNode, nodeBundle)
	for _, d := range []*board{gw, a, b} {
		d.start()
	}
	ports := hub(t, gw, a, b)
	until(t, "both have joined", func() error { return errors.Join(a.fetch(), b.fetch()) })
	until(t, "each is the other's peer", func() error { return errors.Join(a.hasPeer(b), b.hasPeer(a)) })
	toA := "/reach?address=" + a.status().OverlayV4

	b.aheadOfTime(network.Public(), a)
	gw.cut()
	b.cut()
	b.start()
	began := time.Now()
	joinHub(t, ports[1], b)
	until(t, "a page of the other node", func() error { return b.ask(toA) })
	t.Logf("after %s", time.Since(began))
}

// TestANodeWhoseCardKeepsNothing counts the same start twice. The second time, too, it
// hears the gateway, gets the time, and speaks in the overlay with the gateway and with
// another node, neither of which takes any more what it signs before its clock is right.
func TestANodeWhoseCardKeepsNothing(t *testing.T) {
	turn(t)
	gwBundle, nodeBundle, network := bundlesFor(t, 2)
	gw, a, b := newBoard(t, model.RoleGateway, gwBundle), newBoard(t, model.RoleNode, nodeBundle), newBoard(t, model.RoleNode, nodeBundle)
	for _, d := range []*board{gw, a, b} {
		d.start()
	}
	ports := hub(t, gw, a, b)
	until(t, "both have joined", func() error { return errors.Join(a.fetch(), b.fetch()) })
	until(t, "each is the other's peer", func() error { return errors.Join(a.hasPeer(b), b.hasPeer(a)) })
	toA := "/reach?address=" + a.status().OverlayV4
	perm := filepath.Join(b.root, paths.State)
	frozen := filepath.Join(t.TempDir(), "perm")
	if err := os.CopyFS(frozen, os.DirFS(perm)); err != nil {
		t.Fatal(err)
	}
	for i, repeated := range []bool{false, true, true} {
		b.aheadOfTime(network.Public(), a)
		b.aheadOfTime(network.Public(), gw)
		q := url.Values{"network": {network.Public().Base64()}, "boot": {fmt.Sprint(b.status().BootCounter)}}
		until(t, "a question of a day later", func() error { return b.ask("/later?" + q.Encode()) })
		b.cut()
		if err := errors.Join(os.RemoveAll(perm), os.CopyFS(perm, os.DirFS(frozen))); err != nil {
			t.Fatal(err)
		}
		b.start()
		began := time.Now()
		joinHub(t, ports[1], b)
		until(t, "a page through the overlay", b.fetch)
		until(t, "a page of the other node", func() error { return b.ask(toA) })
		t.Logf("start %d: after %s", i, time.Since(began))
		if err := b.hasEvent("identity.start-repeated"); (err == nil) != repeated {
			t.Errorf("start %d: the device says that it was counted before: %v, want %v", i, err == nil, repeated)
		}
	}
}
