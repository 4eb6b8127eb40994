package prepare

import (
	"path/filepath"

	"halo.internal/image/flock"
	"halo.internal/image/instance"
)

// Exclusive waits until no other build works in the repository at root: all of
// them follow the lock file, and fill, and gok reads, the one folder of prepared
// parts. The caller ends it by release, or by ending.
func Exclusive(root string) (release func() error, err error) {
	return flock.Wait(filepath.Join(root, instance.Dir, instance.Prepared))
}
