// Package atomicfile writes and renames files so that power may fail at any
// instant.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the file in one step: after a power cut it holds the old
// content or the new, whole.
func Write(path string, b []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	t, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // after the rename there is nothing to remove
	_, err = t.Write(b)
	err = errors.Join(err, t.Chmod(mode), t.Sync(), t.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return Rename(t.Name(), path)
}

// Rename renames a file or a directory. When it has returned, a power cut does
// not take that back.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	err := SyncDir(filepath.Dir(to))
	if other := filepath.Dir(from); other != filepath.Dir(to) {
		err = errors.Join(err, SyncDir(other))
	}
	return err
}

// SyncDir puts on the disk which names a directory has: for files that were
// made or removed there.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
