package mesh

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/identity"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/state"
	"halo.internal/model/paths"
)

// TestANextKeyThatIsNotKeptIsNotUsed: /perm may fail in the minutes between. The
// device would come back with the former key, which the others have forgotten.
func TestANextKeyThatIsNotKeptIsNotUsed(t *testing.T) {
	vault := &ramVault{m: map[string][]byte{}}
	m := bareCore(t, identity.New().Public(), identity.New())
	dir := filepath.Join(m.Root, paths.State)
	m.store = state.New(paths.Dir(dir), vault)
	file := m.store.Dir().File(paths.Identity)
	if err := errors.Join(os.MkdirAll(filepath.Join(m.Root, paths.Run), 0o755), os.MkdirAll(dir, 0o755), m.id.Save(file, vault), m.drawKey()); err != nil {
		t.Fatal(err)
	}
	_, next := m.keys.public()
	m.keys.known([32]byte(next))
	due, ok := m.keys.due(0)
	if !ok {
		t.Fatal("the next key is not due")
	}
	none := func() *overlay.Device { return nil }

	aside := file + ".aside"
	if err := errors.Join(os.Rename(file, aside), os.MkdirAll(filepath.Join(file, "in the way"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := m.useNextKey(due, none); err == nil {
		t.Error("the next key is in use, and the file does not have it")
	}
	if err := errors.Join(os.RemoveAll(file), os.Rename(aside, file)); err != nil {
		t.Fatal(err)
	}
	s, err := identity.Load(file, vault)
	if err != nil || s.Key.WireGuardPublic() == [32]byte(next) {
		t.Errorf("after a restart it has the next key: %v", err)
	}
	again := &core{Config: m.Config, store: m.store, id: s}
	if _, kept := again.loadOverlayKey().public(); string(kept) != string(next) {
		t.Error("the next key is forgotten, which all others have heard of")
	}

	if due, ok = m.keys.due(0); !ok {
		t.Fatal("the next key is not due any more")
	}
	if err := m.useNextKey(due, none); err != nil {
		t.Fatal(err)
	}
	if s, err := identity.Load(file, vault); err != nil || s.Key.WireGuardPublic() != [32]byte(next) {
		t.Errorf("it was used and is not kept: %v", err)
	}
}
