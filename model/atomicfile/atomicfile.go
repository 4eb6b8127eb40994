// Package atomicfile writes and renames files so that power may fail at any
// instant.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tmpPrefix begins the names of files that are not whole yet.
const tmpPrefix = ".tmp-"

// Unfinished tells whether a file of that name is one that Write was making:
// nobody misses it.
func Unfinished(name string) bool { return strings.HasPrefix(filepath.Base(name), tmpPrefix) }

// Sweep removes from dir, not from below it, what power cuts left of Write:
// it takes room, and may hold keys. Whoever calls it must be the only one who
// writes there, or come before the others. A directory that is not there is no
// error.
func Sweep(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range list { // what could be read of it
		if Unfinished(e.Name()) && e.Type().IsRegular() {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Write replaces the file in one step: after a power cut it holds the old
// content or the new, whole.
func Write(path string, b []byte, mode os.FileMode) error {
	return WriteWith(path, b, mode, func(*os.File) error { return nil })
}

// WriteWith is Write, with what dress does to the new file before it takes its place,
// such as extended attributes.
func WriteWith(path string, b []byte, mode os.FileMode, dress func(*os.File) error) error {
	dir := filepath.Dir(path)
	t, err := os.CreateTemp(dir, tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name()) // after the rename there is nothing to remove
	_, err = t.Write(b)
	err = errors.Join(err, dress(t), t.Chmod(mode), t.Sync(), t.Close())
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
