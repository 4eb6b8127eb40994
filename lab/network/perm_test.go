package network

import (
	"path/filepath"
	"strings"
	"testing"
)

// newPerm makes a data partition of 16 MiB.
func newPerm(t *testing.T) perm {
	t.Helper()
	p := perm(filepath.Join(t.TempDir(), "perm"))
	if _, _, err := p.run(t.Context(), "", "mkfs.ext4", "-q", "-F", string(p), "16M"); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p perm) mustFree(t *testing.T) int {
	t.Helper()
	free, err := p.free(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return free
}

func TestPermIsFilledAndEmptied(t *testing.T) {
	p := newPerm(t)
	before := p.mustFree(t)
	if err := p.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := p.mustFree(t); left > spare {
		t.Errorf("%d blocks are free after filling, want at most %d", left, spare)
	}
	if err := p.empty(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := p.mustFree(t); after != before {
		t.Errorf("%d blocks are free after emptying, want %d as before", after, before)
	}
	if _, _, err := p.run(t.Context(), "", "e2fsck", "-fn", string(p)); err != nil {
		t.Errorf("the file system is damaged: %v", err)
	}
}

func TestWhatWasNotUnmountedIsSeen(t *testing.T) {
	for name, tc := range map[string]struct{ script, want string }{
		"unmounted":               {"stat /", ""},
		"its power was cut":       {"feature needs_recovery", "needs_recovery"},
		"it was never unmounted":  {"set_super_value state 0", "not clean"},
		"it is clean and damaged": {"set_inode_field / links_count 9", "ref count"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPerm(t)
			if _, err := p.debugfs(t.Context(), tc.script); err != nil {
				t.Fatal(err)
			}
			err := p.clean(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestDebugfsComplaintsAreErrors(t *testing.T) {
	p := newPerm(t)
	if _, err := p.debugfs(t.Context(), "rm /nowhere"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("removing what is not there: got %v", err)
	}
	if out, err := p.debugfs(t.Context(), "mkdir /a", "stat /a"); err != nil || !strings.Contains(out, "directory") {
		t.Errorf("got %q, %v", out, err)
	}
}
