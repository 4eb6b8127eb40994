package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"halo.internal/model"
)

// crashStore is the raw area that keeps the messages over the restart.
type crashStore interface {
	Load() ([]byte, error)
	Store([]byte) error
	Max() int
}

// keepCrashes is how many falls /perm remembers.
const keepCrashes = 8

// harvest takes the messages of the last fall from where the dying kernel
// (pstore) or its guard (raw) left them, writes them below dir, and only then
// clears their places. Without a dir that lasts, it names the cause and leaves
// everything where it is. It returns nil when there was no fall.
func harvest(pstore, dir string, raw crashStore) (*model.Crash, error) {
	log, files, err := readPstore(pstore, raw.Max())
	fromRaw := false
	if len(log) == 0 {
		b, rawErr := raw.Load()
		if rawErr != nil && !errors.Is(rawErr, fs.ErrNotExist) {
			err = errors.Join(err, rawErr)
		}
		log, fromRaw = b, len(b) > 0
	}
	if len(log) == 0 {
		return nil, err
	}
	c := &model.Crash{Cause: cause(log)}
	if dir == "" {
		return c, err // the places are left full for a start that can keep them
	}
	file, keepErr := keep(dir, log)
	c.File = file
	if keepErr != nil {
		return c, errors.Join(err, keepErr) // the places are left full for the next start
	}
	for _, f := range files {
		err = errors.Join(err, os.Remove(f))
	}
	if fromRaw {
		err = errors.Join(err, raw.Store(nil))
	}
	return c, err
}

// readPstore reads the records of a kernel's death, newest part last, as pstore
// numbers them from the end.
func readPstore(dir string, max int) (log []byte, files []string, err error) {
	files, err = filepath.Glob(filepath.Join(dir, "dmesg-*"))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(files)
	slices.Reverse(files)
	var errs []error
	for _, f := range files {
		b, err := os.ReadFile(f)
		errs = append(errs, err)
		log = append(log, bytes.ToValidUTF8(b, []byte("?"))...)
	}
	return tail(log, max), files, errors.Join(errs...)
}

// keep writes the log as the newest of a few files and forgets the oldest.
func keep(dir string, log []byte) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	old, err := filepath.Glob(filepath.Join(dir, "crash-[0-9]*.txt"))
	if err != nil {
		return "", err
	}
	slices.Sort(old)
	next := 1
	if len(old) > 0 {
		if _, err := fmt.Sscanf(filepath.Base(old[len(old)-1]), "crash-%d.txt", &next); err != nil {
			return "", fmt.Errorf("%s: expected crash-<number>.txt: %w", old[len(old)-1], err)
		}
		next++
	}
	path := filepath.Join(dir, fmt.Sprintf("crash-%06d.txt", next))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.Write(log)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	for len(old) >= keepCrashes {
		if err := os.Remove(old[0]); err != nil {
			return path, err
		}
		old = old[1:]
	}
	return path, nil
}
