// Package state keeps halo-mesh's small values, each in two places: a file on
// /perm and the vault outside of it. A value survives the loss of either; what
// is missing in one is put back from the other. It also tells whether /perm
// keeps anything at all: a node whose data partition is full, read-only or gone
// runs on, and says so.
package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// maxValue bounds what is read from a file: the largest value is a bundle.
const maxValue = 1 << 20

// minFree is how much /perm must have free before it counts as full: halo-mesh
// needs kilobytes, but the spool and the databases beside it need more.
const minFree = 1 << 20

// Store keeps values. Its methods may be called from any goroutine.
type Store struct {
	dir   paths.Dir
	vault identity.Vault // nil where there is none

	mu     sync.Mutex
	failed map[string]error // files whose last write failed
	held   error            // why nothing is written any more
}

// New returns a store over that directory and vault, which may be nil.
func New(dir paths.Dir, vault identity.Vault) *Store {
	return &Store{dir: dir, vault: vault, failed: map[string]error{}}
}

// Dir returns the directory.
func (s *Store) Dir() paths.Dir { return s.dir }

// Vault returns the vault or nil.
func (s *Store) Vault() identity.Vault { return s.vault }

// Hold has nothing written from now on, for that reason: what is on the card may
// be better than what this process knows.
func (s *Store) Hold(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = reason
}

func (s *Store) holds() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// ErrDamaged is wrapped where a value is there, but no copy of it is valid.
var ErrDamaged = errors.New("no copy is valid")

// Get returns the valid copy of a value, first the file's, and repairs the
// other. entry is the name in the vault, or empty for a value that is kept in
// the file alone. The error wraps fs.ErrNotExist when there never was one,
// ErrDamaged when there was.
func (s *Store) Get(name, entry string, valid func([]byte) error) ([]byte, error) {
	path := s.dir.File(name)
	b, fileErr := readBounded(path)
	if fileErr == nil {
		fileErr = valid(b)
	}
	if entry == "" || s.vault == nil {
		return b, describe(name, fileErr, nil)
	}
	v, vaultErr := s.vault.Get(entry)
	switch {
	case vaultErr == nil && len(v) == 0: // removed
		vaultErr = fs.ErrNotExist
	case vaultErr == nil:
		vaultErr = valid(v)
	}
	// A repair that fails shows in Failing; the value itself is at hand.
	switch {
	case s.holds() != nil:
		if fileErr != nil && vaultErr == nil {
			return v, nil
		}
	case fileErr == nil && vaultErr != nil:
		s.note(name, s.vault.Put(entry, b))
	case fileErr != nil && vaultErr == nil:
		s.note(name, atomicfile.Write(path, v, 0o600))
		return v, nil
	}
	return b, describe(name, fileErr, vaultErr)
}

func describe(name string, fileErr, vaultErr error) error {
	switch {
	case fileErr == nil:
		return nil
	case errors.Is(fileErr, fs.ErrNotExist) && (vaultErr == nil || errors.Is(vaultErr, fs.ErrNotExist)):
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return fmt.Errorf("%s: %w: %w", name, ErrDamaged, errors.Join(fileErr, vaultErr))
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxValue {
		return nil, fmt.Errorf("%s: expected at most %d octets, got %d", path, maxValue, info.Size())
	}
	return os.ReadFile(path)
}

// Put writes a value to the file and, if entry is not empty, to the vault. It
// tries both and returns the errors of both; one is enough to keep the value.
func (s *Store) Put(name, entry string, b []byte) (kept bool, err error) {
	if err := s.holds(); err != nil {
		return false, fmt.Errorf("%s: not written: %w", name, err)
	}
	if err = os.MkdirAll(string(s.dir), 0o755); err == nil {
		err = atomicfile.Write(s.dir.File(name), b, 0o600)
	}
	s.note(name, err)
	kept = err == nil
	if entry != "" && s.vault != nil {
		vaultErr := s.vault.Put(entry, b)
		kept = kept || vaultErr == nil
		err = errors.Join(err, vaultErr)
	}
	return kept, err
}

// Remove forgets a value in both places. When it has returned, a power cut does not bring it
// back: Get would take the file for the good half of the two.
func (s *Store) Remove(name, entry string) error {
	if err := s.holds(); err != nil {
		return fmt.Errorf("%s: not removed: %w", name, err)
	}
	file := s.dir.File(name)
	err := os.Remove(file)
	if err == nil || errors.Is(err, fs.ErrNotExist) { // also what was removed before, when that failed
		err = atomicfile.SyncDir(filepath.Dir(file))
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if entry != "" && s.vault != nil {
		// A vault has no removal: empty stands for it.
		err = errors.Join(err, s.vault.Put(entry, nil))
	}
	return err
}

func (s *Store) note(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed[name] = err
	} else {
		delete(s.failed, name)
	}
}

// NoteFile records how the last write of a file beside the values went.
func (s *Store) NoteFile(name string, err error) { s.note(name, err) }

// Failing returns nil while /perm keeps what is written to it, otherwise what
// is wrong: it is not there, lies in RAM, is read-only, full, or held.
func (s *Store) Failing() error {
	if err := s.holds(); err != nil {
		return err
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(string(s.dir), &fsys); err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	switch free := fsys.Bavail * uint64(fsys.Bsize); {
	case fsys.Type == unix.TMPFS_MAGIC:
		return fmt.Errorf("%s: expected a file system on the card, got one in RAM", s.dir)
	case fsys.Flags&unix.ST_RDONLY != 0:
		return fmt.Errorf("%s: %w", s.dir, unix.EROFS)
	case free < minFree:
		return fmt.Errorf("%s: expected %d octets free, got %d: %w", s.dir, minFree, free, unix.ENOSPC)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, err := range s.failed {
		return err
	}
	return nil
}
