package provision

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// tired is a vault that fails to read so many times.
type tired struct {
	memory
	fails int
}

func (v *tired) Get(name string) ([]byte, error) {
	if v.fails > 0 {
		v.fails--
		return nil, syscall.EIO
	}
	return v.memory.Get(name)
}

// A card that fails to read for a moment does not cost the device its network, and one that
// goes on failing is not called damaged. A bundle whose blanking failed is no other network
// than the one that cannot be read.
func TestABundleThatCannotBeRead(t *testing.T) {
	for _, tc := range []struct {
		name    string
		fails   int
		blanked bool
		err     error
		kinds   []string
	}{
		{"passes", keptTries - 1, true, nil, nil},
		{"stays", 1000, true, state.ErrUnread, []string{"bundle.unread"}},
		{"stays, and the boot partition has it still", 1000, false, nil, []string{"bundle.unread", "bundle.imported"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, b := newCard(t), bundleFor(t, model.RoleNode, identity.New())
				data := marshal(t, b)
				c.put(data)
				if _, _, err := c.start(model.RoleNode); err != nil {
					t.Fatal(err)
				}
				if !tc.blanked {
					c.put(data)
				}
				if err := os.RemoveAll(c.dir); err != nil {
					t.Fatal(err)
				}
				var kinds []string
				began := time.Now()
				got, changed, err := Importer{
					File: c.file, Role: model.RoleNode, Store: state.New(paths.Dir(c.dir), &tired{c.vault, tc.fails}), Boot: &c.boot,
					Report: func(kind string, _ model.Severity, _ string, _ ...string) { kinds = append(kinds, kind) },
				}.Import()
				if !errors.Is(err, tc.err) || err == nil && got.Join != b.Join || changed {
					t.Errorf("got %+v, %v, %v", got, changed, err)
				}
				if !slices.Equal(kinds, tc.kinds) {
					t.Errorf("told %q, want %q", kinds, tc.kinds)
				}
				if took := time.Since(began); took > keptTries*keptPause {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}
