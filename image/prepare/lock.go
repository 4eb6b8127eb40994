package prepare

import (
	"context"
	"path/filepath"

	"halo.internal/image/flock"
	"halo.internal/image/instance"
)

// Exclusive waits until no other build works in the repository at root: all of
// them follow the lock file, and fill, and gok reads, the one folder of prepared
// parts; or ctx ends. The caller ends it by release, or by ending.
func Exclusive(ctx context.Context, root string) (release func() error, err error) {
	return flock.Wait(ctx, filepath.Join(root, instance.Dir, instance.Prepared))
}
