package prepare

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"halo.internal/image/instance"
)

// Exclusive waits until no other build works in the repository at root: all of
// them fill, and gok reads, the one folder of prepared parts. The caller ends
// it by release, or by ending.
func Exclusive(root string) (release func() error, err error) {
	return exclusive(filepath.Join(root, instance.Dir, instance.Prepared))
}

// exclusive waits until nobody else has a folder.
func exclusive(dir string) (release func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("wait for other builds: %w", err), f.Close())
		}
	}
}
