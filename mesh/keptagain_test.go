package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/join"
	"halo.internal/mesh/provision"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// A card that takes nothing for a moment costs no word that was given in that moment: what
// the next start goes by has who was revoked, the epoch and the membership.
func TestWhatTheCardMissedIsKeptLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 2, 0)
		gone := s.nodes[0].ID()
		s.put(s.nodes...)
		s.g.saveRegistry()
		m := s.core()
		n := &node{core: m, member: &model.Membership{Name: "before"}}
		if err := n.keepMember(); err != nil {
			t.Fatal(err)
		}
		evidence, err := announce.Codec{Network: s.key.Public()}.EncodeGateway(s.key,
			announce.Gateway{Stamp: announce.Stamp{Epoch: 7, Boot: 1, Seq: 1}, WireGuardKey: make([]byte, 32)})
		if err != nil {
			t.Fatal(err)
		}

		back := s.lost()
		s.put(s.nodes[1])
		m.keepEvidence(evidence)
		n.member = &model.Membership{Name: "after"}
		if err := n.keepMember(); err == nil {
			t.Fatal("a folder that is not there has taken it")
		}
		back()
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		for _, store := range []*state.Store{s.g.store, m.store} {
			if store.Failing() == nil {
				t.Error("the device does not say that it is volatile")
			}
			go store.Run(ctx)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()

		for _, store := range []*state.Store{s.g.store, m.store} {
			if err := store.Failing(); err != nil {
				t.Errorf("the card is well again: %v", err)
			}
		}
		if g := newGateway(s.core()); !g.known.has(s.nodes[1].ID()) || g.known.counts(gone) {
			t.Errorf("after a power cut %s is a member, though it was revoked", gone)
		}
		if _, epoch := s.core().loadEvidence(); epoch != 7 {
			t.Errorf("after a power cut epoch %d is the lowest that is believed, want 7", epoch)
		}
		if b, err := os.ReadFile(m.store.Dir().File(paths.Membership)); !bytes.Equal(b, join.Marshal(*n.member)) {
			t.Errorf("after a power cut the membership is %q, %v", b, err)
		}
	})
}

// The boot counter is kept once the card takes it, and takes no later one back.
func TestTheIdentityIsTriedAgain(t *testing.T) {
	own := identity.State{Key: identity.New(), BootCounter: 7, BootID: "boot-6"}
	for name, later := range map[string]uint64{"as it was": 0, "another has counted on meanwhile": 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				perm := filepath.Join(t.TempDir(), "perm")
				store := state.New(paths.Dir(perm), nil)
				path := store.Dir().File(paths.Identity)
				if err := os.WriteFile(perm, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				var told []string
				tell := func(kind string, _ model.Severity, _ string, _ ...string) { told = append(told, kind) }
				got := identify(store, "boot-7", filepath.Join(t.TempDir(), "run"), &own.Key, tell)
				ctx, cancel := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer cancel()
				go store.Run(ctx)
				time.Sleep(4 * time.Minute)
				if err := os.Remove(perm); err != nil {
					t.Fatal(err)
				}
				want := got
				if later > 0 {
					want.BootCounter = later
					if err := os.MkdirAll(perm, 0o755); err != nil {
						t.Fatal(err)
					}
					if err := want.Save(path, nil); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if s, err := identity.Load(path, nil); err != nil || s != want {
					t.Errorf("the card has %d, %v, want %d", s.BootCounter, err, want.BootCounter)
				}
				if err := store.Failing(); err != nil {
					t.Errorf("the card is well again: %v", err)
				}
				if n := len(told) - len(slices.DeleteFunc(slices.Clone(told), func(k string) bool { return k == "identity.not-kept" })); n != 1 {
					t.Errorf("it was told %d times: %q", n, told)
				}
			})
		})
	}
}

// A device whose bundle cannot be read is not left without a network for good: its process
// ends and looks again. Without any bundle it waits for a person.
func TestABundleThatCannotBeReadIsLookedForAgain(t *testing.T) {
	for name, why := range map[string]error{"unread": fmt.Errorf("bundle: %w", state.ErrUnread), "none": provision.ErrNone} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 0, 0)
			dir, err := os.MkdirTemp("", "halo") // the name of a socket is short
			if err == nil {
				t.Cleanup(func() { _ = os.RemoveAll(dir) })
				err = os.MkdirAll(filepath.Join(dir, paths.Run), 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.root = dir
			m := s.core()
			m.graph = newGraph()
			if err := os.MkdirAll(filepath.Join(dir, paths.State), 0o755); err != nil {
				t.Fatal(err)
			}
			back := s.lost()
			if kept, err := m.store.Keep(paths.Membership, paths.VaultMembership, []byte("x")); kept || err == nil {
				t.Fatalf("got %v, %v", kept, err)
			}
			back()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- m.waitForBundle(ctx, why, 10*time.Millisecond) }()
			defer func() {
				if err := m.store.Failing(); err != nil {
					t.Errorf("what the card has not taken was not tried again: %v", err)
				}
			}()
			if errors.Is(why, state.ErrUnread) {
				if err := <-ended; !errors.Is(err, why) {
					t.Errorf("it ends with %v, want %v", err, why)
				}
				return
			}
			select {
			case err := <-ended:
				t.Errorf("it has ended: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("when it is to end: %v", err)
			}
		})
	}
}

// What is wrong with the bundle comes through to who waits for it.
func TestSettleTellsWhatIsUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		v := &flakyVault{m: map[string][]byte{}, fails: 1000}
		store := state.New(paths.Dir(filepath.Join(root, paths.State)), v)
		for _, role := range []model.Role{model.RoleNode, model.RoleGateway} {
			_, _, _, err := settle(Config{Root: root, Role: role, BootID: "boot-7"}, store, func(string, model.Severity, string, ...string) {})
			if !errors.Is(err, state.ErrUnread) {
				t.Errorf("%s: got %v", role, err)
			}
		}
	})
}
