package mesh

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"halo.internal/identity"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// flakyVault fails to read so many times before it gives what it has.
type flakyVault struct {
	m     map[string][]byte
	fails int
	puts  int
}

func (v *flakyVault) Get(name string) ([]byte, error) {
	if v.fails > 0 {
		v.fails--
		return nil, syscall.EIO
	}
	if b, ok := v.m[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (v *flakyVault) Put(name string, b []byte) error {
	v.puts++
	v.m[name] = b
	return nil
}

// A card that fails to read for a while must not cost the device its name: one
// was made anew, and written over both copies of the old one.
func TestAnIdentityThatCannotBeReadIsNotReplaced(t *testing.T) {
	t.Parallel()
	own := identity.State{Key: identity.New(), BootCounter: 7, BootID: "boot-6"}
	seed := identity.New()
	for _, tc := range []struct {
		name   string
		fails  int
		seed   *identity.Key
		before *identity.State // what processes of this start know
		unread bool
		want   identity.PublicKey // zero: any other than its own
	}{
		{"passes", loadTries - 1, nil, nil, false, own.Key.Public()},
		{"stays", 1000, nil, nil, true, identity.PublicKey{}},
		{"stays, while the process starts again", 1000, nil, &identity.State{Key: own.Key, BootCounter: 8, BootID: "boot-7"}, true, own.Key.Public()},
		{"stays, known from an earlier start", 1000, nil, &identity.State{Key: seed, BootCounter: 8, BootID: "boot-5"}, true, identity.PublicKey{}},
		{"stays, of a gateway with its bundle", 1000, &seed, nil, true, seed.Public()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			runCopy := filepath.Join(dir, "run")
			if tc.before != nil {
				if err := os.WriteFile(runCopy, tc.before.Marshal(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			v := &flakyVault{m: map[string][]byte{paths.VaultIdentity: own.Marshal()}, fails: tc.fails}
			store := state.New(paths.Dir(filepath.Join(dir, "perm")), v)
			var told []string
			got := identify(store, "boot-7", runCopy, tc.seed, func(kind string, _ model.Severity, _ string, _ ...string) { told = append(told, kind) })
			if tc.want != (identity.PublicKey{}) && got.Key.Public() != tc.want || tc.want == (identity.PublicKey{}) && (got.Key.Public() == own.Key.Public() || got.Key.Public() == seed.Public()) {
				t.Errorf("got the identity %s", got.Key.ID())
			}
			if got.BootID != "boot-7" || got.BootCounter == 0 {
				t.Errorf("got boot %d of %q", got.BootCounter, got.BootID)
			}
			if s, err := identity.Load(runCopy, nil); err != nil || s != got {
				t.Errorf("other processes read %+v, %v", s, err)
			}
			if slices.Contains(told, "identity.unread") != tc.unread || slices.Contains(told, "identity.damaged") {
				t.Errorf("events: %q", told)
			}
			if !tc.unread {
				return
			}
			if store.Failing() == nil {
				t.Error("the device does not say that it is volatile")
			}
			if kept, err := store.Put(paths.Membership, paths.VaultMembership, []byte("x")); kept || err == nil {
				t.Error("a value was written over what cannot be read")
			}
			if v.puts != 0 || !maps.EqualFunc(v.m, map[string][]byte{paths.VaultIdentity: own.Marshal()}, bytes.Equal) {
				t.Errorf("the vault was written %d times", v.puts)
			}
			if _, err := os.Stat(store.Dir().File(paths.Identity)); err == nil {
				t.Error("an identity was written")
			}
		})
	}
}
