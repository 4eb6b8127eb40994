package mesh

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/mesh/provision"
	"halo.internal/mesh/state"
	"halo.internal/model/paths"
)

type plainBoot struct{}

func (plainBoot) Writable(f func() error) error { return f() }

// TestClaimNoticeGoesThoughTheBundleCannotBeKept: on a full data partition the
// code must not stay where people read it.
func TestClaimNoticeGoesThoughTheBundleCannotBeKept(t *testing.T) {
	root := t.TempDir()
	g := &gateway{core: &core{Config: Config{Root: root, Boot: plainBoot{}}}}
	g.bundle = provision.Found(identity.New())
	code := g.bundle.Gateway.ClaimCode
	notice, perm := g.path(paths.ClaimNotice), filepath.Join(root, "perm")
	g.store = state.New(paths.Dir(perm), nil)
	if err := errors.Join(os.Mkdir(filepath.Dir(notice), 0o755),
		os.WriteFile(notice, []byte(code), 0o600),
		os.WriteFile(perm, nil, 0o600)); err != nil { // no directory can be made there
		t.Fatal(err)
	}
	if err := g.EraseClaimCode(); err == nil {
		t.Error("the bundle was not kept, and nothing is said of it")
	}
	if _, err := os.Stat(notice); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("notice is still there: %v", err)
	}

	if err := os.Remove(perm); err != nil { // somebody made room
		t.Fatal(err)
	}
	if err := g.EraseClaimCode(); err != nil {
		t.Errorf("asked again: %v", err)
	}
	kept := filepath.Join(perm, paths.BundleCopy)
	if b, err := os.ReadFile(kept); err != nil || strings.Contains(string(b), code) {
		t.Errorf("kept bundle: %q, %v; want it without the code", b, err)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	if err := g.EraseClaimCode(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(kept); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an erased code was erased again, which wears the card: %v", err)
	}
}

// heldBoot is a boot partition that is slow to become writable: meanwhile is called.
type heldBoot struct{ meanwhile func() }

func (b heldBoot) Writable(f func() error) error {
	b.meanwhile()
	return f()
}

// TestNobodyWaitsForTheBootPartition while the claim code is erased from it.
func TestNobodyWaitsForTheBootPartition(t *testing.T) {
	root := t.TempDir()
	g := &gateway{core: &core{Config: Config{Root: root}}}
	g.bundle = provision.Found(identity.New())
	g.store = state.New(paths.Dir(filepath.Join(root, "perm")), nil)
	notice, looked := g.path(paths.ClaimNotice), false
	g.Boot = heldBoot{func() {
		if looked = true; !g.mu.TryLock() {
			t.Error("what is announced, answered and let in waits for it")
			return
		}
		g.mu.Unlock()
	}}
	if err := errors.Join(os.Mkdir(filepath.Dir(notice), 0o755), os.WriteFile(notice, []byte("a code"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := g.EraseClaimCode(); err != nil || !looked || !g.codeErased {
		t.Errorf("got %v, boot partition written: %v, erased: %v", err, looked, g.codeErased)
	}
}
