package mesh

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
)

// TestLivesBeginWhenTheyAreHeardOf: what routing has heard of a member before its present
// life counts no more, unless nobody knows when that began.
func TestLivesBeginWhenTheyAreHeardOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := identity.PublicKey{1}
		m := &core{}
		within := func(want time.Duration) {
			t.Helper()
			if got := m.acquaintances([]identity.PublicKey{key})[0]; got != (Acquaintance{key, want}) {
				t.Errorf("got %+v, want within %s", got, want)
			}
		}
		within(math.MaxInt64)
		for _, step := range []struct {
			boot  uint64
			anew  bool
			after time.Duration
			want  time.Duration
		}{
			{7, true, time.Second, math.MaxInt64}, // this process may be the one that has just begun
			{7, false, time.Second, math.MaxInt64},
			{8, true, time.Second, bornWithin + time.Second},
			{8, false, time.Minute, bornWithin + time.Minute + time.Second},
			{9, true, 0, bornWithin},
		} {
			if anew := m.noteLife(key, step.boot); anew != step.anew {
				t.Errorf("boot %d: anew %v, want %v", step.boot, anew, step.anew)
			}
			time.Sleep(step.after)
			within(step.want)
		}
	})
}
